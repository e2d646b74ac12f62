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
//	late        A session that was logged in is refused mail for want of a login, see
//	            delivery.loginWanted. It counts as a refused login until the relay takes mail.
//	            Of several old sessions two count.
//	accepted    Forgets all of that but the late ones, where no login failed after this one
//	            had begun: which of two that are under way together ends first says
//	            nothing. Until the relay judges the first
//	            mail of that session, or ends it, it may still be refused late: for the time
//	            of the next login it counts as a refused one. It does not while the relay
//	            takes other mail, or when it has let DATA pass and thinks about the content
//	            for longer than a second, unless a login was refused before: a slow message
//	            holds up no other. Sessions that were logged in before say nothing about the
//	            credentials of now, however much mail they deliver.
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
	failed      int       // logins that were not accepted, ever
	next        time.Time // no login is tried earlier; zero: at once
	changedNext time.Time // no login with a changed token is tried earlier; zero: at once

	late     int       // sessions in a row that were refused late
	lateAt   time.Time // when the last one was
	lateNext time.Time // no login is tried earlier for that; zero: at once

	unjudged   map[*session]struct{} // sessions of which the relay has judged no mail yet
	acceptedAt time.Time             // when the last login was accepted
	takesNow   bool                  // the relay has taken mail just now, and wanted no login since
}

// session is one accepted login.
type session struct {
	since time.Time
	dotAt time.Time // when its first content was sent; zero before
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
	mustWait                   // until a login or a first mail has its reply, or breaker.judgedBy
	tooEarly                   // until breaker.next
)

// begin asks for a login.
func (b *breaker) begin(now time.Time) permission {
	switch {
	case now.Before(b.next):
		return tooEarly
	case b.inProgress >= b.limit(now), now.Before(b.judgedBy(now)):
		return mustWait
	default:
		b.inProgress++
		return granted
	}
}

// limit returns how many logins may be in progress at a time.
func (b *breaker) limit(now time.Time) int {
	if b.undecided > 0 {
		return 1
	}
	return max(1, min(b.most, freeRefusals-b.doubted(now)))
}

// doubted returns how many logins in a row were refused, now or late, or may be yet.
func (b *breaker) doubted(now time.Time) int {
	n := max(b.refusals, b.late)
	for s := range b.unjudged {
		if at := b.patience(s); at.IsZero() || now.Before(at) {
			n++
		}
	}
	return n
}

// patience returns when a session that has no verdict yet stops to count, see breaker;
// zero: not before it has one.
func (b *breaker) patience(s *session) time.Time {
	switch {
	case b.takesNow:
		return s.since
	case s.dotAt.IsZero(), b.refusals+b.late > 0:
		return time.Time{}
	default:
		return s.dotAt.Add(stallTime)
	}
}

// judgedBy returns until when a login has to wait for the verdict on the first mail of
// the sessions before it; zero: not at all.
func (b *breaker) judgedBy(now time.Time) time.Time {
	n := b.doubted(now)
	if n == max(b.refusals, b.late) {
		return time.Time{}
	}
	by := b.acceptedAt.Add(refusedPause(n))
	for s := range b.unjudged {
		if at := b.patience(s); at.After(now) && at.Before(by) {
			by = at
		}
	}
	return by
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
		b.late, b.lateNext = 0, time.Time{}
		clear(b.unjudged)
	}
	if b.refusals < freeRefusals && b.late < freeRefusals {
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

// end records the result of a login in progress. before is what failed was when it began.
func (b *breaker) end(result loginResult, before int, now time.Time) {
	b.inProgress--
	switch result {
	case accepted:
		if b.failed == before {
			b.refusals, b.undecided, b.next = 0, 0, b.lateNext
		}
		return
	case refused:
		b.refusals++
		b.undecided = 0
	case undecided:
		b.undecided++
	}
	b.failed++
	b.next = laterOf(b.next, now.Add(b.pause()))
}

// begun records the session of a login that was accepted.
func (b *breaker) begun(now time.Time) *session {
	if b.unjudged == nil {
		b.unjudged = map[*session]struct{}{}
	}
	s := &session{since: now}
	b.unjudged[s], b.acceptedAt = struct{}{}, now
	return s
}

// judged records that the relay has judged mail of the session for another reason than
// its login, or has ended it.
func (b *breaker) judged(s *session) { delete(b.unjudged, s) }

// refuseLate records that a session was refused late.
func (b *breaker) refuseLate(s *session, now time.Time) {
	_, first := b.unjudged[s]
	delete(b.unjudged, s)
	if !first && s.since.Before(b.lateAt) && b.late >= freeRefusals {
		return
	}
	b.late++
	b.lateAt = now
	if p := refusedPause(b.late); p > 0 {
		b.lateNext = now.Add(p)
		b.next = laterOf(b.next, b.lateNext)
	}
}

// takesMail records that the relay has taken mail.
func (b *breaker) takesMail() {
	b.late, b.lateNext = 0, time.Time{}
	clear(b.unjudged)
	if b.refusals+b.undecided == 0 {
		b.next = time.Time{}
	}
}

// pause returns how long the next login has to wait.
func (b *breaker) pause() time.Duration {
	var p time.Duration
	if b.undecided > 0 {
		p = min(undecidedPause<<min(b.undecided-1, 10), longestUndecidedPause)
	}
	return max(p, refusedPause(b.refusals))
}

// refusedPause returns how long the next login has to wait after so many refused ones in
// a row.
func refusedPause(refusals int) time.Duration {
	switch {
	case refusals >= manyRefusals:
		return longRefusalPause
	case refusals >= freeRefusals:
		return refusalPause
	default:
		return 0
	}
}
