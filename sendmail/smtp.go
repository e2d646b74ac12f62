package sendmail

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// session is sendmail -bs: SMTP on standard input and output (RFC 5321),
// as Symfony and Laravel speak it. Each message is posted at its final dot, and
// the reply to that dot is the relay's own verdict when it came in time.
type session struct {
	*sender
	in  *bufio.Reader
	out *bufio.Writer
	// crlf says that the client ends its lines with CRLF, as it must. Then only
	// CRLF.CRLF ends a message, so that no text with other line ends in it can
	// be taken for a command. A client that begins with bare LF, such as a shell
	// script, is held to that instead.
	crlf    bool
	greeted bool
	mail    bool // MAIL was accepted
	env     outgoing
}

// Limits of a session (RFC 5321 §4.5.3.1; the line is generous, and so is the
// list).
const (
	maxCommandLine    = 4096
	maxSMTPRecipients = 10000
)

// errSessionOver ends a session in order.
var errSessionOver = errors.New("session over")

// serveSMTP serves one session. It returns nil after QUIT or at the end of the
// input between messages; what became of each message is in its reply.
func (s *sender) serveSMTP(ctx context.Context, in *bufio.Reader, out io.Writer) error {
	session := &session{sender: s, in: in, out: bufio.NewWriter(out)}
	if err := session.reply("220 %s ESMTP mailsidecar", s.settings.domain); err != nil {
		return err
	}
	for first := true; ; first = false {
		line, err := session.command(first)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = session.handle(ctx, line)
		}
		if errors.Is(err, errSessionOver) {
			return nil
		}
		if err != nil {
			return fail(exitUnavailable, "SMTP session: %w", err)
		}
	}
}

// command reads one command line, without its end.
func (s *session) command(first bool) (string, error) {
	var line []byte
	for {
		c, err := s.in.ReadByte()
		if err != nil {
			return "", err
		}
		if line = append(line, c); len(line) > maxCommandLine {
			return "", errors.Join(errors.New("a command is too long"), s.reply("500 5.5.2 Line too long"))
		}
		if c == '\n' {
			break
		}
	}
	if first {
		s.crlf = bytes.HasSuffix(line, []byte("\r\n"))
	}
	return string(bytes.TrimRight(line, "\r\n")), nil
}

// reply writes one line. What is put into it is kept to one.
func (s *session) reply(format string, args ...any) error {
	line := oneLine(fmt.Sprintf(format, args...))
	if _, err := s.out.WriteString(line + "\r\n"); err != nil {
		return err
	}
	return s.out.Flush()
}

func (s *session) handle(ctx context.Context, line string) error {
	verb, argument, _ := strings.Cut(line, " ")
	argument = strings.TrimSpace(argument)
	switch strings.ToUpper(verb) {
	case "EHLO", "HELO":
		return s.hello(strings.ToUpper(verb), argument)
	case "MAIL":
		return s.mailFrom(argument)
	case "RCPT":
		return s.rcptTo(argument)
	case "DATA":
		return s.data(ctx, argument)
	case "RSET":
		s.reset()
		return s.reply("250 2.0.0 OK")
	case "NOOP":
		return s.reply("250 2.0.0 OK")
	case "VRFY":
		return s.reply("252 2.5.0 Send some mail, and the relay will tell")
	case "QUIT":
		return errors.Join(s.reply("221 2.0.0 Bye"), errSessionOver)
	default:
		return s.reply("500 5.5.1 Command not recognized")
	}
}

func (s *session) reset() {
	s.mail, s.env = false, outgoing{}
}

func (s *session) hello(verb, argument string) error {
	if argument == "" {
		return s.reply("501 5.5.4 %s needs a domain", verb)
	}
	s.reset()
	s.greeted = true
	if verb == "HELO" {
		return s.reply("250 %s", s.settings.domain)
	}
	for _, line := range []string{s.settings.domain, "8BITMIME", "ENHANCEDSTATUSCODES"} {
		if err := s.reply("250-%s", line); err != nil {
			return err
		}
	}
	// Without a number (RFC 1870 §4): the server has the limit.
	return s.reply("250 SIZE")
}

// mailFrom handles MAIL. Parameters (SIZE, BODY, and any other) need no
// attention: the server looks at the message itself.
func (s *session) mailFrom(argument string) error {
	path, ok := smtpPath(argument, "FROM:")
	switch {
	case !s.greeted:
		return s.reply("503 5.5.1 EHLO first")
	case s.mail:
		return s.reply("503 5.5.1 There is a sender already")
	case !ok:
		return s.reply("501 5.5.4 Syntax: MAIL FROM:<address>")
	}
	reverse, err := s.settings.reversePath(options{sender: path, senderGiven: true})
	if err != nil {
		return s.reply("501 5.1.7 The sender's address is not valid")
	}
	s.reset()
	s.mail, s.env.reversePath = true, reverse
	return s.reply("250 2.1.0 OK")
}

