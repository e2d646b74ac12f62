package queue_test

import (
	"context"
	"errors"
	"log/slog"
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

// to makes the log that of a queue.
func (l *lockedLog) to(o *queue.Options) { o.Logger = slog.New(slog.NewTextHandler(l, nil)) }

func pauseRelay(t *testing.T, q *queuetest.Queue, name string, until time.Time) {
	t.Helper()
	if _, err := q.PauseRelay(t.Context(), name, until, "maintenance"); err != nil {
		t.Fatalf("PauseRelay(%s) = %v", name, err)
	}
}

func resumeRelay(t *testing.T, q *queuetest.Queue, name string) {
	t.Helper()
	if err := q.ResumeRelay(t.Context(), name); err != nil {
		t.Fatalf("ResumeRelay(%s) = %v", name, err)
	}
}

// TestPauseByOperator: no attempt begins at a paused relay, whoever asks; those under way
// end; all goes out when it is resumed.
func TestPauseByOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(10*time.Second, 0)
		q := start(t, func(o *queue.Options) { o.Workers = 1 }, relay)
		underWay := q.MustSubmit(queuetest.Submission("under way", "a@example.org")).Message.ID
		behind := q.MustSubmit(queuetest.Submission("behind", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		pauseRelay(t, q, "relay", time.Time{})
		began := time.Now()
		s := queuetest.Submission("after", "a@example.org")
		s.Wait = time.Minute
		after := q.MustSubmit(s)
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("the answer waited for %v though the relay is paused", waited)
		}
		if next := after.Message.Recipients[0].NextAttempt; !next.IsZero() {
			t.Errorf("the next attempt is said to be at %v", next)
		}
		time.Sleep(3 * time.Hour)
		q.WantStatus(underWay, queue.StatusDelivered)
		for _, id := range []string{behind, after.Message.ID} {
			if _, err := q.Retry(t.Context(), "app", id); err != nil {
				t.Errorf("Retry = %v", err)
			}
		}
		q.Resume("relay") // a check went well
		time.Sleep(3 * time.Hour)
		q.WantStatus(behind, queue.StatusQueued)
		q.WantStatus(after.Message.ID, queue.StatusQueued)
		if p := q.ManualPauses(); len(p) != 1 || p[0].Reason != "maintenance" || !p[0].Until.IsZero() {
			t.Errorf("ManualPauses = %+v", p)
		}
		resumeRelay(t, q, "relay")
		time.Sleep(time.Minute)
		q.WantStatus(behind, queue.StatusDelivered)
		q.WantStatus(after.Message.ID, queue.StatusDelivered)
		if n := len(relay.Attempts()); n != 3 {
			t.Errorf("%d attempts, want one for each message", n)
		}
		resumeRelay(t, q, "relay") // again
	})
}

// TestPauseForAWhile: a pause with an end ends by itself, and is told each hour.
func TestPauseForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		var log lockedLog
		q := start(t, log.to, relay)
		until := time.Now().Add(150 * time.Minute)
		pauseRelay(t, q, "relay", until)
		m := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message
		if next := m.Recipients[0].NextAttempt; !next.Equal(until) {
			t.Errorf("the next attempt is said to be at %v, want %v", next, until)
		}
		time.Sleep(time.Until(until) - time.Second)
		q.WantStatus(m.ID, queue.StatusQueued)
		if n := strings.Count(log.String(), "relay paused by an operator"); n != 3 {
			t.Errorf("told %d times in two and a half hours, want 3", n)
		}
		time.Sleep(2 * time.Second)
		q.WantStatus(m.ID, queue.StatusDelivered)
		if p := q.ManualPauses(); len(p) > 0 {
			t.Errorf("ManualPauses = %v after the end", p)
		}
		time.Sleep(2 * time.Minute)
		if n := strings.Count(log.String(), "pause by an operator ended"); n != 1 {
			t.Errorf("its end was told %d times", n)
		}
		if stored, err := q.Options.Store.ManualPauses(t.Context()); err != nil || len(stored) > 0 {
			t.Errorf("stored after the end: %v, %v", stored, err)
		}
	})
}

