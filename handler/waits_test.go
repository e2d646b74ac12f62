package handler

import (
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
	"mailsidecar/units"
)

// TestWaits: for each way of waiting the reason, its end and what to do are told.
func TestWaits(t *testing.T) {
	now := time.Date(2030, 1, 31, 8, 0, 0, 0, time.UTC)
	soon, later := now.Add(time.Minute), now.Add(time.Hour)
	busy := &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageRcpt, Relay: "one", Reply: mailer.Reply{Code: 450, Enhanced: "4.2.1", Text: "mailbox busy"}}
	dead := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Text: "connection refused"}
	paused := func(name string, until time.Time, senders ...string) RelayStatus {
		return RelayStatus{Name: name, Senders: senders, PausedUntil: until, Failure: dead, Advice: []api.Advice{{Found: "refused", Do: "Set SMTP_HOST of " + name + "."}}}
	}
	quota := RelayStatus{
		Name: "smtp.gmail.com", PausedUntil: later, Advice: []api.Advice{{Found: "The daily limit is used up.", Do: "Wait."}},
		Failure: &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageContent, Reply: mailer.Reply{Code: 550, Enhanced: "5.4.5", Text: "limit"}, Cause: "The daily limit is used up."},
	}
	up := RelayStatus{Name: "up"}
	crowded := RelayStatus{Name: "crowded", Connections: smtp.Connections{Waiting: 7, Limit: 2}}
	rated := RelayStatus{Name: "rated", Turns: smtp.Turns{Rate: units.Rate{Messages: 20, Per: time.Minute}}}
	used := RelayStatus{Name: "used", Turns: smtp.Turns{Rate: units.Rate{Messages: 20, Per: time.Minute}, Waiting: 1, Next: soon}}
	recipient := func(state queue.State, next time.Time, f *mailer.Failure) queue.Recipient {
		return queue.Recipient{ForwardPath: "a@example.org", State: state, NextAttempt: next, Result: mailer.Result{Failure: f}}
	}
	for _, tt := range []struct {
		name   string
		r      queue.Recipient
		sendAt time.Time
		relays []RelayStatus
		want   api.Wait // Found and Do are part of those told
	}{
		{"schedule", recipient(queue.Queued, later, nil), later, []RelayStatus{paused("one", soon)}, api.Wait{Reason: api.WaitSchedule, Until: later, Found: "send_at", Do: "cancel"}},
		{"held", recipient(queue.Held, time.Time{}, nil), time.Time{}, []RelayStatus{up}, api.Wait{Reason: api.WaitHeld, Found: "person", Do: "retry it"}},
		{"paused", recipient(queue.Queued, soon, nil), time.Time{}, []RelayStatus{paused("one", soon)}, api.Wait{Reason: api.WaitRelayPaused, Until: soon, Relay: "one", Found: "connect: connection refused", Do: "SMTP_HOST of one"}},
		{"quota", recipient(queue.Deferred, soon, busy), time.Time{}, []RelayStatus{quota}, api.Wait{Reason: api.WaitRelayPaused, Until: later, Relay: "smtp.gmail.com", Found: "the relay is paused: The daily limit is used up (content: 550 5.4.5 limit)", Do: "Wait."}},
		{"both paused", recipient(queue.Deferred, soon, busy), time.Time{}, []RelayStatus{paused("one", later), paused("two", soon)}, api.Wait{Reason: api.WaitRelayPaused, Until: soon, Relay: "two", Found: "refused", Do: "SMTP_HOST of two"}},
		{"of this sender paused", recipient(queue.Queued, soon, nil), time.Time{}, []RelayStatus{up, paused("one", soon, "example.com")}, api.Wait{Reason: api.WaitRelayPaused, Until: soon, Relay: "one", Found: "refused", Do: "SMTP_HOST"}},
		{"another sender's paused", recipient(queue.Deferred, soon, busy), time.Time{}, []RelayStatus{up, paused("one", soon, "example.net")}, api.Wait{Reason: api.WaitRetry, Until: soon, Relay: "one", Found: "450 4.2.1 mailbox busy", Do: "by itself"}},
		{"retry", recipient(queue.Deferred, later, busy), time.Time{}, nil, api.Wait{Reason: api.WaitRetry, Until: later, Relay: "one", Found: "450 4.2.1 mailbox busy", Do: "by itself"}},
		{"rate", recipient(queue.Queued, soon, nil), time.Time{}, []RelayStatus{rated}, api.Wait{Reason: api.WaitRate, Until: soon, Relay: "rated", Found: "SMTP_RATE=20/m is used up", Do: "turn"}},
		{"rate, in line", recipient(queue.Queued, now, nil), time.Time{}, []RelayStatus{up, used}, api.Wait{Reason: api.WaitRate, Relay: "used", Found: "SMTP_RATE=20/m is used up: it waits for a turn, behind other mail; the next one is at " + soon.UTC().Format(time.RFC3339), Do: "Nothing"}},
		{"rate, not used up", recipient(queue.Queued, now, nil), time.Time{}, []RelayStatus{rated}, api.Wait{Reason: api.WaitInLine, Found: "being tried"}},
		{"in line", recipient(queue.Queued, now, nil), time.Time{}, []RelayStatus{crowded}, api.Wait{Reason: api.WaitInLine, Relay: "crowded", Found: "7 in line, 2 connections at most"}},
		{"being tried", recipient(queue.Deferred, now, busy), time.Time{}, []RelayStatus{up}, api.Wait{Reason: api.WaitInLine, Found: "being tried"}},
	} {
		m := queue.Message{Sender: "Shop@Example.com", SendAt: tt.sendAt, Recipients: []queue.Recipient{tt.r, tt.r, recipient(queue.Delivered, time.Time{}, nil)}}
		got := waitsOf(m, tt.relays, now)
		if len(got) != 1 || got[0].Recipients != 2 {
			t.Errorf("%s: waits = %+v, want one reason for two recipients", tt.name, got)
			continue
		}
		w := got[0]
		if w.Reason != tt.want.Reason || !w.Until.Equal(tt.want.Until) || w.Relay != tt.want.Relay || !strings.Contains(w.Found, tt.want.Found) || !strings.Contains(w.Do, tt.want.Do) {
			t.Errorf("%s: waits = %+v, want %+v", tt.name, w, tt.want)
		}
	}
	for _, state := range []queue.State{queue.Delivered, queue.Bounced, queue.Expired, queue.Canceled} {
		if got := waitsOf(queue.Message{Recipients: []queue.Recipient{recipient(state, time.Time{}, busy)}}, nil, now); got != nil {
			t.Errorf("waits of %s = %+v, want none", state, got)
		}
	}
}