func (s *session) rcptTo(argument string) error {
	path, ok := smtpPath(argument, "TO:")
	switch {
	case !s.mail:
		return s.reply("503 5.5.1 MAIL first")
	case !ok || path == "":
		return s.reply("501 5.5.4 Syntax: RCPT TO:<address>")
	case len(s.env.forwardPaths) >= maxSMTPRecipients:
		return s.reply("452 4.5.3 Too many recipients")
	}
	path = s.settings.withDomain(path)
	if !validAddress(path) {
		return s.reply("501 5.1.3 The recipient's address is not valid")
	}
	s.env.forwardPaths = append(s.env.forwardPaths, path)
	return s.reply("250 2.1.5 OK")
}

// smtpPath takes the path out of "FROM:<a@b> SIZE=1". A blank behind the colon
// and a path without brackets are common enough to be let pass.
func smtpPath(argument, keyword string) (string, bool) {
	if len(argument) < len(keyword) || !strings.EqualFold(argument[:len(keyword)], keyword) {
		return "", false
	}
	argument = strings.TrimSpace(argument[len(keyword):])
	if strings.HasPrefix(argument, "<") {
		path, _, ok := strings.Cut(argument[1:], ">")
		return path, ok
	}
	path, _, _ := strings.Cut(argument, " ")
	return path, path != ""
}

func (s *session) data(ctx context.Context, argument string) error {
	switch {
	case argument != "":
		return s.reply("501 5.5.4 DATA takes no argument")
	case len(s.env.forwardPaths) == 0:
		return s.reply("503 5.5.1 RCPT first")
	}
	if err := s.reply("354 End with <CR><LF>.<CR><LF>"); err != nil {
		return err
	}
	text, err := s.content()
	if err != nil {
		return err
	}
	env := s.env
	s.reset()
	if len(text) > maxMessage {
		return s.reply("552 5.3.4 The message is too large")
	}
	got, err := s.deliver(ctx, env, text)
	if err != nil {
		return s.refuse(err)
	}
	if refused := got.refused(); len(refused) > 0 {
		return s.reply("250 2.0.0 %s as %s; refused: %s", got.Status, got.ID, strings.Join(refused, "; "))
	}
	return s.reply("250 2.0.0 %s as %s", got.Status, got.ID)
}

// content reads up to the final dot and takes doubled dots off. More than
// maxMessage is read on to the dot, but not kept.
func (s *session) content() ([]byte, error) {
	var text []byte
	start, before := true, byte(0) // before is the octet in front of line
	for {
		line, err := s.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("the input ended inside a message: %w", err)
		}
		end := s.endsLine(before, line)
		before = line[len(line)-1]
		if start && end && string(bytes.TrimRight(line, "\r\n")) == "." {
			return text, nil
		}
		if start && line[0] == '.' {
			line = line[1:]
		}
		if len(text) <= maxMessage {
			text = append(text, line...)
		}
		start = end
	}
}

// endsLine says that line ends with the session's line end, of which the first
// octet may be before it.
func (s *session) endsLine(before byte, line []byte) bool {
	if n := len(line); n > 1 {
		before = line[n-2]
	}
	return line[len(line)-1] == '\n' && (!s.crlf || before == '\r')
}

// deliver posts one message of the session.
func (s *session) deliver(ctx context.Context, env outgoing, text []byte) (result, error) {
	msg, err := s.readable(text)
	if err != nil {
		return result{}, err
	}
	msg.remove("Return-Path")
	if err := s.complete(&msg); err != nil {
		return result{}, err
	}
	env.data = msg.bytes()
	return s.submit(ctx, env)
}

// refuse answers the final dot with err: as the relay put it; as permanent where the
// message itself is wrong; else as transient, because no one has judged it.
func (s *session) refuse(err error) error {
	var e *refusal
	if !errors.As(err, &e) && exitStatus(err) == exitRefused {
		return s.reply("554 5.6.0 mailsidecar: %v", err)
	}
	if !errors.As(err, &e) {
		return s.reply("451 4.4.1 mailsidecar: %v", err)
	}
	text := strings.TrimPrefix(e.text, fmt.Sprintf("%d ", e.reply))
	return s.reply("%d %s %s", e.reply, e.enhanced, strings.TrimPrefix(text, e.enhanced+" "))
}
