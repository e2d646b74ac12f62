package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// These tests stop the server, or take its relay away, in the middle of its work,
// start it again on the same store and count the messages at the relay.

// TestStopLetsDeliveryFinish: the relay takes its time over the final dot.
func TestStopLetsDeliveryFinish(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "after 1s 250 2.0.0 queued"})
	env := durable(t, relay)
	s := serve(t, env)
	a := s.send(t, order(nil))
	wantStatus(t, a, http.StatusAccepted)
	awaitMessages(t, relay, 1)
	s.stop(t)

	s = serve(t, env)
	s.wantStory(t, a.ID, "delivered", "delivered")
	wantMessages(t, relay, 1)
}

// TestStopAtHangup: SIGHUP, from a terminal that closes or from systemd after its SIGTERM,
// stops the server in order as SIGTERM does. What is in flight is sent once.
func TestStopAtHangup(t *testing.T) {
	t.Parallel()
	for name, signals := range map[string][]syscall.Signal{
		"hangup": {syscall.SIGHUP}, "twice": {syscall.SIGHUP, syscall.SIGHUP}, "after SIGTERM": {syscall.SIGTERM, syscall.SIGHUP},
	} {
		t.Run(name, func(t *testing.T) {
			relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "after 1s 250 2.0.0 queued"})
			env := durable(t, relay)
			s := serve(t, env)
			a := s.send(t, order(nil))
			wantStatus(t, a, http.StatusAccepted)
			awaitMessages(t, relay, 1)
			for _, signal := range signals {
				s.signal(t, signal)
				s.awaitLog(t, "stopping")
			}
			machine.Await(t, "end of mailsidecar", s.ended)
			if s.err != nil {
				t.Errorf("mailsidecar after %v: %v, want exit status 0", signals, s.err)
			}

			s = serve(t, env)
			s.wantStory(t, a.ID, "delivered", "delivered")
			wantMessages(t, relay, 1)
		})
	}
}

// TestStopGivesBackDelivery: a stop does not wait for a relay that is silent before
// the final dot. That relay has no part of the message, which is then sent once.
func TestStopGivesBackDelivery(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{"MAIL": "silence then default"})
	env := durable(t, relay).with(environment{"MAILSIDECAR_SHUTDOWN_TIMEOUT": "4s"})
	s := serve(t, env)
	a := s.send(t, order(nil))
	wantStatus(t, a, http.StatusAccepted)
	machine.Await(t, "MAIL at the relay", func() bool { return relay.Said("MAIL") == 1 })
	s.stop(t)

	s = serve(t, env)
	s.awaitStatus(t, a.ID, "delivered")
	s.wantStory(t, a.ID, "delivered", "delivered")
	wantMessages(t, relay, 1)
}

// TestStopPastFinalDot: it is unknown whether the relay took the message, and its
// story says so.
func TestStopPastFinalDot(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "silence then default"})
	env := durable(t, relay).with(environment{"MAILSIDECAR_SHUTDOWN_TIMEOUT": "4s"})
	s := serve(t, env)
	a := s.send(t, order(nil))
	wantStatus(t, a, http.StatusAccepted)
	awaitMessages(t, relay, 1)
	s.stop(t)

	s = serve(t, env)
	s.awaitStatus(t, a.ID, "delivered")
	s.wantStory(t, a.ID, "delivered", "uncertain", "delivered")
	wantMessages(t, relay, 2)
}

// TestSecondSignal: a second signal ends the server at once, and no message is lost.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "silence then default"})
	env := durable(t, relay)
	s := serve(t, env)
	a := s.send(t, order(nil))
	wantStatus(t, a, http.StatusAccepted)
	awaitMessages(t, relay, 1)
	waits := s.send(t, order(map[string]any{"send_at": time.Now().Add(time.Second).Format(time.RFC3339Nano)}))
	wantStatus(t, waits, http.StatusAccepted)

	s.signal(t, syscall.SIGTERM)
	s.awaitLog(t, "stopping")
	s.signal(t, syscall.SIGTERM)
	machine.Await(t, "end of mailsidecar after the second SIGTERM", s.ended)
	// An orderly stop would end with an exit status.
	if got := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !got.Signaled() || got.Signal() != syscall.SIGTERM {
		t.Errorf("mailsidecar after a second SIGTERM: %v, want ended by that signal", s.err)
	}

	s = serve(t, env)
	s.awaitLog(t, `"uncertain":1`)
	s.awaitStatus(t, a.ID, "delivered")
	s.wantStory(t, a.ID, "delivered", "uncertain", "delivered")
	s.awaitStatus(t, waits.ID, "delivered")
}

