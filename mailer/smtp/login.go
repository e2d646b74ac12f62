package smtp

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mailsidecar/mailer"
)

// Logins limits the logins at the accounts of relays, so that wrong credentials are
// not tried again and again: two refused logins at once, then one a minute, from the
// fifth on one in 15 minutes. It holds for deliveries and for [Relay.Check] alike,
// and until the process ends. The zero value is ready; it is safe for concurrent use.
type Logins struct {
	mu       sync.Mutex
	accounts map[accountKey]*account
}

// accountKey is what is locked together by a provider. Another password is another
// account, so that it is tried at once.
type accountKey struct {
	host, username string
	password       [sha256.Size]byte // all zero where tokens are used
}

// account returns the account that the options name.
func (l *Logins) account(o Options) *account {
	if l == nil {
		l = &Logins{}
	}
	key := accountKey{host: strings.ToLower(strings.TrimSuffix(o.Host, ".")), username: o.Username}
	if o.Username == "" && o.Account != nil {
		key.username = "\x00" + o.Name // of an account that is not known yet
	}
	// A token may be replaced in the same login, which makes two.
	most := 1
	if o.TokenSource == nil {
		most, key.password = freeRefusals, sha256.Sum256([]byte(o.Password))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.accounts == nil {
		l.accounts = map[accountKey]*account{}
	}
	if l.accounts[key] == nil {
		l.accounts[key] = &account{breaker: breaker{most: most}, ended: make(chan struct{}), telling: make(chan struct{}, 1)}
	}
	return l.accounts[key]
}

// account is one account at a relay, and how logins there fared.
type account struct {
	mu      sync.Mutex
	breaker breaker
	failure *mailer.Failure // of the last login that was not accepted, until one is
	late    *mailer.Failure // of the last session that was refused late, see delivery.loginWanted
	taken   atomic.Int64    // when the relay took mail, in nanoseconds since 1970; zero: never, or it wanted a login since
	doubted atomic.Bool     // there is one, or a session whose mail was not judged yet
	// The last token that was accepted, and the last that was refused, until a login is
	// accepted. dead says that the source may have a better one.
	accepted, refused string
	dead              bool
	ended             chan struct{}                // closed when a login ends or a first mail is judged, and then replaced
	note              atomic.Pointer[sharedLogins] // has what instances tell one another; nil: there are no others
	telling           chan struct{}                // capacity 1: has an element while the note is changed
	untold            []*loginOutcome              // what the others may not know yet, the oldest first
}

// tokenLook is how often a token is looked at that was refused: it may have changed.
const tokenLook = time.Minute

// LoginState is how logins at a relay's account fare.
type LoginState struct {
	Refused int       // logins refused in a row
	Next    time.Time // when the next login may be tried; zero means now
	// Failure is that of the last login; nil when it was accepted, and before the
	// first.
	Failure *mailer.Failure
}

// Logins returns the state of this moment.
func (r *Relay) Logins() LoginState {
	a := r.account
	a.mu.Lock()
	defer a.mu.Unlock()
	s := LoginState{Refused: max(a.breaker.refusals, a.breaker.late), Failure: a.failure}
	if a.breaker.next.After(time.Now()) {
		s.Next = a.breaker.next
	}
	return s
}

// TokenRenewed says that the source has a token again after it had none. newLogin says
// that a person has logged in for it: then a login is tried at once, whatever the relay
// refused before.
func (r *Relay) TokenRenewed(newLogin bool) {
	a := r.account
	a.mu.Lock()
	defer a.mu.Unlock()
	a.breaker.renew(newLogin)
	if newLogin {
		a.lateShared(r, time.Time{}, true)
		a.untold = nil
		a.accepted, a.refused, a.dead = "", "", false
	}
}

// loginPaused returns the failure of a login that must not be tried yet, or nil.
func (r *Relay) loginPaused(ctx context.Context) *mailer.Failure {
	f := r.account.pausedFailure(r)
	if f != nil && r.account.note.Load() != nil {
		r.account.hearShared(ctx)
		f = r.account.pausedFailure(r)
	}
	if f != nil && r.tokenChanged(ctx) {
		return nil
	}
	return f
}

// pausedFailure returns the last failure again, or nil when a login may be tried.
func (a *account) pausedFailure(r *Relay) *mailer.Failure {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, next := time.Now(), a.breaker.next
	if !now.Before(next) {
		return nil
	}
	if look := now.Add(tokenLook); r.opts.TokenSource != nil && look.Before(next) {
		next = look
	}
	f := *a.failure
	f.Class, f.Relay = mailer.ClassRelay, r.opts.Name
	f.Err = &mailer.LoginError{Next: next, Err: f.Err}
	return &f
}

// tokenChanged reports whether there is another token now than the one that was
// refused.
func (r *Relay) tokenChanged(ctx context.Context) bool {
	a := r.account
	a.mu.Lock()
	refused, mayTry := a.refused, a.breaker.mayTryChanged(time.Now())
	a.mu.Unlock()
	if r.opts.TokenSource == nil || refused == "" || !mayTry {
		return false
	}
	token, err := r.opts.TokenSource(ctx, "")
	return err == nil && token != refused
}

// begin waits until a login may be tried, which must end with end.
func (a *account) begin(ctx context.Context, c *conn) *mailer.Failure {
	for {
		a.mu.Lock()
		now := time.Now()
		judgedBy := a.judgedBy(now)
		p, ended := a.breaker.begin(now), a.ended
		c.failedBefore = a.breaker.failed
		a.mu.Unlock()
		switch p {
		case granted:
			return nil
		case tooEarly:
			if c.relay.tokenChanged(ctx) && a.beginChanged(c) {
				return nil
			}
			if f := a.pausedFailure(c.relay); f != nil {
				return f
			}
			continue // just over
		case mustWait:
		}
		if !waitFor(ctx, ended, judgedBy) {
			return c.failed(ctx, mailer.StageAuth, &cause{problem: ProblemSilent, text: "another login took too long", err: ctx.Err()})
		}
	}
}

// awaitVerdicts waits while the relay may refuse the sessions that have just logged in,
// so that no connection is opened for a login that must wait.
func (a *account) awaitVerdicts(ctx context.Context) {
	for {
		a.mu.Lock()
		ended, judgedBy := a.ended, a.judgedBy(time.Now())
		a.mu.Unlock()
		if !time.Now().Before(judgedBy) || !waitFor(ctx, ended, judgedBy) {
			return
		}
	}
}

// judgedBy returns until when a login has to wait for a verdict, see breaker. The caller
// holds the lock.
func (a *account) judgedBy(now time.Time) time.Time {
	a.breaker.takesNow = now.Sub(time.Unix(0, a.taken.Load())) < acceptedLatelyTime
	return a.breaker.judgedBy(now)
}

// waitFor waits until the channel is closed, or that time has come where it is not over.
// It returns false when ctx ends first.
func waitFor(ctx context.Context, ended <-chan struct{}, at time.Time) bool {
	var over <-chan time.Time
	if wait := time.Until(at); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ended:
		return true
	case <-over:
		return true
	case <-ctx.Done():
		return false
	}
}

