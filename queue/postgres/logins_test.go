//go:build linux

package postgres

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
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
