package smtp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/units"
)

var spreadRates = []units.Rate{
	{Messages: 1, Per: time.Minute},
	{Messages: 2, Per: time.Minute},
	{Messages: 3, Per: time.Minute},
	{Messages: 7, Per: time.Hour},
	{Messages: 20, Per: time.Minute},
	{Messages: 20, Per: time.Hour},
	{Messages: 2000, Per: 24 * time.Hour},
}

// pacer takes turns and remembers when.
type pacer struct {
	pace
	mu    sync.Mutex
	taken []time.Time
}

// take gets a turn as the queue does, which tries again later when the wait is too
// long. It returns how long that took.
func (p *pacer) take(priority mailer.Priority) time.Duration {
	begin := time.Now()
	for {
		var rate *mailer.RateError
		switch t, err := p.awaitTurn(context.Background(), mailer.Envelope{Priority: priority}, due(priority, time.Now())); {
		case err == nil:
			p.note(t)
			return time.Since(begin)
		case !errors.As(err, &rate):
			panic(err)
		case priority < mailer.PriorityHigh:
			rate.At = rate.At.Add(time.Millisecond)
			fallthrough
		default:
			time.Sleep(time.Until(rate.At))
		}
	}
}

// await waits in line for a turn, without limit, and returns how long that took.
func (p *pacer) await(priority mailer.Priority) time.Duration {
	begin := time.Now()
	t := &turn{due: due(priority, begin), urgent: priority > mailer.PriorityNormal, given: make(chan struct{})}
	if err := p.enqueue(t, 1000*time.Hour); err != nil {
		panic(err)
	}
	<-t.given
	p.note(t)
	return time.Since(begin)
}

// note writes the MAIL of a turn.
func (p *pacer) note(t *turn) {
	p.written(t)
	p.mu.Lock()
	p.taken = append(p.taken, time.Now())
	p.mu.Unlock()
}

// flood has bulk waiting until then.
func (p *pacer) flood(end time.Time, all *sync.WaitGroup) {
	for range 2 {
		all.Go(func() {
			for time.Now().Before(end) {
				p.take(mailer.PriorityBulk)
			}
		})
	}
}

// check says whether no half-open period has more turns than the rate.
func (p *pacer) check(t *testing.T) {
	t.Helper()
	slices.SortFunc(p.taken, time.Time.Compare)
	for i := p.rate.Messages; i < len(p.taken); i++ {
		if d := p.taken[i].Sub(p.taken[i-p.rate.Messages]); d < p.rate.Per {
			t.Errorf("%v: %d messages in %v", p.rate, p.rate.Messages+1, d)
			return
		}
	}
}

// gap is the longest between two turns in saturation, by the rule.
func gapOf(r units.Rate) time.Duration {
	return r.Per / time.Duration(r.Messages-schedule{r}.burst()+1)
}

// TestSpread: under a backlog a quarter sets out at once, the rest comes evenly,
// and the rate is used in full.
func TestSpread(t *testing.T) {
	const periods = 6
	for _, rate := range spreadRates {
		synctest.Test(t, func(t *testing.T) {
			p, begin := &pacer{pace: pace{rate: schedule{rate}}}, time.Now()
			end := begin.Add(periods * rate.Per)
			var all sync.WaitGroup
			p.flood(end, &all)
			all.Wait()
			p.check(t)
			inTime := slices.DeleteFunc(p.taken, func(at time.Time) bool { return !at.Before(end) })
			if n, want := len(inTime), periods*rate.Messages; n != want {
				t.Errorf("%v: %d turns in %d periods, want %d", rate, n, periods, want)
			}
			for i := range inTime {
				switch since := inTime[i].Sub(inTime[max(0, i-1)]); {
				case i < schedule{rate}.burst() && since != 0:
					t.Errorf("%v: turn %d came after %v, want at once", rate, i, since)
				case since > gapOf(rate)+time.Second/100:
					t.Errorf("%v: turn %d came %v after the one before, want at most %v", rate, i, since, gapOf(rate))
				}
			}
		})
	}
}

