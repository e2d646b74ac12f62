package smtp

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"mailsidecar/units"
)

// rateNote is what the instances that share a relay's rate know of its use. Each changes it
// in turn, and goes by the time of the place where it is kept; it compares that with no clock
// of its own.
//
// An instance takes turns before it needs them, and holds them until it tells when it wrote
// MAIL, or gives them back. A turn that is held may be used at any moment, and counts as if it
// were always just used. What an instance tells is never earlier than the MAIL was. So the
// limit holds, as it does for one instance (see [pace]): of the MAILs in a period take the one
// whose turn was taken last. All others were then held, or written within one period before.
//
// What an instance holds it has to confirm. Otherwise it counts as used at the end of
// rateHold; the instance has stopped using it before that, by its own clock.
type rateNote struct {
	Used  []rateUse            `json:"used,omitempty"`  // the oldest first
	Holds map[string]*rateHeld `json:"holds,omitempty"` // by instance
	// Line are the instances that got fewer turns than they wanted, the first to have one in
	// front.
	Line []ratePlace `json:"line,omitempty"`
}

// rateUse is so many turns at a time, in microseconds since 1970.
type rateUse struct {
	At int64 `json:"at"`
	N  int   `json:"n"`
}

// rateHeld are the turns that one instance holds.
type rateHeld struct {
	rateUse       // At is when the last of them was taken
	Until   int64 `json:"until"`
	Ask     int64 `json:"ask"` // number of the last change by the instance
}

type ratePlace struct {
	Who    string `json:"who"`
	Urgent bool   `json:"urgent,omitempty"`
	Told   int64  `json:"told"` // when it was told to come again
}

const (
	// rateHold is how long turns are held after the last word of their instance, and rateTrust
	// how long that uses them.
	rateHold  = 60 * time.Second
	rateTrust = 40 * time.Second
	// rateBatch is how many turns are taken at a time at most, and rateForeseen how many later ones an
	// instance is told of.
	rateBatch    = 64
	rateForeseen = 16
	// rateAhead is how far ahead turns are taken that follow closely on one another.
	rateAhead = 250 * time.Millisecond
	// rateStock is how many turns an instance may take that it has no use for yet, where at least
	// half of the rate is left.
	rateStock = 32
	// rateUses is of how many moments the use is kept exactly. Beyond that they are put together in
	// steps of a hundredth of the period, at the last moment of each.
	rateUses = 160
)

// rateAsk is what an instance tells, and wants.
type rateAsk struct {
	who            string
	urgent, others int // turns
	keep           int // turns that it holds and may still use
	number         int64
	used           []rateUse // since the last change that was answered
}

// rateAnswer is what it gets, in durations from the time of the change.
type rateAnswer struct {
	// lost says that what it held counts as used: it may not use it any more.
	lost           bool
	urgent, others []time.Duration // its turns
	// Further turns, for whoever comes first.
	nextUrgent time.Duration
	foreseen   []time.Duration
}

func readRateNote(value []byte) *rateNote {
	n := &rateNote{}
	if json.Unmarshal(value, n) != nil {
		n = &rateNote{}
	}
	if n.Holds == nil {
		n.Holds = map[string]*rateHeld{}
	}
	return n
}

func (n *rateNote) bytes() []byte {
	b, err := json.Marshal(n)
	if err != nil { // it cannot be
		return nil
	}
	return b
}

// change does what an instance asks for at a time.
func (n *rateNote) change(rate units.Rate, ask rateAsk, at time.Time) (a rateAnswer) {
	now := at.UnixMicro()
	if h := n.Holds[ask.who]; h != nil && h.Ask >= ask.number {
		return a // the instance has not waited for it, and asked anew
	}
	n.settle(rate, now)
	n.hear(ask, now, &a)
	s := &rateSum{note: n, rate: rate}
	for _, h := range n.Holds {
		s.hold(h.rateUse)
	}
	before, others := n.before(ask)
	limit := max(1, rateBatch/(others+1))
	taken, last := 0, now
	take := func(t int64, list *[]time.Duration) {
		s.hold(rateUse{t, 1})
		*list = append(*list, micros(t-now))
		taken++
		last = max(last, t)
	}
	for range before { // they come for it
		if t := s.spread(now, now); t <= now {
			s.hold(rateUse{t, 1})
		}
	}
	for range min(ask.urgent, limit) {
		t := s.free(now, now)
		if t > now {
			break
		}
		take(t, &a.urgent)
	}
	for range min(ask.others, limit-taken) {
		t := s.spread(now, last)
		if t > now+rateAhead.Microseconds() {
			break
		}
		take(t, &a.others)
	}
	wanted := ask.urgent + ask.others
	if others == 0 && taken > 0 && taken == wanted {
		stock := min(rateStock, rate.Messages/64)
		for i := 0; i < stock && s.count(now)+stock <= rate.Messages/2 && s.spread(now, now) <= now; i++ {
			take(now, &a.others)
		}
	}
	if taken > 0 {
		h := n.held(ask.who)
		h.N, h.At = h.N+taken, last
	}
	if h := n.Holds[ask.who]; h != nil {
		h.Until, h.Ask = now+rateHold.Microseconds(), ask.number
		if h.N == 0 {
			delete(n.Holds, ask.who)
		}
	}
	a.nextUrgent = micros(s.free(now, now) - now)
	for at := last; len(a.foreseen) < rateForeseen; {
		at = s.spread(now, at)
		s.hold(rateUse{at, 1})
		a.foreseen = append(a.foreseen, micros(at-now))
	}
	n.stand(ask, taken, now, a)
	return a
}

// held returns what an instance holds, in the note.
func (n *rateNote) held(who string) *rateHeld {
	if n.Holds[who] == nil {
		n.Holds[who] = &rateHeld{}
	}
	return n.Holds[who]
}

