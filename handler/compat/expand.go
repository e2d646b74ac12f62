package compat

import (
	"context"
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
// writing, and what it costs is checked before.

// Limits of what a request may repeat for each of its messages.
const (
	MaxPairs       = 1000
	maxVariables   = 10_000
	maxVariable    = 512 // octets of a dotted name
	maxAttachments = 500
	maxReplyTo     = 1000
	maxExpansion   = 32 << 20 // octets of all texts with values in them
	// maxWork limits what is read and copied for the messages of one request, in octets.
	// A copy of a field, of a file or of a variable counts as several hundred.
	maxWork  = 128 << 20
	pairWork = 512
	fileWork = 256
)

var errTooMany = errors.New("has too many members")

// Substitution writes a text with values in it.
type Substitution struct {
	write func(w io.Writer, text string) error
	work  func(text string) int
}

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
	if len(pairs) == 0 {
		return Substitution{work: func(text string) int { return len(text) }, write: func(w io.Writer, text string) error {
			_, err := io.WriteString(w, text)
			return err
		}}
	}
	// The replacer goes through the names anew at each octet of the text: one step for
	// each octet that names have in common, and no more steps than there are names.
	longest := len(pairs[0])
	perOctet := 1 + min(longest, len(pairs)/2)/8 + longest/256
	r := strings.NewReplacer(pairs...)
	return Substitution{work: func(text string) int { return len(text) * perOctet }, write: func(w io.Writer, text string) error {
		_, err := r.WriteString(w, text)
		return err
	}}
}

// braceWork is the work of a regular expression where a match may begin.
const braceWork = 64

// ByPattern puts in a value for each match that has one, and leaves the others. A match
// begins with a brace.
func ByPattern(pattern *regexp.Regexp, value func(found string) (string, bool)) Substitution {
	work := func(text string) int { return len(text) + braceWork*strings.Count(text, "{") }
	return Substitution{work: work, write: func(w io.Writer, text string) error {
		for {
			at := pattern.FindStringIndex(text)
			if at == nil {
				_, err := io.WriteString(w, text)
				return err
			}
			put, known := value(text[at[0]:at[1]])
			if !known {
				put = text[at[0]:at[1]]
			}
			for _, piece := range []string{text[:at[0]], put} {
				if _, err := io.WriteString(w, piece); err != nil {
					return err
				}
			}
			text = text[at[1]:]
		}
	}}
}

// Expansion is one request's limit on texts with values, and on the work for them. It
// ends with the request's context.
type Expansion struct {
	ctx  context.Context
	left int // octets that may be written
	work int // that may be done
	// hold is asked for memory, in octets; nil allows any. written counts what was
	// written since it was asked last, and busy says that there was none.
	hold    func(octets int64) bool
	written int
	busy    bool
}

// NewExpansion returns the limit of one request, which does not count as memory of it:
// see [Exchange.Expansion].
func NewExpansion(ctx context.Context) *Expansion {
	return &Expansion{ctx: ctx, left: maxExpansion, work: maxWork}
}

// Expansion returns the limit of the request on texts with values, and on the work for
// its messages. What is written counts as memory of the request.
func (x *Exchange) Expansion() *Expansion {
	e := NewExpansion(x.UntilStopped(x.Request.Context()))
	e.hold = x.share.More
	return e
}

// Charge takes work from the limit before it is done. It returns false when there is too
// little left, or the context has ended: Err then says which.
func (e *Expansion) Charge(work int) bool {
	if work > e.work {
		e.work = -1
	}
	if e.work < 0 || e.ctx.Err() != nil {
		return false
	}
	e.work -= work
	return true
}

// ChargePairs takes the work for n fields or variables from the limit, as Charge does.
func (e *Expansion) ChargePairs(n int) bool { return e.Charge(n * pairWork) }

var errExpansion = errors.New("too large")

// Write counts p against the limit.
func (e *Expansion) Write(p []byte) (int, error) {
	if !e.write(len(p)) {
		return 0, errExpansion
	}
	return len(p), nil
}

// holdStep is how many octets are written before memory for them is asked for: the
// turn to make something of a request has room for so many.
const holdStep = 256 << 10

// write counts octets that are about to be written. It returns false when there is too
// little left, or no memory.
func (e *Expansion) write(octets int) bool {
	if e.busy || octets > e.left {
		e.left = 0
		return false
	}
	e.left -= octets
	if e.written += octets; e.written > holdStep && e.hold != nil {
		// A builder's buffer grows by a quarter at least, and is copied.
		e.busy = !e.hold(2 * int64(e.written))
		e.written = 0
	}
	return !e.busy
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
	if !w.limit.write(len(s)) {
		return 0, errExpansion
	}
	return w.b.WriteString(s)
}

// Afford checks, before any of it is made, that values can be put into the texts of so
// many copies of the message. It returns false when there is too little left, as Charge
// does.
func (e *Expansion) Afford(copies int, o *Message, s Substitution) bool {
	work := len(o.Header)*pairWork + s.work(o.Subject) + s.work(o.Text) + s.work(o.HTML)
	if copies > 0 && work > e.work/copies {
		e.work = -1
	}
	return e.Charge(0)
}

// Expand returns the text with its values; empty once the limit is reached, which
// Err then says.
func (e *Expansion) Expand(s Substitution, text string) string {
	if !e.Charge(s.work(text)) {
		return ""
	}
	var b strings.Builder
	if err := s.write(limited{&b, e}, text); err != nil {
		return ""
	}
	return b.String()
}

// count counts octets that were added to a text as written. It returns false once the
// limit is reached, as Charge does.
func (e *Expansion) count(added int) bool {
	return e.write(max(added, 0))
}

// Err is a problem once the limit was reached.
func (e *Expansion) Err() error {
	switch {
	case e.ctx.Err() != nil:
		return e.ctx.Err()
	case e.busy:
		return problem.New(api.CodeBusy, "")
	case e.work < 0:
		return problem.New(api.CodeMessageTooLarge, "The request repeats too much for its messages: send them in several requests.")
	case e.left > 0:
		return nil
	}
	return problem.New(api.CodeMessageTooLarge, fmt.Sprintf("With all values in place, the texts of one request may have %d octets together.", maxExpansion))
}

// Substitute puts the values into every text of the message.
func (o *Message) Substitute(e *Expansion, s Substitution) {
	o.Subject, o.Text, o.HTML = e.Expand(s, o.Subject), e.Expand(s, o.Text), e.Expand(s, o.HTML)
	if !e.Charge(len(o.Header) * pairWork) {
		return
	}
	o.Header = slices.Clone(o.Header) // shared with the request's other messages
	for i := range o.Header {
		o.Header[i].Value = e.Expand(s, o.Header[i].Value)
	}
}
