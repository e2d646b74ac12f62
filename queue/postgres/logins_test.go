//go:build linux

package postgres

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailsidecar/queue"
)

// TestLogins: what one instance has saved another one reads; one has the lock at a time, also through PgBouncer; the lock
// of one that dies is free.
func TestLogins(t *testing.T) {
	srv := start(t)
	for name, url := range map[string]string{"direct": srv.url(), "pooled": srv.pooledURL()} {
		t.Run(name, func(t *testing.T) {
			o := options(t, url)
			instance := func() *Logins {
				l, err := OpenLogins(o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(l.Close)
				return l
			}
			a, b := instance(), instance()
			if value, err := b.Load(t.Context(), 1); value != nil || err != nil {
				t.Errorf("Load of nothing = %q, %v", value, err)
			}
			for _, want := range []string{"one", "two\x00"} {
				if err := a.Save(t.Context(), 1, []byte(want)); err != nil {
					t.Fatal(err)
				}
				if value, err := b.Load(t.Context(), 1); string(value) != want || err != nil {
					t.Errorf("Load = %q, %v, want %q", value, err, want)
				}
			}
			if value, err := b.Load(t.Context(), 2); value != nil || err != nil {
				t.Errorf("Load of another relay = %q, %v", value, err)
			}
			// Each adds one: none is lost.
			count := 0
			var all sync.WaitGroup
			for n := range 20 {
				l := []*Logins{a, b}[n%2]
				all.Go(func() {
					unlock, err := l.Lock(t.Context(), 1)
					if err != nil {
						t.Error(err)
						return
					}
					defer unlock()
					before := count
					time.Sleep(2 * time.Millisecond)
					count = before + 1
				})
			}
			all.Wait()
			if count != 20 {
				t.Errorf("%d of 20 counted: two had the lock at a time", count)
			}
			unlock, err := a.Lock(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			if other, err := b.Lock(t.Context(), 2); err != nil {
				t.Errorf("Lock of another relay = %v", err)
			} else {
				other()
			}
			short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if _, err := b.Lock(short, 1); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Lock while another one has it = %v, want that the time is over", err)
			}
			// Whoever has it dies: its connections end.
			srv.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1`, loginLock)
			again, err := b.Lock(t.Context(), 1)
			if err != nil {
				t.Fatalf("Lock after the death of the one that had it = %v", err)
			}
			again()
			unlock()
			if err := a.Save(t.Context(), 1, nil); err != nil {
				t.Errorf("Save of nothing = %v", err)
			}
		})
	}
}

// TestLoginsManyRelays: more relays than connections lock at the same time, and each saves and loads under its lock.
func TestLoginsManyRelays(t *testing.T) {
	l := openLogins(t)
	var all sync.WaitGroup
	for relay := range 3 * loginConnections {
		all.Go(func() {
			unlock, err := l.Lock(t.Context(), relay)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			time.Sleep(100 * time.Millisecond) // until all locks are taken that can be
			if err := l.Save(t.Context(), relay, []byte("x")); err != nil {
				t.Errorf("Save under the lock of relay %d = %v", relay, err)
			}
			if value, err := l.Load(t.Context(), relay); string(value) != "x" || err != nil {
				t.Errorf("Load under the lock of relay %d = %q, %v", relay, value, err)
			}
		})
	}
	all.Wait()
}

// TestLoginsLateLock: a lock that is granted after the caller has given up is ended.
func TestLoginsLateLock(t *testing.T) {
	srv, l := start(t), openLogins(t)
	unlock, err := l.Lock(t.Context(), 1) // there is a connection now
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	srv.signal(t, syscall.SIGSTOP)
	time.AfterFunc(800*time.Millisecond, func() { srv.signal(t, syscall.SIGCONT) })
	unlock, err = l.Lock(ctx, 1)
	if unlock != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Lock after ctx has ended: a lock %v, %v; want none, and ctx's error", unlock != nil, err)
	}
	if n := l.pool.Stat().AcquiredConns(); n != 0 {
		t.Errorf("%d connections are in use", n)
	}
}

// TestLoginsHolds: whoever has a lock is told that it has ended, and Close waits for no lock.
func TestLoginsHolds(t *testing.T) {
	srv, l := start(t), openLogins(t)
	if l.Holds(1) {
		t.Error("Holds before Lock")
	}
	lost, err := l.Lock(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if !l.Holds(1) || l.Holds(2) {
		t.Errorf("Holds = %v, and of another relay %v", l.Holds(1), l.Holds(2))
	}
	srv.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1`, loginLock)
	if l.Holds(1) {
		t.Error("Holds after the connection has ended")
	}
	if _, err := l.Lock(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	lost()
	if !l.Holds(1) {
		t.Error("the end of a lock that was lost has ended the next one")
	}
	closed := make(chan struct{})
	go func() {
		l.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("Close waits for a lock")
	}
}

func openLogins(t *testing.T) *Logins {
	t.Helper()
	l, err := OpenLogins(options(t, start(t).url()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// TestLoginsWithoutTables: a login at a database in which nothing is yet names what makes the tables.
func TestLoginsWithoutTables(t *testing.T) {
	l, err := OpenLogins(Options{URL: start(t).url(), Schema: "nothing here"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = l.Load(t.Context(), 1)
	var known *queue.StoreError
	if !errors.As(err, &known) || !strings.Contains(err.Error(), "queue migrate") {
		t.Errorf("Load = %v, want what makes the tables", err)
	}
}
