package queue

import (
	"errors"
	"slices"
	"time"

	"mailsidecar/mailer"
)

// relay is an upstream relay and how it fares. Durable.mu guards it.
//
// In trouble it is paused. When the pause ends, one delivery goes through as a
// probe; all others wait for what becomes of it.
type relay struct {
	mailer.Deliverer
	failures int // times of trouble in a row; zero when it fares well
	until    time.Time
	probing  bool
	reason   *mailer.Failure
	// rests is until when its rate is used up for mail of each level, whether it
	// fares well or not.
	rests [levels]time.Time
}

// Pause tells that a relay is in trouble.
type Pause struct {
	Relay    string
	Failures int             // in a row
	Until    time.Time       // may have passed: then a probe is due or under way
	Reason   *mailer.Failure // of the last one
}

// open says whether a delivery of priority p may be given to the relay at now.
func (r *relay) open(now time.Time, p mailer.Priority) bool {
	return !now.Before(r.rests[level(p)]) && (r.failures == 0 || !r.probing && !now.Before(r.until))
}

// take is open for whoever will deliver and then call report.
func (r *relay) take(now time.Time, p mailer.Priority) bool {
	if !r.open(now, p) {
		return false
	}
	r.probing = r.failures > 0
	return true
}

// report notes what an attempt says of the relay. paused and resumed tell of a
// change; probed says that others waited for this.
func (r *relay) report(a mailer.Attempt, now time.Time, spread float64) (paused, resumed, probed bool) {
	probed = r.probing
	r.probing = false
	f, judged := trouble(a)
	switch {
	case f == nil && judged:
		resumed = r.failures > 0
		r.failures, r.until, r.reason = 0, time.Time{}, nil
		return false, resumed, probed
	case f == nil:
		return false, false, probed
	case r.failures > 0 && !probed && now.Before(r.until):
		// It began before the pause: the same trouble, not once more.
		return false, false, false
	}
	r.failures++
	r.reason = f
	r.until = now.Add(pauseDelay(r.failures, f.Stage == mailer.StageAuth, spread))
	return true, false, probed
}

// rest notes that the relay's rate is used up, if the attempt on a message of
// priority p says so. rests says that the relay was open to such mail before, and
// news that it has been for a while. What is more urgent may still find a turn.
func (r *relay) rest(a mailer.Attempt, p mailer.Priority, now time.Time) (rests, news bool) {
	for _, result := range a.Results {
		if rate := usedUp(result.Failure); rate != nil {
			return r.restUntil(rate.At.UTC().Truncate(time.Microsecond), p, now)
		}
	}
	return false, false
}

// restNews is how long a relay must have been open since it rested for its next
// rest to be told: under a backlog one follows on the other.
const restNews = time.Minute

func (r *relay) restUntil(at time.Time, p mailer.Priority, now time.Time) (rests, news bool) {
	own := level(p)
	rests, news = !now.Before(r.rests[own]), now.Sub(r.rests[own]) > restNews
	r.rests[own] = at
	for lower := own + 1; lower < levels; lower++ {
		if r.rests[lower].Before(at) {
			r.rests[lower] = at
		}
	}
	return rests, news
}

// asked are the results of those that the relay was asked about: where its rate
// was used up there was no attempt.
func asked(results []mailer.Result) []mailer.Result {
	return slices.DeleteFunc(results, func(r mailer.Result) bool { return usedUp(r.Failure) != nil })
}

// usedUp returns what f says of the relay's rate, nil when it says nothing.
func usedUp(f *mailer.Failure) *mailer.RateError {
	var rate *mailer.RateError
	if f != nil && errors.As(f.Err, &rate) {
		return rate
	}
	return nil
}

// trouble returns the failure in a that is about the relay, nil when there is
// none. judged says that the relay spoke its mind on some recipient.
func trouble(a mailer.Attempt) (f *mailer.Failure, judged bool) {
	for _, r := range a.Results {
		if aboutRelay(r.Failure) {
			return r.Failure, false
		}
		judged = judged || r.Failure == nil || r.Failure.Reply.Code != 0
	}
	return nil, judged
}

// aboutRelay says that the next message would fare no better: the relay was not
// reached or refused us, it closes the service (421), or the dialogue broke. One
// that asked for less at a time, and takes mail, gets less of it already.
func aboutRelay(f *mailer.Failure) bool {
	switch {
	case f == nil, usedUp(f) != nil, errors.Is(f, mailer.ErrPushedBack):
		return false
	case f.Class == mailer.ClassRelay, f.Reply.Code == 421:
		return true
	default:
		return f.Reply.Code == 0 && f.Stage != mailer.StageCompose &&
			(f.Class == mailer.ClassTransient || f.Class == mailer.ClassUncertain)
	}
}

// earliest ignores a zero time.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
