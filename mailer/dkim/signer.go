package dkim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"mailsidecar/mailer"
)

// Signer signs the messages of some domains. It is safe for concurrent use.
type Signer struct {
	keys map[string][]Entry // by domain
	most int                // keys of one domain
	now  func() time.Time
}

// NewSigner returns one that signs with all entries of a domain.
func NewSigner(entries []Entry) *Signer {
	s := &Signer{keys: map[string][]Entry{}, now: time.Now}
	for _, e := range entries {
		s.keys[e.Domain] = append(s.keys[e.Domain], e)
		s.most = max(s.most, len(s.keys[e.Domain]))
	}
	return s
}

// entries returns those for mail of that author, an addr-spec: of its domain, or else of
// the closest domain above it.
func (s *Signer) entries(author string) []Entry {
	domain := strings.ToLower(author[strings.LastIndexByte(author, '@')+1:])
	for domain != "" {
		if list := s.keys[domain]; list != nil {
			return list
		}
		_, domain, _ = strings.Cut(domain, ".")
	}
	return nil
}

// Room returns how many octets the signatures of a message by that author take at most;
// zero where it has no key.
func (s *Signer) Room(author string) int {
	room := 0
	for _, e := range s.entries(author) {
		room += e.room()
	}
	return room
}

// Sign returns signatures of the content, to be put before its first field: one of each key
// of the author's domain. There is none where the domain has no key, or the message has a
// signature already. The error is that of the context, as a rule.
func (s *Signer) Sign(ctx context.Context, c mailer.Content) ([]byte, error) {
	return s.sign(ctx, c, s.now().Unix())
}

// sign is Sign at a time, in seconds since 1970; zero is not told.
func (s *Signer) sign(ctx context.Context, c mailer.Content, at int64) ([]byte, error) {
	m := parse(c.Data)
	entries := s.entries(m.author())
	if len(entries) == 0 || len(m.fields[signatureKey]) > 0 {
		return nil, nil
	}
	bodyHash, err := m.bodyHash(ctx)
	if err != nil {
		return nil, err
	}
	names := m.listed()
	var fields []byte
	for _, e := range entries {
		field := e.unsignedField(names, bodyHash, at)
		signature, err := e.Key.sign(m.headerHash(names, field))
		if err != nil {
			return nil, fmt.Errorf("sign for %s: %w", e.Domain, err)
		}
		fields = append(fields, withSignature(field, signature)...)
	}
	return fields, ctx.Err()
}

// Resigner replaces signatures of a [Signer] where a relay needs a message in another form
// than the one that was signed.
type Resigner struct{ signer *Signer }

// Resigner returns the one of this signer.
func (s *Signer) Resigner() Resigner { return Resigner{s} }

// Sign is [Signer.Sign], but its result depends on the content and the keys alone: the
// signatures tell no time.
func (r Resigner) Sign(ctx context.Context, c mailer.Content) ([]byte, error) {
	return r.signer.sign(ctx, c, 0)
}

// Unsigned returns the content without the signatures before its first field, in the same
// memory, if the signer's keys made all that the message has. Otherwise it returns the
// content as it is. The error is that of the context.
//
// Each key signs once. More signatures than a domain has keys are not looked at: the time
// that they take would grow with their number and with the size of the fields that they cover.
func (r Resigner) Unsigned(ctx context.Context, c mailer.Content) (mailer.Content, error) {
	m := parse(c.Data)
	if len(m.fields[signatureKey]) > r.signer.most {
		return c, nil
	}
	front := 0 // octets of the signatures before the first other field
	for _, raw := range m.fields[signatureKey] {
		if !bytes.HasPrefix(c.Data[front:], raw) {
			return c, nil
		}
		front += len(raw)
	}
	if front == 0 {
		return c, nil
	}
	bodyHash, err := m.bodyHash(ctx)
	if err != nil {
		return mailer.Content{}, err
	}
	for _, raw := range m.fields[signatureKey] {
		f, ok := parseSignature(raw)
		if !ok || f.bodyHash != bodyHash || !r.signer.made(m, f) {
			return c, nil
		}
	}
	c.Data = c.Data[front:]
	return c, nil
}

// made reports whether one of the signer's keys made the signature of m.
func (s *Signer) made(m message, f signatureField) bool {
	for _, e := range s.keys[f.domain] {
		if e.Selector == f.selector && e.Key.algorithm == f.algorithm && e.Key.verify(m.headerHash(f.names, f.unsigned), f.signature) {
			return true
		}
	}
	return false
}

// hashText is a digest as the field has it.
func hashText(sum [sha256.Size]byte) string { return base64.StdEncoding.EncodeToString(sum[:]) }
