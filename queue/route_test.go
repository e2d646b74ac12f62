package queue_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"mailsidecar/mailer"
	"mailsidecar/queue"
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
