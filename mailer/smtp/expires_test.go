package smtp_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/units"
)

func hasExpired(r mailer.Result) bool {
	return r.Failure != nil && errors.Is(r.Failure, mailer.ErrExpired)
}

// TestExpires: no MAIL is sent for a message that has expired, whatever it has waited
// for, and its wait ends with that.
func TestExpires(t *testing.T) {
	const at = 2 * time.Minute
	expired := func(n int) []string { return slices.Repeat([]string{"transient connect"}, n) }
	one := func(o *smtp.Options) { o.MaxConnections = 1 }
	lockStep := relaytest.Options{TLSExtensions: relaytest.Without("PIPELINING")}
	tests := []struct {
		name     string
		opts     relaytest.Options
		script   relaytest.Script
		edit     func(*smtp.Options)
		before   string // outcome of a message that comes before; empty: there is none
		behind   bool   // the message comes while that is delivered
		paths    int    // zero means one
		want     []string
		took     time.Duration
		messages int // that the relay got
	}{
		{
			name: "behind a busy connection", script: relaytest.Script{".": "after 8m 250 ok"}, edit: one,
			before: "accepted 250", behind: true, want: expired(1), took: at, messages: 1,
		},
		{
			name: "behind a busy connection, without PIPELINING", opts: lockStep, script: relaytest.Script{".": "after 8m 250 ok"}, edit: one,
			before: "accepted 250", behind: true, want: expired(1), took: at, messages: 1,
		},
		{
			name: "in time behind a busy connection", script: relaytest.Script{".": "after 1m 250 ok"}, edit: one,
			before: "accepted 250", behind: true, want: []string{"accepted 250"}, took: 2 * time.Minute, messages: 2,
		},
		{name: "no connection comes", script: relaytest.Script{"AUTH": "silence"}, edit: func(o *smtp.Options) { o.Timeouts.Login = time.Hour }, want: expired(1), took: at},
		{
			name: "no turn", edit: func(o *smtp.Options) { o.Rate = units.Rate{Messages: 1, Per: 3 * time.Minute} },
			before: "accepted 250", want: []string{"relay connect"}, messages: 1, // the queue waits
		},
		{
			name: "recipients in several transactions", script: relaytest.Script{".": "after 50s 250 ok"}, edit: func(o *smtp.Options) { o.MaxRecipients = 1 },
			paths: 5, want: append(slices.Repeat([]string{"accepted 250"}, 3), expired(2)...), took: 150 * time.Second, messages: 3,
		},
		{
			name: "too many recipients", script: relaytest.Script{".": "after 3m 250 ok", "RCPT TO:<r1": "452 4.5.3 too many"},
			paths: 2, want: []string{"accepted 250", "transient rcpt 452"}, took: 3 * time.Minute, messages: 1,
		},
		{
			name: "over a new connection", script: relaytest.Script{"MAIL": "default then later default then default", "RCPT": "default then drop then default", "greeting": "default then after 150s 220 slow"},
			edit: func(o *smtp.Options) { o.Timeouts.Hello = time.Hour }, before: "accepted 250", want: []string{"transient rcpt"}, took: at, messages: 1, // what the relay did is told
		},
		{
			name: "after RSET", opts: lockStep, script: relaytest.Script{"RCPT": "550 5.1.1 unknown then default", "RSET": "after 150s 250 ok"},
			before: "permanent rcpt 550", want: expired(1), took: 150 * time.Second,
		},
		{
			name: "the reply to MAIL comes late", script: relaytest.Script{"MAIL": "default then after 150s 250 ok"},
			before: "accepted 250", want: []string{"accepted 250"}, took: 150 * time.Second, messages: 2, // MAIL was in time
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPoolTest(t, tt.opts, tt.script, tt.edit)
				var all sync.WaitGroup
				defer all.Wait()
				if tt.before != "" {
					all.Go(func() { p.deliver(t, tt.before) })
					if synctest.Wait(); !tt.behind {
						all.Wait()
					}
				}
				begin := time.Now()
				env := envelope(manyRecipients(max(1, tt.paths))...)
				env.Expires = begin.Add(at)
				a := p.relay.Deliver(t.Context(), env, content(messageText))
				var got []string
				for _, r := range a.Results {
					got = append(got, outcome(r))
					if f := r.Failure; f != nil && f.Stage == mailer.StageConnect && f.Class == mailer.ClassTransient && !hasExpired(r) {
						t.Errorf("%s failed with %v, want ErrExpired", r.ForwardPath, f)
					}
				}
				if !slices.Equal(got, tt.want) || a.Duration != tt.took {
					t.Errorf("Deliver() = %q after %v, want %q after %v", got, a.Duration, tt.want, tt.took)
				}
				for _, sent := range mails(p.scripted) {
					if sent.After(env.Expires) {
						t.Errorf("MAIL was sent %v after the message began, want none after %v", sent.Sub(begin), at)
					}
				}
				time.Sleep(10 * time.Minute)
				if n := len(p.scripted.Messages()); n != tt.messages {
					t.Errorf("the relay got %d messages, want %d", n, tt.messages)
				}
			})
		})
	}
}

// TestExpiresBeforeTurn: a message whose turn comes after it expires does not stand in
// line for it. One that is overtaken until then ends when it expires.
func TestExpiresBeforeTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) { o.Rate = units.Rate{Messages: 1, Per: 20 * time.Second} })
		p.deliver(t, "accepted 250")
		begin := time.Now()
		deliver := func(priority mailer.Priority, expires time.Duration) mailer.Attempt {
			env := envelope("b@example.org")
			env.Priority, env.Expires = priority, begin.Add(expires)
			return p.relay.Deliver(t.Context(), env, content(messageText))
		}
		a := deliver(mailer.PriorityHigh, 10*time.Second)
		if rate, ok := usedUp(a.Results[0]); !ok || !rate.At.Equal(begin.Add(20*time.Second)) || a.Duration != 0 {
			t.Errorf("Deliver() = %s after %v, want a RateError for the turn at 20s, at once", outcomes(a), a.Duration)
		}
		var all sync.WaitGroup
		all.Go(func() {
			a := deliver(mailer.PriorityBulk, 50*time.Second)
			if !hasExpired(a.Results[0]) || a.Duration != 50*time.Second {
				t.Errorf("Deliver() of bulk = %s after %v, want expired after 50s", outcomes(a), a.Duration)
			}
		})
		for i := range 2 {
			synctest.Wait()
			all.Go(func() {
				want := time.Duration(i+1) * 20 * time.Second
				if a := deliver(mailer.PriorityHigh, time.Hour); outcomes(a) != "accepted 250" || a.Duration != want {
					t.Errorf("Deliver() of high = %s after %v, want accepted after %v", outcomes(a), a.Duration, want)
				}
			})
		}
		all.Wait()
	})
}

// TestExpired: a message that has expired does not reach the relay at all.
func TestExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, nil)
		env := envelope("b@example.org")
		env.Expires = time.Now()
		a := p.relay.Deliver(t.Context(), env, content(messageText))
		if !hasExpired(a.Results[0]) || a.Results[0].Failure.Scope() != mailer.ScopeMessage {
			t.Errorf("Deliver() = %v, want ErrExpired, which concerns this message alone", a.Results[0].Failure)
		}
		p.checkConnections(t, 0, 0)
	})
}
