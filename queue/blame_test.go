package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// oddRelay gives odd mail a failure, and takes all other.
type oddRelay struct {
	*queuetest.Relay
	failure queuetest.Verdict
	odd     func(env mailer.Envelope) bool
}

func (r *oddRelay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	a := r.Relay.Deliver(ctx, env, c)
	if r.odd(env) {
		for i, result := range a.Results {
			f := r.failure(1, result.ForwardPath)
			a.Results[i].Failure, a.Results[i].Reply = f, f.Reply
		}
	}
	return a
}

func (r *oddRelay) route(o *queue.Options) { o.Routes = queue.Routes{{Relay: r}} }

// oddSender and oddRecipient say which mail is odd.
func oddSender(env mailer.Envelope) bool    { return strings.HasPrefix(env.ReversePath, "-") }
func oddRecipient(env mailer.Envelope) bool { return strings.HasPrefix(env.ForwardPaths[0], "-") }

// Failures that may be about the message, its reverse-path or the relay.
var (
	refusedSender = queuetest.Fail(mailer.ClassTransient, mailer.StageMail, 501)
	broken        = queuetest.Fail(mailer.ClassTransient, mailer.StageRcpt, 0)
	ended         = queuetest.Fail(mailer.ClassTransient, mailer.StageRcpt, 421)
	unknown       = queuetest.Fail(mailer.ClassUncertain, mailer.StageContent, 0)
)

// message is one of the key, from a reverse-path, to a recipient.
func message(key, from, to string) queue.Submission {
	s := queuetest.Submission("x", to)
	s.Key, s.Envelope.ReversePath = key, from
	return s
}

// oddities are relays that refuse some mail, and mail that they refuse.
var oddities = []struct {
	name    string
	failure queuetest.Verdict
	odd     func(env mailer.Envelope) bool
	message func(i int) queue.Submission
}{
	{"one reverse-path", refusedSender, oddSender, func(int) queue.Submission { return message("odd", "-odd@example.com", "user@example.org") }},
	{"reverse-paths", refusedSender, oddSender, func(i int) queue.Submission {
		return message("odd", fmt.Sprintf("-odd%d@example.com", i), "user@example.org")
	}},
	{"a recipient over whom it breaks", broken, oddRecipient, func(int) queue.Submission { return message("odd", "shop@example.com", "-odd@example.org") }},
	{"recipients over whom it breaks", broken, oddRecipient, func(i int) queue.Submission {
		return message("odd", "shop@example.com", fmt.Sprintf("-odd%d@example.org", i))
	}},
	{"421 to recipients of several", ended, oddRecipient, func(i int) queue.Submission {
		return message("odd", fmt.Sprintf("shop%d@example.com", i), fmt.Sprintf("-odd%d@example.org", i))
	}},
	{"no verdict", unknown, oddRecipient, func(int) queue.Submission { return message("odd", "shop@example.com", "-odd@example.org") }},
}

// TestOddMessagesStopNobody: beside one message, and beside twenty, that the relay
// refuses, other keys' mail is as fast as without them, but for a second or two at
// first. An odd one is tried as often as its schedule says.
func TestOddMessagesStopNobody(t *testing.T) {
	for _, c := range oddities {
		for _, odd := range []int{1, 20} {
			t.Run(fmt.Sprint(c.name, odd), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					relay := &oddRelay{queuetest.NewRelay(queuetest.Accept), c.failure, c.odd}
					relay.Slow(100*time.Millisecond, 0)
					q := start(t, relay.route)
					var ids []string
					for i := range odd {
						ids = append(ids, q.MustSubmit(c.message(i)).Message.ID)
					}
					var took []time.Duration
					for range 1200 {
						s := message("app", "app@example.com", "user@example.org")
						s.Wait = time.Minute
						begin := time.Now()
						id := q.MustSubmit(s).Message.ID
						for q.Message(id).Status() != queue.StatusDelivered {
							time.Sleep(50 * time.Millisecond)
						}
						took = append(took, time.Since(begin))
						time.Sleep(time.Second / 2)
					}
					slices.Sort(took)
					if p99, most := took[len(took)*99/100], took[len(took)-1]; p99 > 200*time.Millisecond || most > 8*time.Second {
						t.Errorf("others' mail took %v, the slowest %v, want twice the relay's 100ms at most", p99, most)
					}
					for _, id := range ids {
						m, err := q.Get(t.Context(), "odd", id)
						if n := len(m.Attempts); err != nil || m.Status() != queue.StatusDeferred || n < 1 || n > 6 || odd == 1 && n < 4 {
							t.Errorf("an odd message was tried %d times in ten minutes (%s, %v), want four times, fewer where others rest with it", n, m.Status(), err)
						}
					}
				})
			})
		}
	}
}

