package smtp

import (
	"cmp"
	"fmt"
	"time"

	"mailsidecar/relays"
)

const (
	// firstConnections is how many a relay gets before anything is known of it.
	firstConnections = 2
	// windowHold is how long the relay is left with fewer connections after it
	// asked for that.
	windowHold = time.Minute
	// windowSettle is the time after a step back in which the relay is still
	// answering what was under way.
	windowSettle = 5 * time.Second
	// windowStep is the time between one connection more and the next, for a
	// relay that has ever asked for fewer.
	windowStep = 10 * time.Second
	// lineStep is how long messages wait in line without any verdict before one
	// connection more is tried.
	lineStep = time.Second
	// worksTime is how long an accepted message proves that the relay works.
	worksTime = 10 * time.Second
)

// window bounds the connections to a relay as TCP's congestion window bounds
// what is under way (RFC 5681):
//
//   - It starts with two. Each message that is accepted while others wait for a
//     connection adds one, so that it doubles in each round trip, up to
//     SMTP_MAX_CONNECTIONS (slow start). After the first step back it grows by
//     one at a time, at most each ten seconds (congestion avoidance).
//   - A relay that refuses a further connection is left with those it serves, and
//     one that says there are too many with one less. One that says it is all too
//     fast is left with half of those in use, at least one (multiplicative
//     decrease, §3.1), and with half of these five seconds later if it still says
//     so. Then the window does not grow for a minute.
//   - It does not grow while replies take much longer than the fastest ones did,
//     and falls by one when they take longer still for several rounds (see
//     latency), but not below two: what is slow need not be crowded.
//
// The pool's lock guards it.
type window struct {
	most    int // SMTP_MAX_CONNECTIONS
	limit   int // 1 to most
	careful bool
	reason  string    // of the last change
	changed time.Time // when that was
	held    time.Time // no growth before
	stepped time.Time // when the relay last asked for less, and got it
	lasted  int       // messages of the last connection that was ended by a 421
	ended   time.Time // when that was
	good    time.Time // when the relay last accepted a message
	latency latency
}

func newWindow(most int) window {
	w := window{most: most}
	w.restart()
	return w
}

// restart forgets what is known of a relay that was not reached any more.
func (w *window) restart() {
	*w = window{most: w.most}
	w.set(time.Time{}, min(firstConnections, w.most), "the relay is new, or was not reached")
}

func (w *window) set(now time.Time, limit int, reason string) {
	w.limit, w.reason, w.changed = limit, reason, now
}

// accepted notes a message that the relay took. crowd says that others wait for
// its connections; wait is how long it took for its reply, zero when that tells
// nothing.
func (w *window) accepted(now time.Time, wait time.Duration, crowd bool) {
	w.good = now
	switch {
	case wait > 0 && w.latency.add(now, wait, w.limit) && w.limit > firstConnections:
		w.careful = true
		w.latency.slow = 0
		w.set(now, w.limit-1, fmt.Sprintf("replies take %v, and took %v before",
			w.latency.recent.Round(time.Millisecond), w.latency.lowest().Round(time.Millisecond)))
	case crowd:
		w.grow(now, "messages waited")
	}
}

// silent notes that messages wait for a connection. Those there are may all be
// hanging.
func (w *window) silent(now time.Time) {
	if now.Sub(w.good) >= lineStep {
		w.grow(now, "messages waited, and no reply came")
	}
}

// grow adds a connection, if it may.
func (w *window) grow(now time.Time, reason string) {
	early := now.Before(w.held) || w.careful && now.Before(w.changed.Add(windowStep))
	if w.limit < w.most && !early && w.latency.easy() {
		w.set(now, w.limit+1, reason)
	}
}

// refused notes that the relay did not take one more connection than the open
// ones, of which there is at least one. Where it has served as many for a while,
// it may only not have noticed that one has gone, and is asked again soon.
func (w *window) refused(now time.Time, open int, why string) {
	hold := windowHold
	if open < w.limit && now.Sub(w.changed) > windowSettle {
		hold = windowSettle
	}
	w.held, w.careful = now.Add(hold), true
	if open < w.limit {
		w.stepped = now
		w.set(now, open, "a further connection was refused: "+why)
	}
}

// pushedBack notes a reply of the relay that asks for less than the open
// connections.
func (w *window) pushedBack(now time.Time, open int, p relays.Pushback, why string) {
	limit := min(open, w.limit) - 1
	if p == relays.TooFast {
		if now.Before(w.stepped.Add(windowSettle)) {
			return
		}
		limit = min(open, w.limit) / 2
	}
	w.held, w.careful, w.stepped = now.Add(windowHold), true, now
	if limit = max(limit, 1); limit < w.limit {
		w.set(now, limit, "the relay pushed back: "+why)
	}
}

// enough says whether a connection that the relay ends with a 421 after so many
// messages has only come to its end. Relays that bound the messages of a
// connection say nothing else than those that find us too fast, but say it after
// the same number each time. The first time in a while they get the benefit of
// the doubt.
func (w *window) enough(now time.Time, messages int) bool {
	if messages == 0 {
		return false
	}
	again := !w.ended.IsZero() && now.Sub(w.ended) < windowHold
	before := w.lasted
	w.lasted, w.ended = messages, now
	return !again || before == messages
}

// works says whether the relay accepted a message lately.
func (w *window) works(now time.Time) bool {
	return !w.good.IsZero() && now.Sub(w.good) < worksTime
}

// Bounds of latency. They have a floor in absolute terms: a relay that looks into
// each message takes longer for some, and below that nobody is crowded.
const (
	latencyLife   = 10 * time.Minute // of the lowest one
	latencyRounds = 3                // slow ones before the window falls
)

// latency watches how long the relay takes from the final dot to its reply. As
// TCP Vegas does (Brakmo and Peterson 1995), it compares the lowest of a round
// with the lowest that was ever seen; the lowest, because a reply may be slow for
// its message's sake. A round is as many replies as there may be connections.
type latency struct {
	replies int           // in this round
	round   time.Duration // their lowest
	recent  time.Duration // the lowest of the round before; zero: there was none
	slow    int           // rounds in a row
	// The lowest of this period of latencyLife and of the one before: the relay,
	// or the way to it, may change.
	now, before time.Duration
	since       time.Time
}

// add notes a reply, and says whether so many rounds were slow that a connection
// should go.
func (l *latency) add(now time.Time, wait time.Duration, limit int) bool {
	if now.Sub(l.since) >= latencyLife {
		l.before, l.now, l.since = l.now, wait, now
	}
	l.now = min(l.now, wait)
	if l.replies == 0 {
		l.round = wait
	}
	l.round = min(l.round, wait)
	if l.replies++; l.replies < limit {
		return false
	}
	l.replies, l.recent = 0, l.round
	if l.slow++; l.recent <= max(l.lowest()*3/2, l.lowest()+2*time.Second) {
		l.slow = 0
	}
	return l.slow >= latencyRounds
}

func (l *latency) lowest() time.Duration {
	return min(l.now, cmp.Or(l.before, l.now))
}

// easy: the relay is not much slower than it can be.
func (l *latency) easy() bool {
	return l.recent <= max(l.lowest()*5/4, l.lowest()+time.Second)
}
