package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// relay makes connections. Anything that is not as expected ends one.
type relay struct {
	addr string
	tls  *tls.Config
}

func newRelay(host string, port int, ca string) (*relay, error) {
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, errors.New("no certificate in " + ca)
	}
	return &relay{
		addr: net.JoinHostPort(host, strconv.Itoa(port)),
		tls:  &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12},
	}, nil
}

// deliver keeps one connection busy for ever.
func (r *relay) deliver(waiting *backlog, st *store) {
	it := waiting.pop()
	for {
		c, err := r.dial()
		if err == nil {
			it, err = c.run(it, waiting, st)
		}
		fmt.Fprintln(os.Stderr, "floor:", err)
		time.Sleep(100 * time.Millisecond)
	}
}

type client struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
}

func (c *client) use(conn net.Conn) {
	c.conn, c.r, c.w = conn, bufio.NewReader(conn), bufio.NewWriterSize(conn, 32<<10)
}

func (r *relay) dial() (*client, error) {
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		return nil, err
	}
	c := &client{}
	c.use(conn)
	login := base64.StdEncoding.EncodeToString([]byte("\x00bench\x00bench"))
	steps := []func() error{
		func() error { return c.expect(220) },
		func() error { return c.exchange("EHLO bench", 250) },
		func() error { return c.exchange("STARTTLS", 220) },
		func() error { c.use(tls.Client(conn, r.tls)); return nil },
		func() error { return c.exchange("EHLO bench", 250) },
		func() error { return c.exchange("AUTH PLAIN "+login, 235) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return c, nil
}

// run delivers until something fails, and returns the message that was open.
// Each flight is one message's content and the next one's envelope (RFC 2920
// §3.1): one round trip for each.
func (c *client) run(it item, waiting *backlog, st *store) (item, error) {
	defer c.conn.Close()
	for {
		c.envelope(it)
		if err := c.envelopeReplies(it); err != nil {
			return it, err
		}
		for more := true; more; {
			var next item
			c.content(it.content)
			if next, more = waiting.tryPop(); more {
				c.envelope(next)
			}
			if err := c.flushExpect(250); err != nil {
				return it, err
			}
			st.done <- it.id
			if more {
				it = next
				if err := c.envelopeReplies(it); err != nil {
					return it, err
				}
			}
		}
		it = waiting.pop()
	}
}

func (c *client) envelope(it item) {
	fmt.Fprintf(c.w, "MAIL FROM:<%s>\r\n", it.sender)
	for _, to := range it.recipients {
		fmt.Fprintf(c.w, "RCPT TO:<%s>\r\n", to)
	}
	_, _ = c.w.WriteString("DATA\r\n")
}

func (c *client) envelopeReplies(it item) error {
	for range 1 + len(it.recipients) {
		if err := c.flushExpect(250); err != nil {
			return err
		}
	}
	return c.expect(354)
}

// content writes the message with its dots stuffed, and the final dot.
func (c *client) content(content []byte) {
	_, _ = c.w.Write(bytes.ReplaceAll(content, []byte("\r\n."), []byte("\r\n..")))
	if !bytes.HasSuffix(content, []byte("\r\n")) {
		_, _ = c.w.WriteString("\r\n")
	}
	_, _ = c.w.WriteString(".\r\n")
}

func (c *client) exchange(command string, code int) error {
	_, _ = c.w.WriteString(command + "\r\n")
	return c.flushExpect(code)
}

func (c *client) flushExpect(code int) error {
	if err := c.w.Flush(); err != nil {
		return err
	}
	return c.expect(code)
}

// expect reads one reply, over all its lines.
func (c *client) expect(code int) error {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) < 4 || string(line[:3]) != strconv.Itoa(code) {
			return fmt.Errorf("reply %q, want %d", line, code)
		}
		if line[3] == ' ' {
			return nil
		}
	}
}
