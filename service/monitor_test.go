package service

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/config"
	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
)

// The monitor shows the outcome of the last attempt at each relay, and the pauses.
func TestRelayMonitor(t *testing.T) {
	configs := []config.Relay{{Number: 1, Host: "127.0.0.1", Ports: config.Ladder{{Port: refusedPort(t)}}}}
	relays, err := NewRelays(configs, RelayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer relays[0].Close()
	var seen []mailer.Attempt
	m := newRelayMonitor(configs, relays, func(a mailer.Attempt) { seen = append(seen, a) }, quiet())
	if s := m.Status(); len(s) != 1 || s[0].Failure != nil || s[0].Serving != (mailer.Rung{}) || s[0].Host != "127.0.0.1" {
		t.Errorf("Status before any attempt = %+v", s)
	}

	env := mailer.Envelope{ReversePath: "a@example.com", ForwardPaths: []string{"b@example.org"}}
	m.routes()[0].Relay.Deliver(t.Context(), env, mailer.Content{Data: []byte("Subject: x\r\n\r\nx\r\n")})
	if s := m.Status(); len(seen) != 1 || s[0].Failure == nil || s[0].Failure.Stage != mailer.StageConnect {
		t.Errorf("Status after a refused connection = %+v, observed %+v", s, seen)
	}

	rung := mailer.Rung{Port: 2525}
	m.note(0, mailer.Attempt{Rung: rung, Results: []mailer.Result{{Failure: &mailer.Failure{Class: mailer.ClassPermanent, Err: errors.New("x")}}}})
	if s := m.Status(); s[0].Failure != nil || s[0].Serving != rung {
		t.Errorf("Status after a refused recipient = %+v, want the relay up", s)
	}
	m.note(0, mailer.Attempt{Results: []mailer.Result{{Failure: &mailer.Failure{Class: mailer.ClassRelay, Err: &mailer.RateError{}}}}})
	if s := m.Status(); s[0].Failure != nil || s[0].Serving != rung {
		t.Errorf("Status while the relay's rate is used up = %+v, want the relay up", s)
	}

	until := time.Now().Add(time.Minute)
	m.pauses = func() []queue.Pause {
		return []queue.Pause{{Relay: "127.0.0.1", Until: until, Reason: &mailer.Failure{}}}
	}
	if s := m.Status(); !s[0].PausedUntil.Equal(until) || s[0].Failure == nil {
		t.Errorf("Status of a paused relay = %+v", s)
	}
}

// TestAdviceOnPause: a relay that is paused because it refuses mail says why and what to do,
// in the words that are known of the reply.
func TestAdviceOnPause(t *testing.T) {
	configs := []config.Relay{{Number: 1, Host: "127.0.0.1", Ports: config.Ladder{{Port: 587}}}}
	relays, err := NewRelays(configs, RelayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer relays[0].Close()
	m := newRelayMonitor(configs, relays, nil, quiet())
	for _, class := range []mailer.Class{mailer.ClassRelay, mailer.ClassTransient} {
		reason := &mailer.Failure{
			Class: class, Stage: mailer.StageContent, Reply: mailer.Reply{Code: 550, Text: "limit"}, Cause: "The daily limit is used up.", Remedy: "Wait until tomorrow.",
		}
		m.pauses = func() []queue.Pause {
			return []queue.Pause{{Relay: "127.0.0.1", Until: time.Now().Add(time.Hour), Reason: reason}}
		}
		if s := m.Status()[0]; len(s.Advice) != 1 || s.Advice[0].Found != reason.Cause || s.Advice[0].Do != reason.Remedy || s.PausedUntil.IsZero() {
			t.Errorf("%s: advice %+v until %v, want the cause and remedy of the reply", class, s.Advice, s.PausedUntil)
		}
	}
}

// TestPassingTroubleIsAWarning: what ends by itself, such as the quota of a day, calls
// nobody. What lasts until somebody does something is an error.
func TestPassingTroubleIsAWarning(t *testing.T) {
	for _, tt := range []struct{ reply, level, want string }{
		{"550 5.4.5 Daily user sending limit exceeded.", "WARN", "until="},
		{"550 Daily message quota exceeded", "WARN", "nothing has to be done"},
		{"451 Too many messages, try again in 92 seconds", "WARN", "until="},
		{"550 You have exceeded your hourly limit of 100 messages", "WARN", "until="},
		{"550 Monthly message limit exceeded", "ERROR", "larger plan"},
		{"451 Maximum credits exceeded", "ERROR", "larger plan"},
		{"550 5.7.1 Client host blocked using zen.spamhaus.org", "ERROR", "list"},
		{"535 5.7.8 Authentication credentials invalid", "ERROR", "SMTP_USERNAME"},
	} {
		scripted := relaytest.New(t, relaytest.Options{}, relaytest.Script{"MAIL": tt.reply})
		relay, err := smtp.New(smtp.Options{
			Host: relaytest.Host, Ladder: []mailer.Rung{{Port: 587}}, RootCAs: relaytest.RootCAs(),
			Dial: (&relaytest.Network{Port: map[int]any{587: scripted}}).Dial,
		})
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		m := newRelayMonitor(config.Default().Relays, []Relay{relay}, nil, slog.New(slog.NewTextHandler(&log, nil)))
		m.routes()[0].Relay.Deliver(t.Context(), mailer.Envelope{ReversePath: "a@example.com", ForwardPaths: []string{"b@example.org"}}, mailer.Content{Data: []byte("Subject: x\r\n\r\nx\r\n")})
		relay.Close()
		if want := "level=" + tt.level + ` msg="relay cannot be used"`; !strings.Contains(log.String(), want) || !strings.Contains(log.String(), tt.want) {
			t.Errorf("after %q the log has\n%s\nwant %s with %q", tt.reply, log.String(), want, tt.want)
		}
	}
}

// TestTroubleIsToldHourly: the log says that a relay cannot be used when that is new, when
// the reason is another one, and once an hour; and when it can be used again.
func TestTroubleIsToldHourly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		configs := []config.Relay{{Number: 1, Host: "127.0.0.1", Ports: config.Ladder{{Port: 587}}}}
		relays, err := NewRelays(configs, RelayOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer relays[0].Close()
		var log bytes.Buffer
		m := newRelayMonitor(configs, relays, nil, slog.New(slog.NewTextHandler(&log, nil)))
		fails := func(code int) mailer.Attempt {
			return mailer.Attempt{Results: []mailer.Result{{Failure: &mailer.Failure{
				Class: mailer.ClassRelay, Stage: mailer.StageAuth, Reply: mailer.Reply{Code: code, Text: "no"}, Relay: "127.0.0.1", Err: errors.New("no"),
			}}}}
		}
		works := mailer.Attempt{Results: []mailer.Result{{Reply: mailer.Reply{Code: 250}}}}
		for _, step := range []struct {
			after time.Duration
			a     mailer.Attempt
			want  string // a part of the line; empty: nothing is logged
		}{
			{0, works, ""},
			{0, fails(535), "relay cannot be used"},
			{59 * time.Minute, fails(535), ""},
			{time.Minute, fails(535), "relay cannot be used"},
			{time.Minute, fails(535), ""},
			{time.Minute, fails(421), "relay cannot be used"}, // for another reason
			{58 * time.Minute, fails(421), ""},
			{time.Minute, works, "after_ms=7260000"},
			{time.Minute, works, ""},
			{time.Minute, fails(421), "relay cannot be used"},
		} {
			time.Sleep(step.after)
			log.Reset()
			m.note(0, step.a)
			if got := log.String(); (got != "") != (step.want != "") || !strings.Contains(got, step.want) {
				t.Errorf("after %v the log has %q, want %q", step.after, got, step.want)
			}
		}
	})
}

