package service

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/config"
	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue/memory"
	"mailsidecar/units"
)

// serviceWith is a configuration of one relay, reached at the ports given, and a
// keyless server on a free port of the loopback address.
func serviceWith(t *testing.T, store string, ports ...int) config.Config {
	t.Helper()
	c := config.Default()
	c.Relays[0].Host, c.Relays[0].Auth, c.Relays[0].Ports = "127.0.0.1", "none", nil
	for _, p := range ports {
		c.Relays[0].Ports = append(c.Relays[0].Ports, config.Rung{Port: p})
	}
	c.Service.Addr = "127.0.0.1:0"
	c.Service.Queue = config.Queue{Store: store}
	if store != "none" {
		c.Service.Queue.Path = filepath.Join(t.TempDir(), "queue.db")
	}
	return c
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start runs the server until stop, which returns what Run returned.
func start(t *testing.T, c config.Config) (s *Service, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, Options{Config: c, Logger: quiet()})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, func() error {
		cancel()
		return <-done
	}
}

const smallMessage = `{"from": "a@example.com", "to": "b@example.org", "text": "x"}`

// post posts smallMessage and returns the answer.
func post(s *Service, header http.Header) (api.Answer, error) {
	c, err := api.New(s.URL(), "", "test", 10*time.Second)
	if err != nil {
		return api.Answer{}, err
	}
	defer c.HTTP.CloseIdleConnections()
	header = header.Clone()
	header.Set("Content-Type", "application/json")
	return c.Do(context.Background(), http.MethodPost, "/v1/messages", header, []byte(smallMessage))
}

