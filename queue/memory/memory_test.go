package memory_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) queue.Store {
		return memory.New(memory.Options{Retention: storetest.Retention})
	}, func(_ *testing.T, s queue.Store) queue.Store {
		return s.(*memory.Store).Reopen()
	})
}

func TestConformanceFaults(t *testing.T) {
	storetest.RunFaults(t, func(_ *testing.T, f *storetest.Faults) queue.Store {
		return memory.New(memory.Options{
			Before: func(context.Context, string) error { return f.Commit(false) },
			After:  func(context.Context, string) error { return f.Commit(true) },
		})
	})
}

// TestFaults: what fails before it takes effect has not happened, and what fails
// after it has.
func TestFaults(t *testing.T) {
	broken := errors.New("broken")
	for _, after := range []bool{false, true} {
		hook := func(_ context.Context, method string) error {
			if method == "Usage" {
				return nil
			}
			return broken
		}
		o := memory.Options{Before: hook}
		if after {
			o = memory.Options{After: hook}
		}
		s := memory.New(o)
		m := queue.Message{ID: queue.NewID(time.Now()), Size: 1}
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{{Message: m}}}); !errors.Is(err, broken) {
			t.Errorf("Insert that fails = %v, want %v", err, broken)
		}
		u, err := s.Usage(t.Context())
		if happened := u.Messages == 1; err != nil || happened != after {
			t.Errorf("Insert that fails after it took effect: %v; Usage = %+v, %v", after, u, err)
		}
	}
}

// TestCrash: a store that crashed changes nothing any more, and its successor has
// what was committed.
func TestCrash(t *testing.T) {
	s := memory.New(memory.Options{})
	first, second := queue.NewID(time.Now()), queue.NewID(time.Now())
	insert := func(id string) error {
		_, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{{Message: queue.Message{ID: id}}}})
		return err
	}
	if err := insert(first); err != nil {
		t.Fatal(err)
	}
	next := s.Reopen()
	if err := insert(second); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Insert after the crash = %v, want ErrClosed", err)
	}
	if _, err := next.Get(t.Context(), queue.AnyKey, first); err != nil {
		t.Errorf("Get of what was committed = %v", err)
	}
	if _, err := next.Get(t.Context(), queue.AnyKey, second); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("Get of what was not = %v, want ErrNotFound", err)
	}
}

func TestNotes(t *testing.T) {
	storetest.RunNotes(t, func(*testing.T) (a, b storetest.Noting) {
		s := memory.New(memory.Options{})
		return s, s
	})
}
