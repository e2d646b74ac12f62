package relaytest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Network is a network in memory, for tests in virtual time. Its Dial, which ignores
// the host's name, goes into smtp.Options.
type Network struct {
	// IP is the address of the relays; zero means 127.0.0.1.
	IP netip.Addr
	// Port maps a port to a *Relay, [BlackHole], [Refused] or another fate. Other ports
	// refuse connections.
	Port map[int]any
	// Address has the fate of all ports of an IP address; it goes before Port.
	Address map[string]any

	mu    sync.Mutex
	dials []int
	most  int
	open  atomic.Int64
}

// fate is the result of a dial that reaches no relay.
type fate int

const (
	Refused   fate = iota // as a closed port
	BlackHole             // as a firewall that drops every packet
	Rejected              // as a firewall or router that says so (ICMP)
	NoRoute               // as a machine without a route
	Forbidden             // as a system that does not let the process connect
	Reset                 // as a relay that ends the connection before it is used
)

// errno is what connect(2) says.
var errno = map[fate]syscall.Errno{
	Refused: syscall.ECONNREFUSED, Rejected: syscall.EHOSTUNREACH, NoRoute: syscall.ENETUNREACH, Forbidden: syscall.EACCES, Reset: syscall.ECONNRESET,
}

// Dial connects as a net.Dialer does. A socket of UDP needs a route and no more.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, number, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(number)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	behind, known := n.Address[host]
	if !known {
		behind = n.Port[port]
	}
	if network != "udp" {
		n.dials = append(n.dials, port)
	}
	n.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, opError(err)
	}
	if network == "udp" {
		if behind == NoRoute {
			return nil, opError(os.NewSyscallError("connect", errno[NoRoute]))
		}
		client, _ := pipe()
		return client, nil
	}
	switch x := behind.(type) {
	case *Relay:
		client, server := pipe()
		x.Serve(server)
		n.mu.Lock()
		n.most = max(n.most, int(n.open.Add(1)))
		n.mu.Unlock()
		return &end{Conn: client, network: n, port: port}, nil
	case fate:
		if x == BlackHole {
			<-ctx.Done()
			return nil, opError(os.ErrDeadlineExceeded)
		}
		return nil, opError(os.NewSyscallError("connect", errno[x]))
	}
	return nil, opError(os.NewSyscallError("connect", syscall.ECONNREFUSED))
}

func opError(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }

// Set changes what is behind a port.
func (n *Network) Set(port int, behind any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Port[port] = behind
}

// Dials returns the ports dialled, in order.
func (n *Network) Dials() []int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]int(nil), n.dials...)
}

// Open returns the number of connections that the client has not closed.
func (n *Network) Open() int { return int(n.open.Load()) }

// Most returns the greatest number of connections that were open at a time.
func (n *Network) Most() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.most
}

// end is the client's end of a connection.
type end struct {
	net.Conn
	network *Network
	port    int
	once    sync.Once
}

func (e *end) Close() error {
	e.once.Do(func() { e.network.open.Add(-1) })
	return e.Conn.Close()
}

// CloseWrite ends the client's side, and lets it read on.
func (e *end) CloseWrite() error { return e.Conn.(*pipeEnd).CloseWrite() }

func (e *end) LocalAddr() net.Addr { return e.addr(49152) }

func (e *end) RemoteAddr() net.Addr { return e.addr(e.port) }

func (e *end) addr(port int) net.Addr {
	ip := e.network.IP
	if !ip.IsValid() {
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(port)))
}

// RefusedPort returns a port of the loopback interface where nothing listens.
func RefusedPort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// BlackHolePort returns a port of the loopback interface that answers no packet,
// because the backlog of its listener is full.
func BlackHolePort(t testing.TB) int {
	t.Helper()
	port, fd, err := listenWithoutBacklog()
	if err != nil {
		t.Skip("no listener without backlog here: ", err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	for range 10 {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 100*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("the backlog does not fill up here")
	return 0
}

func listenWithoutBacklog() (port, fd int, err error) {
	fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return 0, 0, err
	}
	err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = syscall.Listen(fd, 0)
	}
	var name syscall.Sockaddr
	if err == nil {
		name, err = syscall.Getsockname(fd)
	}
	if err != nil {
		syscall.Close(fd)
		return 0, 0, err
	}
	return name.(*syscall.SockaddrInet4).Port, fd, nil
}
