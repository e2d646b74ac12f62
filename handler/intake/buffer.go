package intake

import (
	"slices"
	"sync"
)

// buffer is memory that one request after the other uses.
type buffer struct{ data []byte }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// maxKeptBuffer is the largest one that is kept for the next request.
const maxKeptBuffer = 128 << 10

// newBuffer returns an empty one with room for size octets.
func newBuffer(size int) *buffer {
	b := buffers.Get().(*buffer)
	b.data = slices.Grow(b.data[:0], size)
	return b
}

// release gives it to the next request. What its data was is void.
func (b *buffer) release() {
	if cap(b.data) <= maxKeptBuffer {
		buffers.Put(b)
	}
}