// wake lets those look again that wait for a login. The caller holds the lock.
func (a *account) wake() {
	close(a.ended)
	a.ended = make(chan struct{})
}

func (a *account) beginChanged(c *conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.failedBefore = a.breaker.failed
	return a.breaker.beginChanged(time.Now())
}

// beginAgain asks for one more login without a wait, with a fresh token.
func (a *account) beginAgain(c *conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.failedBefore = a.breaker.failed
	return a.breaker.begin(time.Now()) == granted
}

// end records what became of a login with that token or password, and returns f with
// the time of the next one.
func (a *account) end(c *conn, f *mailer.Failure, token string) *mailer.Failure {
	a.mu.Lock()
	defer a.mu.Unlock()
	result, now := resultOf(f), time.Now()
	a.breaker.end(result, c.failedBefore, now)
	a.outcome(c, result, f, now)
	c.relay.countLogin(result)
	a.wake()
	if result == accepted {
		c.session = a.breaker.begun(now)
		a.doubted.Store(true)
		a.accepted, a.refused, a.dead = token, "", false
		if a.breaker.refusals+a.breaker.undecided == 0 {
			a.failure = a.late
		}
		return nil
	}
	if result == refused {
		a.refused, a.dead = token, a.newTokenHelps(f, token)
	}
	a.failure = f
	return a.withNextLogin(f, now)
}

