package service

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/alerts"
	"mailsidecar/config"
	"mailsidecar/diagnosis"
	"mailsidecar/handler"
	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/mailer/smtp/token"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
	"mailsidecar/units"
)

// newTestLookout looks at one relay of two ports, without a queue.
func newTestLookout(t *testing.T) *lookout {
	t.Helper()
	c := config.Config{Relays: []config.Relay{{Number: 1, Host: "smtp.example.com", Ports: config.Ladder{{Port: 587}, {Port: 2525}}}}}
	c.Service.AlertsMaxAge = units.Duration(15 * time.Minute)
	m := newRelayMonitor(c.Relays, []Relay{&shownRelay{ends: map[int]time.Time{587: time.Now().Add(90 * 24 * time.Hour)}}}, nil, quiet())
	m.out = newOutgoing(1)
	return newLookout(c, m, nil)
}

// shown is conditions as "kind subject severity", with a ? behind those that are unknown.
func shown(all []alerts.Condition) []string {
	var list []string
	for _, c := range all {
		text := strings.TrimSpace(string(c.Kind)+" "+c.Subject) + " " + string(c.Severity)
		if c.Unknown {
			text = string(c.Kind) + " ?"
		} else if c.Found == "" || c.Do == "" {
			text += " without words"
		}
		list = append(list, text)
	}
	return list
}

