// Package network is a network in memory, in virtual time: what is sent takes a little
// time that nothing else takes, a dial may meet a closed port or a firewall, and a
// connection may be cut or go silent.
package network

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"mailsidecar/sim/chance"
)

// Fate is what comes of a dial.
type Fate int

const (
	Reached Fate = iota
	Refused      // as by a closed port
	Lost         // as by a firewall that drops every packet
)

// Host answers on a port.
type Host interface {
	// Reach says what comes of the n-th dial to the port, n ≥ 0.
	Reach(port, n int) Fate
	// Serve talks to a client in the background. It closes the connection in the end.
	Serve(c *Conn)
}

// Network is the hosts, by port. Its methods may be called at any time.
type Network struct {
	chance chance.Chance
	hosts  map[int]Host

	mu    sync.Mutex
	dials map[int]int
	count int // connections so far
}

// New returns a network of those hosts, by port.
func New(c chance.Chance, hosts map[int]Host) *Network {
	return &Network{chance: c, hosts: hosts, dials: map[int]int{}}
}

// Line is the way of one process to the network.
type Line struct {
	network  *Network
	instance int
	gate     *Gate
	mu       sync.Mutex
	cut      bool
	open     map[*Conn]bool
}

// Line returns a way to the network for an instance.
func (n *Network) Line(instance int) *Line {
	return &Line{network: n, instance: instance, gate: NewGate(), open: map[*Conn]bool{}}
}

// errCut is the end of a process.
var errCut = os.NewSyscallError("connect", syscall.ENETDOWN)

// Dial connects as a net.Dialer does.
func (l *Line) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	_, number, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(number)
	if err != nil {
		return nil, err
	}
	if err := l.gate.Pass(ctx); err != nil {
		return nil, opError(err)
	}
	host, fate, c := l.network.fate(port)
	if fate == Lost {
		<-ctx.Done()
		return nil, opError(os.ErrDeadlineExceeded)
	}
	time.Sleep(c.Of("dial").Between(50*time.Microsecond, 900*time.Microsecond))
	_ = l.gate.Pass(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, opError(ctx.Err())
	case fate == Refused:
		return nil, opError(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	client, server := pair(port, c)
	server.instance = l.instance
	if !l.add(client) {
		return nil, opError(errCut)
	}
	host.Serve(server)
	return client, nil
}

func opError(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }

func (n *Network) fate(port int) (Host, Fate, chance.Chance) {
	n.mu.Lock()
	host, dial := n.hosts[port], n.dials[port]
	n.dials[port]++
	n.count++
	c := n.chance.N(port).N(dial)
	n.mu.Unlock()
	if host == nil {
		return nil, Refused, c
	}
	return host, host.Reach(port, dial), c
}

func (l *Line) add(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	l.open[c] = true
	c.stop(l.gate.Closed())
	c.closed = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, c)
	}
	return true
}

// Gate is closed while time stands still for the process.
func (l *Line) Gate() *Gate { return l.gate }

// Stop makes time stand still for the process, as SIGSTOP does: what it sends leaves it later,
// and it reads nothing. It ends with Stop(false).
func (l *Line) Stop(stopped bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate.Close(stopped)
	for c := range l.open {
		c.stop(stopped)
	}
}

// Cut ends all connections, as the end of the process does: what was sent still
// arrives. No dial succeeds any more.
func (l *Line) Cut() {
	l.mu.Lock()
	l.cut = true
	l.gate.Close(false)
	var open []*Conn
	for c := range l.open {
		open = append(open, c)
	}
	l.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
}

// Open is how many connections the process has not closed.
func (l *Line) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// Conn is one end of a connection.
type Conn struct {
	port     int
	instance int // that has dialled, at the host's end
	in, out  *stream
	once     sync.Once
	closed   func() // nil at the host's end
}

// Instance is the one that has dialled.
func (c *Conn) Instance() int { return c.instance }

// stop lets the end at the process neither send nor read for a while.
func (c *Conn) stop(stopped bool) {
	c.in.stopReads(stopped)
	c.out.stopWrites(stopped)
}

func pair(port int, c chance.Chance) (client, server *Conn) {
	there, back := newStream(c.N(0)), newStream(c.N(1))
	return &Conn{port: port, in: back, out: there}, &Conn{port: port, in: there, out: back}
}

// Read reads what has arrived.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write sends. It never waits.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close lets the other end read what was sent, and then the end.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.in.leave()
		c.out.end()
		if c.closed != nil {
			c.closed()
		}
	})
	return nil
}

// CloseWrite lets the other end read what was sent, and then the end.
func (c *Conn) CloseWrite() error {
	c.out.end()
	return nil
}

// Freeze makes the connection half-open, as a firewall does that has forgotten it: what
// either end sends from now on is lost, the end of the connection included.
func (c *Conn) Freeze() {
	c.in.freeze()
	c.out.freeze()
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	c.in.setReadDeadline(t)
	c.out.setWriteDeadline(t)
	return nil
}

// SetReadDeadline limits reads.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.setReadDeadline(t)
	return nil
}

// SetWriteDeadline limits writes.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.setWriteDeadline(t)
	return nil
}

// LocalAddr is an address on the loopback interface, as RemoteAddr is.
func (c *Conn) LocalAddr() net.Addr { return addr(49152) }

// RemoteAddr has the port that was dialled.
func (c *Conn) RemoteAddr() net.Addr { return addr(c.port) }

func addr(port int) net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)))
}
