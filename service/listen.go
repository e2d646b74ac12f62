package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"mailsidecar/config"
	"mailsidecar/metrics"
)

// listeners are bound, but no connection is accepted until they are served.
type listeners struct {
	http  net.Listener
	https net.Listener // nil unless HTTPS is configured
	// metrics is nil unless MAILSIDECAR_METRICS_ADDR is set.
	metrics net.Listener
}

// bind takes the addresses that the configuration names.
func bind(ctx context.Context, c config.Service) (l listeners, err error) {
	l.http, err = bindOne(ctx, "MAILSIDECAR_ADDR", c.Addr)
	if err == nil && c.HTTPS() {
		l.https, err = bindOne(ctx, "MAILSIDECAR_TLS_ADDR", c.TLSAddr)
	}
	if err == nil && c.MetricsAddr != "" {
		l.metrics, err = bindOne(ctx, "MAILSIDECAR_METRICS_ADDR", c.MetricsAddr)
	}
	if err != nil {
		l.close()
		return listeners{}, err
	}
	return l, nil
}

func bindOne(ctx context.Context, setting, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, &ListenError{setting, addr, err}
	}
	return l, nil
}

// close is for listeners that were never served.
func (l listeners) close() {
	for _, one := range []net.Listener{l.http, l.https, l.metrics} {
		if one != nil {
			_ = one.Close()
		}
	}
}

// serve begins to take requests.
func (s *Service) serve() error {
	if err := s.http.Serve(s.bound.http); err != nil {
		return fmt.Errorf("MAILSIDECAR_ADDR: %w", err)
	}
	s.addr = s.bound.http.Addr()
	if s.bound.metrics != nil {
		s.scrapes = metrics.Serve(s.bound.metrics, s.metrics.Handler(), s.log)
		s.log.Info("listening for scrapes", "addr", s.bound.metrics.Addr().String())
	}
	if s.bound.https == nil {
		return nil
	}
	if err := s.http.ServeTLS(s.bound.https); err != nil {
		return fmt.Errorf("MAILSIDECAR_TLS_ADDR: %w", err)
	}
	s.tlsAddr = s.bound.https.Addr()
	s.log.Info("listening for HTTPS", "addr", s.tlsAddr.String())
	return nil
}

// ListenError is an address that cannot be listened on.
type ListenError struct {
	Setting string // the variable or option that holds the address
	Addr    string
	Err     error
}

func (e *ListenError) Unwrap() error { return e.Err }

// Error says what to change, where that is known.
func (e *ListenError) Error() string {
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return fmt.Sprintf("%s: %s is taken by another program: set it to a free port, or stop the other program", e.Setting, e.Addr)
	case errors.Is(e.Err, syscall.EACCES):
		return fmt.Sprintf("%s: this user may not listen on %s: set a port over 1023", e.Setting, e.Addr)
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("%s: this machine does not have the address %s", e.Setting, e.Addr)
	default:
		return e.Setting + ": " + e.Err.Error()
	}
}
