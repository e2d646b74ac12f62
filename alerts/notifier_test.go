package alerts

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// town is hosts on connections in memory, so that time can be virtual.
type town struct {
	t     *testing.T
	hosts map[string]http.HandlerFunc // a host that is missing never answers
	began time.Time

	mu  sync.Mutex
	got []string // "host minute state kind"
}

func newTown(t *testing.T, hosts map[string]http.HandlerFunc) *town {
	return &town{t: t, hosts: hosts, began: time.Now()}
}

// dial connects to a host of the town.
func (w *town) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(addr)
	handler, ok := w.hosts[host]
	switch {
	case !ok: // dropped packets
		<-ctx.Done()
		return nil, ctx.Err()
	case handler == nil:
		return nil, &net.OpError{Op: "dial", Err: fmt.Errorf("connection refused")}
	}
	ours, theirs := net.Pipe()
	l := &oneListener{conn: make(chan net.Conn, 1), done: make(chan struct{})}
	l.conn <- theirs
	s := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var m genericMessage
		_ = json.Unmarshal(body, &m)
		text := strings.TrimSpace(fmt.Sprintf("%s %v %s %s %s", host, time.Since(w.began).Truncate(time.Second), m.State, m.Kind, m.Subject))
		if m.State == "" {
			text = fmt.Sprintf("%s %v %s %s %s", host, time.Since(w.began).Truncate(time.Second), r.Method, r.URL.Path, body)
		}
		w.mu.Lock()
		w.got = append(w.got, text)
		w.mu.Unlock()
		handler(rw, r)
	}), ConnState: func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			l.end()
		}
	}}
	go func() { _ = s.Serve(l) }()
	return ours, nil
}

type oneListener struct {
	conn chan net.Conn
	once sync.Once
	done chan struct{}
}

func (l *oneListener) end() { l.once.Do(func() { close(l.done) }) }

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *oneListener) Close() error   { l.end(); return nil }
func (l *oneListener) Addr() net.Addr { return &net.TCPAddr{} }

func (w *town) heard(host string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, g := range w.got {
		if rest, ok := strings.CutPrefix(g, host+" "); ok {
			all = append(all, rest)
		}
	}
	return all
}

func (w *town) client() *Client {
	return NewClient(ClientOptions{AllowPrivate: true, Proxy: noProxy, Dial: w.dial})
}

func answer(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

// run lets a notifier tell the hosts for that long, with a look every ten seconds.
func (w *town) run(length time.Duration, log io.Writer, present func(time.Duration) []Condition, hosts ...string) {
	w.t.Helper()
	o := NotifierOptions{Client: w.client(), Instance: "web1", Logger: slog.New(slog.NewTextHandler(log, nil))}
	for _, h := range hosts {
		o.Targets = append(o.Targets, must(w.t, "json+http://"+h+"/"+hidden))
	}
	n := NewNotifier(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	for begin := time.Now(); time.Since(begin) <= length; time.Sleep(10 * time.Second) {
		before := time.Now()
		n.Look(present(time.Since(begin)))
		if took := time.Since(before); took > 0 {
			w.t.Errorf("Look waited for %v", took)
		}
	}
	cancel()
	<-done
	time.Sleep(2 * SendTimeout) // for what was being dialled
}

// TestNotifier: a slow, a dead, a refusing, a redirecting and a broken target delay no other,
// and each that answers is told once, hourly, and when it is over.
func TestNotifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := newTown(t, map[string]http.HandlerFunc{
			"good": answer(200),
			"slow": func(w http.ResponseWriter, _ *http.Request) { time.Sleep(9 * time.Second) },
			"stuck": func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-r.Context().Done():
				case <-time.After(time.Hour):
				}
			},
			"closed":   nil,
			"refusing": answer(404),
			"redirecting": func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://other/", http.StatusFound)
			},
			"other": answer(200),
			"busy": func() http.HandlerFunc {
				n := 0
				return func(w http.ResponseWriter, _ *http.Request) {
					if n++; n == 1 {
						w.Header().Set("Retry-After", "600")
						w.WriteHeader(http.StatusTooManyRequests)
					}
				}
			}(),
		})
		w.run(3*time.Hour, &log, between(down, time.Minute, 2*time.Hour), "dead", "stuck", "closed", "refusing", "redirecting", "slow", "busy", "good")
		for host, want := range map[string][]string{
			"good":  {"1m0s firing relay_unusable a", "1h1m0s lasting relay_unusable a", "2h2m0s resolved relay_unusable a"},
			"slow":  {"1m0s firing relay_unusable a", "1h1m10s lasting relay_unusable a", "2h2m0s resolved relay_unusable a"},
			"busy":  {"1m0s firing relay_unusable a", "11m0s firing relay_unusable a", "1h11m0s lasting relay_unusable a", "2h2m0s resolved relay_unusable a"},
			"other": nil,
		} {
			if got := w.heard(host); !slices.Equal(got, want) {
				t.Errorf("%s was told %q, want %q", host, got, want)
			}
		}
		for host, most := range map[string]int{"stuck": 20, "refusing": 10, "redirecting": 10} {
			got := w.heard(host)
			if len(got) < 3 || len(got) > most {
				t.Errorf("%s was asked %d times in two hours, want 3 to %d", host, len(got), most)
			}
			if slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "resolved") }) {
				t.Errorf("%s was told of the end of what it had not taken: %q", host, got)
			}
		}
		text := log.String()
		if strings.Contains(text, hidden) {
			t.Errorf("the log shows the secret: %s", text)
		}
		for host, want := range map[string]int{"dead": 2, "stuck": 2, "closed": 2, "refusing": 2, "redirecting": 2, "busy": 1, "good": 0, "slow": 0} {
			n := strings.Count(text, `level=ERROR msg="alert not sent" target=json+http://`+host+"/[redacted]")
			if n < min(want, 1) || n > want {
				t.Errorf("the log says %d times that %s is told nothing, want once an hour: %s", n, host, text)
			}
		}
	})
}

