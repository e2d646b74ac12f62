package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

const (
	// ladderGrace is how long a rung that could log in waits for the rungs before it.
	ladderGrace = time.Second
	// othersDelay is how long the rungs have until other ports are tried, too.
	othersDelay = time.Second
)

// checkup is one run of [Relay.Check].
type checkup struct {
	relay  *Relay
	reach  *reach
	sender string

	checks []RungCheck // by rung
	conns  []*conn     // by rung; nil before it is open, and after it was used
	found  chan rungFound
	left   int  // rungs that are not through
	usable bool // some rung got as far as the login

	answered       bool // the relay has judged a login, or none is wanted
	loginTried     bool
	senderTried    bool
	senderAccepted bool

	others []RungCheck // by other port; nil when they were not tried
	extra  sync.WaitGroup
	stop   context.CancelFunc // ends the check of other ports
}

// rungFound is how far a rung came.
type rungFound struct {
	rung  int
	check RungCheck
	conn  *conn
}

func newCheckup(r *Relay, addresses []string, sender string) *checkup {
	n := len(r.opts.Ladder)
	return &checkup{
		relay: r, reach: newReach(r, addresses), sender: sender,
		checks: make([]RungCheck, n), conns: make([]*conn, n), found: make(chan rungFound, n), left: n,
		answered: !r.opts.authenticates(), stop: func() {},
	}
}

// run tries the rungs, and logs in as soon as may be. It returns when all is done.
func (k *checkup) run(ctx context.Context) {
	for i, rung := range k.relay.opts.Ladder {
		k.relay.background(func(context.Context) {
			check, c := k.relay.checkRung(ctx, k.reach, rung)
			k.found <- rungFound{i, check, c}
		})
	}
	others := time.NewTimer(othersDelay)
	defer others.Stop()
	var grace <-chan time.Time
	for waited := false; ; {
		if i := k.next(waited); i >= 0 {
			k.use(ctx, i)
			continue
		}
		if k.left == 0 {
			break
		}
		select {
		case f := <-k.found:
			k.record(f)
			if f.conn != nil && grace == nil {
				grace = time.After(ladderGrace)
			}
		case <-grace:
			waited = true
		case <-others.C:
			k.tryOthers(ctx)
		}
	}
	k.tryOthers(ctx)
	k.extra.Wait()
	k.stop()
}

// record notes how far a rung came.
func (k *checkup) record(f rungFound) {
	k.left--
	k.checks[f.rung], k.conns[f.rung] = f.check, f.conn
	if f.conn == nil {
		return
	}
	k.usable = true
	k.stop()
	if k.answered && k.senderDone() {
		k.leave(f.rung)
	}
}

// senderDone reports whether the sender needs no further try.
func (k *checkup) senderDone() bool { return k.sender == "" || k.senderTried }

// next returns the rung to log in on, or to try the sender on: the first in the
// ladder's order that is open, once those before it are through or have had their
// time. It returns -1 while there is none.
func (k *checkup) next(waited bool) int {
	if k.answered && k.senderDone() {
		return -1
	}
	for i, c := range k.conns {
		switch {
		case c != nil:
			return i
		case k.checks[i].Port == 0 && !waited: // not through
			return -1
		}
	}
	return -1
}

// use logs in on a rung and tries the sender. Where the relay does not answer, the next
// rung has its turn.
func (k *checkup) use(ctx context.Context, i int) {
	if !k.answered {
		before := k.checks[i]
		k.answered = checkLogin(ctx, &k.checks[i], k.conns[i])
		if k.loginTried && k.checks[i].Auth == authPaused { // because of the one on another rung
			k.checks[i] = before
		}
		k.loginTried = true
	}
	if k.sender != "" && k.checks[i].Failure == nil {
		k.trySender(ctx, i)
	}
	k.leave(i)
	if k.answered && k.senderDone() || k.checks[i].Auth != authAccepted && k.answered && k.relay.opts.authenticates() {
		k.sender = k.triedSender()
		for j, c := range k.conns {
			if c != nil {
				k.leave(j)
			}
		}
	}
}

// triedSender is the sender, if it was tried.
func (k *checkup) triedSender() string {
	if k.senderTried {
		return k.sender
	}
	return ""
}

// leave says QUIT.
func (k *checkup) leave(i int) {
	k.conns[i].quit()
	k.conns[i] = nil
}

// trySender says MAIL and takes it back.
func (k *checkup) trySender(ctx context.Context, i int) {
	begin := time.Now()
	f := k.conns[i].trySender(ctx, k.sender)
	k.checks[i].Millis += time.Since(begin).Milliseconds()
	k.senderTried, k.senderAccepted = true, f == nil
	if f != nil {
		k.checks[i].Failure = checkFailure(f)
	}
}

// trySender tries whether the relay takes mail of that reverse-path.
func (c *conn) trySender(ctx context.Context, reversePath string) *mailer.Failure {
	ctx, cancel := context.WithTimeout(ctx, c.relay.opts.Timeouts.Hello)
	defer cancel()
	release := c.bind(ctx)
	defer release()
	command := "MAIL FROM:<" + reversePath + ">"
	if !mailer.IsASCII(reversePath) {
		if !c.ext.has("SMTPUTF8") {
			return c.failed(ctx, mailer.StageMail, &cause{problem: ProblemSender, text: "the sender's address needs SMTPUTF8, which the relay does not offer"})
		}
		command += " SMTPUTF8"
	}
	w, f := c.exchange(ctx, mailer.StageMail, command)
	if f != nil {
		return f
	}
	if r := w.reply(); !r.Positive() {
		f = c.refused(mailer.StageMail, r)
		if ProblemOf(f) == ProblemOther {
			f.Err = &cause{problem: senderProblem(r), text: "the relay does not take mail of this sender"}
		}
		return f
	}
	// Whatever it says: QUIT follows.
	_, _ = c.exchange(ctx, mailer.StageMail, "RSET")
	return nil
}