// withNextLogin returns f with the time of the next login. The caller holds the lock.
func (a *account) withNextLogin(f *mailer.Failure, now time.Time) *mailer.Failure {
	told := *f
	why := &mailer.LoginError{Tried: true, Err: f.Err}
	if a.breaker.next.After(now) {
		why.Next = a.breaker.next
	}
	told.Err = why
	return &told
}

// resultOf returns what a login told about the credentials, see breaker.
func resultOf(f *mailer.Failure) loginResult {
	switch {
	case f == nil:
		return accepted
	case f.Reply.Code/100 == 5, f.Reply.Enhanced == "4.7.8":
		return refused
	case f.Reply.Code == 0 && errors.As(f.Err, new(*loginRefused)):
		return refused // see authExchange.unanswered
	}
	if why, ok := errors.AsType[*cause](f.Err); ok && why.problem == ProblemOther { // see authExchange.broken
		return refused
	}
	return undecided
}

// login authenticates with the configured credentials, if there are any, once that
// is permitted.
func (c *conn) login(ctx context.Context) *mailer.Failure {
	if !c.relay.opts.authenticates() {
		return nil
	}
	if c.tls == nil && !c.rung.Clear {
		// open never gets here without TLS; this check is the last one.
		return c.failed(ctx, mailer.StageAuth, &cause{problem: ProblemCleartext, text: "no credentials without TLS"})
	}
	mechanism, f := c.mechanism(ctx)
	if f == nil {
		f = c.relay.account.begin(ctx, c)
	}
	if f == nil {
		f = c.relay.account.beginShared(ctx, c)
	}
	if f != nil {
		return f
	}
	return c.tryLogin(ctx, mechanism)
}

// tryLogin is a login that was permitted.
func (c *conn) tryLogin(ctx context.Context, mechanism string) *mailer.Failure {
	ctx, cancel := context.WithTimeout(ctx, c.relay.opts.Timeouts.Login)
	defer cancel()
	release := c.bind(ctx)
	defer release()
	a := c.relay.account
	token, failure := c.token(ctx, mechanism, a.deadToken())
	if failure == nil {
		failure = c.authenticate(ctx, mechanism, token)
	}
	f := a.end(c, failure, token)
	a.endShared(ctx)
	if dead := a.deadToken(); f == nil || f.Reply.Code == 0 || dead == "" || dead != token {
		return f
	}
	// A token may be revoked before it expires: try again with a new one, if there
	// is any.
	if fresh, _ := c.token(ctx, mechanism, token); fresh != "" && fresh != token && a.beginAgain(c) {
		second := c.authenticate(ctx, mechanism, fresh)
		again := a.end(c, second, fresh)
		a.endShared(ctx)
		if again == nil || again.Reply.Code != 0 {
			return again
		}
		a.remember(failure) // the relay has heard enough, and said why before
	}
	return f
}

// remember puts a failure in the place of the last login's, unless one was accepted
// meanwhile.
func (a *account) remember(f *mailer.Failure) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure != nil {
		a.failure = f
	}
}

// newTokenHelps reports whether the source of tokens may have a better one than that
// which was refused. A relay that accepted this one before can mean only that it is
// not valid any more, whatever it says of it. The caller holds the lock.
func (a *account) newTokenHelps(f *mailer.Failure, token string) bool {
	refused, ok := errors.AsType[*loginRefused](f.Err)
	return ok && (refused.word.NewTokenHelps() || refused.word.AboutToken() && token == a.accepted)
}

// deadToken returns the last token that was refused, if another one may help.
func (a *account) deadToken() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.dead {
		return ""
	}
	return a.refused
}
