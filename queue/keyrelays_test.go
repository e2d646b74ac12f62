package queue_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// ofShop is a message of the key shop.
func ofShop(data string) queue.Submission {
	s := queuetest.Submission(data, "a@example.org")
	s.Key = "shop"
	return s
}

// TestTakenRelayIsForbidden: what a relay may have taken goes neither there nor elsewhere
// once that relay takes no mail of its key or sender any more.
func TestTakenRelayIsForbidden(t *testing.T) {
	for name, forbid := range map[string]func(*queue.Route){
		"key":    func(r *queue.Route) { r.Keys = map[string]int{"other": 1} },
		"sender": func(r *queue.Route) { r.Senders = []string{"other.example"} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New(memory.Options{})
				first, second := queuetest.NamedRelay("first", queuetest.LostReply), queuetest.NamedRelay("second", queuetest.Accept)
				q := queuetest.Start(t, store, func(o *queue.Options) {
					o.Routes[0].Keys, o.Routes[1].Keys = map[string]int{"shop": 1}, map[string]int{"shop": 2}
				}, first, second)
				id := q.MustSubmit(ofShop("x")).Message.ID
				queuetest.SettleDown()
				store = store.Reopen()
				_ = q.End()

				first.Set(queuetest.Accept)
				q = queuetest.Start(t, store, func(o *queue.Options) {
					o.Routes[1].Keys = map[string]int{"shop": 1}
					forbid(&o.Routes[0])
				}, first, second)
				time.Sleep(6 * 24 * time.Hour)
				m, err := q.Get(t.Context(), "shop", id)
				if err != nil || m.Status() != queue.StatusHeld || first.Copies("x", "a@example.org")+second.Copies("x", "a@example.org") != 0 {
					t.Errorf("%s, %v, %d and %d copies; want it held", m.Status(), err, first.Copies("x", "a@example.org"), second.Copies("x", "a@example.org"))
				}
				if _, err := q.Retry(t.Context(), "shop", id); err != nil {
					t.Fatal(err)
				}
				queuetest.SettleDown()
				if first.Copies("x", "a@example.org") != 0 || second.Copies("x", "a@example.org") != 1 {
					t.Errorf("after a person's retry: %d and %d copies, want it at the second relay", first.Copies("x", "a@example.org"), second.Copies("x", "a@example.org"))
				}
			})
		})
	}
}

// TestRemovedKeyKeepsRelays: what waits of an API key that was removed goes to the relays
// that it had, and to no other one. Where none of them is left, it goes by the rules for
// mail without a key.
func TestRemovedKeyKeepsRelays(t *testing.T) {
	for _, gone := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New(memory.Options{})
			first, second := queuetest.NamedRelay("first", queuetest.Accept), queuetest.NamedRelay("second", queuetest.Unreachable)
			q := queuetest.Start(t, store, func(o *queue.Options) { o.Routes[1].Keys = map[string]int{"shop": 1} }, first, second)
			q.MustSubmit(ofShop("x"))
			time.Sleep(time.Hour)
			store = store.Reopen()
			_ = q.End()

			relays := []*queuetest.Relay{first, second}
			if gone {
				relays = relays[:1]
			}
			queuetest.Start(t, store, func(o *queue.Options) { o.KnowsKey = func(key string) bool { return key != "shop" } }, relays...)
			time.Sleep(time.Hour)
			second.Set(queuetest.Accept)
			time.Sleep(time.Hour)
			if got := second.Copies("x", "a@example.org"); got != 1 && !gone {
				t.Errorf("the key's relay took %d copies, want one", got)
			}
			if got := first.Copies("x", "a@example.org"); (got == 1) != gone {
				t.Errorf("the other relay took %d copies; the key's relay is gone: %v", got, gone)
			}
		})
	}
}

// TestHostileRoutes: keys with relays of their own, extreme weights, relays that are paused
// for hours beside others, relays that come and go with their mail waiting, crashes, and
// both settings for uncertain mail. No relay ever gets mail of a key that does not name it,
// nothing is tried too often, and all that is not held is delivered in the end.
func TestHostileRoutes(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newHostile(t, seed).run() })
		})
	}
}