// TestOddMessagesInFront: ten odd messages delay one that came after them, of their
// own reverse-path or another, by less than 40 s.
func TestOddMessagesInFront(t *testing.T) {
	for _, c := range oddities {
		for _, from := range []string{"shop@example.com", "app@example.com"} {
			for _, workers := range []int{1, 8} {
				t.Run(fmt.Sprint(c.name, from, workers), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						relay := &oddRelay{queuetest.NewRelay(queuetest.Accept), c.failure, c.odd}
						q := start(t, func(o *queue.Options) { relay.route(o); o.Workers = workers })
						for i := range 10 {
							q.MustSubmit(c.message(i))
						}
						s := message("odd", from, "user@example.org")
						id := q.MustSubmit(s).Message.ID
						time.Sleep(40 * time.Second)
						if m, err := q.Get(t.Context(), "odd", id); err != nil || m.Status() != queue.StatusDelivered {
							t.Errorf("status = %s, %v after 40 s, want delivered", m.Status(), err)
						}
					})
				})
			}
		}
	}
}

// TestRelayRefusesEverything: it gets 20 quick attempts, or as many more as were
// under way, and then 12 an hour, whatever waits. When it is well, all goes out.
func TestRelayRefusesEverything(t *testing.T) {
	for name, failure := range map[string]queuetest.Verdict{"refused": refusedSender, "broken": broken} {
		for _, senders := range []int{1, 3, 500} {
			t.Run(fmt.Sprint(name, senders), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					relay := queuetest.NewRelay(failure)
					relay.Slow(100*time.Millisecond, 0)
					q := start(t, nil, relay)
					for i := range 500 {
						q.MustSubmit(message("app", fmt.Sprintf("shop%d@example.com", i%senders), fmt.Sprintf("u%d@example.org", i)))
					}
					time.Sleep(10 * time.Minute)
					quick := len(relay.Attempts())
					if quick > 20+8+3 {
						t.Errorf("attempts in the first ten minutes = %d, want 20 and those under way", quick)
					}
					for range 4 * 60 {
						q.MustSubmit(message("app", "shop0@example.com", "new@example.org"))
						time.Sleep(time.Minute)
					}
					if n := len(relay.Attempts()) - quick; n > 4*12 || n < 4*8 {
						t.Errorf("attempts in four hours = %d, want 12 an hour", n)
					}
					relay.Set(queuetest.Accept)
					time.Sleep(90 * time.Minute)
					if u := q.Usage(); u.Messages != 0 {
						t.Errorf("%d messages are left, want none", u.Messages)
					}
				})
			})
		}
	}
}

