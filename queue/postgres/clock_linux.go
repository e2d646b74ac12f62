package postgres

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// boottime is a clock that is not set, and runs on while the machine sleeps.
func boottime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Since(started)
	}
	return time.Duration(t.Nano())
}

// limitUnacknowledged ends a connection on which sent octets are not acknowledged.
func limitUnacknowledged(_, _ string, c syscall.RawConn) error {
	var err error
	if failed := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(sentTimeout.Milliseconds()))
	}); failed != nil {
		return failed
	}
	_ = err // a Unix socket has no such limit, and needs none
	return nil
}