// hostile is a run of [TestHostileRoutes].
type hostile struct {
	t      *testing.T
	random *rand.Rand
	store  *memory.Store
	queue  *queuetest.Queue
	relays []*queuetest.Relay
	keys   []string
	names  []map[string]int // of each relay: the keys that name it
	off    int              // the relay that is not configured; -1: none
	hold   bool
	sent   map[string]string // the key of each message, by content
	stored int               // of these, how many the queue has
	looks  atomic.Int64      // how often the queue looked at its store
}

const hostileRelays, hostileKeys = 4, 12

func newHostile(t *testing.T, seed uint64) *hostile {
	h := &hostile{t: t, random: rand.New(rand.NewPCG(seed, 7)), store: memory.New(memory.Options{}), off: -1, hold: seed%3 == 0, sent: map[string]string{}}
	for i := range hostileRelays {
		h.relays = append(h.relays, queuetest.NamedRelay(fmt.Sprint("relay", i), queuetest.Accept))
		h.names = append(h.names, map[string]int{})
	}
	for k := range hostileKeys {
		key := fmt.Sprint("key", k)
		h.keys = append(h.keys, key)
		if k%4 == 0 {
			continue // it may use all
		}
		for place, i := range h.random.Perm(hostileRelays)[:1+h.random.IntN(3)] {
			h.names[i][key] = place + 1
		}
	}
	return h
}

func (h *hostile) start() {
	h.queue = queuetest.Start(h.t, countedStore{h.store, &h.looks}, func(o *queue.Options) {
		o.HoldUncertain, o.Routes = h.hold, h.routes()
	})
}

func (h *hostile) routes() (routes queue.Routes) {
	for i, r := range h.relays {
		if i != h.off {
			routes = append(routes, queue.Route{Relay: r, Weight: []int{1, 1000, 0, 7}[i], Keys: h.names[i]})
		}
	}
	return routes
}

// countedStore counts how often the queue looks at it for what is due.
type countedStore struct {
	*memory.Store
	looks *atomic.Int64
}

func (s countedStore) Waiting(ctx context.Context, now time.Time) (queue.Waiting, error) {
	s.looks.Add(1)
	return s.Store.Waiting(ctx, now)
}

// restart ends the queue, in order or by a crash, and may take a relay out of the settings.
func (h *hostile) restart() {
	if h.random.IntN(2) == 0 {
		h.store = h.store.Reopen()
		_ = h.queue.End()
	} else {
		_ = h.queue.End()
		h.store = h.store.Reopen()
	}
	if h.off = h.random.IntN(hostileRelays+2) - 2; h.off < 0 || h.needed(h.off) {
		h.off = -1
	}
	h.start()
}

// needed reports whether some key names that relay only: then the configuration is refused
// without it.
func (h *hostile) needed(relay int) bool {
	for key := range h.names[relay] {
		others := 0
		for i, names := range h.names {
			if i != relay && names[key] > 0 {
				others++
			}
		}
		if others == 0 {
			return true
		}
	}
	return false
}

// verdict is what a relay does for the next while.
func (h *hostile) verdict() queuetest.Verdict {
	hours := time.Duration(1+h.random.IntN(6)) * time.Hour
	return []queuetest.Verdict{
		queuetest.Accept, queuetest.Accept, queuetest.Unreachable, queuetest.Greylisted, queuetest.LostReply,
		func(int, string) *mailer.Failure {
			return &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageMail, Reply: mailer.Reply{Code: 550, Text: "quota"}, Until: time.Now().Add(hours)}
		},
		queuetest.Fail(mailer.ClassTransient, mailer.StageMail, 0),
	}[h.random.IntN(7)]
}

func (h *hostile) run() {
	h.start()
	for step := range 40 {
		for range 10 {
			key := h.keys[h.random.IntN(hostileKeys)]
			s := queuetest.Submission(fmt.Sprint(step, key, len(h.sent)), "a@example.org")
			s.Key, s.Envelope.ReversePath = key, key+"@example.com"
			h.submit(s)
		}
		h.relays[h.random.IntN(hostileRelays)].Set(h.verdict())
		time.Sleep(time.Duration(h.random.IntN(40)) * time.Minute)
		if h.random.IntN(6) == 0 {
			h.restart()
		}
	}
	h.off = -1
	_ = h.queue.End()
	h.store = h.store.Reopen()
	h.start()
	for _, r := range h.relays {
		r.Set(queuetest.Accept)
	}
	time.Sleep(24 * time.Hour)
	h.check()
}

