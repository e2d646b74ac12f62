package smtp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/units"
)

// rateWorld is instances that share a rate, without relays: their changes of the note may be made
// late, when the instance has given up on them, or never, and their answers may be lost.
type rateWorld struct {
	rate      units.Rate
	random    *rand.Rand
	now       int64 // seconds; the clocks of instances stand at other times, but run as fast
	note      []byte
	instances []*rateInstance
	flying    []*rateFlight
	uses      []int64
	born      int
	steps     []string
}

type rateInstance struct {
	who    string
	number int64
	sent   int64 // of the last change that was answered; -1 before
	noted  int64 // microseconds
	held   int
	used   []int64
	asking *rateFlight
}

type rateFlight struct {
	of           *rateInstance
	ask          rateAsk
	sent         int64
	told         int
	made, waited bool // the change is made; the instance waits for the answer
	answer       rateAnswer
	noted        int64
}

func (w *rateWorld) did(format string, args ...any) {
	w.steps = append(w.steps, fmt.Sprintf("%d: ", w.now)+fmt.Sprintf(format, args...))
}

func (w *rateWorld) clock() time.Time { return time.Unix(1_000_000_000+w.now, 0) }

func (i *rateInstance) trusts(now int64) bool {
	return i.sent >= 0 && now-i.sent < int64(rateTrust/time.Second)
}

func (w *rateWorld) birth() *rateInstance {
	w.born++
	return &rateInstance{who: fmt.Sprint("i", w.born), sent: -1}
}

// step lets one thing happen that may.
func (w *rateWorld) step() {
	n := w.random.IntN(len(w.instances))
	i := w.instances[n]
	switch what := w.random.IntN(20); {
	case what < 6 && i.asking == nil:
		i.number++
		if !i.trusts(w.now) {
			i.held = 0
		}
		a := rateAsk{who: i.who, number: i.number, others: w.random.IntN(3), urgent: w.random.IntN(2), keep: i.held}
		for _, at := range i.used {
			a.used = append(a.used, rateUse{i.noted + (at-i.sent)*1e6, 1})
		}
		f := &rateFlight{of: i, ask: a, sent: w.now, told: len(i.used), waited: true}
		i.asking, w.flying = f, append(w.flying, f)
		w.did("%s asks %+v", i.who, a)
	case what < 12 && len(w.flying) > 0:
		at := w.random.IntN(len(w.flying))
		f := w.flying[at]
		if f.waited && w.now-f.sent > int64(shareTime/time.Second) {
			f.waited, f.of.asking = false, nil
		}
		if !f.made {
			note := readRateNote(w.note)
			f.answer, f.noted, f.made = note.change(w.rate, f.ask, w.clock()), w.clock().UnixMicro(), true
			w.note = note.bytes()
			w.did("change %d of %s is made: %+v, the note is %s", f.ask.number, f.of.who, f.answer, w.note)
			return
		}
		w.flying = slices.Delete(w.flying, at, at+1)
		if !f.waited {
			return
		}
		f.of.asking = nil
		f.of.hear(f)
		w.did("%s is answered", f.of.who)
	case what == 12 && i.asking != nil:
		i.asking.waited, i.asking = false, nil
		w.did("%s gives up", i.who)
	case what < 16 && i.held > 0 && i.trusts(w.now):
		i.held--
		i.used = append(i.used, w.now)
		w.uses = append(w.uses, w.now)
		w.did("%s uses a turn", i.who)
	case what == 16 && i.held > 0:
		i.held--
		w.did("%s gives a turn up", i.who)
	case what == 17 && w.random.IntN(4) == 0:
		w.did("%s dies", i.who)
		w.instances[n] = w.birth()
	default:
		w.now += []int64{1, 1, 5, 20, 45}[w.random.IntN(5)]
	}
}

func (i *rateInstance) hear(f *rateFlight) {
	i.used = slices.Delete(i.used, 0, f.told)
	if f.answer.lost {
		i.held -= min(i.held, f.ask.keep)
	}
	i.held += len(f.answer.urgent) + len(f.answer.others)
	i.sent, i.noted = f.sent, f.noted
}

// TestRateNote: in whatever order changes of the note are asked for, made and answered, and whoever dies, no period
// has more uses than the rate names.
func TestRateNote(t *testing.T) {
	walks := uint64(6000)
	if testing.Short() {
		walks = 1000
	}
	used := 0
	for seed := range walks {
		w := &rateWorld{random: rand.New(rand.NewPCG(seed, 5))}
		w.rate = units.Rate{Messages: 1 + w.random.IntN(3), Per: time.Duration(5+w.random.IntN(80)) * time.Second}
		for range 2 {
			w.instances = append(w.instances, w.birth())
		}
		for range 150 {
			w.step()
		}
		used += len(w.uses)
		for i := w.rate.Messages; i < len(w.uses); i++ {
			if d := w.uses[i] - w.uses[i-w.rate.Messages]; d < int64(w.rate.Per/time.Second) {
				for _, s := range w.steps {
					t.Log(s)
				}
				t.Fatalf("walk %d: %d uses in %d s, want %v", seed, w.rate.Messages+1, d, w.rate)
			}
		}
	}
	if used < int(walks) {
		t.Errorf("%d turns were used in %d walks, want some in each", used, walks)
	}
}