func micros(n int64) time.Duration { return time.Duration(max(n, 0)) * time.Microsecond }

// settle brings the note to the present.
func (n *rateNote) settle(rate units.Rate, now int64) {
	for who, h := range n.Holds {
		switch {
		case h.Until <= now: // its instance is gone, or frozen
			n.Used = append(n.Used, rateUse{h.Until, h.N})
			delete(n.Holds, who)
		case h.Until > now+rateHold.Microseconds(): // the clock was set back
			h.Until = now + rateHold.Microseconds()
		}
	}
	for i := range n.Used {
		n.Used[i].At = min(n.Used[i].At, now) // the same
	}
	slices.SortFunc(n.Used, func(a, b rateUse) int { return cmp.Compare(a.At, b.At) })
	n.Used = slices.DeleteFunc(n.Used, func(u rateUse) bool { return u.N <= 0 || u.At <= now-rate.Per.Microseconds() })
	if len(n.Used) > rateUses {
		step := max(1, rate.Per.Microseconds()/100)
		kept := n.Used[:0]
		for _, u := range n.Used {
			if i := len(kept) - 1; i >= 0 && kept[i].At/step == u.At/step {
				kept[i] = rateUse{u.At, kept[i].N + u.N}
				continue
			}
			kept = append(kept, u)
		}
		n.Used = kept
	}
	grace := rateGrace(rate).Microseconds()
	n.Line = slices.DeleteFunc(n.Line, func(p ratePlace) bool {
		return now > p.Told+grace || p.Told > now+rate.Per.Microseconds()+grace
	})
}

// rateGrace is how long a turn waits for the instance that is first in line.
func rateGrace(rate units.Rate) time.Duration {
	return min(max(rate.Per/time.Duration(4*rate.Messages), 20*time.Millisecond), 2*time.Second)
}

// hear takes in what an instance tells.
func (n *rateNote) hear(ask rateAsk, now int64, a *rateAnswer) {
	h := n.Holds[ask.who]
	for _, u := range ask.used {
		n.Used = append(n.Used, rateUse{min(u.At, now), u.N})
	}
	slices.SortFunc(n.Used, func(a, b rateUse) int { return cmp.Compare(a.At, b.At) })
	if a.lost = ask.keep > 0 && (h == nil || h.N < ask.keep); a.lost && h != nil {
		n.Used = append(n.Used, rateUse{now, h.N})
		ask.keep = 0
	}
	if h != nil {
		h.N = min(h.N, ask.keep)
	}
}

// before is how many instances are to have a turn before this one, and others how many others
// are in line.
func (n *rateNote) before(ask rateAsk) (before, others int) {
	passed := false
	for _, p := range n.Line {
		switch {
		case p.Who == ask.who:
			passed = true
			continue
		case !passed && (p.Urgent || ask.urgent == 0):
			before++
		}
		others++
	}
	return before, others
}

// stand gives an instance its place in line: in front of those that come later while it gets
// nothing, behind them all when it got something and wants more.
func (n *rateNote) stand(ask rateAsk, taken int, now int64, a rateAnswer) {
	i := slices.IndexFunc(n.Line, func(p ratePlace) bool { return p.Who == ask.who })
	p := ratePlace{ask.who, ask.urgent > 0, now + a.foreseen[0].Microseconds()}
	if p.Urgent {
		p.Told = now + a.nextUrgent.Microseconds()
	}
	wants := taken < ask.urgent+ask.others
	switch {
	case i >= 0 && wants && taken == 0:
		n.Line[i] = p
		return
	case i >= 0:
		n.Line = slices.Delete(n.Line, i, i+1)
	}
	if wants {
		n.Line = append(n.Line, p)
	}
}

// rateSum computes turns as [schedule] does, with many of them at a time.
type rateSum struct {
	note *rateNote
	rate units.Rate
	open []rateUse // those that are held, and those foreseen
	n    int       // of them
}

func (s *rateSum) hold(u rateUse) {
	if i := len(s.open) - 1; i >= 0 && s.open[i].At == u.At {
		s.open[i].N += u.N
	} else {
		s.open = append(s.open, u)
	}
	s.n += u.N
}

// count is how many turns count at a time.
func (s *rateSum) count(from int64) int {
	n := s.n
	for _, u := range s.note.Used {
		if u.At > from-s.rate.Per.Microseconds() {
			n += u.N
		}
	}
	return n
}

// free returns when the limit allows one more, not before from.
func (s *rateSum) free(now, from int64) int64 {
	per := s.rate.Per.Microseconds()
	missing := s.count(from) + 1 - s.rate.Messages
	if missing <= 0 {
		return from
	}
	for _, u := range s.note.Used {
		if u.At <= from-per {
			continue
		}
		if missing -= u.N; missing <= 0 {
			return max(from, u.At+per)
		}
	}
	return max(from, now+per)
}

// spread returns when one more may start that is not of high priority, not before from.
func (s *rateSum) spread(now, from int64) int64 {
	free, per := s.free(now, from), s.rate.Per.Microseconds()
	if s.rate.Per <= time.Second || len(s.open)+len(s.note.Used) == 0 {
		return free
	}
	last := int64(0)
	for _, list := range [][]rateUse{s.note.Used, s.open} {
		for _, u := range list {
			last = max(last, u.At)
		}
	}
	used, oldest := 0, last
	for _, list := range [][]rateUse{s.note.Used, s.open} {
		for _, u := range list {
			if u.At > last-per {
				used += u.N
				oldest = min(oldest, u.At)
			}
		}
	}
	if used < (schedule{s.rate}).burst() {
		return free
	}
	return max(free, last+(oldest+per-last)/int64(max(1, s.rate.Messages-used+1)))
}
