package compose

import (
	"context"
	"errors"
)

// Reserve is asked before a message is made, with the octets that it will have, or two more
// for one that is converted, and up to some hundreds more for one that is signed. It is
// asked once. Its error ends the making and is returned as it is. Nil allows any.
type Reserve func(octets int) error

func (r Reserve) ask(octets int) error {
	if r == nil {
		return nil
	}
	return r(octets)
}

// with adds some octets to what is asked for.
func (r Reserve) with(octets int) Reserve {
	return func(more int) error { return r.ask(octets + more) }
}

// Limits of a conversion, by [Finish], [SevenBit] and [ASCIIHeader]. What real mail
// becomes stays far below them: 8-bit text takes three times its size at most.
const (
	// A message of n octets becomes one of maxGrowth × n + growthRoom octets at most.
	maxGrowth  = 4
	growthRoom = 64 << 10
	// maxRewritten limits a field that is folded or encoded anew, in octets.
	maxRewritten = 1 << 20
)

// Why a field or an entity is not converted.
var (
	errGrowth    = errors.New("converted for mail, the message would be over four times its size")
	errLongField = errors.New("a field over 1 MiB cannot be encoded or folded")
	errParams    = errors.New("a field with more than 1000 parameters, or one whose name is over 40 octets, cannot be encoded")
)

// growth limits what a message becomes, and ends its conversion with the context.
type growth struct {
	context.Context
	size int // of the result so far, in octets
	max  int
}

// newGrowth returns the limit for a message before any conversion.
func newGrowth(ctx context.Context, raw []byte) *growth {
	return &growth{ctx, finishedSize(raw), maxGrowth*len(raw) + growthRoom}
}

// finishedSize returns the size of raw with CRLF line ends, and some room for added
// fields, in octets.
func finishedSize(raw []byte) int { return crlfSize(raw) + 512 }

// replace counts that a text of before octets became one of after octets. The error is
// errGrowth, or that of the context.
func (g *growth) replace(before, after int) error {
	g.size += after - before
	if g.size > g.max {
		return errGrowth
	}
	return g.Err()
}

// rewriting checks that a field may be folded or encoded anew.
func (g *growth) rewriting(f *rawField) error {
	if len(f.raw) > maxRewritten {
		return errLongField
	}
	return g.Err()
}

// rewrite is [rawField.rewrite] within the limits.
func (g *growth) rewrite(f *rawField, charset string) error {
	if err := g.rewriting(f); err != nil {
		return err
	}
	if err := f.rewrite(charset); err != nil {
		return err
	}
	return g.replace(len(f.raw), len(f.written()))
}

// isLimit reports whether err is one of the limits of a conversion.
func isLimit(err error) bool {
	return errors.Is(err, errGrowth) || errors.Is(err, errLongField) || errors.Is(err, errParams)
}
