package queue

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"mailsidecar/mailer"
	"mailsidecar/queue/dispatch"
)

// Direct stores nothing: it answers a submission with the relay's verdict
// (MAILSIDECAR_QUEUE=none).
type Direct struct {
	routes Routes
	log    *slog.Logger
	meter  Meter
	mu     sync.Mutex
	shares map[string]*dispatch.Shares // by the names of a route's relays
	named  map[string]*dispatch.Named  // by the relay's name
	pauses map[string]ManualPause      // by the name of the relay
	told   map[string]time.Time        // when the log last said so
	drain  *drain
	// underWay counts the messages that are being handed over.
	underWay atomic.Int64
	// life ends with Stop, and the attempts with it.
	life context.Context //nolint:containedctx // it spans the attempts, not a call
	end  context.CancelFunc
}

// NewDirect returns a Direct that delivers through routes and writes the mail log; a
// nil log discards it.
func NewDirect(routes Routes, log *slog.Logger) *Direct {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Direct{
		routes: routes, log: log, meter: unmetered{}, shares: map[string]*dispatch.Shares{}, named: map[string]*dispatch.Named{},
		pauses: map[string]ManualPause{}, told: map[string]time.Time{}, drain: newDrain(log, time.Now),
	}
	for _, r := range routes {
		d.named[r.Relay.Name()] = dispatch.NewNamed(r.Relay.Name())
	}
	d.life, d.end = context.WithCancel(context.Background())
	return d
}

// Count has m count what happens. It must be called before Submit.
func (d *Direct) Count(m Meter) { d.meter = m }

// Stop cuts the attempts short, so that those who wait for a verdict are answered: a
// message that may be with a relay is uncertain, and one that certainly is not gets
// [ErrShuttingDown], as all later ones do.
func (d *Direct) Stop() { d.end() }

// Submit makes one attempt, over every relay that may take the sender's mail,
// and returns when it is over or ctx ends. A recipient that was not accepted is
// [Bounced] when the failure is permanent, else [Deferred], though the queue will
// not try again: that is up to the caller.
func (d *Direct) Submit(ctx context.Context, s Submission) (Receipt, error) {
	if s.IdempotencyKey != "" || !s.SendAt.IsZero() || s.ExpiresIn != 0 {
		return Receipt{}, ErrQueueRequired
	}
	if d.life.Err() != nil {
		return Receipt{}, ErrShuttingDown
	}
	d.underWay.Add(1) // before it asks: a drain that begins now counts it
	defer d.underWay.Add(-1)
	if err := d.drain.refuses(); err != nil {
		d.drain.look()
		return Receipt{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.life, cancel)()
	relays, why := d.choose(s.Key, s.Sender)
	if len(relays) == 0 {
		if len(d.routes.of(s.Key, s.Sender)) > 0 {
			return Receipt{}, ErrPaused
		}
		return Receipt{}, ErrNoRoute
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Receipt{}, err
	}
	m := Message{
		ID: id.String(), Key: s.Key, MessageID: s.Content.MessageID, Sender: s.Sender, Subject: s.Subject,
		Size: int64(len(s.Content.Data)), Tags: s.Tags, Envelope: s.Envelope, Created: time.Now(),
	}
	m.Attempts = d.deliver(ctx, relays, len(d.routes.of(s.Key, s.Sender)), why, m, s.Content)
	m.Recipients = verdicts(s.Envelope.ForwardPaths, m.Attempts)
	d.logVerdicts(m)
	d.countVerdicts(m, s.Origin.Door)
	if d.life.Err() != nil && !slices.ContainsFunc(m.Recipients, judged) {
		return Receipt{}, ErrShuttingDown
	}
	return Receipt{Message: m}, nil
}

// choose returns the relays that take mail of a key from a sender, in the order in which
// this message asks them.
func (d *Direct) choose(key, sender string) (relays []mailer.Deliverer, why chosen) {
	why = d.routes.chosenFor(key, sender)
	routes, name, weights := d.unpaused(d.routes.of(key, sender), &why), "", []int{}
	for _, r := range routes {
		name += r.Relay.Name() + ","
		weights = append(weights, r.Weight)
	}
	if len(routes) == 0 {
		return nil, why
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.shares[name] // as many as there are routes
	if s == nil {
		made := dispatch.NewShares(weights)
		s, d.shares[name] = &made, &made
	}
	now := time.Now()
	open := func(i int) bool { return d.named[routes[i].Relay.Name()].Open(now) }
	first := s.Next(open)
	if first < 0 {
		first = max(s.Next(func(int) bool { return true }), 0)
	}
	switch {
	case len(routes) == 1:
		why.first = dispatch.WhyOnly
	case s.Count() > 1:
		why.first = dispatch.WhyWeight
	default:
		why.first = dispatch.WhyFirst
	}
	if s.Weighted(first) && open(first) {
		s.Deal(first, open)
	}
	for _, i := range s.Order(first) {
		relays = append(relays, routes[i].Relay)
	}
	return relays, why
}

// judged reports whether a relay said something of the recipient, or may have its
// mail.
func judged(r Recipient) bool {
	f := r.Result.Failure
	return f == nil || f.Reply.Code != 0 || f.Class == mailer.ClassUncertain || f.Class == mailer.ClassPermanent
}

// verdicts gives each recipient the state that the last attempt on it left.
func verdicts(forwardPaths []string, attempts []mailer.Attempt) []Recipient {
	last := map[string]mailer.Result{}
	for _, a := range attempts {
		for _, r := range a.Results {
			last[r.ForwardPath] = r
		}
	}
	recipients := make([]Recipient, len(forwardPaths))
	for i, path := range forwardPaths {
		result, tried := last[path]
		recipients[i] = Recipient{ForwardPath: path, State: Deferred, Result: result}
		if tried {
			recipients[i].State = stateAfter(result)
		}
	}
	return recipients
}

func stateAfter(r mailer.Result) State {
	switch {
	case r.Failure == nil:
		return Delivered
	case r.Failure.Class == mailer.ClassPermanent:
		return Bounced
	default:
		return Deferred
	}
}