// TestSpreadHigh: urgent mail has a turn at once while any is left, and waits for
// the next one under a backlog.
func TestSpreadHigh(t *testing.T) {
	for _, rate := range spreadRates {
		synctest.Test(t, func(t *testing.T) {
			p := &pacer{pace: pace{rate: schedule{rate}}}
			var all sync.WaitGroup
			p.flood(time.Now().Add(rate.Per/2), &all)
			for range (rate.Messages - schedule{rate}.burst()) / 2 {
				time.Sleep(time.Millisecond)
				if took := p.take(mailer.PriorityHigh); took != 0 {
					t.Errorf("%v: high waited %v in the first period, want not at all", rate, took)
				}
			}
			all.Wait()
			p.check(t)
		})
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, uint64(rate.Messages)))
			p, begin := &pacer{pace: pace{rate: schedule{rate}}}, time.Now()
			var all sync.WaitGroup
			p.flood(begin.Add(30*rate.Per), &all)
			time.Sleep(rate.Per)
			for time.Since(begin) < 28*rate.Per {
				time.Sleep(rate.Per + time.Duration(random.Int64N(int64(rate.Per))))
				if took := p.take(mailer.PriorityHigh); took > gapOf(rate)+time.Second/100 {
					t.Errorf("%v: high waited %v, want at most %v", rate, took, gapOf(rate))
				}
			}
			all.Wait()
			p.check(t)
		})
	}
}

// TestSpreadOvertakes: urgent mail overtakes mail that only waits because it is
// spread, though that was due before. It does not where no turn is left.
func TestSpreadOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pacer{pace: pace{rate: schedule{units.Rate{Messages: 8, Per: time.Minute}}}}
		for range 2 {
			p.take(mailer.PriorityNormal)
		}
		longDue := func() *turn {
			x := &turn{due: time.Now().Add(-time.Hour), given: make(chan struct{})}
			if err := p.enqueue(x, time.Minute); err != nil {
				t.Fatal(err)
			}
			now := p
			go func() {
				<-x.given
				now.written(x)
			}()
			return x
		}
		first := longDue()
		for i := range 6 {
			if took := p.take(mailer.PriorityHigh); took != 0 {
				t.Errorf("high %d waited %v, want not at all", i, took)
			}
		}
		begin := time.Now()
		p.take(mailer.PriorityHigh)
		<-first.given
		if !first.at.Equal(begin.Add(time.Minute)) || time.Since(begin) != time.Minute {
			t.Errorf("the turns came after %v and %v, want a minute, when some are left", first.at.Sub(begin), time.Since(begin))
		}
		second := &pacer{pace: pace{rate: schedule{units.Rate{Messages: 1, Per: time.Minute}}}}
		second.take(mailer.PriorityNormal)
		p = second
		first = longDue()
		p.take(mailer.PriorityHigh)
		<-first.given
		if want := begin.Add(2 * time.Minute); !first.at.Equal(want) || !time.Now().Equal(want.Add(time.Minute)) {
			t.Errorf("the turns came after %v and %v, want who is due first before", first.at.Sub(begin), time.Since(begin))
		}
	})
}

// TestSpreadStarvesNobody: bulk mail gets its turn although more urgent mail
// comes than may start.
func TestSpreadStarvesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, begin := &pacer{pace: pace{rate: schedule{units.Rate{Messages: 20, Per: time.Minute}}}}, time.Now()
		var all sync.WaitGroup
		for i := range 400 {
			all.Go(func() { p.await(mailer.PriorityHigh) })
			time.Sleep(1500 * time.Millisecond)
			if i == 100 { // 220 are due before it then
				all.Go(func() {
					if took := p.await(mailer.PriorityBulk); took > 9*time.Minute {
						t.Errorf("bulk waited %v, want 8.5m", took)
					}
				})
			}
		}
		all.Wait()
		p.check(t)
		if took := time.Since(begin); took > 21*time.Minute {
			t.Errorf("400 turns took %v, want 20m", took)
		}
	})
}

