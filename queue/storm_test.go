package queue_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/dispatch"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// The first seed of the storm, to repeat one that has failed.
var stormFirst = flag.Uint64("storm-first", 0, "the first seed of TestModelStorm")

// storm is a service that is killed and ended at random, whose clock is set back and
// forward, on a store that hangs and fails, with three relays on two routes that refuse
// reverse-paths, break connections and hang.
type storm struct {
	t     *testing.T
	seed  uint64
	hold  bool
	wild  atomic.Bool
	calm  atomic.Bool
	skew  atomic.Int64
	store *memory.Store

	mu       sync.Mutex
	rand     *rand.Rand
	begun    map[string][]time.Time // by subject and recipient
	accepted map[string]int
	takenBy  map[string]string    // the relay that may have taken it, by subject and recipient
	crossed  map[string]string    // those that went to another one
	canceled map[string]time.Time // by id
	retried  map[string]bool      // by id
	known    map[string]string    // subjects of accepted messages, by id
	kills    int
	// retriedAll says that any message may be due again after its cancel.
	retriedAll bool
}

// stormRun is one run of the service.
type stormRun struct {
	*storm
	q    *queuetest.Queue
	dead chan struct{}
}

// TestModelStorm: each message that was accepted ends, none goes out after its cancel, and
// each copy beyond the first has an uncertain attempt. It has found a stop that never
// ended, and mail that waited for a day after the clock was set.
func TestModelStorm(t *testing.T) {
	for seed := *stormFirst; seed < *stormFirst+*modelSeeds/4; seed++ {
		synctest.Test(t, func(t *testing.T) {
			s := &storm{
				t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 11)), begun: map[string][]time.Time{}, accepted: map[string]int{},
				canceled: map[string]time.Time{}, retried: map[string]bool{}, known: map[string]string{},
				takenBy: map[string]string{}, crossed: map[string]string{},
			}
			s.run()
		})
		if t.Failed() {
			return
		}
	}
}

func (s *storm) roll(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rand.IntN(n)
}

func (s *storm) run() {
	faults := []int{0, 0, 3, 8}[s.roll(4)]
	hook := func(_ context.Context, method string) error {
		if !s.wild.Load() {
			return nil
		}
		switch s.roll(30) {
		case 0:
			time.Sleep(time.Duration(s.roll(60_000)) * time.Millisecond)
		case 1, 2, 3, 4:
			time.Sleep(time.Duration(s.roll(2000)) * time.Millisecond)
		}
		if method != "Check" && s.roll(100) < faults {
			return errModel
		}
		return nil
	}
	s.store = memory.New(memory.Options{Before: hook, After: hook})
	s.hold = s.roll(2) == 0
	runs := 1 + s.roll(6)
	for n := range runs {
		r := s.begin()
		s.wild.Store(true)
		var clients sync.WaitGroup
		for c := range 3 {
			clients.Go(func() { r.client(fmt.Sprint(n, "-", c)) })
		}
		clients.Go(r.operator)
		if n == runs-1 {
			clients.Wait()
			s.wild.Store(false)
			s.calm.Store(true)
			s.end(r)
			continue
		}
		time.Sleep(time.Duration(s.roll(90_000)) * time.Millisecond)
		if s.roll(3) > 0 {
			s.store = s.store.Reopen()
			close(r.dead)
			s.kills++
		}
		began := time.Now()
		_ = r.q.End()
		if took := time.Since(began); took > 20*time.Minute {
			s.t.Errorf("seed %d: the end took %v", s.seed, took)
		}
		select {
		case <-r.dead:
		default:
			s.store = s.store.Reopen()
		}
		s.wild.Store(false)
		clients.Wait()
	}
}

func (s *storm) begin() *stormRun {
	r := &stormRun{storm: s, dead: make(chan struct{})}
	relay := func(name string) mailer.Deliverer { return &stormRelay{r, name} }
	one, two, three := relay("one"), relay("two"), relay("three")
	r.q = queuetest.Start(s.t, s.store, func(o *queue.Options) {
		o.HoldUncertain, o.Workers, o.MaxMemory = s.hold, 1+s.roll(4), int64(3000+s.roll(9000))
		o.Routes = queue.Routes{{Relay: one}, {Relay: two}}
		if s.roll(3) > 0 {
			o.Routes = append(o.Routes, queue.Route{Relay: three, Senders: []string{"other@example.com"}})
		}
		o.Now = func() time.Time { return time.Now().Add(time.Duration(s.skew.Load())) }
	})
	return r
}