// TestStopAnswersWaiting: a client that waits for the outcome gets its 202.
func TestStopAnswersWaiting(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "after 1s 250 2.0.0 queued"})
	env := durable(t, relay)
	s := serve(t, env)
	answers := make(chan answer, 1)
	go func() {
		body, err := json.Marshal(order(nil))
		if err != nil {
			panic(err)
		}
		answers <- s.post(t, "application/json", body, http.Header{"Prefer": {"wait=30"}})
	}()
	awaitMessages(t, relay, 1)
	s.stop(t)
	a := <-answers
	wantStatus(t, a, http.StatusAccepted)

	s = serve(t, env)
	s.wantStory(t, a.ID, "delivered", "delivered")
	wantMessages(t, relay, 1)
}

// TestStopWithoutQueue: without a queue a client gets its answer although the relay
// takes longer than there is time to stop.
func TestStopWithoutQueue(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		silentAt string
		status   int
		code     string
	}{
		{"MAIL", http.StatusServiceUnavailable, "shutting_down"},
		{".", http.StatusGatewayTimeout, "uncertain"},
	} {
		t.Run(test.silentAt, func(t *testing.T) {
			t.Parallel()
			relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{test.silentAt: "silence"})
			s := serve(t, durable(t, relay).with(environment{"MAILSIDECAR_QUEUE": "none", "MAILSIDECAR_SHUTDOWN_TIMEOUT": "3s"}))
			body, err := json.Marshal(order(nil))
			if err != nil {
				t.Fatal(err)
			}
			answers := make(chan answer, 1)
			go func() { answers <- s.post(t, "application/json", body, nil) }()
			machine.Await(t, "a silent relay", func() bool { return relay.Said(test.silentAt)+len(relay.Messages()) == 1 })
			s.stop(t)
			a := <-answers
			if wantStatus(t, a, test.status); a.Code != test.code {
				t.Errorf("answer = %s, want %s", a.Body, test.code)
			}
		})
	}
}

// TestHold: with MAILSIDECAR_UNCERTAIN=hold a message whose reply was lost waits
// until a person releases it.
func TestHold(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		release func(*testing.T, *sidecar, environment, string) *sidecar
	}{
		{"by the API", func(t *testing.T, s *sidecar, _ environment, id string) *sidecar {
			wantStatus(t, s.request(t, http.MethodPost, "/v1/messages/"+id+"/retry", nil, nil), http.StatusOK)
			return s
		}},
		{"by the command", func(t *testing.T, s *sidecar, env environment, id string) *sidecar {
			env = env.with(environment{"MAILSIDECAR_URL": s.url})
			wantOutput(t, env, id, "queue", "list", "--status", "held")
			wantOutput(t, env, "uncertain", "queue", "show", id)
			wantOutput(t, env, id, "queue", "retry", id)
			return s
		}},
		{"by the command, the server being stopped", func(t *testing.T, s *sidecar, env environment, id string) *sidecar {
			s.stop(t)
			wantOutput(t, env, id, "queue", "list", "--status", "held")
			wantOutput(t, env, id, "queue", "retry", id)
			return serve(t, env)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "drop then default"})
			env := durable(t, relay).with(environment{"MAILSIDECAR_UNCERTAIN": "hold"})
			s := serve(t, env)
			a := s.send(t, order(nil))
			wantStatus(t, a, http.StatusAccepted)
			s.awaitStatus(t, a.ID, "held")
			s.awaitLog(t, `"msg":"held"`)
			s = test.release(t, s, env, a.ID)
			s.awaitStatus(t, a.ID, "delivered")
			s.wantStory(t, a.ID, "delivered", "uncertain", "delivered")
			wantMessages(t, relay, 2)
		})
	}
}

// TestHoldAfterKill: a crash is as uncertain as a lost reply.
func TestHoldAfterKill(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "silence then default"})
	env := durable(t, relay).with(environment{"MAILSIDECAR_UNCERTAIN": "hold"})
	s := serve(t, env)
	a := s.send(t, order(nil))
	wantStatus(t, a, http.StatusAccepted)
	awaitMessages(t, relay, 1)
	s.kill(t)

	s = serve(t, env)
	s.awaitLog(t, `"held":1`)
	s.wantStory(t, a.ID, "held", "uncertain")
	wantMessages(t, relay, 1)
	wantStatus(t, s.request(t, http.MethodDelete, "/v1/messages/"+a.ID, nil, nil), http.StatusOK)
	s.wantStory(t, a.ID, "canceled", "uncertain")
}

