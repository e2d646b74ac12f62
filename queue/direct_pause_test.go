package queue_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// usedUp refuses all mail for a quota, and names when it may be asked again.
func usedUp(wait time.Duration) queuetest.Verdict {
	return func(int, string) *mailer.Failure {
		return &mailer.Failure{
			Class: mailer.ClassRelay, Stage: mailer.StageContent, Relay: "first", Reply: mailer.Reply{Code: 550, Enhanced: "5.4.5", Text: "limit"},
			Until: time.Now().Add(wait), Cause: "The limit is used up.", Remedy: "Mail waits.",
		}
	}
}

// tryDirect submits the n-th message, from a sender and to a recipient of its own.
func tryDirect(t *testing.T, d *queue.Direct, n int) *mailer.Failure {
	t.Helper()
	s := queuetest.Submission(fmt.Sprint(n), fmt.Sprintf("u%d@example.org", n))
	s.Envelope.ReversePath = fmt.Sprintf("s%d@example.com", n)
	r, err := d.Submit(t.Context(), s)
	if err != nil {
		t.Errorf("Submit = %v", err)
		return nil
	}
	return r.Message.Recipients[0].Result.Failure
}

// TestDirectKeepsPause: without a queue, too, a relay that has said until when it takes no
// mail is left alone. Each request is answered at once with its reply and that time. Then
// one message is a probe.
func TestDirectKeepsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		relay := queuetest.NamedRelay("first", usedUp(2*time.Hour))
		d := queue.NewDirect(queue.Routes{{Relay: relay}}, slog.New(slog.NewTextHandler(&log, nil)))
		ends := time.Now().Add(2 * time.Hour)
		for n := range 100 {
			f := tryDirect(t, d, n)
			if f == nil || f.Class != mailer.ClassRelay || f.Reply.Code != 550 || f.Until.Sub(ends).Abs() > time.Second {
				t.Fatalf("message %d: %+v, want the relay's reply, until %v", n, f, ends)
			}
			if asked := !errors.As(f, new(*mailer.PauseError)); asked != (n == 0) {
				t.Errorf("message %d: the relay was asked: %v", n, asked)
			}
			time.Sleep(time.Minute)
		}
		if n := len(relay.Attempts()); n != 1 {
			t.Errorf("the relay was asked %d times within its pause, want once", n)
		}
		for text, want := range map[string]int{"relay failed": 1, "relay paused": 1, "relay resumed": 0} {
			if n := strings.Count(log.String(), `msg="`+text+`"`); n != want {
				t.Errorf("%q is logged %d times, want %d:\n%s", text, n, want, log.String())
			}
		}
		if p := d.Pauses(); len(p) != 1 || p[0].Relay != "first" || p[0].Until.Sub(ends).Abs() > time.Second {
			t.Errorf("pauses = %+v", p)
		}

		time.Sleep(time.Until(ends) + time.Second)
		relay.Set(queuetest.Accept)
		relay.Slow(10*time.Second, 0)
		var wg sync.WaitGroup
		for n := range 10 {
			wg.Go(func() { _ = tryDirect(t, d, 200+n) })
		}
		wg.Wait()
		if n := len(relay.Attempts()); n != 2 {
			t.Errorf("the relay was asked %d times after its pause, want one probe", n-1)
		}
		if f := tryDirect(t, d, 300); f != nil || len(d.Pauses()) != 0 || !strings.Contains(log.String(), "relay resumed") {
			t.Errorf("after the probe: %v, pauses %v", f, d.Pauses())
		}
	})
}

// TestDirectPauseIsBounded: a relay may name any time, and a probe may hang or be cut short.
func TestDirectPauseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NamedRelay("first", usedUp(1000*time.Hour))
		d := queue.NewDirect(queue.Routes{{Relay: relay}}, nil)
		_ = tryDirect(t, d, 1)
		time.Sleep(24*time.Hour - time.Minute)
		if f := tryDirect(t, d, 2); f == nil || len(relay.Attempts()) != 1 {
			t.Errorf("within the day: %v after %d attempts", f, len(relay.Attempts()))
		}
		time.Sleep(2 * time.Minute)
		relay.Set(queuetest.Accept)
		relay.Slow(time.Hour, 0)
		go func() { _ = tryDirect(t, d, 3) }() // a probe that hangs
		time.Sleep(29 * time.Second)
		if f := tryDirect(t, d, 4); f == nil {
			t.Error("a message passed the probe")
		}
		relay.Slow(0, 0)
		time.Sleep(2 * time.Second)
		if f := tryDirect(t, d, 5); f != nil {
			t.Errorf("after the patience with a probe: %v", f)
		}
		time.Sleep(time.Hour)
	})
}

