// Package intake reads requests: bodies within their limits, media types, strict JSON
// and fingerprints. It answers a request that cannot be read with a problem that names
// the field. It knows no API.
package intake

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/semaphore"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
)

const (
	// firstReservation is how much a body of unknown length reserves at first, in octets.
	firstReservation = 64 << 10
	// minBodyRate is the rate, in octets per second, that a body must keep to once the
	// body timeout is over. If every body had to arrive within the timeout, a large one
	// on a slow line never would; without a minimum a client could hold memory for ever.
	minBodyRate = 32 << 10
)

// Budget limits the octets of all requests under way (MAILSIDECAR_MAX_IN_FLIGHT).
type Budget struct {
	sem        *semaphore.Weighted
	size       int64
	recipients int // that a message may have
}

// NewBudget returns one of size octets, for messages of so many recipients at most.
func NewBudget(size int64, recipients int) *Budget {
	return &Budget{sem: semaphore.NewWeighted(size), size: size, recipients: recipients}
}

// Share returns a request's share, empty at first.
func (b *Budget) Share() *Share { return &Share{budget: b} }

// Share is one request's share of the budget.
type Share struct {
	budget *Budget
	held   int64
}

// Grow makes the share at least n octets and reports whether there was room. A
// request larger than the whole budget is let in when it is alone.
func (r *Share) Grow(n int64) bool {
	more := min(n, r.budget.size) - r.held
	if more <= 0 {
		return true
	}
	if !r.budget.sem.TryAcquire(more) {
		return false
	}
	r.held += more
	return true
}

// Shrink gives back what the share is over n octets; 0 gives back all of it.
func (r *Share) Shrink(n int64) {
	if less := r.held - n; less > 0 {
		r.budget.sem.Release(less)
		r.held -= less
	}
}

// Body is a request's body, read within its limits. Its error is a [*problem.Error] or
// [io.EOF], and stays.
type Body struct {
	src     io.Reader
	rc      *http.ResponseController
	started time.Time
	timeout time.Duration
	length  int64 // as announced; -1 when unknown
	limit   int64
	read    int64
	weight  int64 // of what is made of it, see weight.go
	share   *Share
	err     error
	buffer  *buffer // that All has read into; nil before
}

// Open checks what the request's header says of its body, of up to limit octets,
// before any of it is read: a client that waits for 100 Continue never sends a body
// that is refused here. The body may take the timeout to arrive, and longer while it
// keeps to 32 KiB/s.
func Open(w http.ResponseWriter, r *http.Request, limit int64, share *Share, timeout time.Duration) (*Body, error) {
	if r.ContentLength > limit {
		return nil, bodyTooLarge(limit)
	}
	if !share.Grow(max(r.ContentLength, firstReservation)) {
		return nil, problem.New(api.CodeBusy, "")
	}
	b := &Body{
		src: r.Body, rc: http.NewResponseController(w), started: time.Now(), timeout: timeout,
		length: r.ContentLength, limit: limit, share: share,
	}
	b.extend()
	return b, nil
}

func bodyTooLarge(limit int64) *problem.Error {
	return problem.New(api.CodeBodyTooLarge, fmt.Sprintf("A body may have %d octets on this route.", limit))
}

func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	before := b.read
	b.read += int64(n)
	switch {
	case b.read > b.limit:
		b.err = bodyTooLarge(b.limit)
	case !b.reserve():
		b.err = problem.New(api.CodeBusy, "")
	case errors.Is(err, io.EOF):
		b.err = io.EOF
	case err != nil:
		b.err = bodyProblem(err)
	}
	if before>>18 != b.read>>18 && b.err == nil {
		b.extend()
	}
	if b.err != nil && !errors.Is(b.err, io.EOF) {
		return 0, b.err
	}
	return n, b.err
}

// reserve doubles the share of a body of unknown length as it grows.
func (b *Body) reserve() bool {
	need := b.read + b.weight
	return need <= b.share.held || b.share.held == b.share.budget.size || b.share.Grow(min(max(2*b.share.held, need), b.limit+b.weight))
}

// extend sets the time by which more of the body must be there. It must not be
// called after io.EOF: the server then reads on in the background, to notice a
// client that goes away, and would take the deadline for that. A writer without
// deadlines (a test's recorder) has none.
func (b *Body) extend() {
	grace := time.Duration(b.read/minBodyRate) * time.Second
	_ = b.rc.SetReadDeadline(b.started.Add(b.timeout + grace))
}

func bodyProblem(err error) *problem.Error {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return problem.New(api.CodeBodyTimeout, "")
	}
	return problem.New(api.CodeIncompleteBody, "")
}

// All reads the rest into one slice, without growing it where the length was
// announced. The slice is void after [Body.Release].
func (b *Body) All() ([]byte, error) {
	b.buffer = newBuffer(int(max(b.length, 0)) + 512)
	buf := b.buffer.data
	for {
		n, err := b.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case errors.Is(err, io.EOF):
			b.buffer.data = buf
			return buf, nil
		case err != nil:
			return nil, err
		case len(buf) == cap(buf):
			buf = append(buf, 0)[:len(buf)]
		}
	}
}

// Release lets the next request use what [Body.All] returned. It need not be called.
func (b *Body) Release() {
	if b.buffer != nil {
		b.buffer.release()
		b.buffer = nil
	}
}