// refusedPort is one on which no program listens any more.
func refusedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// A request that waits for the relay has its answer when the server stops: it
// was accepted, and the next run delivers it. Nothing is left running.
func TestStopAnswersWaiting(t *testing.T) {
	port, _ := silentRelay(t)
	before := runtime.NumGoroutine()
	c := serviceWith(t, "sqlite", port)
	c.Service.ShutdownTimeout = units.Duration(time.Second)
	s, stop := start(t, c)
	type result struct {
		api.Answer
		error
	}
	answered := make(chan result, 1)
	go func() {
		a, err := post(s, http.Header{"Prefer": {"wait=30"}})
		answered <- result{a, err}
	}()
	for s.queue.Usage().Messages == 0 {
		time.Sleep(time.Millisecond)
	}

	// A stop that takes longer than ShutdownTimeout is an error.
	if err := stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	r := <-answered
	if r.error != nil || r.Status != http.StatusAccepted {
		t.Errorf("the waiting request got %d %s, %v; want 202", r.Status, r.Body, r.error)
	}
	var m api.Message
	if err := json.Unmarshal(r.Body, &m); err != nil {
		t.Fatal(err)
	}

	again, stop := start(t, c)
	kept, err := again.queue.Get(t.Context(), "", m.ID)
	if err != nil || len(kept.Recipients) != 1 || kept.Recipients[0].State.Final() {
		t.Errorf("after the restart the message is %+v, %v; want it waiting", kept, err)
	}
	if err := stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	for range 6000 { // a minute
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	stacks := make([]byte, 1<<16)
	t.Errorf("%d goroutines before, %d after\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
}

// TestStopWithoutQueue: the relay takes longer than there is time to stop. Its
// caller is answered: whether the relay may have the mail decides what it reads.
func TestStopWithoutQueue(t *testing.T) {
	tests := []struct {
		silentAt string
		want     int
		code     api.Code
	}{
		{"greeting", http.StatusServiceUnavailable, api.CodeShuttingDown},
		{"MAIL", http.StatusServiceUnavailable, api.CodeShuttingDown},
		{".", http.StatusGatewayTimeout, api.CodeUncertain},
	}
	for _, tt := range tests {
		t.Run(tt.silentAt, func(t *testing.T) {
			t.Parallel()
			relay := relaytest.New(t, relaytest.Options{Extensions: []string{"PIPELINING"}}, relaytest.Script{tt.silentAt: "silence"})
			c := serviceWith(t, "none", relay.Listen(t))
			c.Relays[0].TLS = "none"
			// A second of it is left for the answer.
			c.Service.ShutdownTimeout = units.Duration(4 * time.Second)
			s, stop := start(t, c)
			answers := make(chan api.Answer, 1)
			go func() {
				a, err := post(s, http.Header{})
				if err != nil {
					t.Error(err)
				}
				answers <- a
			}()
			for s.relays[0].Connections().Waiting+relay.Said(tt.silentAt)+len(relay.Messages()) == 0 {
				time.Sleep(time.Millisecond)
			}
			if err := stop(); err != nil {
				t.Errorf("Run = %v", err)
			}
			a := <-answers
			var p api.Problem
			if err := json.Unmarshal(a.Body, &p); err != nil || a.Status != tt.want || p.Code != tt.code {
				t.Errorf("answer = %d %s, %v; want %d %s", a.Status, a.Body, err, tt.want, tt.code)
			}
		})
	}
}

// silentRelay takes connections and says nothing on them. dialled gets a value for
// each.
func silentRelay(t *testing.T) (port int, dialled <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	took := make(chan struct{}, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			took <- struct{}{}
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, took
}

func TestNotReadyWhileStopping(t *testing.T) {
	s, stop := start(t, serviceWith(t, "sqlite", refusedPort(t)))
	ready := func() int {
		t.Helper()
		resp, err := http.Get(s.URL() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for ready() != http.StatusOK { // until what an earlier run left is taken over
		time.Sleep(time.Millisecond)
	}
	s.stopping.Store(true)
	if got := ready(); got != http.StatusServiceUnavailable {
		t.Errorf("/readyz while stopping = %d, want 503", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// fakeRelay accepts every message.
type fakeRelay struct {
	Relay
	delivered, closed atomic.Int32
}

func (*fakeRelay) Name() string                                      { return "fake" }
func (*fakeRelay) Useful() int                                       { return 1 }
func (*fakeRelay) Connections() smtp.Connections                     { return smtp.Connections{} }
func (*fakeRelay) Turns() smtp.Turns                                 { return smtp.Turns{} }
func (*fakeRelay) Rate() units.Rate                                  { return units.Rate{} }
func (*fakeRelay) Used([]time.Time)                                  {}
func (*fakeRelay) NoteUsed(func(context.Context, []time.Time) error) {}
func (*fakeRelay) ShareRate(mailer.ChangeNote, []time.Time)          {}
func (*fakeRelay) ShareLogins(mailer.ChangeNote)                     {}
func (*fakeRelay) Logins() smtp.LoginState                           { return smtp.LoginState{} }
func (*fakeRelay) StopWaiting()                                      {}
func (*fakeRelay) Certificates() map[int]time.Time                   { return nil }
func (*fakeRelay) Rewrites() bool                                    { return false }
func (r *fakeRelay) Close()                                          { r.closed.Add(1) }

func (r *fakeRelay) Deliver(_ context.Context, env mailer.Envelope, _ mailer.Content) mailer.Attempt {
	r.delivered.Add(1)
	a := mailer.Attempt{Relay: "fake"}
	for _, path := range env.ForwardPaths {
		a.Results = append(a.Results, mailer.Result{ForwardPath: path, Reply: mailer.Reply{Code: 250}})
	}
	return a
}

// A relay and a store that are handed in are used, and closed in the end.
func TestPartsHandedIn(t *testing.T) {
	c, relay, store := serviceWith(t, "sqlite", 587), new(fakeRelay), memory.New(memory.Options{})
	c.Service.Queue.Path = "/nowhere/queue.db"
	ctx, cancel := context.WithCancel(t.Context())
	var observed atomic.Int32
	s, err := Start(ctx, Options{
		Config: c, Logger: quiet(), Relays: []Relay{relay}, Store: store,
		Observe: func(mailer.Attempt) { observed.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	a, err := post(s, http.Header{"Prefer": {"wait=10"}})
	if err != nil || a.Status != http.StatusOK {
		t.Errorf("post = %d %s, %v, want 200", a.Status, a.Body, err)
	}
	if usage, err := store.Usage(t.Context()); err != nil || usage.Messages != 0 {
		t.Errorf("Usage = %+v, %v, want nothing waiting", usage, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	if relay.delivered.Load() != 1 || observed.Load() != 1 || relay.closed.Load() != 1 {
		t.Errorf("delivered %d, observed %d, closed %d, want 1 each", relay.delivered.Load(), observed.Load(), relay.closed.Load())
	}
	if _, err := store.Usage(t.Context()); err == nil {
		t.Error("the store is open after Run")
	}
}

// What cannot start says which variable to change, and leaves nothing behind: the
// store can be opened again.
func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	c := serviceWith(t, "sqlite", 587)
	for _, x := range []struct{ addr, want string }{
		{taken.Addr().String(), "MAILSIDECAR_ADDR: " + taken.Addr().String() + " is taken"},
		{"192.0.2.1:8587", "MAILSIDECAR_ADDR: this machine does not have the address"},
	} {
		c.Service.Addr = x.addr
		if _, err := Start(t.Context(), Options{Config: c, Logger: quiet()}); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("Start at %s = %v, want %q", x.addr, err, x.want)
		}
	}
	if _, err := os.Stat(c.Service.Queue.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the store: %v, want it not to be there: it is opened when the address is ours", err)
	}
	c.Service.Addr = "127.0.0.1:0"
	_, stop := start(t, c)
	c.Service.Addr = "127.0.0.1:" + strconv.Itoa(refusedPort(t))
	if _, err := Start(t.Context(), Options{Config: c, Logger: quiet()}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second server on the same store = %v", err)
	}
	free, err := net.Listen("tcp", c.Service.Addr)
	if err != nil {
		t.Fatalf("the address of the second server is not free: %v", err)
	}
	_ = free.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestDeliveryTime(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		8 * time.Second: 7 * time.Second, time.Hour: time.Hour - time.Second,
		4 * time.Second: 3 * time.Second, time.Second: 750 * time.Millisecond,
	} {
		if got := deliveryTime(timeout); got != want {
			t.Errorf("deliveryTime(%v) = %v, want %v", timeout, got, want)
		}
	}
}
