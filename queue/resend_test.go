package queue_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// TestResend: a message that bounced goes to another address, with the same content below Resent-*
// fields, once for an idempotency key, as long as its content is there.
func TestResend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(func(n int, path string) *mailer.Failure {
			if path == "old@example.org" {
				return queuetest.Refused(n, path)
			}
			return nil
		})
		q := queuetest.Start(t, memory.New(memory.Options{}), nil, relay)
		const content = "From: shop@example.com\r\nSubject: x\r\n\r\nhello\r\n"
		sub := queuetest.Submission(content, "old@example.org")
		sub.Envelope.Priority = mailer.PriorityHigh
		id := q.MustSubmit(sub).Message.ID
		queuetest.SettleDown()
		q.WantStatus(id, queue.StatusFailed)
		resend := queue.Resend{ID: id, To: "new@example.org", IdempotencyKey: "k", Fingerprint: [32]byte{1}}
		if _, err := q.Resend(t.Context(), "other", resend); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("Resend by another key = %v, want ErrNotFound", err)
		}
		r, err := q.Resend(t.Context(), queue.AnyKey, resend)
		if err != nil || r.Replayed || r.Message.ResentOf != id || r.Message.Key != "app" {
			t.Fatalf("Resend = %+v, %v", r, err)
		}
		queuetest.SettleDown()
		q.WantStatus(r.Message.ID, queue.StatusDelivered)
		attempts := relay.Attempts()
		last := attempts[len(attempts)-1]
		if last.Envelope.ReversePath != "bounce@example.com" || last.Envelope.Priority != mailer.PriorityHigh || len(last.Envelope.ForwardPaths) != 1 || last.Envelope.ForwardPaths[0] != "new@example.org" {
			t.Errorf("envelope = %+v", last.Envelope)
		}
		block, had := strings.CutSuffix(last.Content, content)
		lines := strings.Split(block, "\r\n")
		if !had || len(lines) != 5 || !strings.HasPrefix(lines[0], "Resent-Date: ") || lines[1] != "Resent-From: shop@example.com" || lines[2] != "Resent-To: new@example.org" ||
			!strings.HasPrefix(lines[3], "Resent-Message-ID: <") || !strings.HasSuffix(lines[3], "@example.com>") {
			t.Errorf("content = %q, want Resent-* fields and the same content", last.Content)
		}
		if m, err := q.Get(t.Context(), "app", id); err != nil || len(m.ResentAs) != 1 || m.ResentAs[0] != r.Message.ID || m.Status() != queue.StatusFailed {
			t.Errorf("the first message has ResentAs %v and is %s, %v", m.ResentAs, m.Status(), err)
		}

		again, err := q.Resend(t.Context(), "app", resend)
		if err != nil || !again.Replayed || again.Message.ID != r.Message.ID {
			t.Errorf("Resend repeated = %s, %t, %v, want the same message", again.Message.ID, again.Replayed, err)
		}
		other := resend
		other.Fingerprint = [32]byte{2}
		if _, err := q.Resend(t.Context(), "app", other); !errors.Is(err, queue.ErrIdempotencyMismatch) {
			t.Errorf("Resend of another request with the key = %v, want ErrIdempotencyMismatch", err)
		}
		if _, err := q.Resend(t.Context(), "app", queue.Resend{ID: r.Message.ID, To: "x@example.org"}); !errors.Is(err, queue.ErrContentGone) {
			t.Errorf("Resend of what is delivered = %v, want ErrContentGone", err)
		}
		if n := len(relay.Attempts()); n != 2 {
			t.Errorf("attempts = %d, want 2", n)
		}
	})
}

