//go:build linux

package postgres

import (
	"testing"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// awaitThat waits until a condition holds.
func awaitThat(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 20 s: %s", what)
		}
	}
}

// TestQueuesShare: queues at one database share pauses, those of persons and those because of trouble.
func TestQueuesShare(t *testing.T) {
	o := options(t, start(t).url())
	var queues [2]*queuetest.Queue
	var relays [2]*queuetest.Relay
	for i := range queues {
		relays[i] = queuetest.NamedRelay("one", queuetest.Unreachable)
		queues[i] = queuetest.Start(t, open(t, o), nil, relays[i])
	}
	a, b := queues[0], queues[1]
	id := a.MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
	awaitThat(t, "the other one knows of the trouble", func() bool { return len(a.Pauses()) == 1 && len(b.Pauses()) == 1 })
	for _, r := range relays {
		r.Set(queuetest.Accept)
	}
	awaitThat(t, "both know that it works", func() bool { return len(a.Pauses()) == 0 && len(b.Pauses()) == 0 })
	awaitThat(t, "the message goes out", func() bool { return b.Message(id).Status() == queue.StatusDelivered })
	if _, err := a.PauseRelay(t.Context(), "one", time.Time{}, "reason"); err != nil {
		t.Fatal(err)
	}
	awaitThat(t, "the other one pauses", func() bool { p := b.ManualPauses(); return len(p) == 1 && p[0].Reason == "reason" })
	if err := b.ResumeRelay(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	awaitThat(t, "the first one resumes", func() bool { return len(a.ManualPauses()) == 0 })
}