func TestRelayConditions(t *testing.T) {
	connect := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Text: "no answer", Relay: "smtp.example.com"}
	auth := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageAuth, Reply: mailer.Reply{Code: 535, Enhanced: "5.7.8", Text: "no"}, Relay: "smtp.example.com", Port: 587}
	quota := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageMail, Reply: mailer.Reply{Code: 452}, Passes: true, Cause: "The quota is used up.", Remedy: "Nothing.", Relay: "smtp.example.com", Port: 587}
	manual := &queue.ManualPause{Relay: "smtp.example.com", Since: time.Now()}
	rungs := []mailer.Rung{{Port: 587}, {Port: 2525}}
	for _, test := range []struct {
		name   string
		first  bool // the first port has served
		status handler.RelayStatus
		want   []string
	}{
		{"up", true, handler.RelayStatus{Serving: rungs[0]}, nil},
		{"unknown", false, handler.RelayStatus{}, nil},
		{"not reached", false, handler.RelayStatus{Failure: connect}, []string{"relay_unusable smtp.example.com critical", "login_refused ?"}},
		{"not reached, and the port was lost before", true, handler.RelayStatus{Failure: connect}, []string{"relay_unusable smtp.example.com critical", "login_refused ?", "port_lost ?"}},
		{"quota", false, handler.RelayStatus{Failure: quota}, []string{"relay_unusable smtp.example.com warning", "login_refused ?"}},
		{"quota whose time has come", false, handler.RelayStatus{Failure: quota, PausedUntil: time.Now().Add(-time.Minute)}, []string{"relay_unusable ?", "login_refused ?"}},
		{"login refused", false, handler.RelayStatus{Failure: auth}, []string{"relay_unusable ?", "login_refused smtp.example.com critical"}},
		{"login refused, old sessions go on", true, handler.RelayStatus{Serving: rungs[0], Logins: smtp.LoginState{Refused: 1, Failure: auth}}, []string{"relay_unusable ?", "login_refused smtp.example.com critical"}},
		{"paused by a person", false, handler.RelayStatus{Failure: connect, Manual: manual}, []string{"relay_unusable ?", "login_refused ?"}},
		{"not reached an hour ago, and not tried since", true, handler.RelayStatus{Failure: connect}, []string{"relay_unusable ?", "login_refused ?", "port_lost ?"}},
		{"not tried for an hour, because it is paused", true, handler.RelayStatus{Failure: connect, PausedUntil: time.Now().Add(time.Minute)}, []string{"relay_unusable smtp.example.com critical", "login_refused ?", "port_lost ?"}},
		{"the second port from the start", false, handler.RelayStatus{Serving: rungs[1]}, nil},
		{"the first port is lost", true, handler.RelayStatus{Serving: rungs[1]}, []string{"port_lost smtp.example.com warning"}},
	} {
		l := newTestLookout(t)
		if test.first {
			l.monitor.noteOutgoing(0, mailer.Attempt{Rung: rungs[0]})
		}
		l.monitor.out.tried[0] = time.Now()
		if strings.Contains(test.name, "hour") {
			l.monitor.out.tried[0] = time.Now().Add(-time.Hour)
		}
		test.status.Name, test.status.Host, test.status.Ladder = "smtp.example.com", "smtp.example.com", rungs
		if got := shown(l.relay(0, test.status)); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestWaiting(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	manual := handler.RelayStatus{Manual: &queue.ManualPause{}}
	for _, test := range []struct {
		name                   string
		due, delivered, uptime time.Duration // zero: nothing is due, nothing went out
		relays                 []handler.RelayStatus
		want                   []string
	}{
		{"nothing is due", 0, time.Hour, time.Hour, []handler.RelayStatus{{}}, nil},
		{"due since a moment", time.Minute, time.Hour, 2 * time.Hour, []handler.RelayStatus{{}}, nil},
		{"mail flows, much waits", time.Hour, time.Minute, 2 * time.Hour, []handler.RelayStatus{{}}, nil},
		{"just started", time.Hour, 0, time.Minute, []handler.RelayStatus{{}}, nil},
		{"nothing goes out", 16 * time.Minute, 15 * time.Minute, 2 * time.Hour, []handler.RelayStatus{{}}, []string{"mail_waits critical"}},
		{"nothing went out in this run", time.Hour, 0, time.Hour, []handler.RelayStatus{{}}, []string{"mail_waits critical"}},
		{"all relays are paused by a person", time.Hour, 0, time.Hour, []handler.RelayStatus{manual, manual}, []string{"mail_waits ?"}},
		{"one of two is paused", time.Hour, 0, time.Hour, []handler.RelayStatus{manual, {}}, []string{"mail_waits critical"}},
	} {
		l := newTestLookout(t)
		l.started = ago(test.uptime)
		stats := queue.Stats{Statuses: map[queue.Status]int64{queue.StatusQueued: 1, queue.StatusDeferred: 36}}
		if test.due > 0 {
			stats.OldestDue = ago(test.due)
		}
		if test.delivered > 0 {
			l.monitor.out.last = ago(test.delivered)
		}
		got := l.waiting(now, stats, test.relays)
		if !slices.Equal(shown(got), test.want) {
			t.Errorf("%s: %q, want %q", test.name, shown(got), test.want)
		}
		if len(got) == 1 && !got[0].Unknown && !strings.Contains(got[0].Found, "37 messages wait") {
			t.Errorf("%s: %s", test.name, got[0].Found)
		}
	}
}

// TestWaitingForDeadRelay: while a relay cannot be used, each try makes the mail due anew. It counts as due since
// it first was, over all that the relay's failures look like, and a new relay's trouble does not count for mail that
// came later.
func TestWaitingForDeadRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config.Config{Relays: []config.Relay{{Number: 1, Host: "smtp.example.com", Ports: config.Ladder{{Port: 587}}}}}
		c.Service.AlertsMaxAge = units.Duration(15 * time.Minute)
		relays, err := NewRelays(c.Relays, RelayOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer relays[0].Close()
		m := newRelayMonitor(c.Relays, relays, nil, quiet())
		m.out = newOutgoing(1)
		l := newLookout(c, m, nil)
		stats := func(due time.Time, deferred int64) queue.Stats {
			return queue.Stats{OldestDue: due, Statuses: map[queue.Status]int64{queue.StatusDeferred: deferred}}
		}
		var told []string
		begin := time.Now()
		for n := range 6 * 20 { // a look every ten seconds, for 20 minutes
			paused := n%3 == 0 // between the probes of a pause
			failure := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect}
			if n%2 == 0 {
				failure = &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageMail} // the connection broke
			}
			l.monitor.note(0, mailer.Attempt{Results: []mailer.Result{{Failure: failure}}})
			l.monitor.pauses = func() []queue.Pause {
				until := time.Now().Add(-time.Second)
				if paused {
					until = time.Now().Add(time.Minute)
				}
				return []queue.Pause{{Relay: l.monitor.relays[0].Name(), Failures: n + 1, Since: begin, Until: until, Reason: failure}}
			}
			due := time.Now() // since the last try
			if n%4 == 1 {
				due = time.Time{}
			}
			for _, c := range l.waiting(time.Now(), stats(due, 1), l.monitor.Status()) {
				told = append(told, fmt.Sprintf("%v %v", c.Kind, time.Since(begin)))
			}
			time.Sleep(10 * time.Second)
		}
		if len(told) != 6*5 || told[0] != "mail_waits 15m0s" {
			t.Errorf("told %d times %q, want from the 15th minute on", len(told), told)
		}
		// All mail has expired; then new mail comes.
		l.waiting(time.Now(), stats(time.Time{}, 0), l.monitor.Status())
		if got := l.waiting(time.Now(), stats(time.Now(), 0), l.monitor.Status()); len(got) > 0 {
			t.Errorf("mail that came just now: %q", shown(got))
		}
	})
}