// TestDirectOtherTroublePausesNothing: only a time that the relay named holds up others.
func TestDirectOtherTroublePausesNothing(t *testing.T) {
	for name, v := range map[string]queuetest.Verdict{
		"not reached": queuetest.Unreachable, "greylisted": queuetest.Greylisted, "refused": queuetest.Refused, "lost": queuetest.LostReply, "no time": usedUp(0),
	} {
		synctest.Test(t, func(t *testing.T) {
			relay := queuetest.NamedRelay("first", v)
			d := queue.NewDirect(queue.Routes{{Relay: relay}}, nil)
			for n := range 5 {
				_ = tryDirect(t, d, n)
			}
			if n := len(relay.Attempts()); n != 5 {
				t.Errorf("%s: the relay was asked %d times for 5 messages", name, n)
			}
		})
	}
}

// TestDirectPauseAndOthers: the other relays of a route take the mail of one that is
// paused, by their shares, and the attempt says why.
func TestDirectPauseAndOthers(t *testing.T) {
	for _, weights := range [][3]int{{0, 0, 0}, {3, 1, 0}, {5, 0, 0}} {
		synctest.Test(t, func(t *testing.T) {
			first, second, third := queuetest.NamedRelay("first", usedUp(time.Hour)), queuetest.NamedRelay("second", queuetest.Accept), queuetest.NamedRelay("third", queuetest.Accept)
			d := queue.NewDirect(queue.Routes{{Relay: first, Weight: weights[0]}, {Relay: second, Weight: weights[1]}, {Relay: third, Weight: weights[2]}}, nil)
			var why string
			for n := range 20 {
				r, err := d.Submit(t.Context(), queuetest.Submission("x", fmt.Sprintf("u%d@example.org", n)))
				if err != nil || r.Message.Recipients[0].State != queue.Delivered {
					t.Fatalf("weights %v: message %d: %+v, %v", weights, n, r.Message.Recipients, err)
				}
				why = r.Message.Attempts[len(r.Message.Attempts)-1].Why
			}
			if len(first.Attempts()) != 1 || len(third.Attempts()) != 0 {
				t.Errorf("weights %v: %d attempts at the first and %d at the third, want 1 and 0", weights, len(first.Attempts()), len(third.Attempts()))
			}
			want := "failover: first paused"
			if weights[1] > 0 {
				want = "weight"
			}
			if why != want {
				t.Errorf("weights %v: why = %q, want %q", weights, why, want)
			}
		})
	}
}

// TestDirectMisreadPausesOnce: a message that the relay refuses for itself, in words that
// read as a quota, does not hold up all mail again and again.
func TestDirectMisreadPausesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := usedUp(time.Hour)
		relay := queuetest.NamedRelay("first", func(n int, path string) *mailer.Failure {
			if path == "bad@example.org" {
				return bad(n, path)
			}
			return nil
		})
		d := queue.NewDirect(queue.Routes{{Relay: relay}}, nil)
		send := func(path string) *mailer.Failure {
			s := queuetest.Submission("x", path)
			s.Envelope.ReversePath = path
			r, err := d.Submit(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			return r.Message.Recipients[0].Result.Failure
		}
		_ = send("bad@example.org")
		time.Sleep(time.Hour + time.Second)
		for range 3 {
			if f := send("good@example.org"); f != nil {
				t.Fatalf("good: %v", f)
			}
			if f := send("bad@example.org"); f == nil || f.Class != mailer.ClassTransient {
				t.Errorf("bad: %+v, want a failure of its own", f)
			}
		}
	})
}
