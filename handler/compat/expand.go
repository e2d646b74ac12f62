package compat

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

// This file puts values into texts. A request of a few megabytes can name a large
// value a million times, for a thousand recipients, so the output size is checked while
// writing.

// Limits of what a request may repeat for each of its messages.
const (
	MaxPairs       = 1000
	maxVariables   = 10_000
	maxVariable    = 512 // octets of a dotted name
	maxAttachments = 500
	maxRefusals    = 50       // that are listed in an answer
	maxExpansion   = 32 << 20 // octets of all texts with values in them
)

var errTooMany = errors.New("has too many members")

// Substitution writes a text with values in it.
type Substitution func(w io.Writer, text string) error

// Literally puts in values by their names, in one pass, the longest name first.
// Empty names have no meaning.
func Literally(values []mailer.Field) Substitution {
	sorted := slices.SortedStableFunc(slices.Values(values), func(a, b mailer.Field) int { return len(b.Name) - len(a.Name) })
	var pairs []string
	for _, v := range sorted {
		if v.Name != "" {
			pairs = append(pairs, v.Name, v.Value)
		}
	}
	r := strings.NewReplacer(pairs...)
	return func(w io.Writer, text string) error {
		_, err := r.WriteString(w, text)
		return err
	}
}

// ByPattern puts in a value for each match that has one, and leaves the others.
func ByPattern(pattern *regexp.Regexp, value func(found string) (string, bool)) Substitution {
	return func(w io.Writer, text string) error {
		last := 0
		for _, at := range pattern.FindAllStringIndex(text, -1) {
			put, known := value(text[at[0]:at[1]])
			if !known {
				continue
			}
			if _, err := io.WriteString(w, text[last:at[0]]+put); err != nil {
				return err
			}
			last = at[1]
		}
		_, err := io.WriteString(w, text[last:])
		return err
	}
}

// Expansion is one request's limit on texts with values.
type Expansion struct{ left int }

// NewExpansion returns the limit of one request.
func NewExpansion() *Expansion { return &Expansion{maxExpansion} }

var errExpansion = errors.New("too large")

// Write counts p against the limit.
func (e *Expansion) Write(p []byte) (int, error) {
	if len(p) > e.left {
		e.left = 0
		return 0, errExpansion
	}
	e.left -= len(p)
	return len(p), nil
}

// limited writes to b what the limit allows.
type limited struct {
	b     *strings.Builder
	limit *Expansion
}

func (w limited) Write(p []byte) (int, error) {
	if _, err := w.limit.Write(p); err != nil {
		return 0, err
	}
	return w.b.Write(p)
}

// WriteString keeps a large value from being copied before it is counted.
func (w limited) WriteString(s string) (int, error) {
	if len(s) > w.limit.left {
		w.limit.left = 0
		return 0, errExpansion
	}
	w.limit.left -= len(s)
	return w.b.WriteString(s)
}

// Expand returns the text with its values; empty once the limit is reached, which
// Err then says.
func (e *Expansion) Expand(s Substitution, text string) string {
	var b strings.Builder
	if err := s(limited{&b, e}, text); err != nil {
		return ""
	}
	return b.String()
}

// Err is a problem once the limit was reached.
func (e *Expansion) Err() error {
	if e.left > 0 {
		return nil
	}
	return problem.New(api.CodeMessageTooLarge, fmt.Sprintf("With all values in place, the texts of one request may have %d octets together.", maxExpansion))
}

// Substitute puts the values into every text of the message.
func (o *Message) Substitute(e *Expansion, s Substitution) {
	o.Subject, o.Text, o.HTML = e.Expand(s, o.Subject), e.Expand(s, o.Text), e.Expand(s, o.HTML)
	o.Header = slices.Clone(o.Header) // shared with the request's other messages
	for i := range o.Header {
		o.Header[i].Value = e.Expand(s, o.Header[i].Value)
	}
}
