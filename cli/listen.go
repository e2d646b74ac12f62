package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"mailsidecar/config"
)

// listeners are bound, but nobody accepts what connects until they are served.
type listeners struct {
	http  net.Listener
	https net.Listener // nil unless HTTPS is configured
}

// bind takes the addresses that the configuration names.
func bind(ctx context.Context, c config.Service) (l listeners, err error) {
	if l.http, err = bindOne(ctx, "MAILSIDECAR_ADDR", c.Addr); err != nil || !c.HTTPS() {
		return l, err
	}
	if l.https, err = bindOne(ctx, "MAILSIDECAR_TLS_ADDR", c.TLSAddr); err != nil {
		l.close()
		return listeners{}, err
	}
	return l, nil
}

func bindOne(ctx context.Context, setting, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, &statusError{exitFailure, &listenError{setting, addr, err}}
	}
	return l, nil
}

// close is for listeners that were never served.
func (l listeners) close() {
	for _, one := range []net.Listener{l.http, l.https} {
		if one != nil {
			_ = one.Close()
		}
	}
}

// serve begins to take requests.
func (s *server) serve() error {
	if err := s.http.Serve(s.bound.http); err != nil {
		return &statusError{exitFailure, fmt.Errorf("MAILSIDECAR_ADDR: %w", err)}
	}
	s.addr = s.bound.http.Addr()
	if s.bound.https == nil {
		return nil
	}
	if err := s.http.ServeTLS(s.bound.https); err != nil {
		return &statusError{exitFailure, fmt.Errorf("MAILSIDECAR_TLS_ADDR: %w", err)}
	}
	s.tlsAddr = s.bound.https.Addr()
	s.log.Info("listening for HTTPS", "addr", s.tlsAddr.String())
	return nil
}

// listenError is an address that cannot be listened on, and the setting that has
// it.
type listenError struct {
	setting, addr string
	err           error
}

func (e *listenError) Unwrap() error { return e.err }

func (e *listenError) Error() string {
	switch {
	case errors.Is(e.err, syscall.EADDRINUSE):
		return fmt.Sprintf("%s: %s is taken by another program: set it to a free port, or stop the other program", e.setting, e.addr)
	case errors.Is(e.err, syscall.EACCES):
		return fmt.Sprintf("%s: this user may not listen on %s: set a port over 1023", e.setting, e.addr)
	case errors.Is(e.err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("%s: this machine does not have the address %s", e.setting, e.addr)
	default:
		return e.setting + ": " + e.err.Error()
	}
}
