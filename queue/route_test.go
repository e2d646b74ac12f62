package queue_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// TestNextRelay: what the first relay of a route neither judged nor accepted goes to
// the next one at once, with a queue and without.
func TestNextRelay(t *testing.T) {
	tests := []struct {
		say  queuetest.Verdict
		next bool
	}{
		{queuetest.Unreachable, true},
		{queuetest.Fail(mailer.ClassTransient, mailer.StageMail, 501), true},
		{queuetest.Fail(mailer.ClassTransient, mailer.StageMail, 530), true},
		{queuetest.Fail(mailer.ClassTransient, mailer.StageMail, 0), true},
		{queuetest.Fail(mailer.ClassTransient, mailer.StageRcpt, 0), true},
		{queuetest.Fail(mailer.ClassTransient, mailer.StageRcpt, 421), true},
		{queuetest.PushedBack(421), false},
		{queuetest.Fail(mailer.ClassTransient, mailer.StageMail, 450), false},
		{queuetest.Greylisted, false},
		{queuetest.Refused, false},
		{queuetest.LostReply, false},
	}
	for _, tt := range tests {
		f := tt.say(1, "a@example.org")
		t.Run(fmt.Sprintf("%s %s %d", f.Class, f.Stage, f.Reply.Code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attempts := 1
				if tt.next {
					attempts = 2
				}
				second := queuetest.NamedRelay("second", queuetest.Accept)
				s := queuetest.Submission("x", "a@example.org")
				q := start(t, nil, queuetest.NamedRelay("first", tt.say), second)
				id := q.MustSubmit(s).Message.ID
				queuetest.SettleDown()
				m, err := q.Get(t.Context(), "app", id)
				if err != nil {
					t.Fatal(err)
				}
				if got := m.Recipients[0].State == queue.Delivered; got != tt.next || len(m.Attempts) != attempts {
					t.Errorf("queue: state %s after %d attempts, want delivered: %v after %d", m.Recipients[0].State, len(m.Attempts), tt.next, attempts)
				}
				none := queue.NewDirect(queue.Routes{{Relay: queuetest.NamedRelay("first", tt.say)}, {Relay: second}}, nil)
				r, err := none.Submit(t.Context(), s)
				if err != nil {
					t.Fatal(err)
				}
				if got := r.Message.Recipients[0].State == queue.Delivered; got != tt.next || len(r.Message.Attempts) != attempts {
					t.Errorf("none: state %s after %d attempts, want delivered: %v after %d", r.Message.Recipients[0].State, len(r.Message.Attempts), tt.next, attempts)
				}
			})
		})
	}
}

