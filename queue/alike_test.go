package queue_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// moodyRelay is a relay that can be replaced by one with another script.
type moodyRelay struct {
	*smtp.Relay
	network *relaytest.Network
}

func newMoodyRelay(t *testing.T, script relaytest.Script, host string) *moodyRelay {
	t.Helper()
	m := &moodyRelay{network: &relaytest.Network{Port: map[int]any{}}}
	m.set(t, script)
	r, err := smtp.New(smtp.Options{
		Host: host, ServerName: relaytest.Host, Ladder: []mailer.Rung{{Port: 587}}, Username: "user", Password: "secret",
		RootCAs: relaytest.RootCAs(), Dial: m.network.Dial, IdleTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	m.Relay = r
	return m
}

// set changes the script, for the connections to come.
func (m *moodyRelay) set(t *testing.T, script relaytest.Script) *relaytest.Relay {
	t.Helper()
	relay := relaytest.New(t, relaytest.Options{}, script)
	m.network.Set(587, relay)
	return relay
}

func (m *moodyRelay) route(o *queue.Options) { o.Routes = queue.Routes{{Relay: m}} }

// numberedMessage is one of a key, to a domain of its own.
func numberedMessage(key, from string, n int) queue.Submission {
	s := message(key, from, fmt.Sprintf("u@example%d.org", n))
	s.Content = mailer.Content{Data: []byte("Subject: x\r\n\r\nx\r\n"), MessageID: fmt.Sprintf("<%s-%d@example.com>", key, n)}
	return s
}

// TestStormOfRefusals: a relay that refuses all mail for hours, with words that nobody
// knows and by whose code all would bounce, bounces one message and is asked rarely. When
// it takes mail again, all goes out.
func TestStormOfRefusals(t *testing.T) {
	for stage, reply := range map[string]string{
		"MAIL": "550 5.7.1 The sun is in the wrong place", "RCPT": "554 5.7.1 The sun is in the wrong place",
		"DATA": "550 5.0.0 The sun is in the wrong place", ".": "550 The sun is in the wrong place",
	} {
		for keys, senders := range map[int]int{1: 1, 2: 1, 3: 5} {
			t.Run(fmt.Sprint(stage, " ", keys, " keys ", senders, " senders"), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					relay := newMoodyRelay(t, relaytest.Script{stage: reply}, "smtp.example.com")
					q := start(t, relay.route)
					ids := map[string]string{} // key by id
					for i := range 240 {
						key := fmt.Sprint("key", i%keys)
						ids[q.MustSubmit(numberedMessage(key, fmt.Sprintf("shop%d@example.com", i%senders), i)).Message.ID] = key
						time.Sleep(time.Minute)
					}
					tried, bounced := 0, 0
					for id, key := range ids {
						m, err := q.Get(t.Context(), key, id)
						if err != nil {
							t.Fatal(err)
						}
						if tried += len(m.Attempts); m.Recipients[0].State == queue.Bounced {
							bounced++
						}
					}
					if bounced != 1 || tried > 40 {
						t.Errorf("in four hours %d messages bounced and %d attempts were made, want 1, and few", bounced, tried)
					}
					relay.set(t, nil)
					time.Sleep(3 * time.Hour)
					if n := q.Usage().Messages; n != 0 {
						t.Errorf("%d messages are left, want none", n)
					}
				})
			})
		}
	}
}

