package smtp

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"mailsidecar/mailer"
)

// loginKind is the kind of the notes of accounts.
const loginKind = "login"

const (
	// loginHold is how long a login in progress counts that was not heard of again, loginAsk how
	// long one waits for the place of the note, and loginLook how often it looks whether another
	// instance's login is over.
	loginHold = time.Minute
	loginAsk  = 2 * time.Second
	loginLook = 200 * time.Millisecond
)

// loginNote is what instances tell one another of logins at an account that were not accepted,
// so that they make no more of them than one would: the policy is that of [breaker].
type loginNote struct {
	Refused   int              `json:"refused,omitempty"` // in a row
	Undecided int              `json:"undecided,omitempty"`
	Failed    int              `json:"failed,omitempty"` // ever
	Next      int64            `json:"next,omitempty"`   // no login before, in microseconds by the time of the place
	LateNext  int64            `json:"late_next,omitempty"`
	Begun     map[string]int64 `json:"begun,omitempty"` // logins in progress, and until when they count
	// The reply to the last one that was not accepted.
	Stage    int    `json:"stage,omitempty"`
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Reply    string `json:"reply,omitempty"`
	Text     string `json:"text,omitempty"`
}

// ShareLogins has the logins at the relay's account counted together with those of other
// instances. It must be called before the first login. A place that does not answer holds up no
// login for longer than two seconds: then each instance counts for itself.
func (r *Relay) ShareLogins(note mailer.ChangeNote) {
	o := &r.opts
	// Of the password just enough goes into the name that a new one is tried at once.
	password := sha256.Sum256([]byte(o.Password))
	sum := sha256.Sum256([]byte(o.Host + "\x00" + o.Username + "\x00" + string(password[:2])))
	r.account.note.Store(&sharedLogins{note, hex.EncodeToString(sum[:16])})
}

// sharedLogins is where an account's note is.
type sharedLogins struct {
	change mailer.ChangeNote
	name   string
}

// loginOutcome is what became of a login, as the others are to know it.
type loginOutcome struct {
	result   loginResult
	failure  *mailer.Failure
	at, next time.Time // when it ended, and when this instance would try the next one
	// id names the login in the note, and begun is until when it stands there; zero: it is not
	// known to.
	id        string
	begun     int64
	failedAll int // how many logins had failed before it
}

// maxUntold bounds the outcomes that an instance keeps for the others. Of so many that failed the
// last ones say enough.
const maxUntold = 16

// outcome keeps what became of a login until the others know it. The caller holds the lock.
func (a *account) outcome(c *conn, result loginResult, f *mailer.Failure, now time.Time) {
	if a.note.Load() == nil {
		return
	}
	last := len(a.untold) - 1
	if result == accepted && last >= 0 && a.untold[last].result == accepted && a.untold[last].begun == 0 {
		a.untold = a.untold[:last] // the new one says the same
	}
	if len(a.untold) >= maxUntold {
		a.untold = slices.Delete(a.untold, 0, 1)
	}
	a.untold = append(a.untold, &loginOutcome{result, f, now, a.breaker.next, c.loginID, c.loginBegun, c.failedAll})
	c.loginBegun = 0 // a second login over the connection is another one
}

// addTo adds the outcome to the note, unless it was added before, by a change of which it is not
// known that it was made.
func (o *loginOutcome) addTo(n *loginNote, now time.Time) {
	_, found := n.Begun[o.id]
	delete(n.Begun, o.id)
	if !found && o.begun > now.UnixMicro() {
		return
	}
	switch o.result {
	case accepted:
		if n.Failed == o.failedAll {
			n.Refused, n.Undecided, n.Next = 0, 0, 0
		}
		return
	case refused:
		n.Refused++
		n.Undecided = 0
	case undecided:
		n.Undecided++
	}
	n.Failed++
	if wait := time.Until(o.next); wait > 0 {
		n.Next = max(n.Next, now.Add(wait).UnixMicro())
	}
	if p := (&breaker{refusals: n.Refused, undecided: n.Undecided}).pause() - time.Since(o.at); p > 0 { // of others' refusals, too
		n.Next = max(n.Next, now.Add(p).UnixMicro())
	}
	f := o.failure
	n.Stage, n.Code, n.Enhanced, n.Reply, n.Text = int(f.Stage), f.Reply.Code, f.Reply.Enhanced, f.Reply.Text, f.Text
}

