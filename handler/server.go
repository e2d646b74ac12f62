package handler

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	// writeTimeout is how long an answer may take to be written. It starts with
	// the answer's first octet, not with the request: an answer that waits for
	// the relay must not be cut.
	writeTimeout = time.Minute
	// maxHeaderBytes has room for an Envelope-To of a thousand long addresses.
	maxHeaderBytes = 1 << 20
	// idleGrace is how long a connection over which nothing was asked is left
	// open once the server stops.
	idleGrace = 500 * time.Millisecond
)

func (s *Server) httpServer(tlsConfig *tls.Config) *http.Server {
	if tlsConfig != nil {
		tlsConfig = tlsConfig.Clone()
		// Serve looks here whether HTTP/2 is wanted, once for both listeners.
		tlsConfig.NextProtos = []string{"h2", "http/1.1"}
	}
	return &http.Server{
		Handler:           s,
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: readHeaderTimeout,
		// For bodies that no route reads; body.extend sets it for the others.
		ReadTimeout:    readHeaderTimeout + s.bodyTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ConnState:      s.idleConns.track,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// Serve serves HTTP in the background on l, which it closes in the end, and at
// once when it fails: without API keys it must be on a loopback address. Call it
// once; [Server.Done] yields when serving ends.
func (s *Server) Serve(l net.Listener) error {
	return s.serve(l, s.http.Serve)
}

// ServeTLS does as Serve, for HTTPS: HTTP/2 and HTTP/1.1, with Options.TLS.
func (s *Server) ServeTLS(l net.Listener) error {
	return s.serve(l, func(l net.Listener) error { return s.http.ServeTLS(l, "", "") })
}

// maxListeners is one for HTTP and one for HTTPS.
const maxListeners = 2

func (s *Server) serve(l net.Listener, serve func(net.Listener) error) error {
	if tcp, ok := l.Addr().(*net.TCPAddr); s.keys.Empty() && (!ok || !tcp.IP.IsLoopback()) {
		return errors.Join(fmt.Errorf("serve on %s: without API keys only loopback addresses are served", l.Addr()), l.Close())
	}
	go func() {
		err := serve(l)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		s.done <- err
	}()
	return nil
}

// Done yields when the server no longer accepts, once for each listener: nil
// after Shutdown, else why.
func (s *Server) Done() <-chan error { return s.done }

// Shutdown stops accepting, waits for the requests under way to be answered,
// and cuts those that are left when ctx ends, whose error it then returns.
func (s *Server) Shutdown(ctx context.Context) error {
	grace := time.AfterFunc(idleGrace, s.idleConns.close)
	defer grace.Stop()
	for {
		// Once the time is over it looks for the last time.
		ended := ctx.Err() != nil
		look, cancel := context.WithTimeout(ctx, shutdownLook)
		err := s.http.Shutdown(look)
		cancel()
		switch {
		case err == nil:
			return nil
		case ended, !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled):
			return errors.Join(fmt.Errorf("shut down: %w", err), s.http.Close())
		}
	}
}

// shutdownLook limits one wait of http.Server.Shutdown, which looks less and less
// often whether the last request is answered: up to every half second, which is
// much of the time that there is to stop.
const shutdownLook = 100 * time.Millisecond

// idleConns holds the connections over which no request came yet. Clients open some
// in reserve, and http.Server.Shutdown takes each of them for busy until it is
// 5 s old (golang/go#22682): as long as the whole stop may take.
type idleConns struct {
	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

func (u *idleConns) track(c net.Conn, state http.ConnState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(u.conns, c)
	case u.closed:
		_ = c.Close()
	default:
		if u.conns == nil {
			u.conns = map[net.Conn]bool{}
		}
		u.conns[c] = true
	}
}

func (u *idleConns) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for c := range u.conns {
		_ = c.Close()
	}
}
