package weblogin

import (
	"context"
	"errors"
	"net"
	"strconv"
	"syscall"
)

// maxPortTries limits the search for a port that is free on both addresses.
const maxPortTries = 20

// listen is [net.ListenConfig.Listen].
type listen func(ctx context.Context, network, addr string) (net.Listener, error)

// loopback listens on 127.0.0.1 and on [::1], on the same port: browsers look up
// localhost as either. A machine may lack one of the two. A port that another program
// has on one address is not used on the other: that program would get the answer.
// Port zero means any that is free.
func (l listen) loopback(ctx context.Context, port int) ([]net.Listener, error) {
	both, err := l.pair(ctx, port)
	for tries := 1; port == 0 && errors.Is(err, syscall.EADDRINUSE) && tries < maxPortTries; tries++ {
		both, err = l.pair(ctx, port)
	}
	return both, err
}

// pair listens on both addresses, or on the one that there is.
func (l listen) pair(ctx context.Context, port int) ([]net.Listener, error) {
	var found []net.Listener
	var failed error
	for _, host := range []string{"127.0.0.1", "::1"} {
		one, err := l(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			closeAll(found)
			return nil, err
		}
		if err != nil {
			failed = err
			continue
		}
		found, port = append(found, one), portOf(one)
	}
	if len(found) == 0 {
		return nil, failed
	}
	return found, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
