//go:build linux

package postgres

import (
	"fmt"
	"testing"

	"mailsidecar/processor"
	"mailsidecar/queue"
	"mailsidecar/queue/storetest"
)

// conform runs the suite.
func conform(t *testing.T, url string) {
	storetest.Run(t, func(t *testing.T) queue.Store {
		return open(t, options(t, url))
	}, func(t *testing.T, old queue.Store) queue.Store {
		o := old.(*Store).opts
		if err := old.Close(); err != nil {
			t.Fatalf("Close = %v", err)
		}
		return open(t, o)
	})
}

func TestConformance(t *testing.T) {
	t.Parallel()
	conform(t, start(t).url())
}

// TestConformancePooled: PgBouncer in transaction mode gives each transaction another
// connection.
func TestConformancePooled(t *testing.T) {
	t.Parallel()
	conform(t, start(t).pooledURL())
}

func TestConformanceFaults(t *testing.T) {
	url := start(t).url()
	storetest.RunFaults(t, func(t *testing.T, f *storetest.Faults) queue.Store {
		s := open(t, options(t, url))
		s.fault = f.Commit
		return s
	})
}

func TestNotes(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{"direct": start(t).url(), "pooled": start(t).pooledURL()} {
		t.Run(name, func(t *testing.T) {
			storetest.RunNotes(t, func(t *testing.T) (a, b storetest.Noting) {
				o := options(t, url)
				return open(t, o), open(t, o)
			})
		})
	}
}

// TestPoolSize: a large machine, or a container on it, does not take all connections of a database.
func TestPoolSize(t *testing.T) {
	t.Parallel()
	for processors, want := range map[int]int32{1: 4, 4: 4, 6: 6, 8: 8, 32: 8} {
		if got := usualConnections(processors); got != want {
			t.Errorf("with %d processors %d connections, want %d", processors, got, want)
		}
	}
	for query, want := range map[string]int32{"": usualConnections(processor.Count()), "?pool_max_conns=33": 33, fmt.Sprintf("?pool_max_conns=%d", libraryConnections): libraryConnections} {
		c, err := newConnector(Options{URL: "postgres://h/d" + query})
		if err != nil || c.config.MaxConns != want {
			t.Errorf("%q: %d connections, %v, want %d", query, c.config.MaxConns, err, want)
		}
	}
}