func (r *stormRun) isDead() bool {
	select {
	case <-r.dead:
		return true
	default:
		return false
	}
}

func (r *stormRun) client(name string) {
	for i := range 12 {
		if r.isDead() {
			return
		}
		var subs []queue.Submission
		for range 1 + r.roll(5)/4*r.roll(6) {
			subs = append(subs, r.submission(fmt.Sprintf("m%s-%d-%d", name, i, len(subs))))
		}
		var receipts []queue.Receipt
		if len(subs) > 1 {
			receipts, _ = r.q.SubmitBatch(r.t.Context(), subs)
		} else {
			receipts = r.submit(subs[0], fmt.Sprint(name, "-", i))
		}
		if len(receipts) > 0 {
			r.mu.Lock()
			for n, receipt := range receipts {
				r.known[receipt.Message.ID] = subs[n].Subject
			}
			r.mu.Unlock()
			switch id := receipts[0].Message.ID; r.roll(8) {
			case 0, 1:
				r.cancel(id)
			case 2:
				r.retry(id)
			}
		}
		time.Sleep(time.Duration(r.roll(6000)) * time.Millisecond)
	}
}

// submit submits one message, or three times with an idempotency key.
func (r *stormRun) submit(s queue.Submission, key string) (receipts []queue.Receipt) {
	times := 1
	if r.roll(3) == 0 {
		s.IdempotencyKey, times = key, 3
	}
	for range times {
		receipt, err := r.q.Submit(r.t.Context(), s)
		if err != nil {
			continue
		}
		if receipts != nil && receipts[0].Message.ID != receipt.Message.ID {
			r.t.Errorf("seed %d: key %s: two messages", r.seed, key)
		}
		receipts = []queue.Receipt{receipt}
	}
	return receipts
}

func (r *stormRun) submission(name string) queue.Submission {
	var to []string
	for n := range 1 + r.roll(3) {
		to = append(to, fmt.Sprintf("u%d@example.org", n))
	}
	s := queuetest.Submission(name+" ", to...)
	s.Subject = name
	s.Content.Data = append(s.Content.Data, make([]byte, r.roll(3000))...)
	s.Envelope.Priority = mailer.Priority(r.roll(3) - 1)
	s.Envelope.ReversePath = []string{"odd@example.com", "bounce@example.com", "a@example.com", "b@example.com"}[r.roll(4)]
	s.Key = []string{"app", "news"}[r.roll(2)]
	s.Sender = []string{"shop@example.com", "other@example.com"}[r.roll(2)]
	if r.roll(4) == 0 {
		s.Wait = time.Duration(r.roll(20)) * time.Second
	}
	switch r.roll(10) {
	case 3, 4:
		s.ExpiresIn = time.Duration(1+r.roll(300)) * time.Second
	case 5:
		s.SendAt = time.Now().Add(time.Duration(r.skew.Load())).Add(time.Duration(r.roll(300)) * time.Second)
	}
	return s
}

func (r *stormRun) operator() {
	for range 30 {
		time.Sleep(time.Duration(r.roll(4000)) * time.Millisecond)
		if r.isDead() {
			return
		}
		if r.roll(12) == 0 {
			r.skew.Store(int64(time.Duration(r.roll(86400-1000)-43200) * time.Second)) // idempotency keys live for a day
		}
		page, err := r.q.List(r.t.Context(), queue.Filter{Key: queue.AnyKey}, 10, "")
		if err != nil || len(page.Messages) == 0 {
			continue
		}
		switch id := page.Messages[r.roll(len(page.Messages))].ID; r.roll(10) {
		case 0, 1, 2, 3:
			r.cancel(id)
		case 4, 5:
			r.retry(id)
		case 6:
			if r.roll(10) > 0 {
				continue
			}
			r.mu.Lock()
			r.retriedAll = true
			r.mu.Unlock()
			_, _ = r.q.RetryMatching(r.t.Context(), queue.Filter{Key: queue.AnyKey}, 0, "")
		case 7:
			r.q.Resume("one")
		}
	}
}

func (r *stormRun) retry(id string) {
	r.mu.Lock()
	r.retried[id] = true
	r.mu.Unlock()
	_, _ = r.q.Retry(r.t.Context(), queue.AnyKey, id)
}

