package sendmail

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net/mail"
	"os"
	"slices"
	"strings"
	"time"
)

// maxMessage limits one message, in octets. It is far over what any server takes, and
// keeps a runaway program from filling memory.
const maxMessage = 256 << 20

var errMessageTooLong = fail(exitRefused, "the message is over %d MiB", maxMessage>>20)

// readMessage reads one message to its end, or to a line with only a dot unless
// ignoreDots is set, and gives every line CRLF as its end. CRLF, LF and lone CR
// are one line end each: PHP's mail() mixes them, in the header section too.
// Where a dot can end the message, one at the start of a line was doubled by a
// careful caller and is taken off.
func readMessage(in *bufio.Reader, ignoreDots bool) ([]byte, error) {
	var message, line []byte
	for {
		var err error
		line, err = readLine(in, line[:0])
		if len(line) == 0 && errors.Is(err, io.EOF) {
			return message, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fail(exitUnavailable, "standard input: %w", err)
		}
		text := line
		if !ignoreDots && line[0] == '.' {
			if string(bytes.TrimRight(line, "\r\n")) == "." {
				return message, nil
			}
			text = line[1:]
		}
		message = append(message, bytes.TrimRight(text, "\r\n")...)
		message = append(message, '\r', '\n')
		if len(message) > maxMessage {
			return nil, errMessageTooLong
		}
	}
}

// readLine appends one line with its end to buf.
func readLine(in *bufio.Reader, buf []byte) ([]byte, error) {
	for {
		c, err := in.ReadByte()
		if err != nil {
			return buf, err
		}
		buf = append(buf, c)
		switch {
		case c == '\r':
			if next, err := in.Peek(1); err == nil && next[0] == '\n' {
				_, err := in.Discard(1)
				return append(buf, '\n'), err
			}
			return buf, nil
		case c == '\n':
			return buf, nil
		case len(buf) > maxMessage:
			return buf, errMessageTooLong
		}
	}
}

// message is a message taken apart as far as sendmail has to change it.
type message struct {
	fields []headerField
	body   []byte
}

// headerField is one field as it was read: all of its lines, the last without
// its end. Raw 8-bit text stays; the server encodes it.
type headerField struct {
	name string
	raw  string
}

// value is the field's body with its folds undone (RFC 5322 §2.2.3).
func (f headerField) value() string {
	_, value, _ := strings.Cut(f.raw, ":")
	return strings.TrimSpace(strings.ReplaceAll(value, "\r\n", ""))
}

// parseMessage splits data, whose lines end with CRLF. The header
// section ends at the first line that is no part of a field, whether it is
// empty or not: when that is the very first line, there is no header section.
// A mailbox's "From " line in front is skipped.
func parseMessage(data []byte) message {
	var m message
	for first := true; len(data) > 0; first = false {
		line, rest, _ := bytes.Cut(data, []byte("\r\n"))
		switch {
		case first && (bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte(">From "))):
		case len(line) == 0:
			m.body = rest
			return m
		case (line[0] == ' ' || line[0] == '\t') && len(m.fields) > 0:
			m.fields[len(m.fields)-1].raw += "\r\n" + string(line)
		default:
			name, ok := fieldName(line)
			if !ok {
				m.body = data
				return m
			}
			m.fields = append(m.fields, headerField{name, string(line)})
		}
		data = rest
	}
	return m
}

// fieldName returns the name of a header field's first line (RFC 5322 §2.2;
// §4.5.8 allows blanks before the colon).
func fieldName(line []byte) (string, bool) {
	name, _, ok := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	if !ok || len(name) == 0 || bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", false
	}
	return string(name), true
}

func (m *message) empty() bool {
	return len(m.fields) == 0 && len(bytes.TrimSpace(m.body)) == 0
}

// value returns the value of the first field of that name, or nothing.
func (m *message) value(name string) string {
	for _, f := range m.fields {
		if strings.EqualFold(f.name, name) {
			return f.value()
		}
	}
	return ""
}

// recipients returns the values of the fields that name recipients: the
// Resent- fields alone in a message that is sent again (RFC 5322 §3.6.6).
func (m *message) recipients() []string {
	for _, prefix := range []string{"Resent-", ""} {
		var values []string
		for _, f := range m.fields {
			if hasName(f, prefix+"To", prefix+"Cc", prefix+"Bcc") {
				values = append(values, f.value())
			}
		}
		if len(values) > 0 {
			return values
		}
	}
	return nil
}

func hasName(f headerField, names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(f.name, name) })
}

func (m *message) remove(names ...string) {
	m.fields = slices.DeleteFunc(m.fields, func(f headerField) bool { return hasName(f, names...) })
}

func (m *message) add(name, value string) {
	m.fields = append(m.fields, headerField{name, name + ": " + value})
}

func (m *message) bytes() []byte {
	var b bytes.Buffer
	for _, f := range m.fields {
		b.WriteString(f.raw)
		b.WriteString("\r\n")
	}
	b.WriteString("\r\n")
	b.Write(m.body)
	return b.Bytes()
}

// complete adds what a message must have and this one lacks: an author with a
// domain, a date and a Message-ID.
func (s *sender) complete(m *message) {
	boxes := parseMailboxes(m.value("From"))
	if len(boxes) == 0 {
		m.remove("From")
		m.add("From", s.author(mailbox{}))
	} else if _, _, ok := cutAddress(boxes[0].address); !ok {
		m.remove("From")
		m.add("From", s.author(boxes[0]))
	}
	if m.value("Date") == "" {
		m.remove("Date")
		m.add("Date", s.now().Format(time.RFC1123Z))
	}
	if m.value("Message-ID") == "" {
		m.remove("Message-ID")
		m.add("Message-ID", "<"+rand.Text()+"@"+s.settings.domain+">")
	}
}

// author makes the value of a From field: from the local name and the comment that
// cron writes, from -f and -F, and from the local user.
func (s *sender) author(box mailbox) string {
	address := box.address
	if address == "" {
		address = strings.Trim(s.options.sender, "<> ")
	}
	if address == "" {
		address = s.settings.user
	}
	name := box.name
	for _, other := range []string{s.options.fullName, os.Getenv("NAME")} {
		if name == "" {
			name = other
		}
	}
	if address = s.settings.asSender(address); name == "" && box.address != "" {
		name = box.address // MAILSIDECAR_FROM hides it
	}
	return (&mail.Address{Name: oneLine(name), Address: address}).String()
}
