package smtp

import (
	"context"
	"slices"
	"sort"
	"sync"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/units"
)

// rateWait is how long a delivery waits for its turn at most. A later turn is for the
// queue to wait for, which may know another relay.
const rateWait = time.Minute

// pace holds the MAIL commands to a rate: a delivery waits for a turn before each, see
// [schedule]. A turn is given at its time, to the delivery that is first among those
// that wait then.
//
// Between a turn and its MAIL the delivery may have to wait for a connection. Until
// the MAIL is written the turn is outstanding, and may fall into every period; from
// then on the time of the MAIL counts. So the limit holds for what the relay sees: of
// the MAILs in a period, take the one whose turn was given last. All others were then
// outstanding, or written within one period before.
type pace struct {
	rate    schedule
	quit    chan struct{} // closed by StopWaiting; nil: never
	mu      sync.Mutex
	stopped bool        // quit is closed
	sent    []time.Time // when the last MAILs were written, the oldest first; Rate.Messages at most
	// outstanding are the turns that were given and whose MAIL is not written yet, in
	// the order in which they were given.
	outstanding []*turn
	line        line
	timer       *time.Timer // for the next turn
	shared      *sharedRate // nil: the rate is this relay's alone
}

// turn is one delivery's permission to write one MAIL. It ends with written or
// giveBack.
type turn struct {
	due    time.Time
	urgent bool          // of high priority
	given  chan struct{} // closed when the delivery may go on
	at     time.Time     // when that was; zero before
	sent   time.Time     // when MAIL was written; zero before
	late   time.Time     // when it would have come: it was too far off; zero mostly
}

func newTurn(priority mailer.Priority, due time.Time) *turn {
	return &turn{due: due, urgent: priority > mailer.PriorityNormal, given: make(chan struct{})}
}

// turnNow returns a turn if one is to be had at once, and else nil.
func (p *pace) turnNow(priority mailer.Priority, due time.Time) *turn {
	t := newTurn(priority, due)
	if p.enqueue(t, 0) != nil {
		return nil
	}
	return t
}

// awaitTurn waits until one more MAIL may be written. The error is a
// [mailer.RateError] when that takes too long, at once where it is known before, or
// when env expires; or it is the error of ctx.
func (p *pace) awaitTurn(ctx context.Context, env mailer.Envelope, due time.Time) (*turn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t := newTurn(env.Priority, due)
	if err := p.enqueue(t, untilExpiry(turnWait(ctx, rateWait), env)); err != nil {
		return nil, err
	}
	select {
	case <-t.given: // mostly
		return t.granted()
	default:
	}
	err := p.wait(ctx, t, env)
	if err != nil {
		return nil, err
	}
	return t.granted()
}

// granted returns a turn that was given, or the error where it was put off.
func (t *turn) granted() (*turn, error) {
	if !t.late.IsZero() {
		return nil, &mailer.RateError{At: t.late}
	}
	return t, nil
}

// wait waits for a turn that is in line.
func (p *pace) wait(ctx context.Context, t *turn, env mailer.Envelope) error {
	// Until it is due, others may overtake it. A caller that gave up now and came
	// back would lose every turn to newcomers.
	timer := time.NewTimer(untilExpiry(turnWait(ctx, rateWait+max(time.Until(t.due), 0)), env))
	defer timer.Stop()
	select {
	case <-t.given:
		return nil
	case <-ctx.Done():
		p.giveBack(t)
		return ctx.Err()
	case <-p.quit:
		return p.leave(t)
	case <-timer.C: // others were due earlier
		return p.leave(t)
	}
}

// turnWait returns how long a delivery may wait for its turn: longest, but half of
// the time that ctx leaves at most, so that it can still finish.
func turnWait(ctx context.Context, longest time.Duration) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(longest, time.Until(end)/2)
	}
	return longest
}

// untilExpiry returns longest, or the time until env expires if that is less.
func untilExpiry(longest time.Duration, env mailer.Envelope) time.Duration {
	if env.Expires.IsZero() {
		return longest
	}
	return min(longest, time.Until(env.Expires))
}

// enqueue puts a delivery in line, unless its turn will come after longest: then it
// must not delay others.
func (p *pace) enqueue(t *turn, longest time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.line.add(t)
	if at := p.expected(now, t); at.After(now.Add(longest)) {
		p.line.remove(t)
		return &mailer.RateError{At: at}
	}
	p.give(now)
	return nil
}

// foresight is the number of turns that are computed exactly. Later ones are assumed
// to come at the mean rate.
const foresight = 64

// expected returns when the turn of t comes, which is in line, if no other delivery
// overtakes it. The caller holds mu.
func (p *pace) expected(now time.Time, t *turn) time.Time {
	if p.shared != nil {
		return p.expectedShared(now, t)
	}
	var room [foresight]time.Time
	d, l, at := p.departures(room[:0]), p.line, now
	for range foresight {
		var next *turn
		if next, at = p.rate.next(d, l, now, at); next == t {
			return at
		}
		l.pass(next)
		d.foreseen = append(d.foreseen, at)
	}
	return at.Add(time.Duration(1+l.ahead(t)) * (p.rate.Per / time.Duration(p.rate.Messages)))
}

// give gives every turn whose time has come, and sets the timer for the next one. The
// caller holds mu.
func (p *pace) give(now time.Time) {
	if p.shared != nil {
		p.giveShared(now)
		return
	}
	for p.line.len() > 0 {
		t, at := p.rate.next(p.departures(nil), p.line, now, now)
		if at.After(now) {
			p.wakeAt(at)
			return
		}
		p.line.remove(t)
		p.outstanding = append(p.outstanding, t)
		t.at = now
		close(t.given)
	}
}

