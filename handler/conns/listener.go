package conns

import (
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// Listen makes l take connections into the set; with a configuration they speak TLS.
func (s *Set) Listen(l net.Listener, config *tls.Config) net.Listener {
	return &listener{Listener: l, set: s, tls: config, closed: make(chan struct{})}
}

type listener struct {
	net.Listener
	set    *Set
	tls    *tls.Config // nil for clear text
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Accept returns the next connection, for which the set has room then. It goes on when
// the process may open no more files.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err == nil {
			return l.take(raw)
		}
		if !isExhausted(err) {
			return nil, err
		}
		l.set.exhausted(err)
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-time.After(look):
		}
	}
}

func (l *listener) take(raw net.Conn) (net.Conn, error) {
	c := &conn{raw: raw, set: l.set}
	w := &wire{Conn: raw, conn: c, handshake: l.tls != nil}
	c.Conn = w
	var nc net.Conn = c
	if l.tls != nil {
		t := tls.Server(w, l.tls)
		c.Conn = t
		nc = &tlsConn{c, t, w}
	}
	if err := l.set.add(c, l.closed); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return nc, nil
}

// exhausted logs, once a minute, that no connection can be accepted, and closes one to
// go on.
func (s *Set) exhausted(err error) {
	s.mu.Lock()
	defer s.unlock()
	s.closeOne()
	if now := time.Now(); now.Sub(s.complained) >= time.Minute {
		s.complained = now
		s.log.Error("no connection can be accepted", "error", err, "open", s.open(),
			"do", "let the process open more files (ulimit -n; LimitNOFILE= of systemd; ulimits of Docker), or lower MAILSIDECAR_MAX_CONNECTIONS")
	}
}
