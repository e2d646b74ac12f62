package conns

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
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

	// These belong to the reader.
	scan  scanner
	ahead ahead

	// These belong to the set.
	list   *list.List
	place  *list.Element
	since  time.Time // the header is unfinished, or the connection idle, since then
	weight int64     // of the unfinished header
	fields int       // of the unfinished header
	key    string
	known  bool // some request had a key
}

// holder is a *conn, also where it has the methods of TLS.
type holder interface{ held() *conn }

func (c *conn) held() *conn { return c }

func (c *conn) phase() phase { return phase(c.state.Load()) }

func (c *conn) enter(l *list.List) { c.list, c.place = l, l.PushBack(c) }

// Read counts what it reads, up to the end of the header.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == 0 {
		return n, err
	}
	switch c.phase() {
	case unfinished, idle:
		octets, fields := c.scan.header(p[:n])
		if !c.set.count(c, octets, fields) {
			c.refuse()
			return 0, io.EOF
		}
		c.ahead = ahead{}
		c.ahead.add(p[octets:n])
	default:
		c.ahead.add(p[:n])
	}
	return n, err
}

// refuse answers as net/http does to a header of too many octets. It does not wait until
// the client has read the answer: what was read of the header is in memory until then.
func (c *conn) refuse() {
	const status = "431 Request Header Fields Too Large"
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = io.WriteString(c.Conn, "HTTP/1.1 "+status+"\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"+status)
	c.refused.Store(true)
	_ = c.CloseWrite()
}

func (c *conn) Write(p []byte) (int, error) {
	if c.refused.Load() {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// CloseWrite lets net/http end an answer before the client has sent all it has to send.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// wire is what is below conn: the TCP connection. It knows when the server waits for the
// client, and counts the octets of a TLS handshake.
type wire struct {
	net.Conn
	conn      *conn
	handshake bool
}

func (w *wire) Read(p []byte) (int, error) {
	w.conn.waits.Store(true)
	n, err := w.Conn.Read(p)
	w.conn.waits.Store(false)
	if w.handshake && n > 0 && !w.conn.set.count(w.conn, n, 0) {
		return 0, errors.New("the handshake is too large")
	}
	return n, err
}

// CloseWrite ends what is written.
func (w *wire) CloseWrite() error {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
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

// failed logs why there is no handshake, and answers a client that speaks HTTP instead.
func (t *tlsConn) failed(err error) {
	t.set.log.Debug("TLS handshake failed", "remote", t.raw.RemoteAddr().String(), "error", err)
	if header, ok := errors.AsType[tls.RecordHeaderError](err); ok && header.Conn != nil && looksLikeHTTP(header.RecordHeader) {
		_ = t.raw.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(t.raw, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
	t.refused.Store(true)
	_ = t.raw.Close()
}

// looksLikeHTTP reports whether the first octets begin a request.
func looksLikeHTTP(header [5]byte) bool {
	switch string(header[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		return true
	}
	return false
}