// TestSpamStopsNobody: mail of one key that the relay refuses with the same words, to
// however many recipients and from whatever senders, holds up no mail of another key. It
// bounces, or rests.
func TestSpamStopsNobody(t *testing.T) {
	for _, name := range []string{"one sender", "a sender for each"} {
		for _, alone := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " alone ", alone), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					relay := newMoodyRelay(t, relaytest.Script{"MAIL FROM:<spam": "554 5.7.1 Content denied"}, "smtp.example.com")
					q := start(t, relay.route)
					app := 0
					send := func() {
						app++
						begin := time.Now()
						id := q.MustSubmit(numberedMessage("app", "shop@example.com", 1000+app)).Message.ID
						for q.Message(id).Status() != queue.StatusDelivered {
							time.Sleep(50 * time.Millisecond)
						}
						if took := time.Since(begin); took > time.Second {
							t.Errorf("message %d of another key took %v", app, took)
						}
					}
					if !alone {
						send()
					}
					var ids []string
					for i := range 300 {
						from := "spam@example.com"
						if name != "one sender" {
							from = fmt.Sprintf("spam-%d@example.com", i)
						}
						ids = append(ids, q.MustSubmit(numberedMessage("spam", from, i)).Message.ID)
						time.Sleep(time.Second)
						if !alone || i > 200 {
							send()
						}
					}
					for range 24 * 60 {
						send()
						time.Sleep(time.Minute)
					}
					for _, id := range ids {
						if m, err := q.Get(t.Context(), "spam", id); err != nil || m.Recipients[0].State != queue.Bounced {
							t.Fatalf("a message that is refused is %s a day later, %v, want it bounced", m.Recipients[0].State, err)
						}
					}
				})
			})
		}
	}
}

// TestSpamOfOneReversePath: where all keys have one reverse-path, as with
// MAILSIDECAR_FORCE_FROM, mail of one key that is refused with the same words holds up no
// other key for long, either.
func TestSpamOfOneReversePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newMoodyRelay(t, relaytest.Script{"RCPT TO:<u@example": "554 5.7.1 The sun is in the wrong place"}, "smtp.example.com")
		q := start(t, relay.route)
		spam := 0
		for app := range 100 {
			for range 5 {
				spam++
				q.MustSubmit(numberedMessage("spam", "shop@example.com", spam))
			}
			time.Sleep(time.Second)
			begin := time.Now()
			s := message("app", "shop@example.com", "ana@other.test")
			s.Content = mailer.Content{Data: []byte("Subject: x\r\n\r\nx\r\n"), MessageID: fmt.Sprintf("<app-%d@example.com>", app)}
			id := q.MustSubmit(s).Message.ID
			for q.Message(id).Status() != queue.StatusDelivered {
				time.Sleep(50 * time.Millisecond)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("message %d of another key took %v", app, took)
			}
		}
	})
}

// TestRefusedAlikeExpires: what is kept for it is not kept for ever.
func TestRefusedAlikeExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := newMoodyRelay(t, relaytest.Script{".": "554 5.7.1 denied"}, "smtp.example.com")
		q := start(t, relay.route)
		var ids []string
		for i := range 10 {
			s := numberedMessage("app", "shop@example.com", i)
			s.ExpiresIn = 5 * time.Hour
			ids = append(ids, q.MustSubmit(s).Message.ID)
		}
		time.Sleep(5*time.Hour + 2*time.Minute)
		for i, id := range ids {
			if state := q.Message(id).Recipients[0].State; !state.Final() {
				t.Errorf("message %d is %s after its time", i, state)
			}
		}
	})
}

// TestOneSenderIsEnded: a relay that ends the connection over one sender, and says so,
// goes on with the others at once.
func TestOneSenderIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := func(n int, path string) *mailer.Failure {
			return &mailer.Failure{
				Class: mailer.ClassTransient, Stage: mailer.StageData, Relay: "relay", Err: mailer.ErrSenderRefused,
				Reply: mailer.Reply{Code: 421, Text: "Domain is not allowed to send: activate your account"},
			}
		}
		relay := &oddRelay{queuetest.NewRelay(queuetest.Accept), failure, oddSender}
		q := start(t, relay.route)
		var odd []string
		for i := range 600 {
			for range map[bool]int{true: 30, false: 1}[i == 0] {
				odd = append(odd, q.MustSubmit(message("app", fmt.Sprintf("-odd%d@example.com", len(odd)%7), "u@example.org")).Message.ID)
			}
			if i == 0 {
				time.Sleep(100 * time.Millisecond)
			}
			id := q.MustSubmit(message("app", "shop@example.com", "u@example.org")).Message.ID
			time.Sleep(100 * time.Millisecond)
			q.WantStatus(id, queue.StatusDelivered)
			if p := q.Pauses(); len(p) > 0 {
				t.Fatalf("pauses = %+v, want none", p)
			}
		}
		for _, id := range odd {
			if state := q.Message(id).Recipients[0].State; state.Final() {
				t.Errorf("a message of such a sender is %s, want it to wait", state)
			}
		}
	})
}