// TestOutgoing: only what a relay accepted counts as gone out.
func TestOutgoing(t *testing.T) {
	l := newTestLookout(t)
	failed := mailer.Result{Failure: &mailer.Failure{Class: mailer.ClassTransient}}
	l.monitor.note(0, mailer.Attempt{Rung: mailer.Rung{Port: 2525}, Results: []mailer.Result{failed}})
	if o := l.monitor.out; !o.lastDelivery().IsZero() || o.firstServed(0) {
		t.Error("a deferred recipient counts as delivered, or the second port as the first")
	}
	l.monitor.note(0, mailer.Attempt{Rung: mailer.Rung{Port: 587}, Results: []mailer.Result{failed, {}}})
	if o := l.monitor.out; o.lastDelivery().IsZero() || !o.firstServed(0) {
		t.Error("a delivery over the first port was not noted")
	}
	if r := l.monitor.Status()[0]; !r.LastDelivery.Equal(l.monitor.out.lastDelivery()) || !r.CertificateExpires.Equal(l.monitor.relays[0].Certificates()[587]) {
		t.Errorf("relay = %+v, want its last delivery, and when the certificate of its port ends", r)
	}
	l.monitor.out = nil // nobody wants to know
	l.monitor.note(0, mailer.Attempt{Results: []mailer.Result{{}}})
}

func TestBounces(t *testing.T) {
	now := time.Now().Truncate(queue.BucketLength).Add(5 * time.Minute)
	bucket := func(ago time.Duration, bounced, delivered int64) queue.Bucket {
		return queue.Bucket{At: now.Add(-5*time.Minute - ago), Counts: queue.Counts{Bounced: bounced, Delivered: delivered}}
	}
	for _, test := range []struct {
		name    string
		buckets []queue.Bucket
		want    bool
	}{
		{"none", nil, false},
		{"20", []queue.Bucket{bucket(0, 20, 0)}, false},
		{"21", []queue.Bucket{bucket(0, 21, 0)}, true},
		{"10 %", []queue.Bucket{bucket(0, 30, 270)}, false},
		{"over 10 %", []queue.Bucket{bucket(0, 10, 40), bucket(10*time.Minute, 10, 50), bucket(20*time.Minute, 10, 170)}, true},
		{"an hour ago", []queue.Bucket{bucket(time.Hour, 100, 0), bucket(0, 1, 0)}, false},
	} {
		got := bounces(now, queue.Stats{Buckets: test.buckets})
		if (len(got) == 1) != test.want {
			t.Errorf("%s: %+v, want %t", test.name, got, test.want)
		}
	}
}

// pairFile writes a certificate and its key into one file.
func pairFile(t *testing.T, begins, ends time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: begins, NotAfter: ends}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pair.pem")
	data := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCertificateEnds(t *testing.T) {
	now := time.Now()
	const day = 24 * time.Hour
	for _, test := range []struct {
		name       string
		life, left time.Duration
		severity   alerts.Severity // empty: nothing is told
		again      time.Duration
	}{
		{"of 90 days, 15 left", 90 * day, 15 * day, "", 0},
		{"of 90 days, 13 left", 90 * day, 13 * day, alerts.Warning, alerts.Daily},
		{"of 6 days, 3 left", 6 * day, 3 * day, "", 0},
		{"of 6 days, 1.9 left", 6 * day, 45 * time.Hour, alerts.Warning, alerts.Daily},
		{"the last day", 90 * day, 23 * time.Hour, alerts.Warning, alerts.Hourly},
		{"ended", 90 * day, -time.Hour, alerts.Critical, alerts.Hourly},
	} {
		var c config.Config
		c.Service.TLSCertFile = pairFile(t, now.Add(test.left-test.life), now.Add(test.left))
		c.Relays = []config.Relay{{Number: 2, TLSCertFile: c.Service.TLSCertFile}}
		got := newLookout(c, newRelayMonitor(nil, nil, nil, quiet()), nil).conditions(t.Context())
		if test.severity == "" {
			if len(got) > 0 {
				t.Errorf("%s: %+v, want nothing", test.name, got)
			}
			continue
		}
		if len(got) != 2 || got[0].Severity != test.severity || got[0].Again != test.again || !strings.Contains(got[0].Found, "MAILSIDECAR_TLS_CERT_FILE") || !strings.Contains(got[1].Found, "SMTP2_TLS_CERT_FILE") {
			t.Errorf("%s: %+v, want %s each %v of both files", test.name, got, test.severity, test.again)
		}
	}
}

