package smtp

import (
	"context"
	"crypto/rand"
	"slices"
	"time"

	"mailsidecar/mailer"
)

// rateKind is the kind of the notes of rates.
const rateKind = "rate"

const (
	// shareTime is how long one change of a note may take, and shareRetry how long it is until
	// the next one after an error.
	shareTime  = 5 * time.Second
	shareRetry = 500 * time.Millisecond
	// shareRenew is how often an instance confirms what it holds, and shareIdle how long it
	// holds turns that nobody wants.
	shareRenew = 10 * time.Second
	shareIdle  = 2 * time.Second
	// shareFresh is how long what is foreseen holds. After that others may have given turns back.
	shareFresh = time.Second
)

// sharedRate takes a relay's turns from a note that several instances share. The pace's mutex
// guards it. A goroutine changes the note while there is something to ask, to tell or to
// confirm.
type sharedRate struct {
	relay  *Relay
	note   mailer.ChangeNote
	who    string // this instance
	seed   []time.Time
	number int64 // of the last change that was asked for

	ready []readyTurn // taken, and not given to a delivery
	idle  time.Time   // since when nobody waits for them; zero: somebody does
	used  []time.Time // when MAIL was written, and the note does not have it
	// sent is when the last change was sent that was answered, and noted which time it was
	// there then, or a little later.
	sent      time.Time
	noted     int64
	spent     []rateUse // what the note had then of all instances
	retry     time.Time // no change before that
	answered  time.Time
	foreseen  []time.Time // when further turns come, for whoever is first
	urgentAt  time.Time   // and when the next one of high priority
	failing   bool
	running   bool
	ended     chan struct{} // closed when the goroutine has ended
	work      chan struct{} // capacity 1: it must look
	abandoned map[*turn]bool
}

// readyTurn may be used from a time on.
type readyTurn struct {
	at     time.Time
	urgent bool // by mail of high priority only
}

// ShareRate has the relay take its turns from a note that all instances with its name share, so
// that they keep to the rate in sum. used are when messages set out before there was a note.
// It does nothing where the relay has no rate, and must be called before the first delivery.
func (r *Relay) ShareRate(note mailer.ChangeNote, used []time.Time) {
	if r.opts.Rate.Messages == 0 {
		return
	}
	r.pace.mu.Lock()
	defer r.pace.mu.Unlock()
	r.pace.shared = &sharedRate{relay: r, note: note, who: rand.Text(), seed: slices.Clone(used), work: make(chan struct{}, 1), abandoned: map[*turn]bool{}}
}

// valid says whether the turns that were taken may be used.
func (s *sharedRate) valid(now time.Time) bool {
	return !s.sent.IsZero() && mailer.Elapsed(s.sent, now) < rateTrust
}

// stale reports whether a turn may not be used any more: the place where it was taken has not heard of
// this instance for long, and lets others have it.
func (p *pace) stale(t *turn) bool {
	if t == nil || p.shared == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return t.sent.IsZero() && (p.shared.abandoned[t] || !p.shared.valid(time.Now()))
}

// staleTurn is the failure of recipients whose turn may not be used any more.
func (r *Relay) staleTurn() *mailer.Failure {
	return r.noTurn(context.Background(), &mailer.RateError{At: time.Now().Add(time.Second)})
}

// giveShared gives the turns that were taken, and has more taken where that is not enough. The
// caller holds the pace's lock.
func (p *pace) giveShared(now time.Time) {
	s := p.shared
	if !s.valid(now) {
		s.ready = nil
	}
	for p.line.len() > 0 {
		i := slices.IndexFunc(s.ready, func(r readyTurn) bool { return !r.urgent || len(p.line.urgent) > 0 })
		if i < 0 {
			break
		}
		r := s.ready[i]
		if r.at.After(now) {
			p.wakeAt(r.at)
			break
		}
		s.ready = slices.Delete(s.ready, i, i+1)
		t := p.line.first(r.urgent)
		p.line.remove(t)
		p.outstanding = append(p.outstanding, t)
		t.at = now
		close(t.given)
	}
	s.look()
}

// first is who has the next turn that has come: the one that is due first, and mail of high
// priority before mail that is due at the same time.
func (l *line) first(urgent bool) *turn {
	switch {
	case len(l.others) == 0, urgent, len(l.urgent) > 0 && !l.others[0].due.Before(l.urgent[0].due):
		return l.urgent[0]
	default:
		return l.others[0]
	}
}

