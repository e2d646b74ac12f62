package handler

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"mailsidecar/handler/conns"
	"mailsidecar/queue"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	// writeTimeout is how long an answer may take to be written. It starts with
	// the answer's first octet, not with the request: an answer that waits for
	// the relay must not be cut.
	writeTimeout = time.Minute
	// idleGrace is how long a connection over which nothing was asked is left
	// open once the server stops.
	idleGrace = 500 * time.Millisecond
)

const (
	// leastMaxHeader is the least limit for the octets of a request's header, and
	// headerPerRecipient what each recipient may have of it: in Envelope-To.
	leastMaxHeader     = 256 << 10
	headerPerRecipient = 256
	// otherFields may be there beside one Envelope-To for each recipient.
	otherFields = 100
)

// maxHeader is the number of octets that the header of a request may have.
func (s *Server) maxHeader() int { return max(leastMaxHeader, headerPerRecipient*s.maxRecipients) }

// httpServer speaks HTTP/1.1 only. Over HTTP/2 one connection has hundreds of requests,
// so that a limit of connections would not limit the memory.
func (s *Server) httpServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:   s,
		Protocols: protocols,
		// OPTIONS * is answered as any other request is.
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            readHeaderTimeout,
		// For bodies that no route reads; body.extend sets it for the others.
		ReadTimeout:    readHeaderTimeout + s.bodyTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: s.maxHeader(),
		ConnState:      s.conns.Track,
		ConnContext:    conns.Context,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// Serve serves HTTP in the background on l, which it closes in the end, and at
// once when it fails: without API keys it must be on a loopback address. Call it
// once; [Server.Done] yields when serving ends.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, nil) }

// ServeTLS does as Serve, for HTTPS with Options.TLS.
func (s *Server) ServeTLS(l net.Listener) error { return s.serve(l, s.tls) }

// maxListeners is one for HTTP and one for HTTPS.
const maxListeners = 2

func (s *Server) serve(l net.Listener, config *tls.Config) error {
	if tcp, ok := l.Addr().(*net.TCPAddr); s.keys.Empty() && (!ok || !tcp.IP.IsLoopback()) {
		return errors.Join(fmt.Errorf("serve on %s: without API keys only loopback addresses are served", l.Addr()), l.Close())
	}
	go func() {
		err := s.http.Serve(s.conns.Listen(l, config))
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		s.done <- err
	}()
	return nil
}

// InFlight is how many octets of MaxInFlight requests hold just now.
func (s *Server) InFlight() int64 { return s.budget.Used() }

// Done yields when the server no longer accepts, once for each listener: nil
// after Shutdown, else why.
func (s *Server) Done() <-chan error { return s.done }

// Shutdown stops accepting, waits for the requests under way to be answered,
// and cuts those that are left when ctx ends, whose error it then returns.
func (s *Server) Shutdown(ctx context.Context) error {
	grace := time.AfterFunc(idleGrace, s.conns.CloseUnused)
	defer grace.Stop()
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		defer time.AfterFunc(left-left/composingRest, s.stopComposing).Stop()
	}
	for {
		// Once the time is over it looks for the last time.
		ended := ctx.Err() != nil
		look, cancel := context.WithTimeout(ctx, shutdownLook)
		err := s.http.Shutdown(look)
		cancel()
		switch {
		case err == nil:
			s.conns.Drain(ctx)
			return nil
		case ended, !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled):
			err = errors.Join(fmt.Errorf("shut down: %w", err), s.http.Close())
			s.conns.Drain(ctx)
			return err
		}
	}
}

// composingRest is which part of the time to stop is left when messages that are still
// being composed are given up, so that those who sent them get an answer.
const composingRest = 4

// untilStopped is a context of a request that ends too when the server gives up what is
// being composed. Its Done tells of the request's end alone.
type untilStopped struct {
	context.Context
	composing context.Context //nolint:containedctx // of the server
}

func (c untilStopped) Err() error {
	if c.composing.Err() != nil {
		return queue.ErrShuttingDown
	}
	return c.Context.Err()
}

// untilStopped returns the context for what takes a while in composing a request's
// messages.
func (s *Server) untilStopped(ctx context.Context) context.Context {
	return untilStopped{ctx, s.composing}
}

// shutdownLook limits one wait of http.Server.Shutdown, which looks less and less
// often whether the last request is answered: up to every half second, which is
// much of the time that there is to stop.
const shutdownLook = 100 * time.Millisecond
