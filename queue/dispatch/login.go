package dispatch

import (
	"errors"
	"time"

	"mailsidecar/mailer"
)

// NotAsked reports whether the relay was not asked for f, because its rate is used
// up, because it has refused our login before, because it is paused, because the message had expired, or
// because it may not be sent any more.
// Then there was no attempt.
func NotAsked(f *mailer.Failure) bool {
	if UsedUp(f) != nil || f != nil && (errors.Is(f.Err, mailer.ErrExpired) || errors.Is(f.Err, mailer.ErrMayNotSend) || errors.As(f.Err, new(*mailer.PauseError))) {
		return true
	}
	login := loginError(f)
	return login != nil && !login.Tried
}

func loginError(f *mailer.Failure) *mailer.LoginError {
	var login *mailer.LoginError
	if f != nil && errors.As(f.Err, &login) {
		return login
	}
	return nil
}

// nextLogin returns when a relay that refused our login may be asked again, as the
// relay's client has it; zero when f says nothing of that. It is rounded up to the
// precision of the store, lest the relay be asked too early.
func nextLogin(f *mailer.Failure) time.Time {
	login := loginError(f)
	if login == nil || login.Next.IsZero() {
		return time.Time{}
	}
	return login.Next.UTC().Add(time.Microsecond - 1).Truncate(time.Microsecond)
}

// retriesLogin is how many refused logins a person may repeat at once.
const retriesLogin = 1

// unpausedAt is when the relay may be asked again, where a person wants it now. A
// refused login waits all the same: it would be refused again, and providers lock
// accounts for that.
func (h *health) unpausedAt(now time.Time) time.Time {
	switch {
	case !now.Before(h.pause.until), !nextLogin(h.reason).IsZero():
		return h.pause.until
	case h.reason.Stage == mailer.StageAuth && h.pause.failures > retriesLogin:
		return h.pause.until
	default:
		return now
	}
}

// RefusedLogin returns the failure for which the route's mail of priority p waits,
// where that is a refused login; else nil.
func (d *Dispatcher) RefusedLogin(route string, p mailer.Priority, now time.Time) *mailer.Failure {
	g := d.group(route)
	if g == nil || g.open(p, now) {
		return nil
	}
	for _, h := range g.relays {
		if h.reason != nil && (h.reason.Stage == mailer.StageAuth || loginError(h.reason) != nil) {
			return h.reason
		}
	}
	return nil
}
