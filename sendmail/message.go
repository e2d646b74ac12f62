package sendmail

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
)

// maxMessage limits one message, in octets. It is far over what any server takes, and
// keeps a runaway program from filling memory.
const maxMessage = 256 << 20

var errMessageTooLong = fail(exitRefused, "the message is over %d MiB", maxMessage>>20)

// readMessage reads one message to its end, or to a line with only a dot unless
// ignoreDots is set. Lines end with LF, whatever stands before it, and their octets stay
// as they are: only the server knows which parts are text. Where a dot can end the
// message, one at the start of a line was doubled by a careful caller and is taken off.
func readMessage(in *bufio.Reader, ignoreDots bool) ([]byte, error) {
	var message []byte
	for start := true; ; {
		piece, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, fail(exitUnavailable, "standard input: %w", err)
		}
		if start && !ignoreDots && len(piece) > 0 && piece[0] == '.' {
			if string(bytes.TrimRight(piece, "\r\n")) == "." {
				return message, nil
			}
			piece = piece[1:]
		}
		message = append(message, piece...)
		if len(message) > maxMessage {
			return nil, errMessageTooLong
		}
		if errors.Is(err, io.EOF) {
			return message, nil
		}
		start = err == nil
	}
}

// message is a message taken apart as far as sendmail has to change it.
type message struct {
	fields []headerField
	body   []byte // as it was read
}

// headerField is one field: all of its lines, each but the last with CRLF. Raw 8-bit
// text stays; the server encodes it.
type headerField struct {
	name string
	raw  string
	// hasCR says that a CR stood inside the field, not at the end of a line. A blank is
	// in its place.
	hasCR bool
	// joined says that characters of two octets are one rune in raw, see joinPairs.
	joined bool
}

// value is the field's body with its folds undone (RFC 5322 §2.2.3).
func (f headerField) value() string {
	_, value, _ := strings.Cut(f.raw, ":")
	return strings.TrimSpace(strings.ReplaceAll(value, "\r\n", ""))
}

// parseMessage splits data. In the header section LF ends a line, with any CRs before
// it; a CR inside a line is a blank, so that it cannot begin a field: a web form that
// takes out LF alone must not let its visitors add recipients. The section ends at the
// first line that is no part of a field, whether it is empty or not: when that is the
// very first line, there is no header section. A byte order mark and a mailbox's "From "
// lines in front are skipped.
func parseMessage(data []byte) message {
	var m message
	data = withoutMailboxLines(bytes.TrimPrefix(data, []byte("\uFEFF")))
	var raw []byte // of the last field
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		line = bytes.TrimRight(line, "\r")
		hasCR := bytes.IndexByte(line, '\r') >= 0
		if hasCR {
			line = bytes.ReplaceAll(line, []byte("\r"), []byte(" "))
		}
		name, isField := fieldName(line)
		switch {
		case len(m.fields) > 0 && len(line) > 0 && isBlank(line[0]):
			raw = append(append(raw, "\r\n"...), line...)
			last := &m.fields[len(m.fields)-1]
			last.hasCR = last.hasCR || hasCR
		case len(line) == 0 || !isField:
			if m.body = data; len(line) == 0 {
				m.body = rest
			}
			m.endField(raw)
			return m
		default:
			m.endField(raw)
			m.fields = append(m.fields, headerField{name: name, hasCR: hasCR})
			raw = append(raw[:0], line...)
		}
		data = rest
	}
	m.endField(raw)
	return m
}

// endField gives the last field its lines.
func (m *message) endField(raw []byte) {
	if n := len(m.fields); n > 0 {
		m.fields[n-1].raw = string(raw)
	}
}