// relayWith is a working relay that offers those extensions, or whose port is closed
// when there are none.
func relayWith(t *testing.T, name string, extensions []string) (*smtp.Relay, *relaytest.Network) {
	t.Helper()
	network := &relaytest.Network{Port: map[int]any{}}
	if extensions != nil {
		network.Set(587, relaytest.New(t, relaytest.Options{TLSExtensions: append(extensions, "AUTH PLAIN")}, nil))
	}
	r, err := smtp.New(smtp.Options{
		Name: name, Host: relaytest.Host, Ladder: []mailer.Rung{{Port: 587}}, Username: "user", Password: "secret",
		RootCAs: relaytest.RootCAs(), Dial: network.Dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, network
}

// TestCannotTake: what one relay of a route does not offer is no judgement of the
// mail. It bounces when no relay of the route offers it, and waits for a relay that
// was not reached.
func TestCannotTake(t *testing.T) {
	const signed = "DKIM-Signature: v=1; h=From; b=x\r\nFrom: a@example.com\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
	needs := map[string]struct {
		content   mailer.Content
		recipient string
		lacking   []string // the extensions of a relay that cannot take it
		enhanced  string
	}{
		"SIZE": {
			mailer.Content{Data: []byte("Subject: x\r\n\r\n" + strings.Repeat("a line of the body\r\n", 100))},
			"u@example.org",
			[]string{"SIZE 1000"},
			"5.3.4",
		},
		"SMTPUTF8 for a recipient": {
			mailer.Content{Data: []byte("Subject: x\r\n\r\nbody\r\n")}, "ü@example.org", []string{"8BITMIME"}, "5.6.7",
		},
		"SMTPUTF8 for a signed field": {
			mailer.Content{Data: []byte(signed + "To: ü@example.org\r\n\r\nbody\r\n"), UTF8Header: true}, "u@example.org", []string{"8BITMIME"}, "5.6.7",
		},
		"8BITMIME": {
			mailer.Content{Data: []byte(signed + "\r\ngrüße\r\n"), EightBit: true}, "u@example.org", []string{"SMTPUTF8"}, "5.6.3",
		},
	}
	all := []string{"SIZE 1000000", "SMTPUTF8", "8BITMIME", "PIPELINING"}
	for name, need := range needs {
		for route, tt := range map[string]struct {
			first, second []string
			one           bool // relay in the route
			want          queue.State
		}{
			"the first can":                     {all, need.lacking, false, queue.Delivered},
			"the second can":                    {need.lacking, all, false, queue.Delivered},
			"neither can":                       {need.lacking, need.lacking, false, queue.Bounced},
			"the only one cannot":               {need.lacking, nil, true, queue.Bounced},
			"the second is not reached":         {need.lacking, nil, false, queue.Deferred},
			"the first is not reached":          {nil, need.lacking, false, queue.Deferred},
			"the first is down, the second can": {nil, all, false, queue.Delivered},
		} {
			t.Run(name+", "+route, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					first, _ := relayWith(t, "first", tt.first)
					second, down := relayWith(t, "second", tt.second)
					routes := queue.Routes{{Relay: first}, {Relay: second}}
					if tt.one {
						routes = routes[:1]
					}
					s := queuetest.Submission("", need.recipient)
					s.Content = need.content
					s.Content.MessageID = "<1@example.com>"
					none, err := queue.NewDirect(routes, nil).Submit(t.Context(), s)
					if err != nil {
						t.Fatal(err)
					}
					checkCannotTake(t, "none", none.Message, tt.want, need.enhanced)

					q := queuetest.Start(t, memory.New(memory.Options{}), func(o *queue.Options) { o.Routes = routes })
					id := q.MustSubmit(s).Message.ID
					time.Sleep(10 * time.Second)
					m, err := q.Get(t.Context(), "app", id)
					if err != nil {
						t.Fatal(err)
					}
					checkCannotTake(t, "queue", m, tt.want, need.enhanced)
					if tt.second == nil && !tt.one {
						down.Set(587, relaytest.New(t, relaytest.Options{}, nil))
						time.Sleep(2 * time.Hour)
						q.WantStatus(id, queue.StatusDelivered)
					}
				})
			})
		}
	}
}

func checkCannotTake(t *testing.T, what string, m queue.Message, want queue.State, enhanced string) {
	t.Helper()
	r := m.Recipients[0]
	if r.State != want {
		t.Errorf("%s: state %s, want %s (%v)", what, r.State, want, r.Result.Failure)
	}
	if f := r.Result.Failure; want == queue.Bounced && (f == nil || f.EnhancedCode() != enhanced) {
		t.Errorf("%s: failure %v, want %s", what, f, enhanced)
	}
}

// TestCannotTakeOnlyOne: a recipient that the first relay cannot take goes out over
// the second one, and the others have gone out over the first.
func TestCannotTakeOnlyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, a := relayWith(t, "first", []string{"8BITMIME"})
		second, b := relayWith(t, "second", []string{"SMTPUTF8", "8BITMIME"})
		s := queuetest.Submission("", "u@example.org", "ü@example.org")
		s.Content = mailer.Content{Data: []byte("To: u@example.org, ü@example.org\r\n\r\nbody\r\n"), UTF8Header: true}
		r, err := queue.NewDirect(queue.Routes{{Relay: first}, {Relay: second}}, nil).Submit(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Message.Status(); got != queue.StatusDelivered {
			t.Errorf("status %s, want delivered: %+v", got, r.Message.Recipients)
		}
		for relay, want := range map[*relaytest.Network]string{a: "u@example.org", b: "ü@example.org"} {
			messages := relay.Port[587].(*relaytest.Relay).Messages()
			if len(messages) != 1 || strings.Join(messages[0].ForwardPaths, " ") != want {
				t.Errorf("a relay got %+v, want one message for %s", messages, want)
			}
		}
	})
}