func (r *stormRun) cancel(id string) {
	_, err := r.q.Cancel(r.t.Context(), queue.AnyKey, id)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && r.canceled[id].IsZero() {
		r.canceled[id] = time.Now()
	}
}

// end waits until all has settled, and says what must hold then.
func (s *storm) end(r *stormRun) {
	t := s.t
	time.Sleep(150 * time.Minute)
	queuetest.SettleDown()
	for _, p := range r.q.Pauses() {
		if clock := time.Now().Add(time.Duration(s.skew.Load())); p.Until.After(clock) {
			t.Errorf("seed %d: %s is paused until %v, and it is %v", s.seed, p.Relay, p.Until, clock)
		}
	}
	s.check(false)
	time.Sleep(4 * 24 * time.Hour) // whatever a clock set back has put off
	queuetest.SettleDown()
	s.check(true)
	if l := r.q.Load(); l != (queue.Load{}) {
		t.Errorf("seed %d: Load = %+v, want nothing", s.seed, l)
	}
	usage, err := s.store.Usage(t.Context())
	if got := r.q.Usage(); got != usage || err != nil {
		t.Errorf("seed %d: Usage = %+v, and the store's is %+v, %v", s.seed, got, usage, err)
	}
	if l, err := s.store.Recover(t.Context(), "auditor", time.Now(), false); l.Any() || err != nil {
		t.Errorf("seed %d: leases that are left: %+v, %v", s.seed, l, err)
	}
	if err := r.q.End(); err != nil {
		t.Errorf("seed %d: Run = %v", s.seed, err)
	}
}

