package queue

import "time"

// The schedule. A recipient that the relay deferred is tried again after about
// a minute, then after twice as long each time, up to an hour. A relay in
// trouble is left alone for a while, longer each time, whoever's mail waits for
// it; where it refused to log us in, for longer, because providers lock accounts
// after repeated failures.
const (
	firstRetry   = time.Minute
	longestRetry = time.Hour

	firstPause       = time.Second
	longestPause     = 5 * time.Minute
	firstAuthPause   = time.Minute
	longestAuthPause = 15 * time.Minute

	// leastRest is the lifetime below which no further try is worth while.
	leastRest = 10 * time.Second
)

// retryDelay is how long a recipient waits after its tries-th try, tries ≥ 1.
// spread, in [0, 1), keeps messages apart that failed together.
func retryDelay(tries int, spread float64) time.Duration {
	return jitter(doubled(firstRetry, longestRetry, tries), spread)
}

// pauseDelay is how long a relay is left alone after trouble that came failures
// times in a row, failures ≥ 1.
func pauseDelay(failures int, auth bool, spread float64) time.Duration {
	if auth {
		return jitter(doubled(firstAuthPause, longestAuthPause, failures), spread)
	}
	return jitter(doubled(firstPause, longestPause, failures), spread)
}

// troubleDelay is how long a recipient waits after a 421 in the middle of its
// transaction, times ≥ 1. The relay's trouble does not use up the recipient's
// schedule; but where it comes of the message, others must get a turn.
func troubleDelay(times int, spread float64) time.Duration {
	return jitter(doubled(firstPause, longestPause, times), spread)
}

// doubled is first for n = 1, twice as much for each further n, and at most
// longest.
func doubled(first, longest time.Duration, n int) time.Duration {
	d := first
	for ; n > 1 && d < longest; n-- {
		d *= 2
	}
	return min(d, longest)
}

// jitter spreads d by an eighth to either side, to the precision of the store.
func jitter(d time.Duration, spread float64) time.Duration {
	return (d - d/8 + time.Duration(spread*float64(d/4))).Truncate(time.Microsecond)
}

// nextTry is when to try again after delay. When that is too late, one more try
// is made shortly before the message expires; false means that there is no time
// left for it.
func nextTry(now, expires time.Time, delay time.Duration) (time.Time, bool) {
	rest := expires.Sub(now)
	switch {
	case delay < rest:
		return now.Add(delay), true
	case rest > leastRest:
		return now.Add((rest - rest/10).Truncate(time.Microsecond)), true
	default:
		return time.Time{}, false
	}
}
