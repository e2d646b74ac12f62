package handler

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
// value a million times, for a thousand recipients: what comes of it is bounded
// while it is written.

// Bounds of what a request may repeat for each of its messages.
const (
	maxPairs       = 1000
	maxVariables   = 10_000
	maxVariable    = 512 // octets of a dotted name
	maxAttachments = 500
	maxRefusals    = 50       // that are listed in an answer
	maxExpansion   = 32 << 20 // octets of all texts with values in them
)

var errTooMany = errors.New("has too many members")

// substitution writes a text with values in it.
type substitution func(w io.Writer, text string) error

// literally puts in values by their names, in one pass, the longest name first.
// Empty names have no meaning.
func literally(values []mailer.Field) substitution {
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

// byPattern puts in a value for each match that has one, and leaves the others.
func byPattern(pattern *regexp.Regexp, value func(found string) (string, bool)) substitution {
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

// expansion is one request's bound.
type expansion struct{ left int }

func newExpansion() *expansion { return &expansion{maxExpansion} }

var errExpansion = errors.New("too large")

// Write spends what is left.
func (e *expansion) Write(p []byte) (int, error) {
	if len(p) > e.left {
		e.left = 0
		return 0, errExpansion
	}
	e.left -= len(p)
	return len(p), nil
}

// bounded writes to b what the bound allows.
type bounded struct {
	b     *strings.Builder
	bound *expansion
}

func (w bounded) Write(p []byte) (int, error) {
	if _, err := w.bound.Write(p); err != nil {
		return 0, err
	}
	return w.b.Write(p)
}

// WriteString keeps a large value from being copied before it is counted.
func (w bounded) WriteString(s string) (int, error) {
	if len(s) > w.bound.left {
		w.bound.left = 0
		return 0, errExpansion
	}
	w.bound.left -= len(s)
	return w.b.WriteString(s)
}

// expand returns the text with its values; empty once the bound is reached, which
// err then tells.
func (e *expansion) expand(s substitution, text string) string {
	var b strings.Builder
	if err := s(bounded{&b, e}, text); err != nil {
		return ""
	}
	return b.String()
}

// err is a problem when the bound was reached.
func (e *expansion) err() error {
	if e.left > 0 {
		return nil
	}
	return problem.New(api.CodeMessageTooLarge, fmt.Sprintf("With all values in place, the texts of one request may have %d octets together.", maxExpansion))
}

// substitute puts the values into every text of the message.
func (o *outgoing) substitute(e *expansion, s substitution) {
	o.Subject, o.Text, o.HTML = e.expand(s, o.Subject), e.expand(s, o.Text), e.expand(s, o.HTML)
	o.Header = slices.Clone(o.Header) // shared with the request's other messages
	for i := range o.Header {
		o.Header[i].Value = e.expand(s, o.Header[i].Value)
	}
}