// TestSpreadAtRandom: for any arrivals, waits and departures, no period has too
// many turns, and none is lost.
func TestSpreadAtRandom(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			rate := units.Rate{Messages: 1 + random.IntN(12), Per: time.Duration(1+random.IntN(40)) * 500 * time.Millisecond}
			p := &pacer{pace: pace{rate: schedule{rate}}}
			var all sync.WaitGroup
			for range 300 {
				ctx, cancel := context.WithCancel(t.Context())
				// Often at the moment at which a turn comes.
				time.AfterFunc(time.Duration(random.IntN(16*rate.Messages))*(rate.Per/time.Duration(4*rate.Messages)), cancel)
				priority := mailer.Priority(random.IntN(3) - 1)
				all.Go(func() {
					defer cancel()
					if t, err := p.awaitTurn(ctx, mailer.Envelope{Priority: priority}, due(priority, time.Now())); err == nil {
						p.note(t)
					}
				})
				if random.IntN(3) == 0 {
					time.Sleep(time.Duration(random.Int64N(int64(rate.Per))) / time.Duration(1+random.IntN(rate.Messages)))
				}
			}
			all.Wait()
			p.check(t)
			if n := p.line.len(); n != 0 {
				t.Errorf("seed %d: %d in line, want none", seed, n)
			}
			time.Sleep(rate.Per)
			if took := p.take(mailer.PriorityBulk); took != 0 {
				t.Errorf("seed %d: %v: waited %v after a period without mail, want not at all", seed, rate, took)
			}
		})
	}
}

// TestSpreadForesees: an expected turn comes at its time if no other delivery
// overtakes it, for a line of any length.
func TestSpreadForesees(t *testing.T) {
	for _, rate := range append(spreadRates, units.Rate{Messages: 5, Per: time.Second}) {
		synctest.Test(t, func(t *testing.T) {
			p := &pace{rate: schedule{rate}}
			type foreseen struct {
				*turn
				at time.Time
			}
			var all []foreseen
			for i := range 3 * foresight / 2 {
				priority := mailer.PriorityBulk
				if i%5 == 0 {
					priority = mailer.PriorityHigh
				}
				x := &turn{due: due(mailer.PriorityHigh, time.Now()), urgent: priority == mailer.PriorityHigh, given: make(chan struct{})}
				if err := p.enqueue(x, 10000*time.Hour); err != nil {
					t.Fatal(err)
				}
				all = append(all, foreseen{turn: x})
			}
			p.mu.Lock()
			for i, x := range all {
				if x.turn.at.IsZero() {
					all[i].at = p.expected(time.Now(), x.turn)
				}
			}
			p.mu.Unlock()
			for _, x := range all {
				go func() {
					<-x.given
					p.written(x.turn)
				}()
			}
			for i, x := range all {
				<-x.given
				off := x.turn.at.Sub(x.at).Abs()
				if exact := i < foresight/2; !x.at.IsZero() && (exact && off > time.Millisecond || off > rate.Per) {
					t.Errorf("%v: turn %d came %v off, foreseen for %v", rate, i, off, x.at)
				}
			}
		})
	}
}

func BenchmarkPace(b *testing.B) {
	for _, rate := range []units.Rate{{Messages: 50000, Per: 24 * time.Hour}, {Messages: 50000, Per: time.Second}} {
		b.Run(fmt.Sprint(rate), func(b *testing.B) {
			p := &pace{rate: schedule{rate}}
			now := time.Now()
			for i := range rate.Messages - 1 {
				p.sent = append(p.sent, now.Add(time.Duration(i)*rate.Per/time.Duration(rate.Messages)-rate.Per))
			}
			b.ReportAllocs()
			for b.Loop() {
				p.turns(now.Add(turnsAhead), 24)
				t := &turn{due: now, given: make(chan struct{})}
				if err := p.enqueue(t, 1000*time.Hour); err != nil {
					b.Fatal(err)
				}
				p.giveBack(t)
			}
		})
	}
}
