package dispatch

import (
	"time"

	"mailsidecar/mailer"
)

// Backoff is a delay that doubles each time.
type Backoff struct {
	First   time.Duration
	Longest time.Duration
}

// Delay is the delay before the n-th time, n ≥ 1, to the precision of the store.
// random, in [0, 1), moves it by up to an eighth to either side, and so keeps
// apart what failed together.
func (b Backoff) Delay(n int, random float64) time.Duration {
	d := b.First
	for ; n > 1 && d < b.Longest; n-- {
		d *= 2
	}
	d = min(d, b.Longest)
	return (d - d/8 + time.Duration(random*float64(d/4))).Truncate(time.Microsecond)
}

// A relay in trouble is left alone for a while, longer each time. Where it
// refused the login the pauses are longer, because providers lock accounts after
// repeated failures; but the relay's client knows best, see [mailer.LoginError].
var (
	RelayPause = Backoff{First: time.Second, Longest: 5 * time.Minute}
	LoginPause = Backoff{First: time.Minute, Longest: 15 * time.Minute}
)

func pauseDelay(failures int, login bool, random float64) time.Duration {
	if login {
		return LoginPause.Delay(failures, random)
	}
	return RelayPause.Delay(failures, random)
}

// A relay may say itself until when it takes no mail, or it is known of it. It is left
// alone until then, within these limits: a relay may name any time, and its clock may be
// wrong.
const (
	shortestNamed = time.Second
	longestNamed  = 24 * time.Hour
)

// namedEnd returns when a relay may be asked again that said so, to the precision of the
// store; zero when it did not, or named a time in the past.
func namedEnd(f *mailer.Failure, now time.Time) time.Time {
	if !f.Until.After(now) {
		return time.Time{}
	}
	wait := min(max(f.Until.Sub(now), shortestNamed), longestNamed)
	return now.Add(wait).UTC().Add(time.Microsecond - 1).Truncate(time.Microsecond)
}
