package queue_test

import (
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// TestExpiresInDelivery: a message that expires while its delivery is under way is not
// sent any more, neither behind a busy connection nor over the next relay of its route.
func TestExpiresInDelivery(t *testing.T) {
	tests := []struct {
		name     string
		first    relaytest.Script // of the first relay
		attempts int              // of the message
	}{
		{"behind a busy connection", relaytest.Script{".": "after 8m 250 ok"}, 0},
		{"over the second relay", relaytest.Script{"MAIL FROM:<late": "silence", ".": "after 1s 250 ok"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second := relaytest.New(t, relaytest.Options{}, tt.first), relaytest.New(t, relaytest.Options{}, nil)
				routes := queue.Routes{{Relay: realRelay(t, "first", first)}, {Relay: realRelay(t, "second", second)}}
				q := start(t, func(o *queue.Options) { o.Routes = routes })
				mail := func(name string, expires time.Duration) queue.Submission {
					s := queuetest.Submission(name, "b@example.org")
					s.Envelope.ReversePath, s.ExpiresIn = name+"@example.com", expires
					return s
				}
				q.MustSubmit(mail("early", time.Hour))
				synctest.Wait()
				late := q.MustSubmit(mail("late", 2*time.Minute)).Message
				time.Sleep(20 * time.Minute)
				m := q.Message(late.ID)
				if got := m.Recipients[0].State; got != queue.Expired || len(m.Attempts) != tt.attempts {
					t.Errorf("the message is %s after %d attempts, want expired after %d", got, len(m.Attempts), tt.attempts)
				}
				if n := len(first.Messages()) + len(second.Messages()); n != 1 {
					t.Errorf("the relays got %d messages, want the early one", n)
				}
			})
		})
	}
}

// realRelay connects to a scripted relay over one connection.
func realRelay(t *testing.T, name string, scripted *relaytest.Relay) *smtp.Relay {
	t.Helper()
	network := &relaytest.Network{Port: map[int]any{587: scripted}}
	r, err := smtp.New(smtp.Options{
		Name: name, Host: relaytest.Host, Ladder: []mailer.Rung{{Port: 587}}, Username: "user", Password: "secret",
		RootCAs: relaytest.RootCAs(), Dial: network.Dial, MaxConnections: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}