// TestCheckDisproves: a check that goes well ends what the last attempt showed, but for mail that
// the relay refuses, of which a check sends none.
func TestCheckDisproves(t *testing.T) {
	for stage, up := range map[mailer.Stage]bool{mailer.StageConnect: true, mailer.StageAuth: true, mailer.StageContent: false} {
		var log bytes.Buffer
		relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{})
		configs := []config.Relay{{Number: 1, Host: "127.0.0.1", Ports: config.Ladder{{Port: relay.Listen(t)}}, RootCAs: relaytest.RootCAs(), TLSServerName: relaytest.Host}}
		relays, err := NewRelays(configs, RelayOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer relays[0].Close()
		m := newRelayMonitor(configs, relays, nil, slog.New(slog.NewTextHandler(&log, nil)))
		m.out = newOutgoing(1)
		m.note(0, mailer.Attempt{Results: []mailer.Result{{Failure: &mailer.Failure{Class: mailer.ClassRelay, Stage: stage, Text: "no", Relay: "127.0.0.1"}}}})
		if m.numbers()[0].Up {
			t.Errorf("%s: up after a failure", stage)
		}
		if r := m.Check(t.Context(), ""); !r[0].OK {
			t.Fatalf("the check failed: %+v", r[0])
		}
		if got := m.numbers()[0].Up; got != up || strings.Contains(log.String(), "relay can be used again") != up {
			t.Errorf("%s: up = %t after a check that went well, want %t and the log to say so:\n%s", stage, got, up, log.String())
		}
	}
}

// TestFailingSince: the time of a relay's failures begins with the first of them, and ends when
// it works, or when nothing was tried there for a while.
func TestFailingSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		configs := []config.Relay{{Number: 1, Host: "127.0.0.1", Ports: config.Ladder{{Port: refusedPort(t)}}}}
		relays, err := NewRelays(configs, RelayOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer relays[0].Close()
		m := newRelayMonitor(configs, relays, nil, quiet())
		m.out = newOutgoing(1)
		begun := time.Now()
		fails := mailer.Attempt{Results: []mailer.Result{{Failure: &mailer.Failure{Class: mailer.ClassRelay, Err: errors.New("no")}}}}
		for range 3 {
			m.note(0, fails)
			time.Sleep(10 * time.Minute)
		}
		if s := m.Status()[0]; !s.FailingSince.Equal(begun) || !s.FailedAt.Equal(begun.Add(20*time.Minute)) {
			t.Errorf("failing since %v until %v, want from %v for 20 minutes", s.FailingSince, s.FailedAt, begun)
		}
		time.Sleep(21 * time.Minute)
		if s := m.Status()[0]; !s.FailingSince.IsZero() {
			t.Errorf("31 minutes after the last attempt it fails since %v, want that it is not known", s.FailingSince)
		}
		m.note(0, fails)
		m.note(0, mailer.Attempt{Results: []mailer.Result{{Reply: mailer.Reply{Code: 250}}}})
		if s := m.Status()[0]; !s.FailingSince.IsZero() {
			t.Errorf("a relay that works fails since %v", s.FailingSince)
		}
	})
}
