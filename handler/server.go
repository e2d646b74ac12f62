package handler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
)

func (s *Server) httpServer() *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		// For bodies that no route reads; body.extend sets it for the others.
		ReadTimeout:    readHeaderTimeout + s.bodyTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// Listen binds addr ("host:port"), serves in the background and returns the
// address bound. Without API keys every address must be a loopback address.
// Call it once; [Server.Done] tells when serving ends.
func (s *Server) Listen(ctx context.Context, addr string) (net.Addr, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if tcp, ok := l.Addr().(*net.TCPAddr); len(s.keys) == 0 && (!ok || !tcp.IP.IsLoopback()) {
		return nil, errors.Join(fmt.Errorf("listen on %s: without API keys only loopback addresses are served", addr), l.Close())
	}
	go func() {
		err := s.http.Serve(l)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		s.done <- err
	}()
	return l.Addr(), nil
}

// Done yields once when the server no longer accepts: nil after Shutdown, else
// why.
func (s *Server) Done() <-chan error { return s.done }

// Shutdown stops accepting, waits for the requests under way to be answered,
// and cuts those that are left when ctx ends, whose error it then returns.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("shut down: %w", err), s.http.Close())
	}
	return nil
}
