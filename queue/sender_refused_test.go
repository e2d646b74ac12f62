package queue_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// TestSenderRefused: a relay that does not take mail of a sender has not judged it for
// the other relays of its route. It bounces when each of them said so, and waits for one
// that was not reached.
func TestSenderRefused(t *testing.T) {
	notOwned := func(int, string) *mailer.Failure {
		return &mailer.Failure{
			Class: mailer.ClassPermanent, Stage: mailer.StageRcpt, Reply: mailer.Reply{Code: 553, Enhanced: "5.7.1", Text: "not owned by user"},
			Err: fmt.Errorf("judged: %w", mailer.ErrSenderRefused),
		}
	}
	down := func(int, string) *mailer.Failure {
		return &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Text: "no answer"}
	}
	takes := func(int, string) *mailer.Failure { return nil }
	for name, tt := range map[string]struct {
		relays []queuetest.Verdict
		want   queue.State
	}{
		"the second takes it":               {[]queuetest.Verdict{notOwned, takes}, queue.Delivered},
		"the first is down, the second not": {[]queuetest.Verdict{down, takes}, queue.Delivered},
		"neither takes it":                  {[]queuetest.Verdict{notOwned, notOwned}, queue.Bounced},
		"the only one does not take it":     {[]queuetest.Verdict{notOwned}, queue.Bounced},
		"the second is not reached":         {[]queuetest.Verdict{notOwned, down}, queue.Deferred},
		"the first is not reached":          {[]queuetest.Verdict{down, notOwned}, queue.Deferred},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var relays []*queuetest.Relay
				var routes queue.Routes
				for i, verdict := range tt.relays {
					relays = append(relays, queuetest.NamedRelay(fmt.Sprint("relay ", i), verdict))
					routes = append(routes, queue.Route{Relay: relays[i]})
				}
				none, err := queue.NewDirect(routes, nil).Submit(t.Context(), queuetest.Submission("", "u@example.org"))
				if err != nil || none.Message.Recipients[0].State != tt.want {
					t.Errorf("none: %+v, %v, want %s", none.Message.Recipients, err, tt.want)
				}
				q := queuetest.Start(t, memory.New(memory.Options{}), nil, relays...)
				id := q.MustSubmit(queuetest.Submission("", "u@example.org")).Message.ID
				time.Sleep(100 * time.Millisecond)
				if got := q.Message(id).Recipients[0]; got.State != tt.want {
					t.Errorf("queue: %s (%v), want %s", got.State, got.Result.Failure, tt.want)
				}
			})
		})
	}
}
