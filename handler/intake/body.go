// Package intake reads requests: bodies within their limits, media types, strict JSON
// and fingerprints. It answers a request that cannot be read with a problem that names
// the field. It knows no API.
package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
)

// minBodyRate is the rate, in octets per second, that a body must keep to once the body
// timeout is over. If every body had to arrive within the timeout, a large one on a slow
// line never would; without a minimum a client could hold memory for ever.
const minBodyRate = 32 << 10

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
	ctx     context.Context //nolint:containedctx // the request's, as in http.Request
	err     error
	buffer  *buffer // that All has read into; nil before
}

// Open checks what the request's header says of its body, of up to limit octets,
// before any of it is read: a client that waits for 100 Continue never sends a body
// that is refused here. The announced length of a key's body is reserved at once while
// the key is within its share; the octets of any other count as they come. The body may
// take the timeout to arrive, and longer while it keeps to 32 KiB/s. Over its share it
// may be cut, with [api.CodeBusy].
func Open(w http.ResponseWriter, r *http.Request, limit int64, share *Share, timeout time.Duration) (*Body, error) {
	if r.ContentLength > limit {
		return nil, bodyTooLarge(limit)
	}
	b := &Body{
		src: r.Body, rc: http.NewResponseController(w), started: time.Now(), timeout: timeout,
		length: r.ContentLength, limit: limit, share: share, ctx: r.Context(),
	}
	share.done = r.Context().Done()
	// A writer without deadlines (a test's recorder) cannot be interrupted.
	canInterrupt := b.setDeadline() == nil
	if err := share.open(r.ContentLength, asksFirst(r.Header), canInterrupt, b.interrupt); err != nil {
		return nil, err
	}
	return b, nil
}

// interrupt ends a read of the body.
func (b *Body) interrupt() { _ = b.rc.SetReadDeadline(time.Unix(1, 0)) }

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
	b.share.claim.came.Store(b.read)
	switch {
	case b.read > b.limit:
		b.err = bodyTooLarge(b.limit)
	case !b.reserve():
		b.err = busy()
	case errors.Is(err, io.EOF):
		b.err = io.EOF
		if !b.share.endRead() {
			b.err = busy()
		}
	case err != nil:
		b.err = b.problem(err)
	}
	if before>>18 != b.read>>18 && b.err == nil && !b.extend() {
		b.err = busy()
	}
	if b.err != nil && !errors.Is(b.err, io.EOF) {
		return 0, b.err
	}
	return n, b.err
}

// reserve counts the octets that came. A step further has room, so that not each of
// them is counted.
func (b *Body) reserve() bool {
	need := b.need()
	if need <= b.share.claim.held {
		return true
	}
	step := min(need/4, 1<<20)
	return b.share.Grow(need+step) || b.share.Grow(need)
}

// need is what the body needs of the budget so far.
func (b *Body) need() int64 { return b.read + b.made() - uncounted }

// extend sets the time by which more of the body must be there, unless it is cut, and
// reports that. It must not be called after io.EOF: the server then reads on in the
// background, to notice a client that goes away, and would take the deadline for that.
func (b *Body) extend() bool { return b.share.unlessCut(func() { _ = b.setDeadline() }) }

func (b *Body) setDeadline() error {
	grace := time.Duration(b.read/minBodyRate) * time.Second
	return b.rc.SetReadDeadline(b.started.Add(b.timeout + grace))
}

// problem is that of an error in reading.
func (b *Body) problem(err error) error {
	if b.share.claim.phase.Load() == cut {
		return busy()
	}
	return bodyProblem(err)
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

// All reads the rest into one slice. The slice is void after [Body.Release].
func (b *Body) All() ([]byte, error) {
	if !b.share.claim.fixed || b.length < 0 {
		return b.collect()
	}
	b.buffer = newBuffer(int(b.length) + 1)
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
		case len(buf) == cap(buf): // a server never lets more octets come than it announced
			return nil, bodyTooLarge(b.length)
		}
	}
}

// largestChunk is the size up to which the pieces grow in which a body is collected, in
// octets.
const largestChunk = 256 << 10

// collect is All for a body whose length is not reserved: it takes memory as the octets
// come.
func (b *Body) collect() ([]byte, error) {
	var chunks [][]byte
	chunk, room := make([]byte, 0, uncounted), int64(uncounted)
	for {
		if len(chunk) == cap(chunk) {
			size := min(2*cap(chunk), largestChunk)
			if b.length > 0 {
				size = min(size, max(int(b.length-b.read), 0)+1)
			}
			if room += int64(size); !b.share.Grow(room + b.made() - uncounted) {
				return nil, busy()
			}
			chunks, chunk = append(chunks, chunk), make([]byte, 0, size)
		}
		n, err := b.Read(chunk[len(chunk):cap(chunk)])
		chunk = chunk[:len(chunk)+n]
		switch {
		case errors.Is(err, io.EOF):
			return b.join(append(chunks, chunk), b.read)
		case err != nil:
			return nil, err
		}
	}
}

// join makes one slice of chunks that have so many octets.
func (b *Body) join(chunks [][]byte, size int64) ([]byte, error) {
	if len(chunks) == 1 {
		return chunks[0], nil
	}
	if size <= largestChunk {
		return slices.Concat(chunks...), nil
	}
	if err := b.share.Begin(b.ctx, size); err != nil {
		return nil, err
	}
	defer b.share.End()
	return slices.Concat(chunks...), nil
}

// Share is that of the request.
func (b *Body) Share() *Share { return b.share }

// Begin waits for the turn to make something of the body, which was read: see
// [Share.Begin].
func (b *Body) Begin() error {
	return b.share.Begin(b.ctx, b.read+b.made())
}

// Release lets the next request use what [Body.All] returned. It need not be called.
func (b *Body) Release() {
	if b.buffer != nil {
		b.buffer.release()
		b.buffer = nil
	}
}
