package smtp

import (
	"bytes"
	"context"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

// contentChunk is how much of the content, in octets, is written at once, and so how
// much the relay must accept within Timeouts.Write.
const contentChunk = 64 << 10

// bookedReplyTimeout limits the wait for the first reply to an envelope that was sent
// behind the content of another message. Some relays and firewalls discard what
// follows the final dot.
const bookedReplyTimeout = 10 * time.Second

const (
	// staleAfter is the idle time after which a connection may have been lost without
	// notice: firewalls and address translation forget connections, and then drop
	// their packets.
	staleAfter = 5 * time.Second
	// staleTimeout limits the wait for the first reply on such a connection. The
	// commands, without content, are then sent again on a new connection, where a
	// slow relay has all its time.
	staleTimeout = 10 * time.Second
	// bookedWriteTimeout limits the write of an envelope on a connection whose
	// holder waits for the reply to its content. The envelope is small, and the
	// relay has read what was before it.
	bookedWriteTimeout = time.Second
)

// transaction is one MAIL, its RCPTs and the content, on one connection.
type transaction struct {
	turn        *turn       // within the relay's rate; nil without one
	expires     time.Time   // when it is too late for MAIL; zero means never
	maySend     func() bool // see [mailer.Envelope]; nil means always
	reversePath string
	params      string // of MAIL, each after a blank
	data        []byte
	messageID   string // for the log of a late verdict
	results     []*mailer.Result
	accepted    []*mailer.Result // by RCPT; they wait for the verdict on the content
	// again are recipients for a further transaction: refused only because of the number
	// before them, or in the form in which they were named.
	again []*mailer.Result
	// quoted are the recipients whose local part is quoted in RCPT, see rcptTo.
	quoted   map[*mailer.Result]bool
	refused  int       // recipients that were refused for another reason
	last     bool      // of its delivery
	sent     bool      // the envelope was sent behind the content of another message, see pool.send
	lockStep bool      // without PIPELINING, though the relay offers it
	careful  bool      // in lock-step, and not repeated, see delivery.doubtful
	began    time.Time // when the envelope was sent
	// loginDoubted says that the relay may have forgotten the login before it began, see
	// delivery.doubtLogin.
	loginDoubted bool

	// Failures before any content was sent, after which the delivery tries again;
	// nil mostly.
	lost             *mailer.Failure // the relay ended the connection
	badReply         *mailer.Failure // replies do not match the pipelined commands, or do not come
	mailParamRefused *mailer.Failure // MAIL was refused for its parameters
	sessionFull      *mailer.Failure // MAIL was refused because of the messages before it
	// stopped is the failure where maySend said no.
	stopped *mailer.Failure
	// notBegun says that the relay had not ended the transaction before, and so did
	// not begin this one.
	notBegun bool
	// doubtful are recipients that were refused for good before the relay ended the
	// connection: without proof that the replies are theirs.
	doubtful []*mailer.Result
}

// reopen takes f back from the recipients that it failed, and returns them.
func (t *transaction) reopen(f *mailer.Failure) []*mailer.Result {
	var list []*mailer.Result
	for _, r := range t.results {
		if r.Failure == f {
			r.Reply, r.Failure = mailer.Reply{}, noVerdict
			list = append(list, r)
		}
	}
	return list
}

// failAll gives every recipient in list the failure f.
func failAll(list []*mailer.Result, f *mailer.Failure) {
	for _, r := range list {
		r.Reply, r.Failure = f.Reply, f
	}
}

// undecided returns the recipients without a verdict.
func (t *transaction) undecided() []*mailer.Result {
	var list []*mailer.Result
	for _, r := range t.results {
		if r.Failure == noVerdict {
			list = append(list, r)
		}
	}
	return list
}

// noVerdict is the failure of a recipient that has no verdict yet. No attempt
// returns it.
var noVerdict = &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageMail, Text: "not tried"}

// transact runs one transaction and gives its recipients their verdicts. Afterwards
// the connection is dead, or fit for another transaction.
func (c *conn) transact(ctx context.Context, t *transaction) {
	c.served++
	c.fruitless++
	t.loginDoubted = c.loginDoubted
	if !t.sent {
		t.began = time.Now()
	}
	release := c.bind(ctx)
	defer release()
	ok := c.envelope(ctx, t)
	if ok {
		ok = c.content(ctx, t)
	}
	release()
	if ok {
		c.finalReply(ctx, t)
	}
}

