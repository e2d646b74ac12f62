package intake

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"strconv"

	"mailsidecar/processor"
)

// Fingerprint digests a decoded request, so that a repeat with the same
// Idempotency-Key can be told from another request. Everything is written with
// its length before it: no two requests write the same octets. White space in
// JSON, a form's boundary and the order of tags do not count. The zero
// fingerprint digests nothing.
type Fingerprint struct{ hash hash.Hash }

// NewFingerprint returns the zero fingerprint when there is no key to need one.
func NewFingerprint(idempotencyKey, route string) Fingerprint {
	if idempotencyKey == "" {
		return Fingerprint{}
	}
	f := Fingerprint{sha256.New()}
	f.Text(route)
	return f
}

// Sum is the digest of all that was written; zero where nothing is digested.
func (f Fingerprint) Sum() (sum [sha256.Size]byte) {
	if f.hash != nil {
		f.hash.Sum(sum[:0])
	}
	return sum
}

// Bytes digests octets.
func (f Fingerprint) Bytes(b []byte) {
	if f.hash == nil {
		return
	}
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(b)))
	f.hash.Write(n[:])
	processor.Digest(f.hash, b)
}

// Text digests each of the texts.
func (f Fingerprint) Text(texts ...string) {
	if f.hash == nil {
		return
	}
	for _, t := range texts {
		b := newBuffer(len(t))
		b.data = append(b.data, t...)
		f.Bytes(b.data)
		b.release()
	}
}

// Option digests a field that requests may leave out. An empty one leaves no trace, so
// that requests from before the field was known keep their fingerprint.
func (f Fingerprint) Option(name, value string) {
	if value != "" {
		f.Text(name, value)
	}
}

// Count digests how many of something follow.
func (f Fingerprint) Count(n int) { f.Text(strconv.Itoa(n)) }

// None reports whether f digests nothing.
func (f Fingerprint) None() bool { return f.hash == nil }
