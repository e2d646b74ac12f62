package smtp

import (
	"cmp"
	"fmt"
	"time"

	"mailsidecar/relays"
)

const (
	// firstConnections is how many connections a new relay gets.
	firstConnections = 2
	// windowHold is how long the window does not grow after the relay asked for
	// fewer connections or a lower rate.
	windowHold = time.Minute
	// windowReact is the time after a decrease in which replies still belong to the
	// load before it.
	windowReact = 5 * time.Second
	// windowStep is the time from one connection more to the next, for a relay that
	// has asked for less before.
	windowStep = 10 * time.Second
	// stallTime is how long messages wait in line without any verdict before one
	// connection more is opened.
	stallTime = time.Second
	// acceptedLatelyTime is how long an accepted message proves that the relay works.
	acceptedLatelyTime = 10 * time.Second
)

// window limits the connections to a relay as TCP's congestion window limits the
// data in flight (RFC 5681):
//
//   - It starts with two. Each message that is accepted while others wait for a
//     connection adds one, so that it doubles in each round trip, up to
//     SMTP_MAX_CONNECTIONS (slow start). After the first decrease it grows by
//     one connection in ten seconds at most (congestion avoidance).
//   - When the relay refuses a further connection, the window becomes the number of
//     open ones; when it says that there are too many, one less. When it says that
//     messages come too fast, the window is halved, to one at least (multiplicative
//     decrease, §3.1), and halved again if it still says so five seconds later. Then
//     the window does not grow for a minute.
//   - It does not grow while replies take much longer than the fastest ones did,
//     and falls by one when they take longer still for several rounds (see
//     latency), but not below two: a slow relay can still use two.
//
// The pool's lock guards it.
type window struct {
	max            int    // SMTP_MAX_CONNECTIONS
	limit          int    // 1 to max
	reason         string // for the last change of limit
	changedAt      time.Time
	slowGrowth     bool      // the relay has asked for less before
	noGrowthBefore time.Time // see windowHold
	decreasedAt    time.Time // when the relay last asked for less, and limit fell
	endedAfter     int       // messages on the last connection that the relay ended with 421
	endedAt        time.Time // when it did
	acceptedAt     time.Time // when the relay last accepted a message
	latency        latency
}

func newWindow(connections int) window {
	w := window{max: connections}
	w.restart()
	return w
}

// restart forgets all that is known of the relay: it could not be reached.
func (w *window) restart() {
	*w = window{max: w.max}
	w.set(time.Time{}, min(firstConnections, w.max), "the relay is new, or was not reached")
}

func (w *window) set(now time.Time, limit int, reason string) {
	w.limit, w.reason, w.changedAt = limit, reason, now
}

// accepted records a message that the relay accepted. crowd says that others wait
// for a connection; wait is how long the reply took, or zero where that depends on
// more than the relay.
func (w *window) accepted(now time.Time, wait time.Duration, crowd bool) {
	w.acceptedAt = now
	switch {
	case wait > 0 && w.latency.add(now, wait, w.limit) && w.limit > firstConnections:
		w.slowGrowth = true
		w.latency.slow = 0
		w.set(now, w.limit-1, fmt.Sprintf("replies take %v, and took %v before",
			w.latency.recent.Round(time.Millisecond), w.latency.lowest().Round(time.Millisecond)))
	case crowd:
		w.grow(now, "messages waited")
	}
}

// stalled records that messages wait for a connection. It grows the window if no
// verdict came for a while: all connections may hang.
func (w *window) stalled(now time.Time) {
	if now.Sub(w.acceptedAt) >= stallTime {
		w.grow(now, "messages waited, and no reply came")
	}
}

// grow adds a connection where the rules of window allow it.
func (w *window) grow(now time.Time, reason string) {
	early := now.Before(w.noGrowthBefore) || w.slowGrowth && now.Before(w.changedAt.Add(windowStep))
	if w.limit < w.max && !early && w.latency.nearLowest() {
		w.set(now, w.limit+1, reason)
	}
}

// refused records that the relay refused a connection beside the open ones, of
// which there is at least one. If it has served more for a while, it may not have
// noticed yet that one was closed, and gets another try soon.
func (w *window) refused(now time.Time, open int, why string) {
	hold := windowHold
	if open < w.limit && now.Sub(w.changedAt) > windowReact {
		hold = windowReact
	}
	w.noGrowthBefore, w.slowGrowth = now.Add(hold), true
	if open < w.limit {
		w.decreasedAt = now
		w.set(now, open, "a further connection was refused: "+why)
	}
}

// pushedBack records a reply that asks for less load than the open connections
// make.
func (w *window) pushedBack(now time.Time, open int, p relays.Pushback, why string) {
	limit := min(open, w.limit) - 1
	if p == relays.TooFast {
		if now.Before(w.decreasedAt.Add(windowReact)) {
			return
		}
		limit = min(open, w.limit) / 2
	}
	w.noGrowthBefore, w.slowGrowth, w.decreasedAt = now.Add(windowHold), true, now
	if limit = max(limit, 1); limit < w.limit {
		w.set(now, limit, "the relay pushed back: "+why)
	}
}

// endedNormally reports whether a 421 after so many messages only means that the
// relay limits the messages of a connection. The reply is the same as that of a
// relay for which we are too fast, but it comes after the same number each time.
// The first 421 in a while is taken for such a limit.
func (w *window) endedNormally(now time.Time, messages int) bool {
	if messages == 0 {
		return false
	}
	again := !w.endedAt.IsZero() && now.Sub(w.endedAt) < windowHold
	before := w.endedAfter
	w.endedAfter, w.endedAt = messages, now
	return !again || before == messages
}

// acceptedLately reports whether the relay accepted a message within the last ten
// seconds.
func (w *window) acceptedLately(now time.Time) bool {
	return !w.acceptedAt.IsZero() && now.Sub(w.acceptedAt) < acceptedLatelyTime
}

const (
	latencyLife   = 10 * time.Minute // how long the lowest latency counts
	latencyRounds = 3                // consecutive slow rounds before the window falls
)

// latency measures how long the relay takes from the final dot to its reply. As
// TCP Vegas does (Brakmo and Peterson 1995), it compares the lowest of a round
// with the lowest of the last ten to twenty minutes; the lowest, because a single
// message may take long to check. A round has as many replies as the window has
// connections. Differences under one or two seconds never count as slow.
type latency struct {
	replies int           // in this round
	round   time.Duration // the lowest in this round
	recent  time.Duration // the lowest of the round before; zero in the first
	slow    int           // consecutive slow rounds
	// now and before are the lowest of this period of latencyLife, which began at
	// since, and of the one before: the relay, or the way to it, may change.
	now, before time.Duration
	since       time.Time
}

// add records the time that a reply took. It returns true after so many slow rounds
// that there should be one connection less.
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

// nearLowest reports whether the last round was about as fast as the fastest.
func (l *latency) nearLowest() bool {
	return l.recent <= max(l.lowest()*5/4, l.lowest()+time.Second)
}