// TestBackAgain: a target that was away is told what is wrong now, and nothing of what is over.
func TestBackAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		w := newTown(t, map[string]http.HandlerFunc{"away": func(w http.ResponseWriter, _ *http.Request) {
			if time.Since(began) < time.Hour {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}})
		w.run(2*time.Hour, io.Discard, func(at time.Duration) []Condition {
			switch {
			case at < 30*time.Minute:
				return []Condition{refused, down}
			case at < 90*time.Minute:
				return []Condition{held}
			default:
				return nil
			}
		}, "away")
		var told []string
		for _, line := range w.heard("away") {
			at, what, _ := strings.Cut(line, " ")
			if d, _ := time.ParseDuration(at); d >= time.Hour {
				told = append(told, what)
			}
		}
		if want := []string{"firing mail_held", "resolved mail_held"}; !slices.Equal(told, want) {
			t.Errorf("told after it came back: %q, want %q", told, want)
		}
	})
}

// TestRestart: what lasts is told once more, and the end of what is over by then is not.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, map[string]http.HandlerFunc{"good": answer(200)})
		w.run(time.Minute, io.Discard, func(time.Duration) []Condition { return []Condition{down, held} }, "good")
		w.run(10*time.Minute, io.Discard, func(time.Duration) []Condition { return []Condition{down} }, "good")
		var got []string
		for _, line := range w.heard("good") {
			_, what, _ := strings.Cut(line, " ")
			got = append(got, what)
		}
		if want := []string{"firing relay_unusable a", "firing mail_held", "firing relay_unusable a"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}

// TestStop: a request under way is broken off when the server stops.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, nil)
		n := NewNotifier(NotifierOptions{Targets: []Target{must(t, "json+http://dead/")}, Client: w.client(), Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); n.Run(ctx) }()
		n.Look([]Condition{down})
		time.Sleep(time.Second)
		before := time.Now()
		cancel()
		<-done
		if took := time.Since(before); took > 0 {
			t.Errorf("Run ended after %v", took)
		}
		time.Sleep(2 * SendTimeout)
	})
}

// TestPulse: a beat each minute, /fail with the reason while mail does not flow, and nothing
// when the server has stopped. One beat that is lost is sent once more.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		began := time.Now()
		w := newTown(t, map[string]http.HandlerFunc{"hc": func(w http.ResponseWriter, _ *http.Request) {
			if at := time.Since(began); at >= 5*time.Minute && at < 7*time.Minute {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}})
		h, err := ParseHeartbeat("http://hc/uuid-that-is-secret")
		if err != nil {
			t.Fatal(err)
		}
		p := Pulse{Heartbeat: h, Client: w.client(), Logger: slog.New(slog.NewTextHandler(&log, nil)), Trouble: func(context.Context) string {
			if at := time.Since(began); at > 150*time.Second && at < 210*time.Second {
				return "Mail waits."
			}
			return ""
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute+time.Second)
		defer cancel()
		p.Run(ctx)
		synctest.Wait()
		const path = "/uuid-that-is-secret"
		want := []string{
			"1m0s GET " + path + " ", "2m0s GET " + path + " ", "3m0s POST " + path + "/fail Mail waits.", "4m0s GET " + path + " ",
			"5m0s GET " + path + " ", "5m10s GET " + path + " ", "6m0s GET " + path + " ", "6m10s GET " + path + " ", "7m0s GET " + path + " ", "8m0s GET " + path + " ",
		}
		if got := w.heard("hc"); !slices.Equal(got, want) {
			t.Errorf("heard %q, want %q", got, want)
		}
		text := log.String()
		if strings.Count(text, "heartbeat not sent") != 1 || strings.Count(text, "heartbeat is sent again") != 1 || strings.Contains(text, "secret ") || strings.Contains(text, "uuid") {
			t.Errorf("log = %s", text)
		}
	})
}
