package smtp_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// deliverNumbered hands the n-th message to a recipient, and returns what became of it.
func deliverNumbered(t *testing.T, relay *smtp.Relay, n int, to ...string) mailer.Attempt {
	t.Helper()
	c := content(fmt.Sprintf("Subject: %d\r\n\r\nx\r\n", n))
	c.MessageID = fmt.Sprintf("<%d@example.com>", n)
	return relay.Deliver(t.Context(), envelope(to...), c)
}

// oneEach makes each message use a connection of its own, so that none goes twice, see
// doubtLogin.
func oneEach(o *smtp.Options) { o.MessagesPerConnection = 1 }

// TestUnrelatedRefusedAlike: the same words to unrelated messages in a row are kept from
// the second on, until the relay takes any mail.
func TestUnrelatedRefusedAlike(t *testing.T) {
	const words = "550 5.7.1 Sending stopped for today "
	for stage, name := range map[string]string{"MAIL": "mail", "RCPT": "rcpt", "DATA": "data", ".": "content"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				script := ""
				for _, id := range []string{"a1", "b2", "c3", "d4", "e5"} {
					script += words + id + " then "
				}
				script += "default then " + words + "f6 then " + words + "g7"
				p := newPoolTest(t, relaytest.Options{TLSExtensions: relaytest.Without("PIPELINING")}, relaytest.Script{stage: script}, oneEach)
				permanent, kept := "permanent "+name+" 550", "transient "+name+" 550"
				for i, want := range []string{permanent, kept, kept, kept, kept, "accepted 250", permanent, kept} {
					a := deliverNumbered(t, p.relay, i, fmt.Sprintf("u%d@example%d.org", i, i))
					if got := outcomes(a); got != want {
						t.Errorf("message %d: %s, want %s", i, got, want)
					}
					f := a.Results[0].Failure
					if isKept := f != nil && errors.Is(f.Err, mailer.ErrRefusesMany); isKept != (want == kept) || isKept && (f.Cause == "" || f.Remedy == "" || f.Scope() != mailer.ScopeSender) {
						t.Errorf("message %d: %+v, want it kept: %v", i, f, want == kept)
					}
				}
			})
		})
	}
}

// TestRefusalsThatAreOrdinary: what is plainly about the recipient or the message, what is
// of one message or domain, and what differs, bounces each time.
func TestRefusalsThatAreOrdinary(t *testing.T) {
	to := func(i int) string { return fmt.Sprintf("u%d@example%d.org", i, i) }
	for _, tt := range []struct {
		name, stage, reply string
		id                 func(i int) int
		to                 func(i int) string
	}{
		{"unknown recipients", "RCPT", "550 5.1.1 denied", nil, to},
		{"disabled mailboxes", "RCPT", "550 5.2.1 denied", nil, to},
		{"full mailboxes", "RCPT", "552 5.2.2 denied", nil, to},
		{"no mail there", "RCPT", "556 5.1.10 denied", nil, to},
		{"words about recipients", "RCPT", "550 No such person here", nil, to},
		{"malformed messages", ".", "554 5.6.0 denied", nil, to},
		{"one message", ".", "554 5.7.1 content denied", func(int) int { return 1 }, to},
		{"one domain", ".", "554 5.7.1 denied", nil, func(int) string { return "u@example.org" }},
		{"other words each time", ".", "554 5.7.1 one then 554 5.7.1 two then 554 5.7.1 three then 554 5.7.1 four", nil, to},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPoolTest(t, relaytest.Options{}, relaytest.Script{tt.stage: tt.reply}, oneEach)
				for i := range 4 {
					id := i
					if tt.id != nil {
						id = tt.id(i)
					}
					if f := deliverNumbered(t, p.relay, id, tt.to(i)).Results[0].Failure; f == nil || f.Class != mailer.ClassPermanent {
						t.Errorf("message %d: %v, want it refused for good", i, f)
					}
				}
			})
		})
	}
}

// TestRecipientsOfOneMessage: a message that is refused for each of its recipients is one
// message, and one that is accepted for any ends the row.
func TestRecipientsOfOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"RCPT": "554 5.7.1 denied", "RCPT TO:<good@": "default"}, nil)
		a := deliverNumbered(t, p.relay, 1, "a@one.example", "b@two.example", "c@three.example")
		for _, r := range a.Results {
			if r.Failure == nil || r.Failure.Class != mailer.ClassPermanent {
				t.Errorf("%s: %v, want it refused for good", r.ForwardPath, r.Failure)
			}
		}
		if got := outcomes(deliverNumbered(t, p.relay, 2, "d@four.example", "good@five.example")); got != "permanent rcpt 554, accepted 250" {
			t.Errorf("with one accepted: %s", got)
		}
		if got := outcomes(deliverNumbered(t, p.relay, 3, "e@six.example")); got != "permanent rcpt 554" {
			t.Errorf("after a success: %s", got)
		}
	})
}

// TestRecipientsBeforeTheUnrelatedOne: where one recipient of a message shows that the
// relay refuses all alike, those before it are kept, too.
func TestRecipientsBeforeTheUnrelatedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"RCPT": "554 5.7.1 denied"}, nil)
		for i, want := range []string{"permanent rcpt 554", "transient rcpt 554, transient rcpt 554"} {
			to := []string{"a@one.example", "b@two.example"}[:i+1]
			if got := outcomes(deliverNumbered(t, p.relay, i, to...)); got != want {
				t.Errorf("message %d: %s, want %s", i, got, want)
			}
		}
	})
}

// TestRefusalsAreForgotten: a row of a day ago is none.
func TestRefusalsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{".": "554 5.7.1 denied"}, nil)
		for i, after := range []time.Duration{0, 25 * time.Hour, time.Hour, 23 * time.Hour, 25 * time.Hour} {
			time.Sleep(after)
			want := "transient content 554"
			if i < 2 || i == 4 {
				want = "permanent content 554"
			}
			if got := outcomes(deliverNumbered(t, p.relay, i, fmt.Sprintf("u@example%d.org", i))); got != want {
				t.Errorf("message %d: %s, want %s", i, got, want)
			}
		}
	})
}