// content writes the message with the final dot, and in the same flight the
// envelope of a delivery that books the connection. It returns false when the dot
// was not sent.
func (c *conn) content(ctx context.Context, t *transaction) bool {
	buf := slices.Grow(c.buf[:0], min(len(t.data), contentChunk)+min(len(t.data), contentChunk)/64+maxTail)
	defer func() { c.buf = buf }()
	for rest, dot := t.data, math.MaxInt; ; {
		if !c.maySend(t) {
			return false
		}
		piece := rest[:min(len(rest), contentChunk)]
		lineStart := len(rest) == len(t.data) || t.data[len(t.data)-len(rest)-1] == '\n'
		rest = rest[len(piece):]
		buf = appendStuffed(buf[:0], piece, lineStart)
		if len(rest) == 0 {
			if !bytes.HasSuffix(t.data, []byte("\r\n")) {
				buf = append(buf, "\r\n"...)
			}
			if t.maySend != nil {
				// The relay may take its time to read what is before the dot: what is asked before
				// the dot must be as new as can be.
				if _, err := c.write(ctx, c.relay.opts.Timeouts.Write, buf); err != nil {
					c.cutShort(ctx, t, err)
					return false
				}
				if buf = buf[:0]; !c.maySend(t) {
					return false
				}
			}
			buf = append(buf, ".\r\n"...)
			dot = len(buf)
			if t.last && len(t.again) == 0 {
				buf = c.appendNext(buf)
			}
		}
		n, err := c.write(ctx, c.relay.opts.Timeouts.Write, buf)
		if n >= dot {
			return true
		}
		if err != nil {
			c.cutShort(ctx, t, err)
			return false
		}
	}
}

// maySend asks whether the transaction may go on. Otherwise it ends the connection: what was
// sent of the content has no end then.
func (c *conn) maySend(t *transaction) bool {
	if t.maySend == nil || t.maySend() {
		return true
	}
	t.stopped = c.relay.stoppedFailure()
	failAll(t.undecided(), t.stopped)
	c.close()
	return false
}

// maxTail is room for the final dot and most envelopes behind it, in octets.
const maxTail = 512

// appendNext appends the envelope of the delivery that books the connection, if
// one waits.
func (c *conn) appendNext(buf []byte) []byte {
	if w := c.relay.pool.book(c); w != nil && c.relay.pool.send(w) {
		buf = w.booked.append(buf)
	}
	return buf
}

// append appends the commands of the envelope, which is sent now.
func (t *transaction) append(buf []byte) []byte {
	t.began = time.Now()
	for _, command := range t.commands(false) {
		buf = append(buf, command...)
	}
	return buf
}

// sendNext sends the envelope of a delivery that booked the connection after the
// content was sent. A failure does not end the wait for the reply to the content.
func (c *conn) sendNext() {
	if !c.relay.pool.send(c.next) {
		return
	}
	buf := c.next.booked.append(c.buf[:0])
	c.raw.SetWriteDeadline(time.Now().Add(bookedWriteTimeout))
	if _, err := c.nc.Write(buf); err != nil {
		c.partialWrite = true
	}
	c.buf = buf
}

// refusalTimeout limits the wait for a reply from a relay that stopped reading the
// content.
const refusalTimeout = time.Second

// cutShort ends a transaction whose content could not be written. The relay may have
// said why, such as 552, before it closed the connection.
func (c *conn) cutShort(ctx context.Context, t *transaction, err error) {
	f := c.failed(ctx, mailer.StageContent, readCause(err))
	if ctx.Err() == nil {
		if r, err := c.read(ctx, refusalTimeout); err == nil && r.Code >= 400 {
			f = c.refused(mailer.StageContent, r)
		}
	}
	failAll(t.undecided(), f)
	c.abort(ctx)
}

// appendStuffed appends data with each dot that starts a line doubled (RFC 5321
// §4.5.2).
func appendStuffed(dst, data []byte, lineStart bool) []byte {
	if lineStart && len(data) > 0 && data[0] == '.' {
		dst = append(dst, '.')
	}
	for {
		i := bytes.Index(data, []byte("\n."))
		if i < 0 {
			return append(dst, data...)
		}
		dst = append(append(dst, data[:i+2]...), '.')
		data = data[i+2:]
	}
}

// answer is the reply to the final dot, or why there is none.
type answer struct {
	reply mailer.Reply
	err   error
}

// finalReply waits for the verdict on the content. When ctx ends first, the
// recipients become uncertain at once, and a listener that logs the late verdict
// gets the connection.
func (c *conn) finalReply(ctx context.Context, t *transaction) {
	begin := time.Now()
	c.relay.account.sentContent(c.session)
	c.arm(context.WithoutCancel(ctx), c.relay.opts.Timeouts.Dot)
	answers := make(chan answer, 1)
	c.relay.background(func(context.Context) {
		reply, err := readReply(c.br)
		answers <- answer{reply, err}
	})
	a, ok := c.awaitReply(ctx, t, answers)
	if !ok {
		late, listener := *t, *c
		late.accepted, late.data, late.turn, listener.next = cloneResults(t.accepted), nil, c.behind(), nil
		quit := c.next == nil || !c.next.booked.sent
		failAll(t.undecided(), c.unanswered(&cause{problem: ProblemSilent, text: "the relay did not answer the final dot in time"}))
		c.dead = true // for the holder; the listener has the socket now
		c.relay.pool.handToListener()
		c.relay.background(func(ctx context.Context) { listener.listenLate(ctx, &late, answers, quit) })
		return
	}
	c.recordVerdict(t, a)
	if a.err == nil && !a.reply.Positive() && t.refusedForGood(t.accepted) {
		c.proveContentRefused(ctx, t)
	}
	switch wait := time.Since(begin); {
	case !t.anyAccepted():
	case len(t.data) > contentChunk: // the network takes most of the wait
		c.relay.pool.accepted(c, 0)
	default:
		c.relay.pool.accepted(c, wait)
	}
}