// change tells the others what they do not know yet, has f change the note, and takes over what
// it says then. One at a time: else an outcome might be told twice, or forgotten for an older
// note.
func (a *account) change(ctx context.Context, f func(n *loginNote, now time.Time)) error {
	select {
	case a.telling <- struct{}{}:
		defer func() { <-a.telling }()
	case <-ctx.Done():
		return ctx.Err()
	}
	shared := a.note.Load()
	a.mu.Lock()
	untold := slices.Clone(a.untold)
	a.mu.Unlock()
	var after loginNote
	var at time.Time
	err := shared.change(ctx, loginKind, shared.name, func(value []byte, now time.Time) []byte {
		n := &loginNote{}
		if json.Unmarshal(value, n) != nil {
			n = &loginNote{}
		}
		if n.Begun == nil {
			n.Begun = map[string]int64{}
		}
		for id, until := range n.Begun {
			if until <= now.UnixMicro() {
				delete(n.Begun, id)
			}
		}
		for _, o := range untold {
			o.addTo(n, now)
		}
		f(n, now)
		changed, err := json.Marshal(n)
		if err != nil { // it cannot be
			return value
		}
		after, at = *n, now
		return changed
	})
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.untold = slices.DeleteFunc(a.untold, func(o *loginOutcome) bool { return slices.Contains(untold, o) })
	for _, o := range a.untold { // it came meanwhile
		o.addTo(&after, at)
	}
	a.learn(&after, at)
	return nil
}

// beginShared asks the other instances for a login that this one would try. It ends with
// endShared.
func (a *account) beginShared(ctx context.Context, c *conn) *mailer.Failure {
	if a.note.Load() == nil {
		return nil
	}
	c.loginID, c.loginBegun, c.failedAll = rand.Text(), 0, 0
	for {
		var may bool
		var until int64
		var failed int
		within, cancel := context.WithTimeout(ctx, loginAsk)
		err := a.change(within, func(n *loginNote, now time.Time) {
			may, until, failed = false, now.Add(loginHold).UnixMicro(), n.Failed
			limit := max(1, min(freeRefusals, freeRefusals-n.Refused))
			if n.Undecided > 0 {
				limit = 1
			}
			if max(n.Next, n.LateNext) <= now.UnixMicro() && len(n.Begun) < limit {
				may, n.Begun[c.loginID] = true, until
			}
		})
		cancel()
		if err != nil {
			return nil // it is this instance's breaker that counts
		}
		if may {
			c.loginBegun, c.failedAll = until, failed
			return nil
		}
		if f := a.pausedFailure(c.relay); f != nil {
			a.giveUp()
			return f
		}
		if !waitFor(ctx, nil, time.Now().Add(loginLook)) {
			a.giveUp()
			return c.failed(ctx, mailer.StageAuth, &cause{problem: ProblemSilent, text: "another login took too long", err: ctx.Err()})
		}
	}
}

// learn takes over what others have noted. The caller holds the lock.
func (a *account) learn(n *loginNote, now time.Time) {
	b := &a.breaker
	b.refusals, b.undecided, b.next = n.Refused, n.Undecided, b.lateNext
	if n.Refused+n.Undecided == 0 && n.LateNext == 0 && a.failure != a.late {
		a.failure = nil
	}
	if next := max(n.Next, n.LateNext); next > now.UnixMicro() {
		b.next = laterOf(b.next, time.Now().Add(time.Duration(next-now.UnixMicro())*time.Microsecond))
		if a.failure == nil {
			a.failure = &mailer.Failure{
				Class: mailer.ClassRelay, Stage: mailer.Stage(n.Stage), Text: n.Text, Reply: mailer.Reply{Code: n.Code, Enhanced: n.Enhanced, Text: n.Reply},
			}
		}
	}
	if b.next.After(time.Now()) && a.failure == nil {
		b.next = time.Time{} // nothing is known of why
	}
}

// hearShared looks what others have noted: what keeps logins away may be over.
func (a *account) hearShared(ctx context.Context) {
	if a.note.Load() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, loginAsk)
	defer cancel()
	_ = a.change(ctx, func(*loginNote, time.Time) {})
}

// giveUp ends a login that was not tried.
func (a *account) giveUp() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.breaker.inProgress--
	a.wake()
}

// endShared tells the others what became of a login. What they cannot be told now, the next change
// of the note tells.
func (a *account) endShared(ctx context.Context) {
	if a.note.Load() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginAsk)
	defer cancel()
	_ = a.change(ctx, func(*loginNote, time.Time) {})
}

// lateShared tells the others until when a session that was refused late keeps logins away; zero
// that it does not any more.
func (a *account) lateShared(r *Relay, next time.Time, reset bool) {
	if a.note.Load() == nil {
		return
	}
	if !r.enter() {
		return
	}
	defer r.work.Done()
	wait := time.Until(next)
	r.background(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, loginAsk)
		defer cancel()
		_ = a.change(ctx, func(n *loginNote, now time.Time) {
			switch {
			case reset:
				*n = loginNote{Begun: n.Begun, Failed: n.Failed}
			case next.IsZero():
				n.LateNext = 0
			default:
				n.LateNext = max(n.LateNext, now.Add(wait).UnixMicro())
			}
		})
	})
}