// TestTokenWarnings: each warning of OAuth2 is a condition of its own, with what to do, told
// daily and on the last day hourly.
func TestTokenWarnings(t *testing.T) {
	kinds := []token.WarningKind{token.WarningLogin, token.WarningSecret, token.WarningCertificate, token.WarningClock, token.WarningNotStored}
	for _, test := range []struct {
		left  time.Duration // zero: no end is known
		again time.Duration
	}{
		{0, alerts.Daily}, {10 * 24 * time.Hour, alerts.Daily}, {23 * time.Hour, alerts.Hourly}, {-time.Hour, alerts.Hourly},
	} {
		subjects := map[string]bool{}
		for _, kind := range kinds {
			w := token.Warning{Kind: kind}
			if test.left != 0 {
				w.At = time.Now().Add(test.left)
			}
			got := warned("smtp.example.com", []token.Warning{w}, diagnosis.Settings{})
			if len(got) != 1 || got[0].Kind != alerts.CredentialEnds || got[0].Severity != alerts.Warning || got[0].Again != test.again || got[0].Found == "" || got[0].Do == "" {
				t.Errorf("%s, %v left: %+v, want a warning each %v", kind, test.left, got, test.again)
				continue
			}
			if subject := got[0].Subject; strings.HasPrefix(subject, "the ") && strings.HasSuffix(subject, " of smtp.example.com") {
				subjects[subject] = true
			}
		}
		if len(subjects) != len(kinds) {
			t.Errorf("subjects %v, want one for each of %v", subjects, kinds)
		}
	}
}

