package smtp

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
)

// TestConnArm: a context that has ended wins over a deadline set afterwards.
func TestConnArm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		c := &conn{raw: client}
		c.use(client)
		defer c.close()
		ctx, cancel := context.WithCancel(t.Context())
		release := c.bind(ctx)
		cancel()
		synctest.Wait()
		begin := time.Now()
		if _, err := c.read(ctx, time.Hour); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) > 0 {
			t.Errorf("read() with an ended context = %v after %v, want a deadline at once", err, time.Since(begin))
		}
		release()
		release() // may be called again
	})
}

func TestParseExtensions(t *testing.T) {
	tests := []struct {
		lines []string
		want  extensions
	}{
		{nil, extensions{}},
		{[]string{"SIZE 1000", "8bitmime", " starttls ", ""}, extensions{"SIZE": "1000", "8BITMIME": "", "STARTTLS": ""}},
		{[]string{"auth plain login"}, extensions{"AUTH": "plain login"}},
		{[]string{"XSTARTTLS", "STARTTLSX", "AUTH=PLAIN"}, extensions{"XSTARTTLS": "", "STARTTLSX": "", "AUTH=PLAIN": ""}},
	}
	for _, tt := range tests {
		if got := parseExtensions(tt.lines); !maps.Equal(got, tt.want) {
			t.Errorf("parseExtensions(%q) = %v, want %v", tt.lines, got, tt.want)
		}
	}
}

func TestHelo(t *testing.T) {
	tests := []struct {
		configured string
		local      net.Addr
		want       string
	}{
		{"app.example.com", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 1}, "app.example.com"},
		{"", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 1}, "[10.0.0.2]"},
		{"", &net.TCPAddr{IP: net.ParseIP("::ffff:10.0.0.2"), Port: 1}, "[10.0.0.2]"},
		{"", &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 1}, "[IPv6:fe80::1]"},
		{"", &net.UnixAddr{Name: "x"}, "localhost"},
	}
	for _, tt := range tests {
		c := &conn{relay: &Relay{opts: Options{Helo: tt.configured}}, raw: addressed{local: tt.local}}
		if got := c.helo(); got != tt.want {
			t.Errorf("helo() with %q from %v = %s, want %s", tt.configured, tt.local, got, tt.want)
		}
	}
}

type addressed struct {
	net.Conn
	local net.Addr
}

func (a addressed) LocalAddr() net.Addr { return a.local }

// TestCloseLosers: a rung that comes in after the winner is closed.
func TestCloseLosers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := New(Options{Host: "relay.test", Ladder: []mailer.Rung{{Port: 587}}})
		if err != nil {
			t.Fatal(err)
		}
		client, server := net.Pipe()
		x := race{relay: r, results: make(chan entrant, 2), running: 2}
		x.results <- entrant{conn: &conn{raw: client}}
		x.results <- entrant{failure: &mailer.Failure{}}
		x.closeLosers()
		r.Close()
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the loser's connection gives %v, want it closed", err)
		}
	})
}

// TestNoResumption: Microsoft's relays break when a TLS session is resumed
// (golang/go#70232).
func TestNoResumption(t *testing.T) {
	r, err := New(Options{Host: "smtp.office365.com", Ladder: []mailer.Rung{{Port: 587}}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if c := (&conn{relay: r}).tlsConfig(); c.ClientSessionCache != nil {
		t.Errorf("tlsConfig() has the session cache %T, want none", c.ClientSessionCache)
	}
}