// TestReversePathRests: one reverse-path is refused, whatever waits of it: 20 quick
// attempts, then 12 an hour. Its end is its first success.
func TestReversePathRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		relay := &oddRelay{queuetest.NewRelay(queuetest.Accept), refusedSender, func(env mailer.Envelope) bool { return oddSender(env) && !well.Load() }}
		relay.Slow(100*time.Millisecond, 0)
		q := start(t, relay.route)
		odd := func() (n int) {
			for _, a := range relay.Attempts() {
				if oddSender(a.Envelope) {
					n++
				}
			}
			return n
		}
		for range 500 {
			q.MustSubmit(message("app", "-odd@example.com", "u@example.org"))
		}
		for range 10 {
			q.MustSubmit(message("app", "app@example.com", "u@example.org"))
			time.Sleep(time.Minute)
		}
		if p := q.Pauses(); len(p) > 0 {
			t.Errorf("pauses = %+v, want none: one reverse-path rests", p)
		}
		quick := odd()
		if quick > 20+8+3 {
			t.Errorf("attempts in the first ten minutes = %d, want 20 and those under way", quick)
		}
		for range 2 * 60 {
			q.MustSubmit(message("app", "app@example.com", "u@example.org"))
			time.Sleep(time.Minute)
		}
		if n := odd() - quick; n > 24 || n < 16 {
			t.Errorf("attempts in two hours = %d, want 12 an hour", n)
		}
		well.Store(true)
		time.Sleep(70 * time.Minute)
		if u := q.Usage(); u.Messages != 0 {
			t.Errorf("%d messages are left, want none", u.Messages)
		}
	})
}

// TestBacklogThatRests: ten thousand messages of a reverse-path that rests are not in
// the way of others of their own lane, and the store is not claimed from all the time
// for them.
func TestBacklogThatRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var claims atomic.Int32
		store := memory.New(memory.Options{Before: func(_ context.Context, method string) error {
			if method == "Claim" {
				claims.Add(1)
			}
			return nil
		}})
		relay := &oddRelay{queuetest.NewRelay(queuetest.Accept), refusedSender, oddSender}
		q := queuetest.Start(t, store, relay.route)
		batch := make([]queue.Submission, 100)
		for i := range batch {
			batch[i] = message("app", "-odd@example.com", "u@example.org")
		}
		for range 100 {
			if _, err := q.SubmitBatch(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			begin := time.Now()
			r := q.MustSubmit(message("app", "app@example.com", "u@example.org"))
			for q.Message(r.Message.ID).Status() != queue.StatusDelivered && time.Since(begin) < time.Minute {
				time.Sleep(100 * time.Millisecond)
			}
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("another message of the lane took %v, want no time", took)
			}
		}
		time.Sleep(10 * time.Minute)
		claims.Store(0)
		time.Sleep(time.Minute)
		if n := claims.Load(); n > 60*10 {
			t.Errorf("the store was claimed from %d times in a minute, want ten times a second at most", n)
		}
	})
}

// TestScheduleHolds: whatever a relay says of a message, as long as it always says
// the same, it is tried in a day as often as its schedule has it, and a few times
// more where the relay asks for less. Where a second relay is not reached, or refuses
// it too, that makes no difference.
func TestScheduleHolds(t *testing.T) {
	verdicts := []queuetest.Verdict{
		refusedSender, broken, ended, unknown, queuetest.Greylisted, queuetest.PushedBack(421), queuetest.PushedBack(450),
		queuetest.Fail(mailer.ClassTransient, mailer.StageMail, 421), queuetest.Fail(mailer.ClassTransient, mailer.StageMail, 555),
		queuetest.Fail(mailer.ClassTransient, mailer.StageContent, 0), queuetest.Fail(mailer.ClassTransient, mailer.StageData, 451),
	}
	for i, v := range verdicts {
		for j, second := range []queuetest.Verdict{nil, v, queuetest.Unreachable} {
			synctest.Test(t, func(t *testing.T) {
				first := &oddRelay{queuetest.NamedRelay("first", queuetest.Accept), v, oddRecipient}
				routes := queue.Routes{{Relay: first}}
				relays := []*queuetest.Relay{first.Relay}
				if second != nil {
					next := &oddRelay{queuetest.NamedRelay("second", queuetest.Accept), second, oddRecipient}
					routes, relays = append(routes, queue.Route{Relay: next}), append(relays, next.Relay)
				}
				q := start(t, func(o *queue.Options) { o.Routes = routes })
				q.MustSubmit(message("odd", "shop@example.com", "-odd@example.org"))
				for range 24 * 12 {
					q.MustSubmit(message("app", "app@example.com", "user@example.org"))
					time.Sleep(5 * time.Minute)
				}
				// Attempts come a minute, two, four, … then an hour apart, each up to an eighth
				// sooner.
				most := 1 + 6 + 24*8/7
				if errors.Is(v(1, ""), mailer.ErrPushedBack) {
					most += 6
				}
				for _, r := range relays {
					n := 0
					for _, a := range r.Attempts() {
						if oddRecipient(a.Envelope) {
							n++
						}
					}
					if n > most && (r == first.Relay || j < 2) {
						t.Errorf("%d, %d: %s was given the message %d times in a day, want %d at most", i, j, r.Name(), n, most)
					}
				}
			})
		}
	}
}