// TestPauseFailsOver: other relays of the route get the mail, but for what the paused one may
// have taken.
func TestPauseFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := queuetest.NamedRelay("one", queuetest.Fail(mailer.ClassUncertain, mailer.StageContent, 0)), queuetest.NamedRelay("two", queuetest.Accept)
		q := start(t, nil, one, two)
		taken := q.MustSubmit(queuetest.Submission("taken", "a@example.org")).Message.ID
		queuetest.SettleDown()
		one.Set(queuetest.Accept)
		pauseRelay(t, q, "one", time.Time{})
		other := q.MustSubmit(queuetest.Submission("other", "b@example.org")).Message.ID
		time.Sleep(3 * time.Hour)
		m := q.WantStatus(other, queue.StatusDelivered)
		if a := m.Attempts[0]; a.Relay != "two" || a.Why != "failover: one paused by an operator" {
			t.Errorf("attempt at %s because of %q", a.Relay, a.Why)
		}
		q.WantStatus(taken, queue.StatusDeferred)
		if two.Copies("taken", "a@example.org") > 0 {
			t.Error("another relay got what the paused one may have taken")
		}
		pauseRelay(t, q, "two", time.Time{})
		resumeRelay(t, q, "one")
		last := q.MustSubmit(queuetest.Submission("last", "c@example.org")).Message.ID
		time.Sleep(time.Minute)
		if m := q.WantStatus(last, queue.StatusDelivered); m.Attempts[0].Relay != "one" {
			t.Errorf("attempt at %s", m.Attempts[0].Relay)
		}
		q.WantStatus(taken, queue.StatusDelivered)
	})
}

// TestPauseOfBrokenRelay: a relay that is in trouble as well is not probed, and goes on as
// before after the pause.
func TestPauseOfBrokenRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Unreachable)
		q := start(t, nil, relay)
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		queuetest.SettleDown()
		pauseRelay(t, q, "relay", time.Time{})
		before := len(relay.Attempts())
		relay.Set(queuetest.Accept)
		time.Sleep(2 * time.Hour)
		if n := len(relay.Attempts()) - before; n > 0 {
			t.Errorf("%d attempts at a paused relay", n)
		}
		resumeRelay(t, q, "relay")
		time.Sleep(10 * time.Minute)
		q.WantStatus(id, queue.StatusDelivered)
	})
}

// TestPauseSurvives: a pause is there after a crash, before anything is sent; that of a relay
// which is not configured any more is forgotten.
func TestPauseSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := queuetest.NamedRelay("one", queuetest.Accept), queuetest.NamedRelay("two", queuetest.Accept)
		q := start(t, nil, one, two)
		pauseRelay(t, q, "one", time.Time{})
		pauseRelay(t, q, "two", time.Now().Add(time.Hour))
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		var log lockedLog
		q = restart(t, q, log.to, one)
		time.Sleep(3 * time.Hour)
		q.WantStatus(id, queue.StatusQueued)
		if p := q.ManualPauses(); len(p) != 1 || p[0].Relay != "one" {
			t.Errorf("ManualPauses = %v, want that of one", p)
		}
		if strings.Count(log.String(), "relay paused by an operator") < 2 || strings.Count(log.String(), "pause of a relay that is not configured is forgotten") != 1 {
			t.Errorf("log:\n%s", log.String())
		}
		resumeRelay(t, q, "one")
		queuetest.SettleDown()
		q.WantStatus(id, queue.StatusDelivered)
		if err := q.ResumeRelay(t.Context(), "two"); err == nil || err.Error() != `no relay is named "two"; there are: one` {
			t.Errorf("ResumeRelay of an unknown one = %v", err)
		}
	})
}

// TestPauseOfRenamedRelay: a relay that another one of the same host stands beside has a
// number in its name, and is still paused until that relay is resumed.
func TestPauseOfRenamedRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := start(t, nil, queuetest.NamedRelay("one", queuetest.Accept))
		pauseRelay(t, q, "one", time.Time{})
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		first, second := queuetest.NamedRelay("one#1", queuetest.Accept), queuetest.NamedRelay("one#2", queuetest.Unreachable)
		for range 2 { // and after one more start
			q = restart(t, q, nil, first, second)
			if p := q.ManualPauses(); len(p) != 1 || p[0].Relay != "one#1" {
				t.Fatalf("ManualPauses = %v, want that of one#1", p)
			}
		}
		resumeRelay(t, q, "one#1")
		queuetest.SettleDown()
		q.WantStatus(id, queue.StatusDelivered)
		if p := q.ManualPauses(); len(p) != 0 {
			t.Errorf("ManualPauses = %v after it was resumed", p)
		}
	})
}