// TestResendTwice: a second copy to the same address needs a word, unless nothing came of the first; a repeat of the
// same request does not.
func TestResendTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(func(n int, path string) *mailer.Failure {
			switch path {
			case "busy@example.org":
				return queuetest.Greylisted(n, path)
			case "old@example.org", "gone@example.org":
				return queuetest.Refused(n, path)
			default:
				return nil
			}
		})
		q := queuetest.Start(t, memory.New(memory.Options{}), nil, relay)
		id := q.MustSubmit(queuetest.Submission("x", "old@example.org", "has@example.org")).Message.ID
		queuetest.SettleDown()
		resend := func(to, key string, again bool) (queue.Receipt, error) {
			defer queuetest.SettleDown()
			return q.Resend(t.Context(), "app", queue.Resend{ID: id, To: to, IdempotencyKey: key, Again: again})
		}
		wantRefused := func(to, as string, state queue.State) {
			t.Helper()
			before := len(relay.Attempts())
			_, err := resend(to, "", false)
			e, ok := errors.AsType[*queue.ResentError](err)
			if !ok || e.ID != as || e.State != state || e.Own != (as == id) || len(relay.Attempts()) != before {
				t.Errorf("a second resend to %s = %v, want that it went there as %s, %s", to, err, as, state)
			}
		}
		first, err := resend("new@example.org", "k", false)
		if err != nil {
			t.Fatal(err)
		}
		wantRefused("NEW@example.org", first.Message.ID, queue.Delivered)
		if r, err := resend("new@example.org", "k", false); err != nil || !r.Replayed || r.Message.ID != first.Message.ID {
			t.Errorf("a repeat = %s, %t, %v, want the first one", r.Message.ID, r.Replayed, err)
		}
		second, err := resend("new@example.org", "k2", true)
		if err != nil || second.Replayed || second.Message.ID == first.Message.ID {
			t.Errorf("again = %s, %v, want another message", second.Message.ID, err)
		}
		wantRefused("new@example.org", second.Message.ID, queue.Delivered)
		wantRefused("has@example.org", id, queue.Delivered)
		waits, err := resend("busy@example.org", "", false)
		if err != nil {
			t.Fatal(err)
		}
		wantRefused("busy@example.org", waits.Message.ID, queue.Deferred)
		if _, err := q.Cancel(t.Context(), "app", waits.Message.ID); err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"busy@example.org", "gone@example.org", "gone@example.org", "old@example.org"} {
			if _, err := resend(to, "", false); err != nil {
				t.Errorf("resend to %s, where nothing came of it: %v", to, err)
			}
		}
	})
}

// TestResendRepeatedLater: a repeat is answered although the content is gone by then.
func TestResendRepeatedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queuetest.Start(t, memory.New(memory.Options{}), nil, queuetest.NewRelay(queuetest.Greylisted))
		id := q.MustSubmit(queuetest.Submission("x", "old@example.org")).Message.ID
		time.Sleep(time.Second)
		resend := queue.Resend{ID: id, To: "new@example.org", IdempotencyKey: "k"}
		first, err := q.Resend(t.Context(), "app", resend)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := q.Cancel(t.Context(), "app", id); err != nil {
			t.Fatal(err)
		}
		if again, err := q.Resend(t.Context(), "app", resend); err != nil || !again.Replayed || again.Message.ID != first.Message.ID {
			t.Errorf("Resend repeated = %s, %v, want %s", again.Message.ID, err, first.Message.ID)
		}
		if _, err := q.Resend(t.Context(), "app", queue.Resend{ID: id, To: "new@example.org", IdempotencyKey: "new"}); !errors.Is(err, queue.ErrContentGone) {
			t.Errorf("Resend of what is canceled = %v, want ErrContentGone", err)
		}
	})
}

// TestResendByAnother: the Idempotency-Key of whoever asks is not one of the key whose message
// it is.
func TestResendByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queuetest.Start(t, memory.New(memory.Options{}), nil, queuetest.NewRelay(queuetest.Greylisted))
		id := q.MustSubmit(queuetest.Submission("x", "old@example.org")).Message.ID
		resend := queue.Resend{ID: id, To: "new@example.org", Caller: "ops", IdempotencyKey: "order-1", Fingerprint: [32]byte{1}}
		first, err := q.Resend(t.Context(), queue.AnyKey, resend)
		if err != nil || first.Message.Key != "app" {
			t.Fatalf("Resend = %+v, %v", first, err)
		}
		own := queuetest.Submission("y", "a@example.org")
		own.IdempotencyKey, own.Fingerprint = "order-1", [32]byte{2}
		if r, err := q.Submit(t.Context(), own); err != nil || r.Replayed {
			t.Errorf("Submit with the same name = %+v, %v, want a new message", r, err)
		}
		if again, err := q.Resend(t.Context(), queue.AnyKey, resend); err != nil || !again.Replayed || again.Message.ID != first.Message.ID {
			t.Errorf("Resend repeated = %s, %v, want %s", again.Message.ID, err, first.Message.ID)
		}
	})
}