// expectedShared is [pace.expected].
func (p *pace) expectedShared(now time.Time, t *turn) time.Time {
	s, place := p.shared, p.line.ahead(t)
	if !t.urgent {
		place += len(p.line.urgent)
	}
	for _, r := range s.ready {
		if s.valid(now) && (!r.urgent || t.urgent) {
			if place == 0 {
				return laterOf(now, r.at)
			}
			place--
		}
	}
	soon := now.Add(time.Millisecond) // the answer tells
	if len(s.foreseen) == 0 || !s.urgentAt.After(now) && t.urgent || !s.foreseen[0].After(now) && now.Sub(s.answered) > shareFresh {
		return soon
	}
	step := p.rate.Per / time.Duration(p.rate.Messages)
	if t.urgent {
		return laterOf(soon, s.urgentAt.Add(time.Duration(place)*step))
	}
	if place < len(s.foreseen) {
		return laterOf(soon, s.foreseen[place])
	}
	return s.foreseen[len(s.foreseen)-1].Add(time.Duration(place-len(s.foreseen)+1) * step)
}

// turnsShared is [pace.turns].
func (p *pace) turnsShared(now, until time.Time, most int) int {
	s := p.shared
	if len(s.foreseen) == 0 || !s.foreseen[0].After(now) && now.Sub(s.answered) > shareFresh {
		return most
	}
	n := len(s.ready)
	for _, at := range s.foreseen {
		if !at.After(until) {
			n++
		}
	}
	if n == len(s.ready)+len(s.foreseen) {
		return most
	}
	return min(n, most)
}

// look has the goroutine look whether there is something to do.
func (s *sharedRate) look() {
	if s.running {
		select {
		case s.work <- struct{}{}:
		default:
		}
		return
	}
	if _, any := s.relay.pace.next(time.Now()); any && s.relay.ctx.Err() == nil {
		s.running, s.ended = true, make(chan struct{})
		go s.run()
	}
}

// usedShared is how much of the rate all instances have used, as far as this one has heard; -1 where it
// has not heard within the rate's time. The caller holds the lock.
func (p *pace) usedShared(now time.Time) int {
	s := p.shared
	since := mailer.Elapsed(s.sent, now)
	if s.sent.IsZero() || since >= p.rate.Per {
		return -1
	}
	n := len(s.used) + len(p.outstanding)
	for _, u := range s.spent {
		if s.noted+since.Microseconds()-u.At < p.rate.Per.Microseconds() {
			n += u.N
		}
	}
	return n
}

// missing is how many turns the deliveries in line need beside those that were taken.
func (p *pace) missing() (urgent, others int) {
	n := p.line.len() - len(p.shared.ready)
	if n <= 0 {
		return 0, 0
	}
	urgent = min(n, len(p.line.urgent))
	return urgent, n - urgent
}

// next is when the note must be changed; false: not at all.
func (p *pace) next(now time.Time) (at time.Time, ok bool) {
	s := p.shared
	var times []time.Time
	urgent, others := p.missing()
	if urgent > 0 {
		times = append(times, laterOf(now, s.urgentAt))
	}
	if others > 0 && len(s.foreseen) > 0 {
		times = append(times, laterOf(now, s.foreseen[0]))
	} else if others > 0 {
		times = append(times, now)
	}
	if len(s.used) > 0 {
		times = append(times, s.used[0].Add(min(max(p.rate.Per/20, 100*time.Millisecond), time.Second)))
	}
	if len(s.ready)+len(p.outstanding) > 0 {
		times = append(times, s.sent.Add(shareRenew))
	}
	if len(s.ready) > 0 && p.line.len() == 0 {
		if s.idle.IsZero() {
			s.idle = now
		}
		times = append(times, s.idle.Add(shareIdle))
	} else {
		s.idle = time.Time{}
	}
	if len(times) == 0 {
		return at, false
	}
	return laterOf(slices.MinFunc(times, time.Time.Compare), s.retry), true
}

func (s *sharedRate) run() {
	p := &s.relay.pace
	defer close(s.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		p.mu.Lock()
		now := time.Now()
		at, ok := p.next(now)
		if !ok || s.relay.ctx.Err() != nil {
			s.running = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		if wait := at.Sub(now); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-s.work:
			case <-s.relay.ctx.Done():
			}
			continue
		}
		s.ask(s.relay.ctx)
	}
}

