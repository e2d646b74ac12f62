// Delay is a TCP proxy that adds a round trip time and nothing else: every
// octet arrives half of it later, in order, and bandwidth is not limited.
//
// A new connection reaches the target after one and a half round trips, when a
// distant server would see the last packet of the handshake.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	target := flag.String("target", "", "address to pass connections to")
	control := flag.String("control", "127.0.0.1:0", "address for HTTP: POST /rtt?d=20ms sets the round trip time")
	flag.Parse()
	fmt.Fprintln(os.Stderr, "delay:", run(*listen, *target, *control))
	os.Exit(1)
}

// run ends with an error only.
func run(listen, target, control string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	p := &proxy{target: target, clock: newClock()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /rtt", p.setRTT)
	server := http.Server{Addr: control, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		fmt.Fprintln(os.Stderr, "delay:", server.ListenAndServe())
		os.Exit(1)
	}()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go p.serve(conn)
	}
}

type proxy struct {
	target string
	clock  *clock
	rtt    atomic.Int64 // nanoseconds
}

func (p *proxy) setRTT(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.FormValue("d"))
	if err != nil || d < 0 {
		http.Error(w, "d must be a duration", http.StatusBadRequest)
		return
	}
	p.rtt.Store(int64(d))
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	if rtt := time.Duration(p.rtt.Load()); rtt > 0 {
		due := make(chan struct{})
		p.clock.at(time.Now().Add(rtt*3/2), func() { close(due) })
		<-due
	}
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		fmt.Fprintln(os.Stderr, "delay:", err)
		return
	}
	defer server.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.pass(server, client)
	}()
	p.pass(client, server)
	<-done
}

// backlog is how many reads may be under way in one direction.
const backlog = 4096

// pass copies from src to dst, half a round trip late, until src ends, and then
// ends dst, too. Go sets TCP_NODELAY on both.
func (p *proxy) pass(dst, src net.Conn) {
	d := direction{clock: p.clock, due: make(chan []byte, backlog)}
	written := make(chan struct{})
	go func() {
		defer close(written)
		write(dst, d.due)
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		late := time.Duration(p.rtt.Load() / 2)
		if n > 0 {
			data := append([]byte(nil), buf[:n]...)
			d.schedule(late, func() { d.due <- data })
		}
		if err != nil {
			d.schedule(late, func() { close(d.due) })
			break
		}
	}
	<-written
}

// direction is one half of a connection.
type direction struct {
	clock   *clock
	due     chan []byte
	last    time.Time
	waiting atomic.Int32
}

// schedule runs f late, but never before a function that was scheduled earlier: a
// round trip that has just become shorter does not change the order.
func (d *direction) schedule(late time.Duration, f func()) {
	when := time.Now().Add(late)
	if late == 0 && d.waiting.Load() == 0 {
		f()
		return
	}
	if when.Before(d.last) {
		when = d.last
	}
	d.last = when
	d.waiting.Add(1)
	d.clock.at(when, func() {
		f()
		d.waiting.Add(-1)
	})
}

// write writes the pieces that are due. After a failure it only drains due, so
// that the sender does not block.
func write(dst net.Conn, due <-chan []byte) {
	var failed error
	for data := range due {
		if failed == nil {
			_, failed = dst.Write(data)
		}
	}
	if half, ok := dst.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}