// TestTokenWarningOfRelay: a lookout asks the relay itself.
func TestTokenWarningOfRelay(t *testing.T) {
	c := serviceWith(t, "none", 1)
	r := &c.Relays[0]
	r.TLS, r.Auth, r.Username = "none", "auto", "jo@example.com"
	r.OAuth2 = config.OAuth2{ClientID: "id", TokenURL: "http://127.0.0.1:1", RefreshToken: config.NewSecret("x")}
	r.OAuth2.SecretExpires.Time = time.Now().Add(72 * time.Hour)
	relays, err := NewRelays(c.Relays, RelayOptions{DataDir: t.TempDir(), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer relays[0].Close()
	m := newRelayMonitor(c.Relays, relays, nil, quiet())
	m.out = newOutgoing(1)
	if got := shown(newLookout(c, m, nil).conditions(t.Context())); !slices.Equal(got, []string{"credential_ends the OAuth2 client secret of 127.0.0.1 warning", "credential_ends ?"}) {
		t.Errorf("conditions = %q", got)
	}
}

// startQueueFor starts a queue with a store in memory.
func startQueueFor(t *testing.T, l *lookout, edit func(*config.Service)) queue.Store {
	t.Helper()
	c := config.Default().Service
	if edit != nil {
		edit(&c)
	}
	store := memory.New(memory.Options{})
	q, err := startQueue(t.Context(), c, store, nil, queue.Options{Routes: l.monitor.routes(), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		q.beginStop()
		<-q.done
		_ = q.closeStore(context.Background())
	})
	for q.Ready(t.Context()) != nil {
		time.Sleep(time.Millisecond)
	}
	l.queue = q
	return store
}

// TestRefusals: a full queue refuses, and so does a store that is faulty; a drain is meant.
func TestRefusals(t *testing.T) {
	l := newTestLookout(t)
	startQueueFor(t, l, func(c *config.Service) { c.QueueMaxMessages = 1 })
	submission := queuetest.Submission("Subject: x\r\n\r\nx\r\n", "b@example.org")
	submission.SendAt = time.Now().Add(time.Hour)
	if got := l.refusals(t.Context()); len(got) > 0 {
		t.Errorf("with room: %+v", got)
	}
	if _, err := l.queue.Submit(t.Context(), submission); err != nil {
		t.Fatal(err)
	}
	if _, err := l.queue.Submit(t.Context(), submission); !errors.Is(err, queue.ErrFull) {
		t.Fatalf("Submit = %v, want ErrFull", err)
	}
	got := l.refusals(t.Context())
	if len(got) != 1 || got[0].Kind != alerts.MailRefused || !strings.Contains(got[0].Found, "MAILSIDECAR_QUEUE_MAX_MESSAGES") {
		t.Errorf("when it is full: %+v", got)
	}

	l = newTestLookout(t)
	startQueueFor(t, l, nil)
	l.queue.Drain()
	if got := l.refusals(t.Context()); len(got) > 0 {
		t.Errorf("in a drain: %+v", got)
	}
	l.queue.EndDrain()
	l.queue.beginStop()
	<-l.queue.done
	if got := shown(l.refusals(t.Context())); !slices.Equal(got, []string{"mail_refused ?"}) {
		t.Errorf("when it stops: %q", got)
	}
}

// TestStored: what is held is told, and of a store that does not answer nothing is known.
func TestStored(t *testing.T) {
	l := newTestLookout(t)
	startQueueFor(t, l, nil)
	if got := l.stored(t.Context(), nil); len(got) > 0 {
		t.Errorf("an empty queue: %+v", got)
	}
	for n, want := range map[int64]string{1: "One message is held", 3: "3 messages are held"} {
		got := l.held(t.Context(), queue.Stats{Statuses: map[queue.Status]int64{queue.StatusHeld: n}})
		if len(got) != 1 || got[0].Kind != alerts.MailHeld || !strings.Contains(got[0].Found, want) {
			t.Errorf("%d held: %+v", n, got)
		}
	}
	if got := shown(l.held(t.Context(), queue.Stats{Counting: true})); !slices.Equal(got, []string{"mail_held ?"}) {
		t.Errorf("while it counts: %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = l.queue.store.Close()
	if got := shown(l.stored(ctx, nil)); !slices.Equal(got, []string{"mail_waits ?", "mail_held ?", "many_bounces ?", "crash_suspect ?"}) {
		t.Errorf("a store that does not answer: %q", got)
	}
}

// hook is a server that notes what it gets.
type hook struct {
	*httptest.Server
	mu  sync.Mutex
	got []string
}

func newHook(t *testing.T) *hook {
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m struct{ State, Kind, Subject, Found, Do string }
		data, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(data, &m)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.got = append(h.got, fmt.Sprintf("%s %s %s", m.State, m.Kind, m.Subject))
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) heard() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got)
}

// TestAlarm: a person is told of a refused login by a whole server, and of nothing when that
// stops.
func TestAlarm(t *testing.T) {
	relay := relaytest.New(t, relaytest.Options{Extensions: []string{"AUTH PLAIN"}}, nil)
	c := serviceWith(t, "sqlite", relay.Listen(t))
	r := &c.Relays[0]
	r.TLS, r.Auth, r.Username, r.Password = "none", "auto", "user", config.NewSecret("wrong")
	h := newHook(t)
	target, err := alerts.Parse("json+" + h.URL + "/hook")
	if err != nil {
		t.Fatal(err)
	}
	c.Service.AlertTargets, c.Service.AlertsAllowPrivate = []alerts.Target{target}, true
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, Options{Config: c, Logger: quiet(), lookEvery: 20 * time.Millisecond})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if a, err := post(s, http.Header{}); err != nil || a.Status != http.StatusAccepted {
		t.Errorf("post = %d, %v", a.Status, err)
	}
	for deadline := time.Now().Add(20 * time.Second); len(h.heard()) == 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // many looks
	if got, want := h.heard(), []string{"firing login_refused 127.0.0.1"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); s.alarm.tasks.Wait() }()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("it still looks after the stop")
	}
	if got := h.heard(); len(got) != 1 {
		t.Errorf("told %q after the stop", got)
	}
}