// withoutMailboxLines returns data without the lines with which a mailbox file divides its
// messages.
func withoutMailboxLines(data []byte) []byte {
	for bytes.HasPrefix(data, []byte("From ")) || bytes.HasPrefix(data, []byte(">From ")) {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	return data
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

// field returns the first field of that name, or nil.
func (m *message) field(name string) *headerField {
	i := slices.IndexFunc(m.fields, func(f headerField) bool { return hasName(f, name) })
	if i < 0 {
		return nil
	}
	return &m.fields[i]
}

// value returns the value of the first field of that name, or nothing.
func (m *message) value(name string) string {
	if f := m.field(name); f != nil {
		return f.value()
	}
	return ""
}

// recipients returns the fields that name recipients: the Resent- fields alone in a
// message that is sent again (RFC 5322 §3.6.6).
func (m *message) recipients() []headerField {
	for _, prefix := range []string{"Resent-", ""} {
		var fields []headerField
		for _, f := range m.fields {
			if hasName(f, prefix+"To", prefix+"Cc", prefix+"Bcc") {
				fields = append(fields, f)
			}
		}
		if len(fields) > 0 {
			return fields
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
	m.fields = append(m.fields, headerField{name: name, raw: name + ": " + value})
}

func (m *message) bytes() []byte {
	var b bytes.Buffer
	for _, f := range m.fields {
		if f.joined {
			f.raw = splitPairs(f.raw)
		}
		b.WriteString(f.raw)
		b.WriteString("\r\n")
	}
	b.WriteString("\r\n")
	b.Write(m.body)
	return b.Bytes()
}

// isSigned says that a signature may cover fields or depend on them: DKIM's, or that of
// S/MIME or PGP on the body.
func (m *message) isSigned() bool {
	kind, _, _ := strings.Cut(strings.ToLower(m.value("Content-Type")), ";")
	switch strings.TrimSpace(kind) {
	case "multipart/signed", "application/pkcs7-mime", "application/x-pkcs7-mime":
		return true
	}
	return m.field("DKIM-Signature") != nil
}

// singleFields may stand once in a message (RFC 5322 §3.6, RFC 2045 §3), and many servers refuse a
// second one. The recipients' are joined, of the others the first counts.
var (
	joinedFields = []string{"To", "Cc"}
	singleFields = []string{"From", "Sender", "Reply-To", "Date", "Message-ID", "In-Reply-To", "References", "Subject", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"}
)

// mergeRepeated leaves one field of each name that may stand once.
func (m *message) mergeRepeated() {
	kept := m.fields[:0]
	first, empty := map[string]int{}, map[string]bool{} // index in kept
	more := map[int][]string{}
	for _, f := range m.fields {
		joined, key := hasName(f, joinedFields...), strings.ToLower(f.name)
		if !joined && !hasName(f, singleFields...) {
			kept = append(kept, f)
			continue
		}
		value := f.value()
		i, repeated := first[key]
		switch {
		case !repeated:
			first[key], empty[key] = len(kept), value == ""
			kept = append(kept, f)
		case empty[key]:
			kept[i], empty[key] = f, value == ""
		case joined && value != "":
			more[i] = append(more[i], value)
			kept[i].hasCR = kept[i].hasCR || f.hasCR
			kept[i].joined = kept[i].joined || f.joined
		}
	}
	for i, values := range more {
		kept[i].raw += ",\r\n " + strings.Join(values, ",\r\n ")
	}
	m.fields = kept
}

// complete makes of msg what can be sent: with each field once, readable addresses, an
// author with a domain, a date and a Message-ID. What is signed keeps the fields that it
// has.
func (s *sender) complete(msg *message) error {
	if msg.isSigned() {
		if f := slices.IndexFunc(msg.fields, func(f headerField) bool { return f.hasCR }); f >= 0 && msg.field("DKIM-Signature") != nil {
			return fail(exitRefused, "the signed message has a bare CR in its field %s, and cannot be changed", msg.fields[f].name)
		}
	} else {
		msg.mergeRepeated()
		if err := s.mendAddresses(msg); err != nil {
			return err
		}
	}
	if msg.value("From") == "" {
		msg.remove("From")
		msg.add("From", s.author(mailbox{}))
	}
	if msg.value("Date") == "" {
		msg.remove("Date")
		msg.add("Date", s.now().Format(time.RFC1123Z))
	}
	if msg.value("Message-ID") == "" {
		msg.remove("Message-ID")
		msg.add("Message-ID", "<"+rand.Text()+"@"+s.messageDomain(msg)+">")
	}
	return nil
}

// messageDomain is the domain of a new Message-ID: the author's, because a container's
// name says nothing outside.
func (s *sender) messageDomain(msg *message) string {
	for _, box := range parseMailboxes(msg.value("From"), addressRules{authors: true}).boxes {
		if _, domain, ok := cutAddress(box.address); ok && isDomain(domain) && isASCII(domain) {
			return domain
		}
	}
	return s.settings.domain
}
