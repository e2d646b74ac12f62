package queue_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// sendSome submits n messages of a key, one after the other, and returns why each relay
// was asked, at the last attempt of each.
func sendSome(t *testing.T, q *queuetest.Queue, key string, n int) (whys []string) {
	t.Helper()
	for range n {
		s := queuetest.Submission("x", "a@example.org")
		s.Key = key
		id := q.MustSubmit(s).Message.ID
		queuetest.SettleDown()
		m, err := q.Get(t.Context(), key, id)
		if err != nil {
			t.Fatal(err)
		}
		why := "not tried"
		if tries := len(m.Attempts); tries > 0 {
			why = m.Attempts[tries-1].Why
		}
		whys = append(whys, why)
	}
	return slices.Compact(whys)
}

func wantWhys(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: why %q, want %q", what, got, want)
	}
}

// TestRelaysByWeight: mail is divided exactly. While one relay is paused the other has all
// of it, and later the first does not make up for what it missed.
func TestRelaysByWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := queuetest.NamedRelay("first", queuetest.Accept), queuetest.NamedRelay("second", queuetest.Accept)
		standby := queuetest.NamedRelay("standby", queuetest.Accept)
		q := start(t, func(o *queue.Options) { o.Routes[0].Weight, o.Routes[1].Weight = 3, 1 }, first, second, standby)
		had := [3]int{}
		want := func(what string, want ...int) {
			t.Helper()
			for i, r := range []*queuetest.Relay{first, second, standby} {
				now := r.Copies("x", "a@example.org")
				if got := now - had[i]; got != want[i] {
					t.Errorf("%s: %s took %d messages, want %d", what, r.Name(), got, want[i])
				}
				had[i] = now
			}
		}
		wantWhys(t, "both take mail", sendSome(t, q, "app", 40), "weight")
		want("both take mail", 30, 10, 0)
		first.Set(queuetest.Unreachable)
		sendSome(t, q, "app", 8)
		want("the first is not reached", 0, 8, 0)
		second.Set(queuetest.Unreachable)
		sendSome(t, q, "app", 1)
		wantWhys(t, "none with a weight is reached", sendSome(t, q, "app", 3), "failover: first paused, second paused")
		want("none with a weight is reached", 0, 0, 4)
		first.Set(queuetest.Accept)
		second.Set(queuetest.Accept)
		time.Sleep(10 * time.Minute)
		sendSome(t, q, "app", 2) // the probes
		want("two probes", 1, 1, 0)
		sendSome(t, q, "app", 40)
		want("both take mail again", 30, 10, 0)
	})
}

// TestRelaysByKey: a key's mail goes to the relays that it names, in its order, and to no
// other one, also after a restart.
func TestRelaysByKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		first, second, third := queuetest.NamedRelay("first", queuetest.Accept), queuetest.NamedRelay("second", queuetest.Accept), queuetest.NamedRelay("third", queuetest.Accept)
		keys := func(o *queue.Options) {
			o.Routes[1].Keys = map[string]int{"news": 2}
			o.Routes[2].Keys = map[string]int{"news": 1, "shop": 1}
			o.Routes[1].Senders = []string{"example.com"}
		}
		q := queuetest.Start(t, store, keys, first, second, third)
		wantWhys(t, "a key without relays", sendSome(t, q, "app", 1), "sender")
		wantWhys(t, "a key with one relay", sendSome(t, q, "shop", 2), "key")
		wantWhys(t, "a key with two, one by its sender", sendSome(t, q, "news", 2), "key, sender")
		if got := fmt.Sprint(len(first.Attempts()), len(second.Attempts()), len(third.Attempts())); got != "0 3 2" {
			t.Errorf("attempts at the relays %s, want 0 3 2", got)
		}
		third.Set(queuetest.Unreachable)
		s := queuetest.Submission("waits", "a@example.org")
		s.Key = "shop"
		id := q.MustSubmit(s).Message.ID
		time.Sleep(time.Hour)
		store = store.Reopen()
		_ = q.End()
		q = queuetest.Start(t, store, keys, first, second, third)
		time.Sleep(time.Hour)
		third.Set(queuetest.Accept)
		time.Sleep(time.Hour)
		if m, err := q.Get(t.Context(), "shop", id); err != nil || m.Status() != queue.StatusDelivered || third.Copies("waits", "a@example.org") != 1 {
			t.Errorf("after a restart: %s, %v, and %d copies at the third relay, want one", m.Status(), err, third.Copies("waits", "a@example.org"))
		}
		for _, r := range []*queuetest.Relay{first, second} {
			if n := r.Copies("waits", "a@example.org"); n != 0 {
				t.Errorf("%s took %d copies of mail of a key that does not name it", r.Name(), n)
			}
		}
	})
}

// TestRelaysInOrder: a relay takes mail while those before it take none, and says so.
func TestRelaysInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := queuetest.NamedRelay("first", queuetest.Accept), queuetest.NamedRelay("second", queuetest.Accept)
		q := start(t, nil, first, second)
		wantWhys(t, "both take mail", sendSome(t, q, "app", 2), "first")
		first.Set(queuetest.Unreachable)
		wantWhys(t, "the first is not reached", sendSome(t, q, "app", 2), "failover: first failed", "failover: first paused")
		first.Set(queuetest.Accept)
		time.Sleep(10 * time.Minute)
		wantWhys(t, "the first is back", sendSome(t, q, "app", 2), "first")
	})
	synctest.Test(t, func(t *testing.T) {
		only := queuetest.NamedRelay("only", queuetest.Accept)
		q := start(t, nil, only)
		wantWhys(t, "one relay", sendSome(t, q, "app", 2), "")
	})
}

// TestWhyIsLogged: the mail log says why it was that relay, with a queue and without one;
// where there is one relay it says nothing.
func TestWhyIsLogged(t *testing.T) {
	for _, relays := range [][]string{{"first", "second"}, {"only"}} {
		synctest.Test(t, func(t *testing.T) {
			var log lockedLog
			logger := slog.New(slog.NewTextHandler(&log, nil))
			var routes queue.Routes
			for _, name := range relays {
				routes = append(routes, queue.Route{Relay: queuetest.NamedRelay(name, queuetest.Accept)})
			}
			q := start(t, func(o *queue.Options) { o.Logger, o.Routes = logger, routes })
			q.MustSubmit(queuetest.Submission("x", "a@example.org"))
			time.Sleep(time.Minute)
			if _, err := queue.NewDirect(routes, logger).Submit(t.Context(), queuetest.Submission("x", "a@example.org")); err != nil {
				t.Fatal(err)
			}
			want := 0
			if len(relays) > 1 {
				want = 2
			}
			if got := strings.Count(log.String(), " why=first"); got != want || want == 0 && strings.Contains(log.String(), "why=") {
				t.Errorf("with %d relays the log says why %d times, want %d:\n%s", len(relays), got, want, log.String())
			}
		})
	}
}
