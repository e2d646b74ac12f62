//go:build linux

package postgres

import (
	"testing"

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
