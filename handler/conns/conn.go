package conns

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// handshakeTimeout limits a TLS handshake.
const handshakeTimeout = 10 * time.Second

// phase is what a connection does.
type phase int32

const (
	unfinished phase = iota // its request's header is not complete
	idle                    // waits for a request, of which nothing came yet
	strange                 // has a request under way, without a key as yet
	keyed                   // has a request under way, with a key
	lingering               // answered for the last time, and read on: see Close
	gone                    // closed, or about to be
)

// conn is a connection in clear text, as net/http uses it.
type conn struct {
	net.Conn          // TCP, or TLS over it
	raw      net.Conn // below TLS
	set      *Set

	state   atomic.Int32 // a phase, changed with the set locked
	waits   atomic.Bool  // for the client to send something
	refused atomic.Bool  // no answer but ours may be written
	wrote   atomic.Bool  // something, since the last request ended
	reading atomic.Bool  // a Read is under way
	ended   atomic.Bool  // Close was called

	// These belong to the reader.
	scan    scanner
	ahead   ahead
	opening opening

	after func() // of AfterRequest, whose goroutine has it

	// These belong to the set.
	list   *list.List
	place  *list.Element
	since  time.Time // the header is unfinished, the connection idle, or a request without a key under way, since then
	weight int64     // of the unfinished header
	octets int       // of the unfinished header, or of the TLS handshake
	fields int       // of the unfinished header
	key    string
	known  bool // some request had a key
}

// holder is a *conn, also where it has the methods of TLS.
type holder interface{ held() *conn }

func (c *conn) held() *conn { return c }

func (c *conn) phase() phase { return phase(c.state.Load()) }

func (c *conn) enter(l *list.List) { c.list, c.place = l, l.PushBack(c) }

// Read counts what it reads, up to the end of the header. Once Close is called, or the
// connection is about to be closed to make room, it reads nothing: what comes then is thrown
// away and must not be taken for a request, whose answer nobody would get.
func (c *conn) Read(p []byte) (int, error) {
	c.reading.Store(true)
	defer c.reading.Store(false)
	switch {
	case c.ended.Load():
		return 0, net.ErrClosed
	case c.refused.Load():
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p)
	if n == 0 {
		c.late(err)
		return n, err
	}
	switch c.phase() {
	case gone:
		return 0, net.ErrClosed
	case unfinished, idle:
		if f := c.judge(p[:n]); f != nil {
			c.refuse(f)
			return 0, io.EOF
		}
		if c.phase() == gone { // since it was looked at
			return 0, net.ErrClosed
		}
	default:
		c.ahead.add(p[:n])
	}
	return n, err
}

// judge takes in octets of which some may be a header's. It returns the answer to what can
// be no request.
func (c *conn) judge(p []byte) *foreign {
	if f := c.opening.add(p); f != nil {
		return f
	}
	octets, fields := c.scan.header(p)
	if !c.set.count(c, octets, fields) {
		return largeHeader
	}
	c.ahead = ahead{}
	c.ahead.add(p[octets:])
	return nil
}

// late answers a client that has not sent its header in time.
func (c *conn) late(err error) {
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded) || c.phase() != unfinished || c.refused.Load():
	case c.opening.n > 0:
		c.refuse(slowHeader)
	default:
		c.refuse(silentToHTTP)
	}
}

// refuse answers in place of net/http, which then has nothing to say.
func (c *conn) refuse(f *foreign) {
	f.send(c.Conn, c.SetWriteDeadline)
	c.refused.Store(true)
	c.wrote.Store(true)
	c.set.note(f, c.raw.RemoteAddr().String())
}

func (c *conn) Write(p []byte) (int, error) {
	if c.refused.Load() {
		return 0, net.ErrClosed
	}
	c.wrote.Store(true)
	return c.Conn.Write(p)
}

// wire is what is below conn: the TCP connection. It knows when the server waits for the
// client, and counts the octets of a TLS handshake.
type wire struct {
	net.Conn
	conn      *conn
	handshake bool
	came      bool // an octet, during the handshake
}

func (w *wire) Read(p []byte) (int, error) {
	w.conn.waits.Store(true)
	n, err := w.Conn.Read(p)
	w.conn.waits.Store(false)
	if w.handshake && n > 0 {
		if w.came = true; !w.conn.set.count(w.conn, n, 0) {
			return 0, errors.New("the handshake is too large")
		}
	}
	return n, err
}

// tlsConn is a connection over TLS. net/http asks for its state before it reads, in the
// connection's own goroutine, so the handshake is made there.
type tlsConn struct {
	*conn
	tls  *tls.Conn
	wire *wire
}

// ConnectionState makes the handshake, and returns its result. After a failure net/http
// reads nothing from the connection.
func (t *tlsConn) ConnectionState() tls.ConnectionState {
	_ = t.raw.SetDeadline(time.Now().Add(handshakeTimeout))
	err := t.tls.HandshakeContext(context.Background())
	_ = t.raw.SetDeadline(time.Time{})
	t.wire.handshake = false
	t.set.finished(t.conn)
	if err != nil {
		t.failed(err)
	}
	return t.tls.ConnectionState()
}

// failed logs why there is no handshake, and answers a client that speaks something else.
func (t *tlsConn) failed(err error) {
	remote := t.raw.RemoteAddr().String()
	t.set.log.Debug("TLS handshake failed", "remote", remote, "error", err)
	var f *foreign
	if header, ok := errors.AsType[tls.RecordHeaderError](err); ok && header.Conn != nil {
		f = speaksInClear(header.RecordHeader)
	} else if errors.Is(err, os.ErrDeadlineExceeded) && !t.wire.came {
		f = silentToHTTPS
	}
	if f != nil {
		f.send(t.raw, t.raw.SetWriteDeadline)
		t.set.note(f, remote)
	}
	t.refused.Store(true)
	t.wrote.Store(true) // the answer, or an alert
	_ = t.Close()
}
