//go:build !linux

package postgres

import (
	"syscall"
	"time"
)

// boottime is the process's own clock, which may stand still while the machine sleeps.
func boottime() time.Duration { return time.Since(started) }

// limitUnacknowledged leaves it to keepalive probes to find a dead network.
func limitUnacknowledged(_, _ string, _ syscall.RawConn) error { return nil }