// TestDrain: nothing new gets in, what is here goes out, repeats are answered, and the end
// of it lets mail in again.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		relay.Slow(10*time.Second, 0)
		var log lockedLog
		q := start(t, func(o *queue.Options) { log.to(o); o.Workers = 1 }, relay)
		s := queuetest.Submission("x", "a@example.org")
		s.IdempotencyKey = "again"
		first := q.MustSubmit(s).Message.ID
		for range 5 {
			q.MustSubmit(queuetest.Submission("y", "b@example.org"))
		}
		later := queuetest.Submission("later", "c@example.org")
		later.SendAt = time.Now().Add(time.Hour)
		q.MustSubmit(later)
		q.Drain()
		q.Drain()
		for range 2 {
			if _, err := q.Submit(t.Context(), queuetest.Submission("new", "d@example.org")); !errors.Is(err, queue.ErrDraining) {
				t.Errorf("Submit = %v, want %v", err, queue.ErrDraining)
			}
		}
		if _, err := q.SubmitBatch(t.Context(), []queue.Submission{queuetest.Submission("new", "d@example.org")}); !errors.Is(err, queue.ErrDraining) {
			t.Errorf("SubmitBatch = %v, want %v", err, queue.ErrDraining)
		}
		if r, err := q.Submit(t.Context(), s); err != nil || r.Message.ID != first || !r.Replayed {
			t.Errorf("a repeat = %+v, %v", r, err)
		}
		if err := q.Ready(t.Context()); !errors.Is(err, queue.ErrDraining) {
			t.Errorf("Ready = %v, want %v", err, queue.ErrDraining)
		}
		if d, err := q.Drained(t.Context()); err != nil || d.Since.IsZero() || d.Left != (queue.Backlog{Due: 6, Later: 1, Next: later.SendAt.UTC()}) {
			t.Errorf("Drained = %+v, %v", d, err)
		}
		time.Sleep(2 * time.Minute)
		if d, err := q.Drained(t.Context()); err != nil || d.Left != (queue.Backlog{Later: 1, Next: later.SendAt.UTC()}) {
			t.Errorf("Drained = %+v, %v, want what is due later", d, err)
		}
		time.Sleep(2 * time.Hour)
		if n := strings.Count(log.String(), "draining: new mail is refused"); n != 3 {
			t.Errorf("told %d times in two hours, want 3", n)
		}
		q.EndDrain()
		if d, err := q.Drained(t.Context()); err != nil || !d.Since.IsZero() {
			t.Errorf("Drained after the end = %+v, %v", d, err)
		}
		q.WantStatus(q.MustSubmit(queuetest.Submission("new", "d@example.org")).Message.ID, queue.StatusQueued)
		if err := q.Ready(t.Context()); err != nil {
			t.Errorf("Ready after the end = %v", err)
		}
	})
}

// TestOperateWithoutStore: a pause and a drain refuse mail that has nowhere to wait.
func TestOperateWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := queuetest.NamedRelay("one", queuetest.Accept), queuetest.NamedRelay("two", queuetest.Accept)
		d := queue.NewDirect(queue.Routes{{Relay: one}, {Relay: two}}, nil)
		want := func(relay string, wantErr error) {
			t.Helper()
			r, err := d.Submit(context.Background(), queuetest.Submission("x", "a@example.org"))
			switch {
			case !errors.Is(err, wantErr):
				t.Errorf("Submit = %v, want %v", err, wantErr)
			case err == nil && r.Message.Attempts[0].Relay != relay:
				t.Errorf("attempt at %q, want %q", r.Message.Attempts[0].Relay, relay)
			}
		}
		want("one", nil)
		if _, err := d.PauseRelay(t.Context(), "one", time.Now().Add(time.Hour), ""); err != nil {
			t.Fatal(err)
		}
		want("two", nil)
		if _, err := d.PauseRelay(t.Context(), "two", time.Time{}, ""); err != nil {
			t.Fatal(err)
		}
		want("", queue.ErrPaused)
		if p := d.ManualPauses(); len(p) != 2 {
			t.Errorf("ManualPauses = %v", p)
		}
		time.Sleep(time.Hour)
		want("one", nil)
		if err := d.ResumeRelay(t.Context(), "two"); err != nil {
			t.Fatal(err)
		}
		var unknown *queue.UnknownRelayError
		if _, err := d.PauseRelay(t.Context(), "three", time.Time{}, ""); !errors.As(err, &unknown) {
			t.Errorf("PauseRelay of an unknown one = %v", err)
		}
		d.Drain()
		want("", queue.ErrDraining)
		if err := d.Ready(t.Context()); !errors.Is(err, queue.ErrDraining) {
			t.Errorf("Ready = %v", err)
		}
		d.EndDrain()
		want("one", nil)
	})
}

