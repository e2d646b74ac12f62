//go:build unix

package cli

import (
	"context"
	"net"
	"syscall"
	"time"
)

// deadPort takes a free port of 127.0.0.1 and makes it behave like one that a
// firewall drops the packets of: a connection to it is neither made nor refused.
// release gives it back. Where the system does not play along, connections are
// made, and nothing is ever said on them.
func deadPort(ctx context.Context) (port int, release func(), err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, nil, err
	}
	held := []interface{ Close() error }{listener}
	release = func() {
		for _, c := range held {
			_ = c.Close()
		}
	}
	if err := noBacklog(listener.(*net.TCPListener)); err != nil {
		release()
		return 0, nil, err
	}
	// No connection is ever accepted: once the shortest possible queue is full, the
	// kernel drops the packets of further ones.
	dialer := net.Dialer{Timeout: 100 * time.Millisecond}
	for range 16 {
		c, err := dialer.DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil {
			break
		}
		held = append(held, c)
	}
	return listener.Addr().(*net.TCPAddr).Port, release, nil
}

func noBacklog(l *net.TCPListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = syscall.Listen(int(fd), 0) }); err != nil {
		return err
	}
	return failed
}
