package conns

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// duplex is one end of a connection in memory whose directions end apart.
type duplex struct {
	net.Conn          // from the other end
	to       net.Conn // the other end
}

func newDuplex() (client, server *duplex) {
	a, b := net.Pipe()
	c, d := net.Pipe()
	return &duplex{a, c}, &duplex{d, b}
}

func (d *duplex) Write(p []byte) (int, error)        { return d.to.Write(p) }
func (d *duplex) SetWriteDeadline(t time.Time) error { return d.to.SetWriteDeadline(t) }
func (d *duplex) CloseWrite() error                  { return d.to.Close() }
func (d *duplex) Close() error                       { return errors.Join(d.Conn.Close(), d.to.Close()) }

func (d *duplex) SetDeadline(t time.Time) error {
	return errors.Join(d.Conn.SetDeadline(t), d.to.SetDeadline(t))
}

// upload begins a request that is answered before its body has come, and returns what the
// server says up to its end.
func (s *server) upload(t *testing.T) (*duplex, <-chan string) {
	t.Helper()
	client, theirs := newDuplex()
	s.l.conns <- theirs
	t.Cleanup(func() { _ = client.Close() })
	said := make(chan string, 1)
	go func() {
		all, err := io.ReadAll(client)
		if err != nil {
			all = []byte(err.Error())
		}
		said <- string(all)
	}()
	if _, err := io.WriteString(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return client, said
}

// fullSpeed is how long the server reads what it reads of a client at most.
const fullSpeed = time.Second * lingerOctets / lingerRate

// TestLinger: after an early answer, which ends at once, the server reads on within limits of
// time and octets.
func TestLinger(t *testing.T) {
	for name, tc := range map[string]struct {
		piece    int           // that the client sends
		pause    time.Duration // after each
		min, max time.Duration // until the connection is closed
		octets   int           // that are read, at most
	}{
		"silent":     {0, time.Hour, lingerPause, lingerPause + time.Second, 0},
		"drop-wise":  {1, lingerPause - time.Second, lingerTime, lingerTime + lingerPause, 10},
		"slow":       {1 << 20, time.Second, lingerTime, lingerTime + time.Second, 40 << 20},
		"unlimited":  {1 << 20, 0, fullSpeed - lingerAhead, fullSpeed + time.Second, lingerOctets + 2<<20},
		"pause late": {1, lingerPause + time.Second, lingerPause, lingerPause + time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Limits{}, func(t *testing.T, s *server) {
				client, said := s.upload(t)
				if got := <-said; !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got, "Connection: close") {
					t.Fatalf("the server says %q", got)
				}
				began, octets := time.Now(), 0
				piece := make([]byte, tc.piece)
				for {
					if tc.piece == 0 {
						<-s.gone(1)
						break
					}
					n, err := client.Write(piece)
					octets += n
					if err != nil {
						break
					}
					time.Sleep(tc.pause)
				}
				if took := time.Since(began); took < tc.min || took > tc.max || octets > tc.octets {
					t.Errorf("closed after %v and %d octets, want %v to %v and %d at most", took, octets, tc.min, tc.max, tc.octets)
				}
			})
		})
	}
}

// gone is closed once fewer than n connections are open.
func (s *server) gone(n int) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		for s.count() >= n {
			time.Sleep(time.Millisecond)
		}
	}()
	return c
}

func (s *server) count() int {
	s.set.mu.Lock()
	defer s.set.mu.Unlock()
	return s.set.open()
}

// TestLingerEnds: a client that closes, in one direction or both, is let go at once.
func TestLingerEnds(t *testing.T) {
	for name, end := range map[string]func(*duplex) error{"closed": (*duplex).Close, "half closed": (*duplex).CloseWrite} {
		run(t, Limits{}, func(t *testing.T, s *server) {
			client, said := s.upload(t)
			<-said
			if err := end(client); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := s.count(); n != 0 {
				t.Errorf("%s: %d connections are open", name, n)
			}
		})
	}
}

// TestLingerMakesRoom: connections that linger are closed before any other, and keep no
// client out.
func TestLingerMakesRoom(t *testing.T) {
	run(t, Limits{Open: 10}, func(t *testing.T, s *server) {
		idle := s.connect(t, get("/", ""))
		if got := idle.status(); got != http.StatusOK {
			t.Fatalf("status %d", got)
		}
		for range 50 {
			_, said := s.upload(t)
			<-said
		}
		if got := s.connect(t, get("/", "")).status(); got != http.StatusOK {
			t.Errorf("a new client = %d, want 200", got)
		}
		if !idle.open() || s.count() > 10 {
			t.Errorf("the idle connection is open: %v, with %d connections", idle.open(), s.count())
		}
	})
}

// TestLingerRate: however many clients send as fast as they can, the server reads so much in
// a second, and of each as much as of another.
func TestLingerRate(t *testing.T) {
	run(t, Limits{}, func(t *testing.T, s *server) {
		const clients = 20
		var read [clients]atomic.Int64
		for i := range clients {
			client, said := s.upload(t)
			<-said
			go func() {
				piece := make([]byte, lingerBuffer)
				for {
					n, err := client.Write(piece)
					read[i].Add(int64(n))
					if err != nil {
						return
					}
				}
			}()
		}
		time.Sleep(3 * time.Second)
		most := int64(3*lingerRate + lingerRate/10)
		sum, least := int64(0), int64(lingerOctets)
		for i := range read {
			sum, least = sum+read[i].Load(), min(least, read[i].Load())
		}
		if sum > most || least < most/clients/2 {
			t.Errorf("read in 3 s: %d octets, %d of one, want %d at most, and %d at least", sum, least, most, most/clients/2)
		}
	})
}

// TestDrain: a server that stops waits for clients that still send, not for silent ones, and
// not for longer than it may.
func TestDrain(t *testing.T) {
	for name, tc := range map[string]struct {
		sends   bool
		timeout time.Duration
		want    time.Duration
	}{
		"silent":        {false, time.Minute, lingerPauseAtStop},
		"sends":         {true, time.Minute, lingerTimeAtStop},
		"sends on":      {true, time.Second, time.Second},
		"no time":       {true, 0, 0},
		"none to close": {false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Limits{}, func(t *testing.T, s *server) {
				client, said := s.upload(t)
				<-said
				if tc.sends {
					go func() {
						for {
							if _, err := client.Write([]byte("x")); err != nil {
								return
							}
							time.Sleep(100 * time.Millisecond)
						}
					}()
				}
				ctx, cancel := context.WithTimeout(t.Context(), tc.timeout)
				defer cancel()
				began := time.Now()
				s.set.Drain(ctx)
				if took := time.Since(began); took < tc.want || took > tc.want+100*time.Millisecond {
					t.Errorf("Drain() took %v, want %v", took, tc.want)
				}
				if n := s.count(); n != 0 {
					t.Errorf("%d connections are open", n)
				}
			})
		})
	}
}

// TestCloseBreaks: a connection that is closed while it is read, or before anything was
// answered, does not linger, and reads nothing more.
func TestCloseBreaks(t *testing.T) {
	run(t, Limits{}, func(t *testing.T, s *server) {
		_, theirs := newDuplex()
		s.l.conns <- theirs
		synctest.Wait() // for the server to read
		s.set.mu.Lock()
		c := s.set.unfinished.Front().Value.(*conn)
		s.set.mu.Unlock()
		c.wrote.Store(true)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := s.count(); n != 0 {
			t.Errorf("%d connections are open", n)
		}
		if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read() after Close() = %d, %v, want net.ErrClosed", n, err)
		}
	})
}