// TestOddSenderAtRelay: with a relay as it is in earnest, which refuses one
// reverse-path, that message is tried a few times in ten minutes, and pauses nothing.
func TestOddSenderAtRelay(t *testing.T) {
	for _, reply := range []string{"501 5.1.7 Invalid address", "503 no", "530 5.7.1 no", "555 no", "421 4.3.0 no", "drop"} {
		synctest.Test(t, func(t *testing.T) {
			relay := smtpRelay(t, relaytest.Script{"MAIL FROM:<-odd@": reply, ".": "after 100ms 250 ok"})
			q := start(t, func(o *queue.Options) { o.Routes, o.Workers = queue.Routes{{Relay: relay}}, 24 })
			submit := func(from string) string {
				s := message("app", from, "user@example.org")
				s.Content.Data = []byte("Subject: x\r\n\r\nx\r\n")
				return q.MustSubmit(s).Message.ID
			}
			odd := submit("-odd@example.com")
			for range 600 {
				id := submit("shop@example.com")
				time.Sleep(time.Second)
				if p := q.Pauses(); len(p) > 0 || q.Message(id).Status() != queue.StatusDelivered {
					t.Fatalf("%s: a message of another is %s after a second, pauses %+v, want it delivered", reply, q.Message(id).Status(), p)
				}
			}
			most := 6
			if strings.HasPrefix(reply, "421") {
				most += 5 // it may ask for less
			}
			if n := len(q.WantStatus(odd, queue.StatusDeferred).Attempts); n < 3 || n > most {
				t.Errorf("%s: the message was tried %d times in ten minutes, want %d at most", reply, n, most)
			}
		})
	}
}

// TestStreamOfOddMessages: a key that submits ten odd messages a second, each of
// another reverse-path and to another recipient, delays no other key's mail by long.
func TestStreamOfOddMessages(t *testing.T) {
	for name, failure := range map[string]queuetest.Verdict{"refused": refusedSender, "broken": broken} {
		synctest.Test(t, func(t *testing.T) {
			relay := &oddRelay{queuetest.NewRelay(queuetest.Accept), failure, oddRecipient}
			relay.Slow(100*time.Millisecond, 0)
			q := start(t, relay.route)
			var worst time.Duration
			for i := range 300 {
				for n := range 10 {
					q.MustSubmit(message("odd", fmt.Sprintf("odd%d-%d@example.com", i, n), fmt.Sprintf("-odd%d-%d@example.org", i, n)))
					time.Sleep(50 * time.Millisecond)
				}
				begin := time.Now()
				id := q.MustSubmit(message("app", "app@example.com", fmt.Sprintf("u%d@example.org", i))).Message.ID
				for q.Message(id).Status() != queue.StatusDelivered {
					time.Sleep(50 * time.Millisecond)
				}
				worst = max(worst, time.Since(begin))
			}
			if worst > 6*time.Second {
				t.Errorf("%s: another key's mail took %v, want the first rests at most", name, worst)
			}
		})
	}
}