// TestRateNoteFair: who comes second each time has every second turn all the same; and a turn does not wait for an
// instance that does not come any more.
func TestRateNoteFair(t *testing.T) {
	rate := units.Rate{Messages: 4, Per: time.Hour}
	n, now := readRateNote(nil), time.Unix(1_000_000_000, 0)
	numbers, got := map[string]int64{}, map[string]int{}
	ask := func(who string) {
		numbers[who]++
		a := n.change(rate, rateAsk{who: who, number: numbers[who], others: 3}, now)
		if len(a.others) > 1 {
			t.Errorf("%s gets %d turns at a time", who, len(a.others))
		}
		if len(a.others) > 0 {
			got[who]++
			numbers[who]++
			n.change(rate, rateAsk{who: who, number: numbers[who], used: []rateUse{{now.UnixMicro(), 1}}, others: 3}, now)
		}
	}
	for range 12 * 3600 {
		ask("quick")
		ask("slow")
		now = now.Add(time.Second)
	}
	if got["quick"]+got["slow"] < 46 || got["slow"] < 23 || got["quick"] < 23 {
		t.Errorf("turns in 12 hours = %v, want 24 each", got)
	}
	got["slow"] = 0
	for range 12 * 3600 {
		ask("slow")
		now = now.Add(time.Second)
	}
	if got["slow"] < 46 {
		t.Errorf("alone it gets %d turns in 12 hours, want 48", got["slow"])
	}
}

// TestRateNoteBounded: the note stays small, however many turns there are, and counts none too short.
func TestRateNoteBounded(t *testing.T) {
	rate := units.Rate{Messages: 50_000, Per: time.Hour}
	n, now := readRateNote(nil), time.Unix(1_000_000_000, 0)
	number, all := int64(0), []int64{}
	for range 3 * 3600 * 4 {
		number++
		a := n.change(rate, rateAsk{who: "one", number: number, others: 64}, now)
		for range a.others {
			all = append(all, now.UnixMicro())
		}
		number++
		n.change(rate, rateAsk{who: "one", number: number, used: []rateUse{{now.UnixMicro(), len(a.others)}}}, now)
		now = now.Add(250 * time.Millisecond)
		if size := len(n.bytes()); size > 16<<10 {
			t.Fatalf("the note has %d octets", size)
		}
	}
	for i := rate.Messages; i < len(all); i++ {
		if d := time.Duration(all[i]-all[i-rate.Messages]) * time.Microsecond; d < rate.Per {
			t.Fatalf("%d turns in %v", rate.Messages+1, d)
		}
	}
	if len(all) < 140_000 {
		t.Errorf("%d turns in 3 hours, want nearly 150,000", len(all))
	}
}

// TestStaleTurns: after a long silence what was taken is not given to a delivery.
func TestStaleTurns(t *testing.T) {
	s := &sharedRate{relay: &Relay{ctx: t.Context()}, sent: time.Now(), work: make(chan struct{}, 1), running: true}
	p := &pace{rate: schedule{units.Rate{Messages: 9, Per: time.Hour}}, shared: s}
	for _, age := range []time.Duration{0, rateTrust} {
		s.ready = []readyTurn{{time.Now(), false}}
		s.sent = time.Now().Add(-age)
		waiting := newTurn(0, time.Now())
		p.line.add(waiting)
		p.giveShared(time.Now())
		if given := !waiting.at.IsZero(); given != (age == 0) {
			t.Errorf("a turn taken %v ago is given: %v", age, given)
		}
	}
}

// TestTurnGivenWhileLost: a turn that a delivery gets while the instance asks, and hears that what it held
// counts as used, is not used.
func TestTurnGivenWhileLost(t *testing.T) {
	rate := units.Rate{Messages: 10, Per: time.Minute}
	r := &Relay{opts: Options{Name: "one", Rate: rate}, ctx: t.Context()}
	p, given := &r.pace, newTurn(mailer.PriorityNormal, time.Now())
	p.rate = schedule{rate}
	r.ShareRate(func(_ context.Context, _, _ string, change func([]byte, time.Time) []byte) error {
		p.mu.Lock()
		p.line.add(given)
		p.giveShared(time.Now())
		p.mu.Unlock()
		change([]byte(`{"used": []}`), time.Now())
		return nil
	}, nil)
	s := p.shared
	s.sent, s.running = time.Now(), true
	s.ready = []readyTurn{{at: time.Now()}}
	s.ask(t.Context())
	select {
	case <-given.given:
	default:
		t.Fatal("the turn was not given")
	}
	if !p.stale(given) {
		t.Error("a turn is used that counts as used already")
	}
}
