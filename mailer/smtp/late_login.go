package smtp

import (
	"errors"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

// A relay may ask for a login after it has accepted one: with 530, 535 or 538 to MAIL or
// a later command, or in words. Either this session's login is not valid any more: then a
// new one over a new connection helps, and the mail goes on. Or it is refused there, too,
// because the account is closed or not set up. Such a session counts as a refused login
// for the time of the next one, although its AUTH was accepted (see breaker), and until the
// relay takes mail again.

// loginWanted takes back what an older session refused for want of a login, and returns
// those recipients. They go once more, over a new connection. What a session refused
// that has taken no mail yet keeps its failure, with the time of the next login.
func (d *delivery) loginWanted(t *transaction) []*mailer.Result {
	if !d.relay.opts.authenticates() {
		return nil
	}
	again := d.conn.tookMail && !d.triedNewLogin
	list := d.conn.noteLogin(t.results, again)
	if len(list) == 0 || !again {
		return nil
	}
	d.conn.retiring, d.triedNewLogin = true, true
	for _, r := range list {
		d.keep(r, r.Failure)
		r.Reply, r.Failure = mailer.Reply{}, noVerdict
	}
	return list
}

// noteLogin records what the results of a transaction say of the session's login, and
// returns those that want a new one. again says that they get it at once: then it is
// that one which tells.
func (c *conn) noteLogin(results []*mailer.Result, again bool) []*mailer.Result {
	var wanted []*mailer.Result
	var judged, took bool
	for _, r := range results {
		took = took || r.Failure == nil
		judged = judged || r.Failure != nil && r.Failure.Reply.Code != 0
		if r.Failure != nil && c.wantsLogin(r.Failure) {
			wanted = append(wanted, r)
		}
	}
	switch {
	case len(wanted) > 0 && again:
		c.relay.account.taken.Store(0)
	case len(wanted) > 0:
		c.loginRefused(wanted)
	case took:
		if c.relay.account.takesMail() {
			c.relay.account.lateShared(c.relay, time.Time{}, false)
		}
	case judged:
		c.relay.account.judged(c.session)
	}
	return wanted
}

// loginRefused records that the relay wants a login on a session that has one. What is
// perhaps about the reverse-path only, such as 530 to MAIL, counts when the connection
// has delivered nothing for as long as it may.
func (c *conn) loginRefused(wanted []*mailer.Result) {
	f := wanted[0].Failure
	switch {
	case c.session == nil, c.tookMail && f.Class != mailer.ClassRelay:
		return
	case f.Class != mailer.ClassRelay && c.fruitless < maxFruitless:
		c.relay.account.judged(c.session)
		return
	}
	c.retiring = true
	told := c.relay.account.refusedLate(c.session, f)
	if login, ok := errors.AsType[*mailer.LoginError](told.Err); ok && !login.Next.IsZero() {
		c.relay.account.lateShared(c.relay, login.Next, false)
	}
	for _, r := range wanted {
		if r.Failure.Class == mailer.ClassRelay {
			r.Failure = told
		}
	}
}

// wantsLogin reports whether a failure means that there is no valid login, though there
// was one.
func (c *conn) wantsLogin(f *mailer.Failure) bool {
	return f.Stage >= mailer.StageMail && f.Reply.Code != 0 && f.Class != mailer.ClassPermanent &&
		c.judgementOf(f).Verdict == relays.Login
}

// refusedLate records that a session which was logged in is refused mail for want of a
// login, and returns f with the time of the next login.
func (a *account) refusedLate(s *session, f *mailer.Failure) *mailer.Failure {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.taken.Store(0)
	a.breaker.refuseLate(s, now)
	a.wake()
	a.late = f
	if a.failure == nil {
		a.failure = f
	}
	a.doubted.Store(true)
	return a.withNextLogin(f, now)
}

// takesMail records that the relay has taken mail, and says whether sessions were refused late
// before.
func (a *account) takesMail() (late bool) {
	a.taken.Store(time.Now().UnixNano())
	if !a.doubted.Load() {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	late = a.breaker.late > 0
	a.doubted.Store(false)
	a.breaker.takesMail()
	if a.failure == a.late {
		a.failure = nil
	}
	a.late = nil
	a.wake()
	return late
}

// judged records that the relay has judged mail of a session otherwise, or ended it. s is
// nil where there was no login.
func (a *account) judged(s *session) {
	if s == nil || !a.doubted.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.breaker.judged(s)
	a.wake()
}

// sentContent records that the relay has let a session come as far as the final dot.
func (a *account) sentContent(s *session) {
	if s == nil || !a.doubted.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.dotAt.IsZero() {
		s.dotAt = time.Now()
		a.wake()
	}
}