// submit submits a message, and notes its key.
func (h *hostile) submit(s queue.Submission) {
	h.sent[string(s.Content.Data)] = s.Key
	if h.random.IntN(10) == 0 { // one of a server without a queue
		if _, err := queue.NewDirect(h.routes(), nil).Submit(h.t.Context(), s); err != nil {
			h.t.Fatalf("Submit without a queue = %v", err)
		}
		return
	}
	if _, err := h.queue.Submit(h.t.Context(), s); err != nil {
		h.t.Fatalf("Submit = %v", err)
	}
	h.stored++
}

// check compares what the relays got with what they may get.
func (h *hostile) check() {
	asked := map[string]int{}
	for i, r := range h.relays {
		for _, a := range r.Attempts() {
			key := h.sent[a.Content]
			asked[a.Content]++
			if h.restricted(key) && h.names[i][key] == 0 {
				h.t.Fatalf("%s got mail of %s, which does not name it", r.Name(), key)
			}
		}
	}
	for content, n := range asked {
		if n > 200 {
			h.t.Errorf("%q was tried %d times", content, n)
		}
	}
	if looks := h.looks.Load(); looks > 10_000 { // in a day and a half
		h.t.Errorf("the queue looked at its store %d times", looks)
	}
	page, err := h.queue.List(h.t.Context(), queue.Filter{Key: queue.AnyKey}, 1000, "")
	if err != nil || len(page.Messages) != h.stored {
		h.t.Fatalf("%d messages, %v, want %d", len(page.Messages), err, h.stored)
	}
	for _, m := range page.Messages {
		if state := m.Status(); state != queue.StatusDelivered && state != queue.StatusHeld {
			h.t.Errorf("%s of %s is %s: %+v", m.ID, m.Key, state, m.Recipients)
		}
	}
}

func (h *hostile) restricted(key string) bool {
	for _, names := range h.names {
		if names[key] > 0 {
			return true
		}
	}
	return false
}

// TestPausedRelayOfOneKey: a backlog of a key whose only relay is paused for hours holds up
// no other key, not even on the same relay's standby, and its own mail goes out later.
func TestPausedRelayOfOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := queuetest.NamedRelay("first", usedUp(6*time.Hour)), queuetest.NamedRelay("second", queuetest.Accept)
		q := start(t, func(o *queue.Options) {
			o.Routes[0].Keys = map[string]int{"shop": 1, "both": 1}
			o.Routes[1].Keys = map[string]int{"both": 2, "app": 1}
			o.Routes[0].Weight, o.Routes[1].Weight = 1000, 1
			o.MaxMemory = 1 << 20
		}, first, second)
		large := strings.Repeat("a line of a large message\r\n", 1000)
		for n := range 500 {
			q.MustSubmit(ofShop(fmt.Sprint(n, large)))
		}
		for n := range 100 {
			for _, key := range []string{"app", "both"} {
				s := ofShop(fmt.Sprint(key, n))
				s.Key, s.Envelope.ReversePath = key, key+"@example.com"
				q.MustSubmit(s)
			}
			time.Sleep(time.Second)
			for _, key := range []string{"app", "both"} {
				if second.Copies(fmt.Sprint(key, n), "a@example.org") != 1 {
					t.Fatalf("message %d of %s has waited for a second", n, key)
				}
			}
		}
		if n := len(first.Attempts()); n > 20 {
			t.Errorf("the paused relay was asked %d times", n)
		}
		first.Set(queuetest.Accept)
		time.Sleep(7 * time.Hour)
		for n := range 500 {
			if first.Copies(fmt.Sprint(n, large), "a@example.org") != 1 || second.Copies(fmt.Sprint(n, large), "a@example.org") != 0 {
				t.Fatalf("message %d of the key whose relay was paused is not where it belongs", n)
			}
		}
	})
}
