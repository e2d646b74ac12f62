//go:build linux

package postgres

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/queue"
)

// ear notes what one instance hears.
type ear struct {
	noEvents
	mu    sync.Mutex
	hints []queue.Hint
	at    []time.Time
	told  []bool
}

func (e *ear) Hears(does bool, _ error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.told = append(e.told, does)
}

func (e *ear) hear(h queue.Hint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hints, e.at = append(e.hints, h), append(e.at, time.Now())
}

// ids are all those that were heard of a kind.
func (e *ear) ids(kind queue.HintKind) (ids []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.hints {
		if h.Kind == kind {
			ids = append(ids, h.IDs...)
		}
	}
	return ids
}

// listen opens a store that hears.
func listen(t *testing.T, o Options) (*Store, *ear) {
	t.Helper()
	e := &ear{}
	o.Events = e
	s := open(t, o)
	ctx, stop := context.WithCancel(context.Background())
	var hearing sync.WaitGroup
	hearing.Go(func() { s.Hear(ctx, e.hear) })
	t.Cleanup(func() {
		stop()
		hearing.Wait()
	})
	return s, e
}

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

// TestHints: what one instance tells, the others of its schema hear, and it does not itself. It
// goes on after the server has crashed.
func TestHints(t *testing.T) {
	t.Parallel()
	own := startOwn(t, unsynced...)
	o := options(t, own.url())
	a, earA := listen(t, o)
	b, earB := listen(t, o)
	_, other := listen(t, options(t, own.url()))
	await(t, "test of hearing", func() bool { return a.Hears() && b.Hears() })
	var ids []string
	for range 1000 {
		ids = append(ids, queue.NewID(time.Now()))
	}
	if err := a.Tell(t.Context(), queue.Hint{Kind: queue.HintTried, IDs: ids}); err != nil {
		t.Fatal(err)
	}
	await(t, "hint", func() bool { return len(earB.ids(queue.HintTried)) == len(ids) })
	if !slices.Equal(earB.ids(queue.HintTried), ids) {
		t.Error("what is heard is not what was told")
	}
	var took []time.Duration
	for n := range 100 {
		began := time.Now()
		if err := a.Tell(t.Context(), queue.Hint{Kind: queue.HintCanceled, IDs: ids[:1]}); err != nil {
			t.Fatal(err)
		}
		await(t, "hint", func() bool { return len(earB.ids(queue.HintCanceled)) == n+1 })
		earB.mu.Lock()
		took = append(took, earB.at[len(earB.at)-1].Sub(began))
		earB.mu.Unlock()
	}
	slices.Sort(took)
	t.Logf("heard after %v, the slowest of 100 after %v", took[50], took[99])
	if took[50] > 50*time.Millisecond {
		t.Errorf("a hint takes %v, want 50 ms at most", took[50])
	}
	if len(earA.hints) > 0 || len(other.hints) > 0 {
		t.Errorf("the instance itself heard %v, and one of another schema %v", earA.hints, other.hints)
	}
	own.crash(t)
	await(t, "hearing again", func() bool {
		_ = a.Tell(t.Context(), queue.Hint{Kind: queue.HintWaited, IDs: ids[:1]})
		time.Sleep(50 * time.Millisecond)
		return len(earB.ids(queue.HintWaited)) > 0
	})
}

// TestHintsPooled: behind a pooler in transaction mode nothing is heard, and that is known,
// unless there is a way around it.
func TestHintsPooled(t *testing.T) {
	t.Parallel()
	srv := start(t)
	o := options(t, srv.pooledURL())
	_, deaf := listen(t, o)
	around := o
	around.Listen = srv.url()
	b, earB := listen(t, around)
	none := o
	none.Listen = ListenNone
	listen(t, none)
	await(t, "test of hearing", func() bool {
		deaf.mu.Lock()
		defer deaf.mu.Unlock()
		return b.Hears() && len(deaf.told) > 0
	})
	a, _ := listen(t, o)
	await(t, "hint", func() bool {
		if err := a.Tell(t.Context(), queue.Hint{Kind: queue.HintTried, IDs: []string{"x"}}); err != nil {
			t.Fatal(err)
		}
		return len(earB.ids(queue.HintTried)) > 0
	})
	time.Sleep(3 * hearTime)
	deaf.mu.Lock()
	defer deaf.mu.Unlock()
	if len(deaf.told) != 1 || deaf.told[0] || a.Hears() {
		t.Errorf("behind a pooler an instance is told %v, want once that it does not hear", deaf.told)
	}
	if !strings.HasPrefix(a.channel(), "mailsidecar_") || a.channel() != b.channel() {
		t.Errorf("channels %s, %s", a.channel(), b.channel())
	}
}

// TestListenElsewhere: an address at which is listened, and that leads to another database, or that refuses
// the password, is named as that.
func TestListenElsewhere(t *testing.T) {
	srv := start(t)
	srv.exec(t, `CREATE DATABASE apart`)
	for user, want := range map[string]string{
		"test@":   "/apart, schema",
		"nobody@": "/apart, schema",
	} {
		o := options(t, srv.url())
		o.Listen = strings.Replace(strings.Replace(srv.url(), "/postgres?", "/apart?", 1), "test@", user, 1)
		found, err := Examine(t.Context(), o)
		if err != nil || found.Listen == nil || !strings.Contains(found.Listen.Error(), want) {
			t.Errorf("Examine = %v, %v, want %q", found.Listen, err, want)
		}
		h := &hearing{heard: make(chan error, 10)}
		o.Events = h
		s := open(t, o)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		go s.Hear(ctx, func(queue.Hint) {})
		select {
		case err := <-h.heard:
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "pooler in transaction mode is between") {
				t.Errorf("Hears = %v, want %q", err, want)
			}
		case <-ctx.Done():
			t.Error("nothing was said")
		}
		cancel()
	}
}

type hearing struct {
	noEvents
	heard chan error
}

func (h *hearing) Hears(_ bool, err error) { h.heard <- err }