// TestIdempotencyAcrossRestart: a client that repeats its request after a crash
// gets the first message again.
func TestIdempotencyAcrossRestart(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, nil)
	env := durable(t, relay)
	s := serve(t, env)
	key := http.Header{"Idempotency-Key": {"order-1042"}}
	body, err := json.Marshal(order(nil))
	if err != nil {
		t.Fatal(err)
	}
	first := s.post(t, "application/json", body, key)
	wantStatus(t, first, http.StatusAccepted)
	s.awaitStatus(t, first.ID, "delivered")
	s.kill(t)

	s = serve(t, env)
	again := s.post(t, "application/json", body, key)
	wantStatus(t, again, http.StatusAccepted)
	if again.ID != first.ID || again.Header.Get("Idempotency-Replayed") != "true" || again.Status != "delivered" {
		t.Errorf("repeat = %s, Idempotency-Replayed %q, want %s again, delivered", again.Body, again.Header.Get("Idempotency-Replayed"), first.ID)
	}
	other, err := json.Marshal(order(map[string]any{"subject": "Another order"}))
	if err != nil {
		t.Fatal(err)
	}
	a := s.post(t, "application/json", other, key)
	wantStatus(t, a, http.StatusUnprocessableEntity)
	if a.Code != "idempotency_key_reused" {
		t.Errorf("code = %s, want idempotency_key_reused", a.Code)
	}
	wantMessages(t, relay, 1)
}

// TestSendAtAcrossRestart: a scheduled message goes out, and not before its time,
// although the server was killed before that time.
func TestSendAtAcrossRestart(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, nil)
	env := durable(t, relay)
	s := serve(t, env)
	at := time.Now().Add(2 * time.Second).Truncate(time.Second)
	a := s.send(t, order(map[string]any{"send_at": at.Format(time.RFC3339Nano)}))
	wantStatus(t, a, http.StatusAccepted)
	s.kill(t)

	s = serve(t, env)
	s.awaitStatus(t, a.ID, "delivered")
	if began := s.story(t, a.ID).Attempts[0].StartedAt; began.Before(at) {
		t.Errorf("the message went out at %v, want not before %v", began, at)
	}
	wantMessages(t, relay, 1)
}

// TestRelayComesBack: while the relay does not answer, mail is accepted and the
// relay left alone. Once it is back everything goes out without help.
func TestRelayComesBack(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, nil)
	addr := freeAddr(t)
	env := durable(t, relay).with(environment{"SMTP_PORTS": fmt.Sprintf("%d/starttls", portOf(t, addr))})
	s := serve(t, env)
	first := s.send(t, order(nil))
	wantStatus(t, first, http.StatusAccepted)
	s.awaitLog(t, "relay paused")
	s.awaitLog(t, "set SMTP_HOST to")
	paused := s.relayStatus(t)
	if paused.Status != "paused" || paused.PausedUntil == "" || paused.Failure.Stage != "connect" {
		t.Errorf("GET /v1/relays = %+v, want paused at connect", paused)
	}
	// The answer does not wait for an attempt.
	body, err := json.Marshal(order(nil))
	if err != nil {
		t.Fatal(err)
	}
	second := s.post(t, "application/json", body, http.Header{"Prefer": {"wait=10"}})
	wantStatus(t, second, http.StatusAccepted)

	listen(t, relay, addr)
	s.awaitLog(t, "relay resumed")
	for _, id := range []string{first.ID, second.ID} {
		s.awaitStatus(t, id, "delivered")
	}
	if got := s.relayStatus(t).Status; got != "up" {
		t.Errorf("status of the relay = %s, want up", got)
	}
	wantMessages(t, relay, 2)
}

// TestWrongPassword: the log names the setting, once, and the mail waits.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, nil)
	env := durable(t, relay)
	s := serve(t, env.with(environment{"SMTP_PASSWORD": "old-password"}))
	first := s.send(t, order(nil))
	wantStatus(t, first, http.StatusAccepted)
	s.awaitLog(t, "Check SMTP_USERNAME and SMTP_PASSWORD")
	s.awaitLog(t, "relay paused")
	second := s.send(t, order(nil))
	wantStatus(t, second, http.StatusAccepted)
	s.awaitStatus(t, first.ID, "deferred")
	s.stop(t)
	if n := strings.Count(s.log.String(), "relay cannot be used"); n != 1 {
		t.Errorf("the log tells %d times that the relay cannot be used, want once", n)
	}
	if n := len(relay.Credentials()); n != 1 {
		t.Errorf("the relay saw %d logins, want 1: providers lock accounts", n)
	}
	if strings.Contains(s.log.String(), "old-password") {
		t.Error("the password is in the log")
	}

	s = serve(t, env)
	for _, id := range []string{first.ID, second.ID} {
		s.awaitStatus(t, id, "delivered")
	}
}

type relayStatus struct {
	Status      string `json:"status"`
	PausedUntil string `json:"paused_until"`
	Failure     struct {
		Stage string `json:"stage"`
	} `json:"failure"`
}

