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
	// SetMark replaces the mark was; the zero value of now removes it. With a mark that keeps a
	// start away the store gets no new message and no new owner from then on, but from Put, and
	// what a source has is not changed. The error is [ErrTakenOver] where the mark is not was, and
	// [ErrInUse] while an owner lives, or something is leased: then nothing was changed.
	SetMark(ctx context.Context, was, now Mark) error
	// Size counts what the store has.
	Size(ctx context.Context) (Size, error)
	// Last is the position of the last row of a table; the zero value where it is empty.
	Last(ctx context.Context, t Table) (Position, error)
	// Read returns the rows of a table after a position, some of them and one at least.
	Read(ctx context.Context, t Table, after Position) (Rows, error)
	// Put stores rows that come after all that the table has. The error is [ErrTakenOver] where
	// the mark is not as it should be.
	Put(ctx context.Context, mark Mark, rows Rows) error
	// ReadRest returns what is no table.
	ReadRest(ctx context.Context) (Rest, error)
	// PutRest replaces it. The error is [ErrTakenOver] as that of Put is.
	PutRest(ctx context.Context, mark Mark, r Rest) error
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

// Is says whether the mark is the same step of the same copy.
func (m Mark) Is(other Mark) bool {
	return m.Role == other.Role && m.Copy == other.Copy && m.Done == other.Done
}

// Want returns why a copy must not go on that takes was for the mark of the store at place; nil
// where it is. Of two copies that overlap one ends so, whichever of them was late.
func (m Mark) Want(was Mark, place string) error {
	if m.Is(was) {
		return nil
	}
	return &queue.StoreError{Path: place, Err: ErrTakenOver, Remedy: "another `mailsidecar queue copy`, or `--undo`, has marked this queue meanwhile, so this run ends; " +
		"run the command again when the other one is over, and it says how things are"}
}

// What keeps a store from being used.
var (
	// ErrMovedAway: the store was copied, or is being copied.
	ErrMovedAway = errors.New("its mail has moved")
	// ErrUnfinished: a copy into the store is not whole.
	ErrUnfinished = errors.New("the copy into it is not finished")
	// ErrInUse: somebody works with the store.
	ErrInUse = errors.New("in use")
	// ErrTakenOver: the mark is not the one that this copy has set, or has found.
	ErrTakenOver = errors.New("another copy has taken over")
	// ErrNotEmpty: the target has mail of its own.
	ErrNotEmpty = errors.New("it is not empty")
	// ErrDiffer: the two stores are not the same after the copy.
	ErrDiffer = errors.New("the copy differs from the original")
	// ErrOldLocked is added to what ends a copy once the source may have been marked.
	ErrOldLocked = errors.New("the old queue is locked: run the same command again, which goes on, or give the copy up with `mailsidecar queue copy --undo`")
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
	r, err := c.all(ctx)
	if err != nil && c.locked && !errors.Is(err, ErrTakenOver) && !errors.Is(err, ErrDiffer) {
		err = fmt.Errorf("%w; %w", err, ErrOldLocked)
	}
	return r, err
}

func (c *copying) all(ctx context.Context) (Report, error) {
	from, to := c.from, c.to
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
	// The marks that the two stores have. Whoever changes another one than these has lost.
	source, target Mark
	locked         bool // the source, as far as is known
}

// begin marks both stores, or finds that a copy before has. done says that it was whole.
func (c *copying) begin(ctx context.Context) (done bool, err error) {
	if c.source, err = c.from.Mark(ctx); err != nil {
		return false, err
	}
	if c.target, err = c.to.Mark(ctx); err != nil {
		return false, err
	}
	source, target := c.source, c.target
	same := source.Role == Source && target.Role == Target && source.Copy == target.Copy
	// A copy to the same place may have ended before it marked that.
	begun := source.Role == Source && !source.Done && source.Peer == c.to.Place()
	c.locked = same || begun
	switch {
	case same && target.Done:
		return true, nil
	case same:
		return false, nil
	case source.Locked() && !begun:
		return false, source.Err(c.from.Place())
	case target.Locked():
		return false, target.Err(c.to.Place())
	}
	if err := c.empty(ctx); err != nil {
		return false, err
	}
	if !begun { // else nothing is leased
		if err := c.from.Settle(ctx, c.hold); err != nil {
			return false, err
		}
	}
	return false, c.markBoth(ctx)
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

// markBoth marks the source first: from then on nothing is added to it. What it has found
// there is put back only where nobody has set another mark meanwhile.
func (c *copying) markBoth(ctx context.Context) error {
	before := c.source
	mark := Mark{Role: Source, Copy: uuid.NewString(), Peer: c.to.Place(), At: time.Now()}
	if err := c.mark(ctx, c.from, &c.source, mark); err != nil {
		// After another error the commit may have happened.
		refused := errors.As(err, new(*queue.StoreError)) || ctx.Err() != nil && errors.Is(err, ctx.Err())
		c.locked = c.locked || !refused
		return err
	}
	c.locked = true
	target, err := c.to.Mark(ctx)
	switch {
	case err != nil:
	case target.Copy == mark.Copy:
		err = errSame
	default:
		err = c.mark(ctx, c.to, &c.target, Mark{Role: Target, Copy: mark.Copy, Peer: c.from.Place(), At: mark.At})
	}
	if err != nil && (errors.Is(err, ErrInUse) || errors.Is(err, ErrTakenOver) || errors.Is(err, errSame)) {
		switch back := c.mark(ctx, c.from, &c.source, before); {
		case back == nil:
			c.locked = before.Locked()
		case !errors.Is(back, ErrTakenOver):
			err = errors.Join(err, back)
		}
	}
	return err
}

// mark replaces the mark of one of the stores.
func (c *copying) mark(ctx context.Context, s Side, was *Mark, now Mark) error {
	err := s.SetMark(ctx, *was, now)
	if err == nil {
		*was = now
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
		if err := c.to.Put(ctx, c.target, rows); err != nil {
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
	return c.to.PutRest(ctx, c.target, r)
}

func (c *copying) finish(ctx context.Context) error {
	source, target := c.source, c.target
	source.Done, source.At = true, time.Now()
	target.Done, target.At = true, source.At
	if err := c.mark(ctx, c.from, &c.source, source); err != nil {
		return err
	}
	return c.mark(ctx, c.to, &c.target, target)
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
	return s.SetMark(ctx, m, Mark{})
}
