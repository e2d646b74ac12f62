package handler

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"strconv"
	"strings"

	"mailsidecar/mailer"
)

// fingerprint digests a decoded request, so that a repeat with the same
// Idempotency-Key can be told from another request. Everything is written with
// its length before it: no two requests write the same octets. White space in
// JSON, a form's boundary and the order of tags do not count. The zero
// fingerprint digests nothing.
type fingerprint struct{ hash hash.Hash }

// newFingerprint returns the zero fingerprint when there is no key to need one.
func newFingerprint(idempotencyKey, route string) fingerprint {
	if idempotencyKey == "" {
		return fingerprint{}
	}
	f := fingerprint{sha256.New()}
	f.text(route)
	return f
}

func (f fingerprint) sum() (sum [sha256.Size]byte) {
	if f.hash != nil {
		f.hash.Sum(sum[:0])
	}
	return sum
}

func (f fingerprint) bytes(b []byte) {
	if f.hash == nil {
		return
	}
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(b)))
	f.hash.Write(n[:])
	f.hash.Write(b)
}

func (f fingerprint) text(texts ...string) {
	if f.hash == nil {
		return
	}
	for _, t := range texts {
		b := newBuffer(len(t))
		b.data = append(b.data, t...)
		f.bytes(b.data)
		b.release()
	}
}

// option digests what a request may leave out. Absent it leaves no trace, so that
// requests from before it was known keep their fingerprint.
func (f fingerprint) option(name, value string) {
	if value != "" {
		f.text(name, value)
	}
}

func (f fingerprint) count(n int) { f.text(strconv.Itoa(n)) }

func (f fingerprint) message(m *messageRequest) {
	if f.hash == nil {
		return
	}
	for _, list := range [][]mailbox{{m.From}, m.To.list, m.Cc.list, m.Bcc.list, m.ReplyTo.list} {
		f.count(len(list))
		for _, box := range list {
			f.text(strconv.FormatBool(box.apart), box.text, box.email, box.name)
		}
	}
	f.text(m.Subject, m.Text, m.HTML, m.ReturnPath, m.SendAt, m.ExpiresIn)
	f.option("priority", m.Priority)
	f.members(m.Headers)
	f.members(slices.SortedFunc(slices.Values(m.Tags), func(a, b mailer.Field) int {
		return strings.Compare(a.Name, b.Name)
	}))
	f.count(len(m.Attachments))
	for _, a := range m.Attachments {
		f.text(a.Filename, a.ContentType, a.ContentID)
		f.bytes(a.Content)
	}
}

func (f fingerprint) members(list []mailer.Field) {
	f.count(len(list))
	for _, m := range list {
		f.text(m.Name, m.Value)
	}
}