func (s *sidecar) relayStatus(t *testing.T) relayStatus {
	t.Helper()
	var all struct{ Relays []relayStatus }
	s.get(t, "/v1/relays", &all)
	if len(all.Relays) != 1 {
		t.Fatalf("GET /v1/relays lists %d, want 1", len(all.Relays))
	}
	return all.Relays[0]
}

// listen serves the relay at addr.
func listen(t *testing.T, relay *relaytest.Relay, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			relay.Serve(c)
		}
	}()
}

func (s *sidecar) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// story is the answer to GET /v1/messages/{id}.
type story struct {
	Status   string
	Attempts []struct {
		StartedAt time.Time `json:"started_at"`
		Results   []struct{ Outcome string }
	}
}

func (s *sidecar) story(t *testing.T, id string) story {
	t.Helper()
	var m story
	s.get(t, "/v1/messages/"+id, &m)
	return m
}

// wantStory checks a message's status and the outcome of each attempt.
func (s *sidecar) wantStory(t *testing.T, id, status string, outcomes ...string) {
	t.Helper()
	story := s.story(t, id)
	var got []string
	for _, a := range story.Attempts {
		got = append(got, a.Results[0].Outcome)
	}
	if story.Status != status || strings.Join(got, " ") != strings.Join(outcomes, " ") {
		t.Errorf("message is %s after attempts %v, want %s after %v", story.Status, got, status, outcomes)
	}
}

func wantMessages(t *testing.T, relay *relaytest.Relay, want int) {
	t.Helper()
	if n := len(relay.Messages()); n != want {
		t.Errorf("the relay got %d messages, want %d", n, want)
	}
}

// wantOutput runs a command that must succeed and print want.
func wantOutput(t *testing.T, env environment, want string, args ...string) {
	t.Helper()
	code, output := exitCode(t, command(t, env, args...))
	if code != 0 || !strings.Contains(output, want) {
		t.Errorf("mailsidecar %s: exit status %d\n%s\nwant 0, and %q in it", strings.Join(args, " "), code, output, want)
	}
}

// TestStopInConversion: SIGTERM while large messages are converted, at the door and for a
// relay without 8BITMIME, ends in order: each client gets an answer, and each message
// that was accepted is sent after the next start.
func TestStopInConversion(t *testing.T) {
	relay := relaytest.New(t, relaytest.Options{TLSExtensions: relaytest.Without("SIZE", "8BITMIME")}, nil)
	env := durable(t, relay)
	s := serve(t, env)
	const start = "From: shop@example.com\r\nTo: ana@example.org\r\nContent-Type: text/plain; charset=utf-8\r\n"
	// The race detector makes a conversion ten times as long.
	scale := 10
	if len(buildFlags) > 0 {
		scale = 2
	}
	bodies := map[string]string{
		"8-bit text":   start + "Content-Transfer-Encoding: 8bit\r\n\r\n" + strings.Repeat("é der Größe nach\r\n", 30_000*scale),
		"NULs":         start + "\r\n" + strings.Repeat("\x00 abc def ghi\r\n", 100_000*scale),
		"long lines":   start + "Content-Transfer-Encoding: quoted-printable\r\n\r\n" + strings.Repeat(strings.Repeat("=C3=A9", 200)+"\n", 1200*scale),
		"many parts":   start[:strings.Index(start, "Content-Type")] + "Content-Type: multipart/mixed; boundary=x\r\n\r\n" + strings.Repeat("--x\r\nX-A: \xc3\xa9\r\n\r\n\xc3\xa9\r\n", 900*scale) + "--x--\r\n",
		"escaped name": start + "Reply-To: \xc3\xa9" + strings.Repeat(`"\"`, 6000*scale) + "\r\n\r\nHi\r\n",
	}
	var accepted atomic.Int32
	var clients sync.WaitGroup
	for range 3 {
		for name, body := range bodies {
			clients.Go(func() {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/messages", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Content-Type", "message/rfc822")
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					return // SIGTERM came before the request
				}
				defer resp.Body.Close()
				switch resp.StatusCode {
				case http.StatusAccepted:
					accepted.Add(1)
				case http.StatusServiceUnavailable, http.StatusUnprocessableEntity:
				default:
					t.Errorf("%s = %d", name, resp.StatusCode)
				}
			})
		}
	}
	machine.Await(t, "two accepted messages", func() bool { return accepted.Load() >= 2 })
	s.stop(t)
	clients.Wait()

	s = serve(t, env)
	machine.Await(t, "the accepted messages at the relay", func() bool { return len(relay.Messages()) >= int(accepted.Load()) })
	s.stop(t)
	t.Logf("%d of %d accepted, %d sent", accepted.Load(), 3*len(bodies), len(relay.Messages()))
}
