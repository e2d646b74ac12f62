package queue

import (
	"time"

	"mailsidecar/queue/dispatch"
)

// retry is the schedule: a recipient that the relay deferred is tried again after
// about a minute, then after twice as long each time, up to an hour.
var retry = dispatch.Backoff{First: time.Minute, Longest: time.Hour}

// worthTrying is the lifetime below which no further try is made.
const worthTrying = 10 * time.Second

// quickTries is how many tries a recipient has that its schedule does not go by.
// After them a relay that asks for less may mean the message.
const quickTries = 5

// troubleDelay is how long a recipient waits after a 421 before its transaction, or
// where the relay asks for less, times ≥ 1. The relay's trouble does not use up the
// recipient's schedule; but where it comes of the message, others must get a turn.
func troubleDelay(times int, random float64) time.Duration {
	return dispatch.RelayPause.Delay(times, random)
}

// nextTry is when to try again after delay. When that is too late, one more try
// is made shortly before the message expires; false means that there is no time
// left for it.
func nextTry(now, expires time.Time, delay time.Duration) (time.Time, bool) {
	rest := expires.Sub(now)
	switch {
	case delay < rest:
		return now.Add(delay), true
	case rest > worthTrying:
		return now.Add((rest - rest/10).Truncate(time.Microsecond)), true
	default:
		return time.Time{}, false
	}
}