func senderProblem(r mailer.Reply) Problem {
	if r.Code/100 == 4 {
		return ProblemBusy
	}
	return ProblemSender
}

// tryOthers tries other ports in the background, once, as long as no rung can take
// mail.
func (k *checkup) tryOthers(ctx context.Context) {
	if k.others != nil || k.usable || ctx.Err() != nil {
		return
	}
	ports := k.otherPorts()
	k.others = make([]RungCheck, len(ports))
	ctx, k.stop = context.WithTimeout(ctx, 2*k.relay.opts.Timeouts.Connect)
	for i, rung := range ports {
		k.extra.Go(func() {
			check, c := k.relay.checkRung(ctx, k.reach, rung)
			if k.others[i] = check; c != nil {
				c.quit()
			}
		})
	}
}

// otherPorts are those that are not in the ladder, with TLS as their numbers imply.
func (k *checkup) otherPorts() []mailer.Rung {
	o := &k.relay.opts
	var known []int
	for _, rung := range o.Ladder {
		known = append(known, rung.Port)
	}
	var rungs []mailer.Rung
	for _, port := range relays.OtherPorts(o.Host, known) {
		if rung := (mailer.Rung{Port: port, Implicit: relays.ImplicitTLS(port), Clear: o.Cleartext}); !rung.Implicit || !rung.Clear {
			rungs = append(rungs, rung)
		}
	}
	return rungs
}

// otherChecks are those of other ports; nil where some rung got as far as the login.
func (k *checkup) otherChecks() []RungCheck {
	if k.usable {
		return nil
	}
	return k.others
}

// checkRung opens one rung, up to its last EHLO. The conn is nil when it did not get
// so far.
func (r *Relay) checkRung(ctx context.Context, x *reach, rung mailer.Rung) (RungCheck, *conn) {
	begin := time.Now()
	to := &attempt{reach: x, ctx: ctx}
	c := r.newConn(rung)
	c.dialer = to.dial
	f := r.openChecked(ctx, c)
	check := RungCheck{
		Port: rung.Port, Mode: rung.Mode(), TCP: tcpOpen, TCPMillis: c.dialled.Milliseconds(),
		Banner: c.banner, Auth: authNotTried, TLS: tlsCheck(c, f),
		Mechanisms: strings.Fields(strings.ToUpper(mailer.Printable(c.ext["AUTH"], maxReplyText))),
	}
	if c.raw != nil {
		check.Address = c.raw.RemoteAddr().String()
	} else {
		check.TCP = tcpState(ProblemOf(f))
	}
	for _, line := range c.ehlo {
		check.Capabilities = append(check.Capabilities, mailer.Printable(line, maxReplyText))
	}
	if f != nil {
		check.Failure, c = checkFailure(f), nil
	}
	check.Millis = time.Since(begin).Milliseconds()
	check.Families = to.wait()
	return check, c
}

// openChecked opens c. While the relay sends no greeting, it looks whether the port
// expects TLS from the first octet.
func (r *Relay) openChecked(ctx context.Context, c *conn) *mailer.Failure {
	if c.rung.Implicit {
		return c.open(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.opening = &opening{began: time.Now()}
	var probe sync.WaitGroup
	probe.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-c.up:
		}
		silent := sleep(ctx, r.opts.Timeouts.Connect) && c.opening.stage.Load() == int32(mailer.StageGreeting)
		if silent && r.speaksTLS(ctx, c.raw.RemoteAddr()) {
			cancel(errSpeaksTLS)
		}
	})
	f := c.open(ctx)
	quiet := f != nil && c.raw != nil && f.Stage == mailer.StageGreeting && f.Reply.Code == 0
	if found := errors.Is(context.Cause(ctx), errSpeaksTLS); quiet && (found || ProblemOf(f) == ProblemDropped && r.speaksTLS(ctx, c.raw.RemoteAddr())) {
		f.Class = mailer.ClassRelay
		why := &cause{problem: ProblemTLSMode, text: "wrong TLS mode: the port speaks TLS from the first octet"}
		f.Text, f.Err = why.text, why
	}
	cancel(nil)
	probe.Wait()
	return f
}

// errSpeaksTLS ends the wait for a greeting that does not come before TLS.
var errSpeaksTLS = errors.New("the port speaks TLS from the first octet")

// speaksTLS reports whether a port that sends no greeting expects TLS from the first
// octet.
func (r *Relay) speaksTLS(ctx context.Context, at net.Addr) bool {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeouts.Connect)
	defer cancel()
	raw, err := r.opts.Dial(ctx, "tcp", at.String())
	if err != nil {
		return false
	}
	defer raw.Close()
	err = tls.Client(raw, (&conn{relay: r}).tlsConfig()).HandshakeContext(ctx)
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	return err == nil || unverified
}

// checkLogin logs in and reports whether the relay answered.
func checkLogin(ctx context.Context, check *RungCheck, c *conn) bool {
	begin := time.Now()
	check.Mechanism, _ = c.mechanism(ctx)
	f := c.login(ctx)
	check.Millis += time.Since(begin).Milliseconds()
	if f == nil {
		check.Auth = authAccepted
		return true
	}
	check.Failure = checkFailure(f)
	if f.Reply.Code != 0 {
		check.Auth = authRefused
	}
	if why, ok := errors.AsType[*mailer.LoginError](f.Err); ok {
		check.NextLogin = why.Next.UTC()
		if !why.Tried {
			check.Auth = authPaused
			return true
		}
	}
	return f.Reply.Code != 0
}
