package smtp

import "time"

// breaker says when a login at one account of a relay may be tried. It has no clock
// and starts nothing: every call has the time. [Logins] keeps one for each account.
//
// The policy. Providers lock accounts, and relays block addresses, after a number of
// refused logins. So a login that cannot succeed must be rare, however many messages
// and people ask for it:
//
//	refused     Any 5yz to AUTH or to a response within it; a 4yz with the enhanced
//	            code 4.7.8, credentials invalid; and a dialogue that our side breaks
//	            off, because SCRAM can say no in its own messages, and so can a relay
//	            that was shown an OAuth2 token. Two refused logins
//	            may come at once. Then there is one a minute, and from the fifth on
//	            one in 15 minutes.
//	undecided   Any other 4yz, 421 included; no answer, or a connection that ends; no
//	            OAuth2 token to log in with. The credentials are not judged, but a
//	            relay may count these logins, too: the next is after 10 s, 20 s, and
//	            so on to 5 min, and never earlier than the refusals allow.
//	accepted    Forgets all of that. Sessions that were logged in before say nothing
//	            about the credentials of now, however much mail they deliver.
//
// Each login in progress counts as a possible refusal, so it uses up one of the two
// that may come at once. After a refused or undecided login only one runs at a time.
//
// Each AUTH command is a login here, also the second one with a fresh OAuth2 token.
// Where an access token was refused, and the source has another one by now, that
// changed token need not wait: it is tried at once, but at most once a minute. When a
// person has logged in anew, all earlier refusals are forgotten, as with another
// password.
type breaker struct {
	most        int       // logins in progress at a time, before any is refused
	inProgress  int       // logins that have begun and not ended
	refusals    int       // refused logins since the last accepted one
	undecided   int       // undecided logins in a row
	next        time.Time // no login is tried earlier; zero: at once
	changedNext time.Time // no login with a changed token is tried earlier; zero: at once
}

const (
	// freeRefusals is how many logins in a row may be refused before the next one has
	// to wait.
	freeRefusals = 2
	// refusalPause is the wait after the freeRefusals-th refusal in a row and each
	// further one, longRefusalPause from the manyRefusals-th on.
	refusalPause     = time.Minute
	manyRefusals     = 5
	longRefusalPause = 15 * time.Minute
	// undecidedPause is the wait after an undecided login. It doubles each time, up to
	// longestUndecidedPause.
	undecidedPause        = 10 * time.Second
	longestUndecidedPause = 5 * time.Minute
)

// permission is the answer of a breaker.
type permission int

const (
	granted  permission = iota // the login is in progress, until end
	mustWait                   // until a login in progress has ended
	tooEarly                   // until breaker.next
)

// begin asks for a login.
func (b *breaker) begin(now time.Time) permission {
	switch {
	case now.Before(b.next):
		return tooEarly
	case b.inProgress >= b.limit():
		return mustWait
	default:
		b.inProgress++
		return granted
	}
}

// limit returns how many logins may be in progress at a time.
func (b *breaker) limit() int {
	if b.undecided > 0 {
		return 1
	}
	return max(1, min(b.most, freeRefusals-b.refusals))
}

// mayTryChanged reports whether a login may be tried with a token that changed since
// it was refused.
func (b *breaker) mayTryChanged(now time.Time) bool {
	return b.inProgress == 0 && !now.Before(b.changedNext)
}

// beginChanged asks for a login with a token that changed since it was refused.
func (b *breaker) beginChanged(now time.Time) bool {
	if !b.mayTryChanged(now) {
		return false
	}
	b.changedNext = now.Add(refusalPause)
	b.inProgress++
	return true
}

// renew ends the wait that the lack of a token caused, and with newCredentials any
// other.
func (b *breaker) renew(newCredentials bool) {
	b.undecided = 0
	if newCredentials {
		b.refusals, b.changedNext = 0, time.Time{}
	}
	if b.refusals < freeRefusals {
		b.next = time.Time{}
	}
}

// loginResult is what a login told about the credentials.
type loginResult int

const (
	accepted loginResult = iota
	refused
	undecided
)

// end records the result of a login in progress.
func (b *breaker) end(result loginResult, now time.Time) {
	b.inProgress--
	switch result {
	case accepted:
		b.refusals, b.undecided, b.next = 0, 0, time.Time{}
		return
	case refused:
		b.refusals++
		b.undecided = 0
	case undecided:
		b.undecided++
	}
	b.next = laterOf(b.next, now.Add(b.pause()))
}

// pause returns how long the next login has to wait.
func (b *breaker) pause() time.Duration {
	var p time.Duration
	if b.undecided > 0 {
		p = min(undecidedPause<<min(b.undecided-1, 10), longestUndecidedPause)
	}
	switch {
	case b.refusals >= manyRefusals:
		return max(p, longRefusalPause)
	case b.refusals >= freeRefusals:
		return max(p, refusalPause)
	default:
		return p
	}
}