// behind takes the turn of the envelope that was sent behind the content, if there is
// one: the relay reads its MAIL only after the content.
func (c *conn) behind() *turn {
	if c.next == nil || !c.next.booked.sent {
		return nil
	}
	t := c.next.booked.turn
	c.next.booked.turn = nil
	return t
}

// awaitReply waits for the reply to the final dot, and lets another delivery book
// the connection until then. It returns false when ctx ends first.
func (c *conn) awaitReply(ctx context.Context, t *transaction, answers <-chan answer) (answer, bool) {
	if t.last && len(t.again) == 0 {
		c.relay.pool.offer(c)
		defer c.relay.pool.withdraw(c)
	}
	for {
		select {
		case a := <-answers:
			return a, true
		case <-c.booked:
			c.sendNext()
			continue
		case <-ctx.Done():
		}
		select {
		case a := <-answers: // both at once
			return a, true
		default:
			return answer{}, false
		}
	}
}

// recordVerdict gives the accepted recipients the verdict by the reply to the final
// dot. A refusal may leave the transaction open, as Postfix's
// smtpd_end_of_data_restrictions do.
func (c *conn) recordVerdict(t *transaction, a answer) {
	c.dirty = !a.reply.Positive()
	if a.err != nil {
		c.close()
		f := c.unanswered(readCause(a.err))
		if w := c.next; w != nil && w.booked.sent && ProblemOf(f) == ProblemDropped {
			c.relay.endedBehind(w.booked.began, f)
		}
		failAll(t.accepted, f)
		return
	}
	if a.reply.Code == 421 || a.reply.Code/100 == 3 || c.partialWrite {
		c.close()
	}
	if a.reply.Positive() {
		c.fruitless, c.tookMail = 0, true
	}
	for _, r := range t.accepted {
		r.Reply, r.Failure = a.reply, nil
		if !a.reply.Positive() || c.notAcceptedFor(a.reply, r.ForwardPath, len(t.accepted)) {
			r.Failure = c.refused(mailer.StageContent, a.reply)
		}
	}
}

// proveContentRefused proves that what was refused for good was refused by the reply to
// the final dot, see fence. A relay that has closed the connection says no more. Where
// the next envelope was sent behind the dot, nothing else can be sent.
func (c *conn) proveContentRefused(ctx context.Context, t *transaction) {
	if c.dead || c.next != nil && c.next.booked.sent {
		return
	}
	release := c.bind(ctx)
	defer release()
	d := dialogue{conn: c, t: &transaction{}, ctx: ctx}
	if d.fence() {
		return
	}
	switch lost := d.t.lost; {
	case lost != nil && ProblemOf(lost) == ProblemDropped:
	case lost != nil && lost.Reply.Code != 0:
		failAll(t.accepted, c.refused(mailer.StageContent, lost.Reply))
	case lost != nil:
		failAll(t.accepted, c.unanswered(readCause(os.ErrDeadlineExceeded)))
	case ctx.Err() != nil:
		failAll(t.accepted, c.failed(ctx, mailer.StageContent, readCause(ctx.Err())))
	default:
		failAll(t.accepted, c.unanswered(readCause(errReplyMalformed)))
	}
}

// notAcceptedFor reports whether a positive reply says that the mail is dropped for
// this recipient: it names the recipient, or there is only one.
func (c *conn) notAcceptedFor(reply mailer.Reply, forwardPath string, recipients int) bool {
	return relays.Drops(c.relay.opts.Host, mailer.StageContent, reply) &&
		(recipients == 1 || strings.Contains(strings.ToLower(reply.Text), strings.ToLower(forwardPath)))
}

// unanswered returns the failure of a final dot without a valid reply.
func (c *conn) unanswered(why *cause) *mailer.Failure {
	return c.failure(mailer.ClassUncertain, mailer.StageContent, why)
}

func cloneResults(list []*mailer.Result) []*mailer.Result {
	clones := make([]*mailer.Result, len(list))
	for i, r := range list {
		clone := *r
		clones[i] = &clone
	}
	return clones
}
