package queue_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// TestModelCrashes: ten runs, all but the last one killed. Each message that was accepted
// ends; each copy beyond the first has an uncertain attempt, and there is none with hold.
func TestModelCrashes(t *testing.T) {
	for seed := range *modelSeeds {
		synctest.Test(t, func(t *testing.T) {
			random, hold := rand.New(rand.NewPCG(seed, 3)), seed%2 == 1
			s := newService(t, func(o *queue.Options) { o.HoldUncertain, o.Workers, o.MaxMemory = hold, 2, 4000 })
			s.relay.Slow(50*time.Millisecond, 20*time.Millisecond)
			messages := map[string]string{} // contents by id
			for run := range 10 {
				verdicts := []queuetest.Verdict{queuetest.Accept, queuetest.Greylisted, queuetest.Unreachable, queuetest.Accept, queuetest.LostReply}
				s.relay.Set(verdicts[random.IntN(len(verdicts))])
				s.begin()
				for i := range 20 {
					data := fmt.Sprint("m", run, "-", i, " ")
					id := s.q.MustSubmit(queuetest.Submission(data, "a@example.org", "b@example.org")).Message.ID
					messages[id] = data
					if random.IntN(5) == 0 {
						_, _ = s.q.Cancel(t.Context(), "app", id)
					}
					time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
				}
				if run < 9 {
					s.kill()
					_ = s.q.End()
				}
			}
			s.relay.Set(queuetest.Accept)
			time.Sleep(3 * time.Hour)
			for id, data := range messages {
				m := s.q.Message(id)
				for _, r := range m.Recipients {
					copies, uncertain := s.relay.Copies(data, r.ForwardPath), uncertainAttempts(m, r.ForwardPath)
					switch {
					case !r.State.Final() && (r.State != queue.Held || !hold):
						t.Errorf("seed %d: %s%s is %s", seed, data, r.ForwardPath, r.State)
					case r.State == queue.Delivered && copies == 0:
						t.Errorf("seed %d: %s%s is delivered, and the relay never took it", seed, data, r.ForwardPath)
					case copies > 1 && (hold || uncertain < copies-1):
						t.Errorf("seed %d: %s%s: %d copies, %d uncertain attempts", seed, data, r.ForwardPath, copies, uncertain)
					case copies == 1 && r.State == queue.Canceled && uncertain == 0:
						t.Errorf("seed %d: %s%s is canceled, was delivered, and no attempt says so", seed, data, r.ForwardPath)
					}
				}
			}
		})
	}
}

// uncertainAttempts counts the attempts on a recipient that the relay may have accepted.
func uncertainAttempts(m queue.Message, path string) (n int) {
	for _, a := range m.Attempts {
		for _, r := range a.Results {
			if r.ForwardPath == path && r.Failure != nil && r.Failure.Class == mailer.ClassUncertain {
				n++
			}
		}
	}
	return n
}
