// Package transfer copies all that one store has into another one, for a queue that moves.
// A copy that was cut short goes on where it was. While it goes on, and afterwards, nobody
// sends from the old store by mistake, and nobody from the new one before it is whole.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"mailsidecar/queue"
)

// Side is one of the two stores. Only the copy uses it meanwhile.
//
// What a method puts is there when it returns, all of it. On an error nothing is, except that
// a failed commit may have happened.
type Side interface {
	// Place names the store, without a password.
	Place() string
	// Settle takes back what owners that are gone have leased, as a start does. The error is
	// [ErrInUse] while an owner lives.
	Settle(ctx context.Context, hold bool) error
	// Mark is the store's mark; the zero value where it has none.
	Mark(ctx context.Context) (Mark, error)
	// SetMark replaces the mark; the zero value removes it. With a mark that keeps a start away
	// the store gets no new message and no new owner from then on, but from Put. The
	// error is [ErrInUse] while an owner lives, or something is leased.
	SetMark(ctx context.Context, m Mark) error
	// Size counts what the store has.
	Size(ctx context.Context) (Size, error)
	// Last is the position of the last row of a table; the zero value where it is empty.
	Last(ctx context.Context, t Table) (Position, error)
	// Read returns the rows of a table after a position, some of them and one at least.
	Read(ctx context.Context, t Table, after Position) (Rows, error)
	// Put stores rows that come after all that the table has.
	Put(ctx context.Context, rows Rows) error
	// ReadRest returns what is no table.
	ReadRest(ctx context.Context) (Rest, error)
	// PutRest replaces it.
	PutRest(ctx context.Context, r Rest) error
	Close() error
}

// Role is what a store is in a copy.
type Role string

// The roles.
const (
	Source Role = "source"
	Target Role = "target"
)

// Mark says that a store takes part in a copy, or took part in one.
type Mark struct {
	Role Role
	Copy string // names the copy; both stores have it
	Done bool
	Peer string // the place of the other store
	At   time.Time
}

// What keeps a store from being used.
var (
	// ErrMovedAway: the store was copied, or is being copied.
	ErrMovedAway = errors.New("its mail has moved")
	// ErrUnfinished: a copy into the store is not whole.
	ErrUnfinished = errors.New("the copy into it is not finished")
	// ErrInUse: somebody works with the store.
	ErrInUse = errors.New("in use")
	// ErrNotEmpty: the target has mail of its own.
	ErrNotEmpty = errors.New("it is not empty")
	// ErrDiffer: the two stores are not the same after the copy.
	ErrDiffer = errors.New("the copy differs from the original")
	// ErrNotCopied: there is no copy that could be undone.
	ErrNotCopied = errors.New("this queue was not copied to another one: there is nothing to undo")
)

// Locked says that the mark keeps a start away.
func (m Mark) Locked() bool { return m.Role == Source || m.Role == Target && !m.Done }

// Err is why a start must not use the store at place; nil where it may.
func (m Mark) Err(place string) error {
	on := m.At.UTC().Format("2006-01-02 15:04 UTC")
	switch {
	case m.Role == Source && m.Done:
		return &queue.StoreError{Path: place, Err: ErrMovedAway, Remedy: fmt.Sprintf("it was copied to %s on %s and is sent from there; name that one in MAILSIDECAR_QUEUE, or in the file of MAILSIDECAR_QUEUE_FILE. "+
			"To use this one again all the same, see that nothing is sent from the other one any more, and run `mailsidecar queue copy --undo`", m.Peer, on)}
	case m.Role == Source:
		return &queue.StoreError{Path: place, Err: ErrMovedAway, Remedy: fmt.Sprintf("it is being copied to %s since %s; run the same `mailsidecar queue copy` again, which goes on, "+
			"or give the copy up with `mailsidecar queue copy --undo`", m.Peer, on)}
	case m.Role == Target && !m.Done:
		return &queue.StoreError{Path: place, Err: ErrUnfinished, Remedy: fmt.Sprintf("%s is being copied into it since %s; run the same `mailsidecar queue copy` again, which goes on. "+
			"If the copy was given up, name another file or schema", m.Peer, on)}
	default:
		return nil
	}
}

// Size is how much a store has.
type Size struct {
	Messages, Unfinished, Attempts, Keys int64
}

// Report says what was copied.
type Report struct {
	Size
	From, To string
	// Before says that all was done by a copy before.
	Before bool
	// Digest is that of all rows, in hexadecimal digits.
	Digest string
}

// Progress is told how far the copy is.
type Progress struct {
	Step        string // "copied" or "compared"
	Done, Total int64  // messages
}