// TestPausedRelayMayTakeYet: without a store, too, a refusal that is about one relay is not
// permanent while one that was not asked is paused.
func TestPausedRelayMayTakeYet(t *testing.T) {
	refuse := func(int, string) *mailer.Failure {
		return &mailer.Failure{Class: mailer.ClassPermanent, Stage: mailer.StageCompose, Text: "too large for this relay", Err: mailer.ErrCannotTake}
	}
	one, two := queuetest.NamedRelay("one", queuetest.Accept), queuetest.NamedRelay("two", refuse)
	d := queue.NewDirect(queue.Routes{{Relay: one}, {Relay: two}}, nil)
	if _, err := d.PauseRelay(t.Context(), "one", time.Time{}, ""); err != nil {
		t.Fatal(err)
	}
	r, err := d.Submit(t.Context(), queuetest.Submission("x", "a@example.org"))
	if err != nil || r.Message.Recipients[0].State != queue.Deferred {
		t.Errorf("Submit = %+v, %v; want it deferred", r.Message.Recipients, err)
	}
}

// hangingPauses is a store that does not come to store a pause.
type hangingPauses struct{ *memory.Store }

func (hangingPauses) SetManualPauses(ctx context.Context, _ []queue.ManualPause, _ ...string) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestPauseHangs: while the store does not come to store a pause, another wish ends with its
// own context, the leases are looked after, and mail goes on.
func TestPauseHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Accept)
		q := queuetest.Start(t, hangingPauses{memory.New(memory.Options{})}, nil, relay)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		go func() { _, _ = q.PauseRelay(ctx, relay.Name(), time.Time{}, "") }()
		time.Sleep(10 * time.Minute) // the house looks, and a lease would be lost
		short, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		if err := q.ResumeRelay(short, relay.Name()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ResumeRelay = %v, want %v", err, context.DeadlineExceeded)
		}
		id := q.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		time.Sleep(time.Second)
		q.WantStatus(id, queue.StatusDelivered)
	})
}

// slowPauses is a store that takes ten seconds to read the pauses.
type slowPauses struct{ *memory.Store }

func (s slowPauses) ManualPauses(ctx context.Context) ([]queue.ManualPause, error) {
	time.Sleep(10 * time.Second)
	return s.Store.ManualPauses(ctx)
}

// TestPauseDuringStart: what a person wishes while the start has not read the pauses yet is added
// to these, or ends them.
func TestPauseDuringStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := queuetest.NamedRelay("one", queuetest.Accept), queuetest.NamedRelay("two", queuetest.Accept)
		// run starts a queue on the store, has wish done before it is ready, and returns which
		// relays are paused a minute later.
		run := func(s *memory.Store, wish func(q *queue.Durable) error) (names []string) {
			t.Helper()
			q, err := queue.New(queue.Options{Store: slowPauses{s}, Routes: queue.Routes{{Relay: one}, {Relay: two}}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = q.Run(ctx)
			}()
			time.Sleep(time.Second)
			if err := wish(q); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			for _, p := range q.ManualPauses() {
				names = append(names, p.Relay)
			}
			cancel()
			<-done
			return names
		}
		s := memory.New(memory.Options{})
		if err := s.SetManualPauses(t.Context(), []queue.ManualPause{{Relay: "one", Since: time.Now()}}); err != nil {
			t.Fatal(err)
		}
		if got := run(s, func(q *queue.Durable) error {
			_, err := q.PauseRelay(t.Context(), "two", time.Time{}, "")
			return err
		}); len(got) != 2 {
			t.Errorf("after a pause during the start %q are paused, want both", got)
		}
		s = s.Reopen()
		if got := run(s, func(q *queue.Durable) error {
			return errors.Join(q.ResumeRelay(t.Context(), "one"), q.ResumeRelay(t.Context(), "two"))
		}); len(got) != 0 {
			t.Errorf("after the end of the pauses during the start %q are paused", got)
		}
	})
}

// TestPauseInDoubt: a pause whose commit seemed to fail does not come back at the next start,
// whether the person resumes the relay or does nothing.
func TestPauseInDoubt(t *testing.T) {
	for _, resumes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			relay := queuetest.NewRelay(queuetest.Accept)
			var lost atomic.Bool
			lost.Store(true)
			s := memory.New(memory.Options{After: func(_ context.Context, method string) error {
				if method == "SetManualPauses" && lost.Load() {
					return errors.New("disk error")
				}
				return nil
			}})
			q := queuetest.Start(t, s, nil, relay)
			if _, err := q.PauseRelay(t.Context(), relay.Name(), time.Time{}, ""); err == nil {
				t.Fatal("PauseRelay = nil, want the failure")
			}
			lost.Store(false)
			if !resumes {
				time.Sleep(2 * time.Minute)
			} else if err := q.ResumeRelay(t.Context(), relay.Name()); err != nil {
				t.Fatal(err)
			}
			_ = q.End()
			q = queuetest.Start(t, s.Reopen(), nil, relay)
			queuetest.SettleDown()
			if p := q.ManualPauses(); len(p) != 0 {
				t.Errorf("resumed %v: after the restart there is %+v", resumes, p)
			}
		})
	}
}