// TestStopBesideAlarm: a look that takes long delays neither the last requests nor the queue
// when the server stops, and the stop waits for it within its time only.
func TestStopBesideAlarm(t *testing.T) {
	for _, ends := range []bool{true, false} {
		c := serviceWith(t, "sqlite", 1)
		target, err := alerts.Parse("json+http://127.0.0.1:1/hook")
		if err != nil {
			t.Fatal(err)
		}
		c.Service.AlertTargets, c.Service.AlertsAllowPrivate = []alerts.Target{target}, true
		c.Service.ShutdownTimeout = units.Duration(time.Minute)
		if !ends {
			c.Service.ShutdownTimeout = units.Duration(time.Second)
		}
		s, stop := start(t, c)
		release := make(chan struct{})
		s.alarm.tasks.Go(func() { <-release })
		done := make(chan error, 1)
		go func() { done <- stop() }()
		select {
		case <-s.queue.done:
		case <-time.After(10 * time.Second):
			t.Error("the queue does not stop before the look ends")
		}
		if ends {
			select {
			case err := <-done:
				t.Errorf("stopped, though a look goes on: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			close(release)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("ends %t: stop = %v", ends, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("ends %t: it does not stop", ends)
		}
		if !ends {
			close(release)
		}
	}
}

// TestSentence: the heartbeat says why mail does not flow.
func TestSentence(t *testing.T) {
	var c config.Service
	c.AlertsMaxAge = units.Duration(15 * time.Minute)
	got := sentence([]alerts.Condition{
		{Kind: alerts.MailHeld, Severity: alerts.Warning, Found: "Held."},
		{Kind: alerts.RelayUnusable, Severity: alerts.Critical, Found: "No port answers."},
		{Kind: alerts.LoginRefused, Severity: alerts.Critical, Unknown: true},
	}, c)
	if want := "Mail has waited for longer than 15m, or the queue does not answer. No port answers."; got != want {
		t.Errorf("sentence = %q, want %q", got, want)
	}
}

// shownRelay has shown certificates.
type shownRelay struct {
	fakeRelay
	ends map[int]time.Time
}

func (r *shownRelay) Certificates() map[int]time.Time { return r.ends }

// TestRelayCertificate: one that ends within two days is told daily, on the last day hourly.
// Of several ports the one whose certificate ends first is told.
func TestRelayCertificate(t *testing.T) {
	for _, test := range []struct {
		left  time.Duration
		want  []string
		again time.Duration
		verb  string
	}{
		{3 * 24 * time.Hour, nil, 0, ""},
		{47 * time.Hour, []string{"credential_ends the certificate of smtp.example.com warning"}, alerts.Daily, "ends on"},
		{25 * time.Hour, []string{"credential_ends the certificate of smtp.example.com warning"}, alerts.Daily, "ends on"},
		{23 * time.Hour, []string{"credential_ends the certificate of smtp.example.com warning"}, alerts.Hourly, "ends on"},
		{-time.Hour, []string{"credential_ends the certificate of smtp.example.com warning"}, alerts.Hourly, "ended on"},
	} {
		for range 5 { // the order of a map differs each time
			l := newTestLookout(t)
			end := time.Now().Add(test.left)
			l.monitor.relays[0] = &shownRelay{ends: map[int]time.Time{465: end.Add(time.Minute), 587: end, 2525: end}}
			got := l.relay(0, handler.RelayStatus{Name: "smtp.example.com", Host: "smtp.example.com"})
			if !slices.Equal(shown(got), test.want) {
				t.Fatalf("%v left: %q, want %q", test.left, shown(got), test.want)
			}
			if len(got) == 1 && (got[0].Again != test.again || !strings.Contains(got[0].Found, "on port 587 "+test.verb)) {
				t.Fatalf("%v left: told each %v: %s; want each %v, of port 587, which %s", test.left, got[0].Again, got[0].Found, test.again, test.verb)
			}
		}
	}
	l := newTestLookout(t)
	l.monitor.relays[0] = new(fakeRelay)
	if got := shown(l.relay(0, handler.RelayStatus{Name: "smtp.example.com"})); !slices.Equal(got, []string{"credential_ends ?"}) {
		t.Errorf("where none was shown of late: %q, want it unknown", got)
	}
}