// Copy copies all from one store to the other, compares them, and marks the one as moved.
// hold is what becomes of mail that may have been sent when the server crashed.
func Copy(ctx context.Context, from, to Side, hold bool, progress func(Progress)) (Report, error) {
	c := &copying{from: from, to: to, hold: hold, progress: progress}
	before, err := c.begin(ctx)
	if err != nil {
		return Report{}, err
	}
	r := Report{From: from.Place(), To: to.Place(), Before: before}
	if before {
		return r, nil
	}
	if r.Size, err = from.Size(ctx); err != nil {
		return r, err
	}
	for _, t := range tables {
		if err := c.table(ctx, t, r.Messages); err != nil {
			return r, err
		}
	}
	if err := c.rest(ctx); err != nil {
		return r, err
	}
	if r.Digest, err = c.compare(ctx, r.Messages); err != nil {
		return r, err
	}
	// From here on it is short. The new store may be used at last of all.
	ctx = context.WithoutCancel(ctx)
	return r, c.finish(ctx)
}

type copying struct {
	from, to Side
	hold     bool
	progress func(Progress)
	mark     Mark // the source's
}

// begin marks both stores, or finds that a copy before has. done says that it was whole.
func (c *copying) begin(ctx context.Context) (done bool, err error) {
	source, err := c.from.Mark(ctx)
	if err != nil {
		return false, err
	}
	target, err := c.to.Mark(ctx)
	if err != nil {
		return false, err
	}
	same := source.Role == Source && target.Role == Target && source.Copy == target.Copy
	switch {
	case same && target.Done:
		return true, nil
	case same:
		c.mark = source
		return false, nil
	case source.Role == Source && source.Done, source.Role == Target && !source.Done:
		return false, source.Err(c.from.Place())
	case target.Locked():
		return false, target.Err(c.to.Place())
	}
	if err := c.empty(ctx); err != nil {
		return false, err
	}
	if source.Role != Source { // else nothing is leased
		if err := c.from.Settle(ctx, c.hold); err != nil {
			return false, err
		}
	}
	return false, c.markBoth(ctx, source)
}

// empty says whether the target has mail: then that would be mixed with what is copied.
func (c *copying) empty(ctx context.Context) error {
	size, err := c.to.Size(ctx)
	if err == nil && size != (Size{}) {
		err = &queue.StoreError{Path: c.to.Place(), Err: ErrNotEmpty, Remedy: fmt.Sprintf("it has %d messages of its own, which would be mixed with those that are copied; "+
			"name a new file, or another schema (schema=NAME in the URL)", size.Messages)}
	}
	return err
}

// markBoth marks the source first: from then on nothing is added to it.
func (c *copying) markBoth(ctx context.Context, before Mark) error {
	c.mark = Mark{Role: Source, Copy: uuid.NewString(), Peer: c.to.Place(), At: time.Now()}
	if err := c.from.SetMark(ctx, c.mark); err != nil {
		return err
	}
	target, err := c.to.Mark(ctx)
	switch {
	case err != nil:
	case target.Copy == c.mark.Copy:
		err = errSame
	default:
		err = c.to.SetMark(ctx, Mark{Role: Target, Copy: c.mark.Copy, Peer: c.from.Place(), At: c.mark.At})
	}
	if err != nil && (errors.Is(err, ErrInUse) || errors.Is(err, errSame)) {
		err = errors.Join(err, c.from.SetMark(ctx, before))
	}
	return err
}

var errSame = errors.New("the queue and the one to copy it to are the same; nothing was changed")

// table copies what is not there yet. Rows are put in order, so what is missing comes after
// what is there.
func (c *copying) table(ctx context.Context, t Table, total int64) error {
	at, err := c.to.Last(ctx, t)
	if err != nil {
		return err
	}
	done := int64(0)
	if t == Messages && at != (Position{}) {
		size, err := c.to.Size(ctx)
		if err != nil {
			return err
		}
		done = size.Messages
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows, err := c.from.Read(ctx, t, at)
		if err != nil {
			return err
		}
		if rows.len() == 0 {
			return nil
		}
		if err := c.to.Put(ctx, rows); err != nil {
			return err
		}
		at = rows.last()
		if done += int64(len(rows.Messages)); t == Messages {
			c.progress(Progress{"copied", done, total})
		}
	}
}

func (c *copying) rest(ctx context.Context) error {
	r, err := c.from.ReadRest(ctx)
	if err != nil {
		return err
	}
	return c.to.PutRest(ctx, r)
}

func (c *copying) finish(ctx context.Context) error {
	c.mark.Done, c.mark.At = true, time.Now()
	if err := c.from.SetMark(ctx, c.mark); err != nil {
		return err
	}
	return c.to.SetMark(ctx, Mark{Role: Target, Copy: c.mark.Copy, Done: true, Peer: c.from.Place(), At: c.mark.At})
}

// Undo removes the mark that keeps the store from being used after it was copied. confirm is
// shown the mark before.
func Undo(ctx context.Context, s Side, confirm func(Mark) error) error {
	m, err := s.Mark(ctx)
	if err != nil {
		return err
	}
	if m.Role != Source {
		return ErrNotCopied
	}
	if err := confirm(m); err != nil {
		return err
	}
	return s.SetMark(ctx, Mark{})
}
