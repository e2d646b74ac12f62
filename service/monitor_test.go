package service

import (
	"errors"
	"testing"
	"time"

	"mailsidecar/config"
	"mailsidecar/mailer"
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