// TestResendRepeatedWhenRefused: a repeat is answered as the first request was, although the recipient is being
// tried again meanwhile, the content is gone, or the key may do less; a new request is refused, and is not
// judged where there is nothing to send.
func TestResendRepeatedWhenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := queuetest.NewRelay(queuetest.Refused)
		q := queuetest.Start(t, memory.New(memory.Options{}), nil, relay)
		id := q.MustSubmit(queuetest.Submission("x", "old@example.org")).Message.ID
		queuetest.SettleDown()
		q.WantStatus(id, queue.StatusFailed)
		refused := errors.New("refused")
		var judge error
		judged := 0
		resend := func(scope, name string) (queue.Receipt, error) {
			return q.Resend(t.Context(), scope, queue.Resend{
				ID: id, To: "new@example.org", InsteadOf: "OLD@example.org", Caller: "app", IdempotencyKey: name, Again: name == "new",
				Judge: func(m queue.Message, c mailer.Content) error {
					judged++
					if m.ID != id || string(c.Data) != "x" {
						t.Errorf("judged %s %q", m.ID, c.Data)
					}
					return judge
				},
			})
		}
		first, err := resend("app", "k")
		if err != nil {
			t.Fatal(err)
		}
		check := func(when string, want func(error) bool) {
			t.Helper()
			for _, scope := range []string{"app", queue.AnyKey} {
				if again, err := resend(scope, "k"); err != nil || !again.Replayed || again.Message.ID != first.Message.ID {
					t.Errorf("%s: Resend repeated in %s = %s, %v, want %s", when, scope, again.Message.ID, err, first.Message.ID)
				}
			}
			if r, err := resend("app", "new"); !want(err) {
				t.Errorf("%s: Resend = %s, %v", when, r.Message.ID, err)
			}
		}
		judge = refused
		check("judged", func(err error) bool { return errors.Is(err, refused) })
		judge, judged = nil, 0
		relay.Set(queuetest.Greylisted)
		if _, err := q.Retry(t.Context(), "app", id); err != nil {
			t.Fatal(err)
		}
		check("retried", func(err error) bool {
			e, ok := errors.AsType[*queue.InsteadError](err)
			return ok && !e.State.Final()
		})
		if judged != 0 {
			t.Errorf("judged %d times what may not be sent", judged)
		}
		if _, err := q.Cancel(t.Context(), "app", id); err != nil {
			t.Fatal(err)
		}
		check("canceled", func(err error) bool { return errors.Is(err, queue.ErrContentGone) })
		if judged != 0 {
			t.Errorf("judged %d times what has no content", judged)
		}
	})
}

// TestResendRepeatedWithoutOriginal: a repeat is answered after the first message was removed.
func TestResendRepeatedWithoutOriginal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queuetest.Start(t, memory.New(memory.Options{Retention: 24 * time.Hour}), nil, queuetest.NewRelay(queuetest.Refused))
		id := q.MustSubmit(queuetest.Submission("x", "old@example.org")).Message.ID
		time.Sleep(20 * time.Hour)
		resend := queue.Resend{ID: id, To: "new@example.org", Caller: "app", IdempotencyKey: "k"}
		first, err := q.Resend(t.Context(), "app", resend)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Hour)
		if _, err := q.Get(t.Context(), "app", id); !errors.Is(err, queue.ErrNotFound) {
			t.Fatalf("Get of the first message = %v, want ErrNotFound", err)
		}
		for _, scope := range []string{"app", queue.AnyKey} {
			if again, err := q.Resend(t.Context(), scope, resend); err != nil || !again.Replayed || again.Message.ID != first.Message.ID {
				t.Errorf("Resend repeated in %s = %s, %v, want %s", scope, again.Message.ID, err, first.Message.ID)
			}
		}
		resend.IdempotencyKey = "new"
		if _, err := q.Resend(t.Context(), "app", resend); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("Resend of what is removed = %v, want ErrNotFound", err)
		}
	})
}

// TestResendInsteadOf: a recipient that has the message, or may have or get it, needs no other address.
func TestResendInsteadOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queuetest.Start(t, memory.New(memory.Options{}), nil, queuetest.NewRelay(queuetest.Greylisted))
		id := q.MustSubmit(queuetest.Submission("x", "old@example.org")).Message.ID
		queuetest.SettleDown()
		_, err := q.Resend(t.Context(), "app", queue.Resend{ID: id, To: "new@example.org", InsteadOf: "none@example.org"})
		if !errors.Is(err, queue.ErrNotRecipient) {
			t.Errorf("Resend instead of another = %v, want ErrNotRecipient", err)
		}
		_, err = q.Resend(t.Context(), "app", queue.Resend{ID: id, To: "new@example.org", InsteadOf: "old@example.org"})
		if e, ok := errors.AsType[*queue.InsteadError](err); !ok || e.State != queue.Deferred {
			t.Errorf("Resend instead of a deferred one = %v", err)
		}

		// The reply to it never came, and no other attempt ended well.
		lost := queuetest.NewRelay(queuetest.LostReply)
		q = queuetest.Start(t, memory.New(memory.Options{}), nil, lost)
		id = q.MustSubmit(queuetest.Submission("x", "old@example.org")).Message.ID
		queuetest.SettleDown()
		lost.Set(queuetest.Unreachable)
		time.Sleep(6 * 24 * time.Hour)
		if m := q.Message(id); m.Recipients[0].State != queue.Expired {
			t.Fatalf("the recipient is %s, want expired", m.Recipients[0].State)
		}
		_, err = q.Resend(t.Context(), "app", queue.Resend{ID: id, To: "new@example.org", InsteadOf: "old@example.org"})
		if e, ok := errors.AsType[*queue.InsteadError](err); !ok || e.State != queue.Expired || e.TakenBy != "relay" {
			t.Errorf("Resend instead of one that a relay may have taken = %v", err)
		}
	})
}
