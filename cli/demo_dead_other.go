//go:build !unix

package cli

import (
	"context"
	"net"
)

// deadPort takes a free port of 127.0.0.1 on which connections are made, and
// nothing is ever said. release gives it back.
func deadPort(ctx context.Context) (port int, release func(), err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, nil, err
	}
	return listener.Addr().(*net.TCPAddr).Port, func() { _ = listener.Close() }, nil
}
