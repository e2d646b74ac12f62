//go:build linux

package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"runtime"
	"syscall"
	"testing"
	"time"

	"mailsidecar/queue"
)

// large is an entry of so many octets.
func large(octets int) queue.Entry {
	e := entry("", "x@example.org")
	e.Content.Data = make([]byte, octets)
	_, _ = rand.Read(e.Content.Data)
	e.Message.Size = int64(octets)
	return e
}

// TestLargeInsert: a large message goes to the database in pieces, and comes back as it was. Its
// transaction is asked for again when its answer is lost, and a batch is stored as a whole.
func TestLargeInsert(t *testing.T) {
	s := open(t, options(t, start(t).url()))
	for _, octets := range []int{groupOctets, pieceRows * chunkSize, 2*pieceRows*chunkSize + 1, 5 << 20} {
		for _, happened := range []bool{false, true} {
			n := 0
			s.cut = func(did bool) error {
				if n++; did == happened && n <= 2 {
					return errUnknown
				}
				return nil
			}
			e, small := large(octets), entry("", "x@example.org")
			insert(t, s, small, e)
			c, err := s.Content(t.Context(), queue.AnyKey, e.Message.ID)
			if err != nil || !bytes.Equal(c.Data, e.Content.Data) {
				t.Errorf("Content of %d octets = %d octets, %v, want them as they were", octets, len(c.Data), err)
			}
			if c, err = s.Content(t.Context(), queue.AnyKey, small.Message.ID); err != nil || !bytes.Equal(c.Data, small.Content.Data) {
				t.Errorf("Content beside %d octets = %q, %v", octets, c.Data, err)
			}
		}
	}
}

// TestFrozenMemory: a server that stands still makes the store hold one large request and some
// small ones, however many come. Once their callers have left, nothing is held.
func TestFrozenMemory(t *testing.T) {
	own := startOwn(t)
	o := options(t, own.url())
	o.AnswerTime, o.Patience = 2*time.Second, 300*time.Millisecond
	s := open(t, o)
	insert(t, s, entry("", "x@example.org"))
	own.signal(t, syscall.SIGSTOP)
	t.Cleanup(func() { own.signal(t, syscall.SIGCONT) })
	const size = 8 << 20
	for range 10 {
		e := large(size)
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); !errors.Is(err, queue.ErrUnavailable) {
			t.Fatalf("Insert = %v, want ErrUnavailable", err)
		}
		e = entry("", "x@example.org") // has room while a large one is under way
		_, _ = s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}})
	}
	if held := heap(); held > 3*size {
		t.Errorf("%d MiB are held while the database stands still, want those of one request", held>>20)
	}
	for end := time.Now().Add(20 * time.Second); heap() > size; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d MiB are held though no caller is left", heap()>>20)
		}
	}
	own.signal(t, syscall.SIGCONT)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err := s.Insert(context.Background(), queue.Batch{Entries: []queue.Entry{entry("", "x@example.org")}}); err == nil {
			return
		} else if time.Now().After(end) {
			t.Fatalf("Insert after that = %v", err)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
