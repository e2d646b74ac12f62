package queue_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// peers is a store in memory as each of several instances has it, none of which dies.
type peers struct{ *memory.Store }

var _ queue.SharedStore = peers{}

func (peers) Lease() time.Duration { return lease }

func (peers) Trusts(string) bool { return true }

func (peers) Tried(context.Context, []string) ([]string, error) { return nil, nil }

func (peers) Recover(context.Context, string, time.Time, bool) (queue.Recovered, error) {
	return queue.Recovered{}, nil
}

// TestPausesShared: what a person pauses or resumes at one instance the others pause or resume within
// two seconds. What is paused at two instances at the same time is paused: none overwrites the other.
func TestPausesShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := peers{memory.New(memory.Options{})}
		var queues [3]*queuetest.Queue
		var relays [3][2]*queuetest.Relay
		for i := range queues {
			relays[i] = [2]*queuetest.Relay{queuetest.NamedRelay("one", queuetest.Accept), queuetest.NamedRelay("two", queuetest.Accept)}
			queues[i] = queuetest.Start(t, store, nil, relays[i][:]...)
		}
		want := func(when string, want ...string) {
			t.Helper()
			time.Sleep(2 * time.Second)
			for i, q := range queues {
				var got []string
				for _, p := range q.ManualPauses() {
					got = append(got, p.Relay+" "+p.Reason)
				}
				if len(got) != len(want) || len(want) > 0 && got[0] != want[0] || len(want) > 1 && got[1] != want[1] {
					t.Errorf("%s: instance %d has pauses %q, want %q", when, i, got, want)
				}
			}
		}
		pause := func(i int, relay string, until time.Time, reason string) {
			t.Helper()
			if _, err := queues[i].PauseRelay(t.Context(), relay, until, reason); err != nil {
				t.Fatal(err)
			}
		}
		resume := func(i int, relay string) {
			t.Helper()
			if err := queues[i].ResumeRelay(t.Context(), relay); err != nil {
				t.Fatal(err)
			}
		}
		pause(0, "one", time.Time{}, "a")
		pause(1, "two", time.Time{}, "b")
		want("two pauses at once", "one a", "two b")
		id := queues[2].MustSubmit(queuetest.Submission("x", "a@example.org")).Message.ID
		time.Sleep(time.Minute)
		queues[2].WantStatus(id, queue.StatusQueued)
		pause(2, "one", time.Now().Add(time.Minute), "c")
		want("the last wish of a relay counts", "one c", "two b")
		resume(2, "two")
		want("resumed", "one c")
		time.Sleep(time.Minute)
		want("its time is over")
		queues[0].WantStatus(id, queue.StatusDelivered)
		pause(0, "two", time.Time{}, "d")
		resume(1, "two") // which it does not know of yet
		want("paused, and at once resumed elsewhere")
		pause(0, "one", time.Now().Add(time.Second), "e")
		time.Sleep(time.Hour)
		if stored, err := store.ManualPauses(t.Context()); err != nil || len(stored) > 0 {
			t.Errorf("long after the end the store has %v, %v", stored, err)
		}
	})
}
