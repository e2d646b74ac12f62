package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	// sizeLimit is what SIZE announces, in octets.
	sizeLimit = 64 << 20
	// headLimit is how much of a message is kept to look for its X-Bench field.
	headLimit = 8 << 10
	idleLimit = 5 * time.Minute
)

// session is one connection.
type session struct {
	sink *sink
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer

	encrypted, authenticated bool
	mail                     bool // a reverse-path was given
	recipients               int
	head                     []byte // of the message that is being received
}

func newSession(s *sink, conn net.Conn) *session {
	c := &session{sink: s, head: make([]byte, 0, headLimit)}
	c.use(conn)
	return c
}

func (c *session) use(conn net.Conn) {
	c.conn = conn
	c.r = bufio.NewReaderSize(conn, 64<<10)
	c.w = bufio.NewWriterSize(conn, 4<<10)
}

var errQuit = errors.New("quit")

// run serves until the client is gone.
func (c *session) run() {
	c.reply("220 sink.example.org ESMTP")
	for {
		line, err := c.line()
		if err != nil {
			return
		}
		if err := c.command(line); err != nil {
			_ = c.w.Flush()
			return
		}
	}
}

func (c *session) reply(text string) {
	_, _ = c.w.WriteString(text)
	_, _ = c.w.WriteString("\r\n")
}

// fill sends the replies so far before it waits for more input: a flight of
// commands gets a flight of replies (RFC 2920 §3.2).
func (c *session) fill() error {
	if c.r.Buffered() > 0 {
		return nil
	}
	if err := c.w.Flush(); err != nil {
		return err
	}
	_ = c.conn.SetDeadline(time.Now().Add(idleLimit))
	_, err := c.r.Peek(1)
	return err
}

func (c *session) line() (string, error) {
	if err := c.fill(); err != nil {
		return "", err
	}
	line, err := c.r.ReadSlice('\n')
	return strings.TrimRight(string(line), "\r\n"), err
}

func (c *session) command(line string) error {
	verb, arg, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		c.hello()
	case "STARTTLS":
		return c.startTLS()
	case "AUTH":
		return c.auth(arg)
	case "MAIL":
		c.mailFrom()
	case "RCPT":
		c.rcptTo()
	case "DATA":
		return c.data()
	case "BDAT":
		return c.bdat(arg)
	case "RSET":
		c.reset()
		c.reply("250 2.0.0 OK")
	case "NOOP":
		c.reply("250 2.0.0 OK")
	case "HELO":
		c.reply("250 sink.example.org")
	case "QUIT":
		c.reply("221 2.0.0 Bye")
		return errQuit
	default:
		c.reply("500 5.5.2 Unknown command")
	}
	return nil
}

func (c *session) hello() {
	c.reply("250-sink.example.org")
	if !c.encrypted {
		c.reply("250-STARTTLS")
	} else {
		c.reply("250-AUTH PLAIN LOGIN")
	}
	c.reply("250-PIPELINING")
	c.reply("250-CHUNKING")
	c.reply("250-8BITMIME")
	c.reply("250-ENHANCEDSTATUSCODES")
	c.reply("250 SIZE " + strconv.Itoa(sizeLimit))
}

func (c *session) startTLS() error {
	if c.encrypted || c.r.Buffered() > 0 {
		c.reply("503 5.5.1 STARTTLS not possible now")
		return nil
	}
	c.reply("220 2.0.0 Go ahead")
	if err := c.w.Flush(); err != nil {
		return err
	}
	c.use(tls.Server(c.conn, c.sink.tls))
	c.encrypted = true
	return nil
}

// auth takes any credentials, in PLAIN and LOGIN, with and without an initial
// response.
func (c *session) auth(arg string) error {
	mechanism, initial, _ := strings.Cut(arg, " ")
	var challenges []string
	switch mechanism = strings.ToUpper(mechanism); {
	case !c.encrypted:
		c.reply("538 5.7.11 Encryption required")
		return nil
	case mechanism == "LOGIN" && initial == "":
		challenges = []string{"VXNlcm5hbWU6", "UGFzc3dvcmQ6"}
	case mechanism == "LOGIN":
		challenges = []string{"UGFzc3dvcmQ6"}
	case mechanism == "PLAIN" && initial == "":
		challenges = []string{""}
	case mechanism != "PLAIN":
		c.reply("504 5.5.4 Unknown mechanism")
		return nil
	}
	for _, challenge := range challenges {
		c.reply("334 " + challenge)
		if _, err := c.line(); err != nil {
			return err
		}
	}
	c.authenticated = true
	c.reply("235 2.7.0 Welcome")
	return nil
}

func (c *session) mailFrom() {
	switch {
	case !c.authenticated:
		c.reply("530 5.7.0 Authentication required")
	case c.mail:
		c.reply("503 5.5.1 Nested MAIL")
	default:
		c.mail = true
		c.reply("250 2.1.0 OK")
	}
}

func (c *session) rcptTo() {
	if !c.mail {
		c.reply("503 5.5.1 MAIL first")
		return
	}
	c.recipients++
	c.reply("250 2.1.5 OK")
}

func (c *session) reset() {
	c.mail, c.recipients, c.head = false, 0, c.head[:0]
}

// keep remembers the beginning of the message.
func (c *session) keep(content []byte) {
	if room := headLimit - len(c.head); room > 0 {
		c.head = append(c.head, content[:min(room, len(content))]...)
	}
}

func (c *session) accepted() {
	c.sink.arrivals.add(c.head)
	c.reset()
	c.reply("250 2.0.0 Accepted")
}

// data reads up to the final dot.
func (c *session) data() error {
	if c.recipients == 0 {
		c.reply("503 5.5.1 RCPT first")
		return nil
	}
	c.reply("354 Go ahead")
	lineStart := true
	for {
		if err := c.fill(); err != nil {
			return err
		}
		line, err := c.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if lineStart && bytes.Equal(line, []byte(".\r\n")) {
			c.accepted()
			return nil
		}
		c.keep(line)
		lineStart = err == nil
	}
}

// bdat reads one chunk (RFC 3030); a refused one is swallowed, too.
func (c *session) bdat(arg string) error {
	text, last, _ := strings.Cut(arg, " ")
	size, err := strconv.Atoi(text)
	if err != nil || size < 0 || size > sizeLimit {
		c.reply("501 5.5.4 Bad size")
		return errQuit
	}
	for size > 0 {
		if err := c.fill(); err != nil {
			return err
		}
		chunk, err := c.r.Peek(min(size, c.r.Buffered()))
		if err != nil {
			return err
		}
		c.keep(chunk)
		n, err := io.CopyN(io.Discard, c.r, int64(len(chunk)))
		if err != nil {
			return err
		}
		size -= int(n)
	}
	switch {
	case c.recipients == 0:
		c.reply("503 5.5.1 RCPT first")
	case strings.EqualFold(last, "LAST"):
		c.accepted()
	default:
		c.reply("250 2.0.0 OK")
	}
	return nil
}
