package main

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"testing"
	"time"
)

// startProxy puts the proxy in front of a server that sends back what it gets.
func startProxy(t *testing.T, rtt time.Duration) (*proxy, net.Conn) {
	t.Helper()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	go func() {
		conn, err := target.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	}()
	p := &proxy{target: target.Addr().String(), clock: newClock()}
	p.rtt.Store(int64(rtt))
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { front.Close() })
	go func() {
		if conn, err := front.Accept(); err == nil {
			p.serve(conn)
		}
	}()
	conn, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return p, conn
}

func TestDelay(t *testing.T) {
	const rtt = 60 * time.Millisecond
	_, conn := startProxy(t, rtt)
	r := bufio.NewReader(conn)
	// The first exchange includes the handshake that a distant server would see.
	for _, least := range []time.Duration{rtt * 5 / 2, rtt} {
		start := time.Now()
		if _, err := io.WriteString(conn, "hello\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < least {
			t.Errorf("an exchange took %s, want %s or more", took, least)
		}
	}
}

// TestOrder shortens the round trip while data is under way.
func TestOrder(t *testing.T) {
	p, conn := startProxy(t, 40*time.Millisecond)
	const lines = 2000
	go func() {
		for i := range lines {
			if i == lines/2 {
				p.rtt.Store(0)
			}
			_, _ = io.WriteString(conn, strconv.Itoa(i)+"\n")
		}
	}()
	r := bufio.NewReader(conn)
	for i := range lines {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if want := strconv.Itoa(i) + "\n"; line != want {
			t.Fatalf("line = %q, want %q", line, want)
		}
	}
}
