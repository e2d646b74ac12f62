package dkim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"hash"
	"strings"
	"sync"

	"mailsidecar/mailer"
)

// message is a message to be signed, in slices of its octets.
type message struct {
	// fields are the signatures and what they may cover, by name in lower case, in the
	// message's order, with their line ends.
	fields map[string][][]byte
	body   []byte
}

// parse reads the header section of a message as [mailer.Content] has it.
func parse(data []byte) message {
	m := message{fields: map[string][][]byte{}}
	covered := isSigned()
	for len(data) > 0 && !bytes.HasPrefix(data, []byte("\r\n")) {
		size := fieldSize(data)
		name, _, found := bytes.Cut(data[:min(size, maxName+maxName)], []byte(":"))
		if key := strings.ToLower(string(bytes.TrimRight(name, " \t"))); found && covered[key] {
			m.fields[key] = append(m.fields[key], data[:size])
		}
		data = data[size:]
	}
	m.body = bytes.TrimPrefix(data, []byte("\r\n"))
	return m
}

// fieldSize returns the length of the first field, with the lines that continue it.
func fieldSize(data []byte) int {
	size := 0
	for {
		n := bytes.IndexByte(data[size:], '\n')
		if n < 0 {
			return len(data)
		}
		if size += n + 1; size == len(data) || data[size] != ' ' && data[size] != '\t' {
			return size
		}
	}
}

// author is the addr-spec of the first author; empty where there is none.
func (m message) author() string {
	for _, raw := range m.fields["from"] {
		_, value, _ := bytes.Cut(raw, []byte(":"))
		list, err := mailer.ParseAddressField(strings.NewReplacer("\r", "", "\n", "").Replace(string(value)))
		if err == nil && len(list) > 0 && list[0].Err == nil {
			return list[0].Email
		}
	}
	return ""
}

// signedName is the name of a field that signatures cover (RFC 6376 §5.4.1).
type signedName struct {
	name string
	// further lists the name once more than there are fields, so that none can be added.
	further bool
	// always does so where there is no such field, either. Relays add those that are not so:
	// Sender, To and the fields of MIME.
	always bool
}

// signedNames leaves out what relays rewrite or remove: Received, Return-Path and Bcc.
var signedNames = []signedName{
	{"From", true, true},
	{"To", true, false},
	{"Cc", true, true},
	{"Subject", true, true},
	{"Date", true, false},
	{"Message-ID", true, false},
	{"Reply-To", true, true},
	{"In-Reply-To", true, true},
	{"References", true, true},
	{"MIME-Version", true, false},
	{"Content-Type", true, false},
	{"Content-Transfer-Encoding", true, false},
	{"Sender", false, false},
	{"List-Unsubscribe", false, false},
	{"List-Unsubscribe-Post", false, false},
	{"List-Id", false, false},
	{"List-Post", false, false},
	{"List-Help", false, false},
	{"List-Subscribe", false, false},
	{"List-Owner", false, false},
	{"List-Archive", false, false},
	{"Feedback-ID", false, false},
	{"Resent-From", false, false},
	{"Resent-Sender", false, false},
	{"Resent-To", false, false},
	{"Resent-Cc", false, false},
	{"Resent-Date", false, false},
	{"Resent-Message-ID", false, false},
}

const (
	// maxName is over the length of the longest of these names.
	maxName = 28
	// maxListed limits h=, in octets. All names are in it once, with their further ones.
	maxListed = 512
)

// isSigned has the keys of the fields that are looked at.
var isSigned = sync.OnceValue(func() map[string]bool {
	all := map[string]bool{signatureKey: true}
	for _, s := range signedNames {
		all[strings.ToLower(s.name)] = true
	}
	return all
})

// listed are the names for h=: one for each field, from the last to the first (RFC 6376
// §5.4.2).
func (m message) listed() []string {
	var names []string
	size := 0
	for _, s := range signedNames {
		n := len(m.fields[strings.ToLower(s.name)])
		if s.always || s.further && n > 0 {
			n++
		}
		for range n {
			if size += len(s.name) + len(":"); size > maxListed {
				return names
			}
			names = append(names, s.name)
		}
	}
	return names
}

// headerHash is the digest that is signed (RFC 6376 §3.7): of the fields that names list,
// and of the signature's own field without its signature.
func (m message) headerHash(names []string, field []byte) []byte {
	h := sha256.New()
	var buf []byte
	used := map[string]int{}
	for _, name := range names {
		key := strings.ToLower(name)
		used[key]++
		list := m.fields[key]
		if used[key] > len(list) || key == signatureKey {
			continue
		}
		buf = append(appendRelaxed(buf[:0], list[len(list)-used[key]]), "\r\n"...)
		h.Write(buf)
	}
	h.Write(appendRelaxed(buf[:0], field))
	return h.Sum(nil)
}

// appendRelaxed appends a field in the relaxed form (RFC 6376 §3.4.2), without a line end.
func appendRelaxed(dst, field []byte) []byte {
	name, value, _ := bytes.Cut(field, []byte(":"))
	dst = append(dst, bytes.ToLower(bytes.TrimRight(name, " \t"))...)
	dst = append(dst, ':')
	blank, empty := false, true
	for _, c := range value {
		if strings.IndexByte(blanks, c) >= 0 {
			blank = true
			continue
		}
		if blank && !empty {
			dst = append(dst, ' ')
		}
		dst = append(dst, c)
		blank, empty = false, false
	}
	return dst
}

// bodyHash is the digest of the body in the relaxed form, in base64. The error is that of
// the context.
func (m message) bodyHash(ctx context.Context) (string, error) {
	b := bodyHasher{hash: sha256.New(), buf: make([]byte, 0, bodyBuffer)}
	for rest := m.body; len(rest) > 0; {
		line, after, _ := bytes.Cut(rest, []byte("\r\n"))
		b.line(line)
		rest = after
		if b.flushed {
			if err := ctx.Err(); err != nil {
				return "", err
			}
			b.flushed = false
		}
	}
	b.flush()
	return hashText([sha256.Size]byte(b.hash.Sum(nil))), ctx.Err()
}

// bodyBuffer is how much of the body is hashed at a time, in octets.
const bodyBuffer = 8 << 10

// bodyHasher hashes the lines of a body in the relaxed form (RFC 6376 §3.4.4): a run of
// blanks is one, blanks at the end of a line and empty lines at the end of the body are
// none.
type bodyHasher struct {
	hash    hash.Hash
	buf     []byte
	empty   int  // empty lines that were not written yet
	flushed bool // since it was last reset
}

func (b *bodyHasher) line(line []byte) {
	line = bytes.TrimRight(line, " \t")
	if len(line) == 0 {
		b.empty++
		return
	}
	for ; b.empty > 0; b.empty-- {
		b.write([]byte("\r\n"))
	}
	for len(line) > 0 {
		n := bytes.IndexAny(line, " \t")
		if n < 0 {
			n = len(line)
		}
		b.write(line[:n])
		if line = line[n:]; len(line) > 0 {
			b.write([]byte(" "))
			line = bytes.TrimLeft(line, " \t")
		}
	}
	b.write([]byte("\r\n"))
}

func (b *bodyHasher) write(p []byte) {
	if len(b.buf)+len(p) > cap(b.buf) {
		b.flush()
	}
	b.buf = append(b.buf, p...) // a word is longer than the buffer in no message that is fit for SMTP
}

func (b *bodyHasher) flush() {
	b.hash.Write(b.buf)
	b.buf, b.flushed = b.buf[:0], true
}