func (s *storm) check(last bool) {
	t := s.t
	found := map[string]bool{}
	for cursor := ""; ; {
		page, err := s.store.List(t.Context(), queue.Filter{Key: queue.AnyKey}, 1000, cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, listed := range page.Messages {
			found[listed.ID] = true
			m, err := s.store.Get(t.Context(), queue.AnyKey, listed.ID)
			if err != nil {
				t.Fatal(err)
			}
			s.checkMessage(m, last)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, subject := range s.known {
		if !found[id] && !last {
			t.Errorf("seed %d: %s was accepted and is lost", s.seed, subject)
		}
	}
}

// mayHold says that a message is held for a reason other than that it is uncertain.
func (s *storm) mayHold(f *mailer.Failure) bool {
	return f != nil && (s.kills >= 4 && strings.Contains(f.Text, "crashed") || strings.Contains(f.Text, "any more"))
}

func (s *storm) checkMessage(m queue.Message, last bool) {
	t := s.t
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range m.Recipients {
		what := m.Subject + " " + r.ForwardPath
		uncertain := uncertainAttempts(m, r.ForwardPath)
		switch n := s.accepted[what]; {
		case !r.State.Final() && r.State != queue.Held && (last || m.SendAt.IsZero()):
			t.Errorf("seed %d: %s is %s, next attempt %v, clock %v", s.seed, what, r.State, r.NextAttempt, time.Now().Add(time.Duration(s.skew.Load())).UTC())
		case r.State == queue.Held && !s.hold && !s.mayHold(r.Result.Failure):
			t.Errorf("seed %d: %s is held", s.seed, what)
		case r.State == queue.Delivered && n == 0:
			t.Errorf("seed %d: %s is delivered, and no relay took it", s.seed, what)
		case n > 0 && r.State != queue.Delivered && uncertain == 0:
			t.Errorf("seed %d: %s is %s, and a relay took it", s.seed, what, r.State)
		case n > 1 && uncertain < n-1:
			t.Errorf("seed %d: %s: %d copies and %d uncertain attempts", s.seed, what, n, uncertain)
		}
		if crossed := s.crossed[what]; crossed != "" && !s.retried[m.ID] && !s.retriedAll {
			t.Errorf("seed %d: %s went to %s", s.seed, what, crossed)
		}
		at, ok := s.canceled[m.ID]
		if times := s.begun[what]; ok && !s.retried[m.ID] && !s.retriedAll && len(times) > 0 && times[len(times)-1].After(at) {
			t.Errorf("seed %d: an attempt on %s began %v after its cancel was answered", s.seed, what, times[len(times)-1].Sub(at))
		}
	}
}

// stormRelay is a relay as a run sees it.
type stormRelay struct {
	*stormRun
	name string
}

func (r *stormRelay) Name() string { return r.name }

func (r *stormRelay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	if r.isDead() {
		<-ctx.Done()
	}
	a := mailer.Attempt{Relay: r.name, Started: time.Now()}
	name, _, _ := strings.Cut(string(c.Data), " ")
	whole := r.verdict(r.roll(22), env)
	if !dispatch.NotAsked(whole) && !r.isDead() {
		r.mu.Lock()
		for _, path := range env.ForwardPaths {
			what := name + " " + path
			r.begun[what] = append(r.begun[what], a.Started)
			if by := r.takenBy[what]; by == "" {
				r.takenBy[what] = r.name
				defer r.refuted(what, path, &a)
			} else if by != r.name {
				r.crossed[what] = fmt.Sprintf("%s though %s may have taken it", r.name, by)
			}
		}
		r.mu.Unlock()
	}
	if r.wild.Load() && !dispatch.NotAsked(whole) {
		takes := time.Duration(r.roll(3000)) * time.Millisecond
		if r.roll(40) == 0 {
			takes = time.Duration(r.roll(600)) * time.Second
		}
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			whole = &mailer.Failure{Relay: r.name, Text: "interrupted", Class: mailer.ClassTransient, Stage: mailer.StageMail, Err: errors.New("cut")}
		}
	}
	for _, path := range env.ForwardPaths {
		f := whole
		if f == nil {
			f = r.verdict(11+r.roll(11), env)
		}
		result := mailer.Result{ForwardPath: path, Failure: f, Reply: mailer.Reply{Code: 250}}
		switch {
		case f != nil:
			result.Reply = f.Reply
			if f.Class == mailer.ClassUncertain && r.roll(2) == 0 && !r.isDead() {
				r.accept(name + " " + path)
			}
		case !r.isDead():
			r.accept(name + " " + path)
		}
		a.Results = append(a.Results, result)
	}
	return a
}

// refuted notes that the relay has certainly not taken a message, where the attempt says so.
func (r *stormRelay) refuted(what, path string, a *mailer.Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, result := range a.Results {
		if f := result.Failure; result.ForwardPath == path && f != nil && f.Class != mailer.ClassUncertain && !r.isDead() {
			delete(r.takenBy, what)
		}
	}
}

func (r *stormRelay) accept(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accepted[what]++
}

func (r *stormRelay) verdict(n int, env mailer.Envelope) *mailer.Failure {
	f := &mailer.Failure{Relay: r.name, Text: "said so"}
	if env.ReversePath == "odd@example.com" && r.name == "one" && !r.calm.Load() {
		f.Class, f.Stage, f.Reply.Code = mailer.ClassTransient, mailer.StageMail, 501
		return f
	}
	if !r.wild.Load() {
		return nil
	}
	switch n {
	case 0, 1:
		f.Class, f.Stage = mailer.ClassRelay, mailer.StageConnect
	case 2:
		f = queuetest.RateUsedUp(r.name, time.Now().Add(time.Duration(r.skew.Load())).Add(time.Duration(1+r.roll(90))*time.Second))
	case 3:
		f.Class, f.Stage, f.Reply.Code = mailer.ClassTransient, mailer.StageMail, 421
	case 4, 5:
		f.Class, f.Stage, f.Reply.Code = mailer.ClassTransient, mailer.StageMail, 503
	case 6:
		f.Class, f.Stage = mailer.ClassTransient, mailer.StageRcpt
	case 7:
		f.Class, f.Stage, f.Reply.Code = mailer.ClassRelay, mailer.StageAuth, 535
	case 8:
		f.Class, f.Stage, f.Reply.Code, f.Err = mailer.ClassTransient, mailer.StageRcpt, 432, mailer.ErrPushedBack
	case 9:
		f.Class, f.Stage, f.Err = mailer.ClassRelay, mailer.StageAuth, &mailer.LoginError{Next: time.Now().Add(time.Duration(r.skew.Load()) + time.Minute)}
	case 11:
		f.Class, f.Stage, f.Reply.Code = mailer.ClassTransient, mailer.StageRcpt, 450
	case 12:
		f.Class, f.Stage = mailer.ClassUncertain, mailer.StageContent
	case 13:
		f.Class, f.Stage, f.Reply.Code = mailer.ClassPermanent, mailer.StageRcpt, 550
	default:
		return nil
	}
	return f
}