// ask changes the note once: it tells what was used and what is held, and takes what is needed.
func (s *sharedRate) ask(ctx context.Context) {
	p := &s.relay.pace
	ctx, cancel := context.WithTimeout(ctx, shareTime)
	defer cancel()
	p.mu.Lock()
	now := time.Now()
	s.number++
	a := rateAsk{who: s.who, number: s.number}
	a.urgent, a.others = p.missing()
	if p.line.len() == 0 && !s.idle.IsZero() && now.Sub(s.idle) >= shareIdle || s.relay.ctx.Err() != nil {
		s.ready = nil // given back
	}
	held := slices.Clone(p.outstanding)
	if !s.valid(now) { // they may count as used by now, and again as others'
		s.ready = nil
		for _, t := range held {
			s.abandoned[t] = true
		}
	}
	for _, t := range held {
		if !s.abandoned[t] {
			a.keep++
		}
	}
	a.keep += len(s.ready)
	told := len(s.used)
	for _, at := range s.used {
		a.used = append(a.used, rateUse{s.noted + mailer.Elapsed(s.sent, at).Microseconds(), 1})
	}
	seed := s.seed
	p.mu.Unlock()

	var answer rateAnswer
	var noted int64
	var spent []rateUse
	err := s.note(ctx, rateKind, s.relay.opts.Name, func(value []byte, at time.Time) []byte {
		n := readRateNote(value)
		if len(value) == 0 {
			for _, used := range seed {
				n.Used = append(n.Used, rateUse{used.UnixMicro(), 1})
			}
		}
		answer, noted = n.change(p.rate.Rate, a, at), at.UnixMicro()
		spent = n.Used
		return n.bytes()
	})

	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		s.failed(err, now)
		return
	}
	s.heard(a, answer, now, noted, told)
	s.spent = spent
	if p.stopped || s.relay.ctx.Err() != nil {
		return
	}
	p.turnAwayShared(time.Now())
	p.giveShared(time.Now())
}

// failed notes that the note could not be changed. The caller holds the pace's lock.
func (s *sharedRate) failed(err error, now time.Time) {
	s.retry = time.Now().Add(shareRetry)
	if !s.valid(now) {
		s.ready = nil
	}
	if !s.failing {
		s.relay.opts.Logger.Debug("turns within the rate could not be taken", "relay", s.relay.opts.Name, "error", err)
	}
	s.failing = true
}

// heard takes in an answer to what was sent then. The caller holds the pace's lock.
func (s *sharedRate) heard(ask rateAsk, a rateAnswer, sent time.Time, noted int64, told int) {
	now := time.Now()
	s.used = slices.Delete(s.used, 0, told)
	s.sent, s.noted, s.answered, s.retry, s.failing, s.seed = sent, noted, now, time.Time{}, false, nil
	if a.lost { // also what was given while the change was under way
		s.ready = nil
		for _, t := range s.relay.pace.outstanding {
			s.abandoned[t] = true
		}
	}
	for t := range s.abandoned {
		if !slices.Contains(s.relay.pace.outstanding, t) {
			delete(s.abandoned, t)
		}
	}
	for _, after := range a.urgent {
		s.ready = append(s.ready, readyTurn{now.Add(after), true})
	}
	for _, after := range a.others {
		s.ready = append(s.ready, readyTurn{now.Add(after), false})
	}
	s.urgentAt = now.Add(a.nextUrgent)
	s.foreseen = s.foreseen[:0]
	for _, after := range a.foreseen {
		s.foreseen = append(s.foreseen, now.Add(after))
	}
	// There is a turn, and somebody else is first in line.
	later := now.Add(rateGrace(s.relay.opts.Rate))
	if len(s.foreseen) > 0 && len(a.others) < ask.others {
		s.foreseen[0] = laterOf(s.foreseen[0], later)
	}
	if len(a.urgent) < ask.urgent {
		s.urgentAt = laterOf(s.urgentAt, later)
	}
}

// turnAwayShared tells those in line whose turn is far off.
func (p *pace) turnAwayShared(now time.Time) {
	for _, t := range slices.Concat(p.line.urgent, p.line.others) {
		if at := p.expectedShared(now, t); at.After(now.Add(rateWait)) {
			t.late = at
		}
	}
	for _, t := range slices.Concat(p.line.urgent, p.line.others) {
		if !t.late.IsZero() {
			p.line.remove(t)
			close(t.given)
		}
	}
}

// finish gives back what is held when the relay is closed.
func (s *sharedRate) finish() {
	p := &s.relay.pace
	p.mu.Lock()
	ended := s.ended
	p.mu.Unlock()
	if ended != nil {
		<-ended
	}
	p.mu.Lock()
	rest := len(s.used) + len(s.ready)
	p.mu.Unlock()
	if rest > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.ask(ctx)
	}
}