// departures returns what counts for the next turn. The caller holds mu while it uses
// them.
func (p *pace) departures(foreseen []time.Time) departures {
	return departures{p.sent, p.outstanding, foreseen}
}

// written records that the MAIL of a turn is written now. It does nothing for a turn
// whose MAIL was recorded, or nil.
func (p *pace) written(t *turn) {
	if t == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.outstanding, t)
	if i < 0 {
		return
	}
	p.outstanding = slices.Delete(p.outstanding, i, i+1)
	t.sent = time.Now()
	if p.shared != nil {
		p.shared.used = append(p.shared.used, t.sent)
		p.give(t.sent)
		return
	}
	if len(p.sent) == p.rate.Messages {
		p.sent = p.sent[1:]
	}
	p.sent = append(p.sent, t.sent)
	p.give(t.sent)
}

// Rate returns the relay's rate; zero means that it has none.
func (r *Relay) Rate() units.Rate { return r.opts.Rate }

// Used tells the relay when MAILs were written before it was made, so that they count
// within its rate. It must be called before the first delivery.
func (r *Relay) Used(times []time.Time) {
	p := &r.pace
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.sent = p.sent[:0]
	for _, at := range times {
		p.sent = append(p.sent, earlierOf(at, now)) // the clock may have been set back
	}
	slices.SortFunc(p.sent, time.Time.Compare)
	p.sent = p.sent[max(0, len(p.sent)-p.rate.Messages):]
}

// NoteUsed has note called, before an attempt sends another MAIL, with the times of those
// that it has sent since the last call. They are no longer in the attempt's Turns. An error
// ends the attempt. NoteUsed must be called before the first delivery.
func (r *Relay) NoteUsed(note func(ctx context.Context, times []time.Time) error) { r.noteUsed = note }

func (p *pace) wakeAt(at time.Time) {
	if p.timer == nil {
		p.timer = time.AfterFunc(time.Until(at), p.wake)
		return
	}
	p.timer.Reset(time.Until(at))
}

func (p *pace) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.give(time.Now())
}

// leave takes t out of line. It returns a [mailer.RateError] with the time of its
// turn, or nil when the turn was given at the same time.
func (p *pace) leave(t *turn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !t.at.IsZero() || !t.late.IsZero() {
		return nil
	}
	at := p.expected(time.Now(), t)
	p.line.remove(t)
	if p.shared != nil { // nothing may have been heard for a minute
		at = laterOf(at, time.Now().Add(time.Second))
	}
	return &mailer.RateError{At: at}
}

// giveBack takes t out of line, or lets another delivery have its turn. It does
// nothing for a turn whose MAIL was written.
func (p *pace) giveBack(t *turn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.at.IsZero() {
		p.line.remove(t)
		return
	}
	if i := slices.Index(p.outstanding, t); i >= 0 {
		p.outstanding = slices.Delete(p.outstanding, i, i+1)
		now := time.Now()
		if s := p.shared; s != nil && s.valid(now) && !s.abandoned[t] {
			s.ready = slices.Insert(s.ready, 0, readyTurn{now, t.urgent})
		}
		p.give(now)
	}
}

// Turns is how a relay's rate is being used.
type Turns struct {
	units.Rate
	// Waiting is the number of deliveries that wait for their turn. A delivery whose
	// turn is more than a minute away does not wait here: see [mailer.RateError].
	Waiting int
	// Next is the time of the next turn for mail that is not of high priority; zero
	// means now.
	Next time.Time
	// Used is how many of Rate's messages were sent within its time, or are about to be. It is
	// negative where that is not known: instances share the rate, and this one has not asked within that
	// time.
	Used int
}

// Turns returns the numbers of this moment; the zero value without a rate.
func (r *Relay) Turns() Turns {
	p := &r.pace
	if p.rate.Messages == 0 {
		return Turns{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	t := Turns{Rate: p.rate.Rate, Waiting: p.line.len()}
	if s := p.shared; s != nil {
		if len(s.ready) == 0 && len(s.foreseen) > 0 && s.foreseen[0].After(now) {
			t.Next = s.foreseen[0]
		}
		t.Used = p.usedShared(now)
		return t
	}
	past := sort.Search(len(p.sent), func(i int) bool { return now.Sub(p.sent[i]) < p.rate.Per })
	t.Used = len(p.sent) - past + len(p.outstanding)
	if at := p.rate.spread(p.departures(nil), now, now); at.After(now) {
		t.Next = at
	}
	return t
}

// StopWaiting ends the wait of all deliveries for a turn, and of later ones: those
// without a turn fail with a [mailer.RateError] at once; those that have begun go on.
// It is for a service that stops.
func (r *Relay) StopWaiting() {
	p := &r.pace
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		p.stopped = true
		close(p.quit)
	}
}

// noTurn returns the failure of a delivery that got no turn. The relay has not seen
// the mail.
func (r *Relay) noTurn(ctx context.Context, why error) *mailer.Failure {
	f := &mailer.Failure{
		Class: mailer.ClassRelay, Stage: mailer.StageConnect, Relay: r.opts.Name,
		Text: "the relay's rate (SMTP_RATE) is used up for now", Err: why,
	}
	if ctx.Err() != nil {
		f.Class = mailer.ClassTransient
	}
	return f
}
