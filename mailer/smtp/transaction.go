package smtp

import (
	"bytes"
	"context"
	"math"
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
	turn        *turn // within the relay's rate; nil without one
	reversePath string
	params      string // of MAIL, each after a blank
	data        []byte
	messageID   string // for the log of a late verdict
	results     []*mailer.Result
	accepted    []*mailer.Result // by RCPT; they wait for the verdict on the content
	tooMany     []*mailer.Result // refused only because of the number before them
	refused     int              // recipients that were refused for another reason
	last        bool             // of its delivery
	sent        bool             // the envelope was sent behind the content of another message, see pool.send
	began       time.Time        // when the envelope was sent

	// Failures before any content was sent, after which the delivery tries again;
	// nil mostly.
	lost             *mailer.Failure // the relay ended the connection
	badReply         *mailer.Failure // replies do not match the pipelined commands, or do not come
	mailParamRefused *mailer.Failure // MAIL was refused for its parameters
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

// envelope sends MAIL, every RCPT and DATA, and reports whether the content may
// follow: the relay waits for it, and some recipient is accepted. With PIPELINING
// all go in one flight (RFC 2920 §3.1), and every reply is read, whatever those
// before it say.
func (c *conn) envelope(ctx context.Context, t *transaction) bool {
	d := dialogue{conn: c, t: t, ctx: ctx, pipelined: c.ext.has("PIPELINING"), sent: t.sent}
	commands := t.commands(c.dirty)
	// Within a rate the time counts at which the relay reads MAIL, and it may take its
	// time for RSET.
	apart := c.dirty && t.turn != nil
	if d.pipelined && !d.sent && !apart && !d.send(commands) {
		return false
	}
	if c.dirty {
		if !d.reset(commands[0]) {
			return false
		}
		commands = commands[1:]
	}
	switch {
	case d.sent:
	case d.pipelined:
		if !d.send(commands) {
			return false
		}
	default:
		c.relay.pace.written(t.turn)
	}
	mail, ok := d.step(mailer.StageMail, commands[0])
	if !ok {
		return false
	}
	if t.sent {
		if mail.Code == 503 { // the relay read RCPT, but not MAIL
			return d.outOfStep(mailer.StageMail)
		}
		c.relay.distrust.answered()
	}
	if mail.Positive() {
		c.distrustRefused()
	} else {
		f := c.refused(mailer.StageMail, mail)
		if t.params != "" && refusesParameters(mail) {
			t.mailParamRefused = f
		}
		failAll(t.undecided(), f)
		if !d.pipelined {
			return false
		}
	}
	for i, r := range t.results {
		reply, ok := d.step(mailer.StageRcpt, commands[1+i])
		if !ok {
			return false
		}
		if mail.Positive() {
			t.rcpt(c, r, reply)
		}
	}
	c.dirty = mail.Positive()
	if len(t.accepted) == 0 && !d.pipelined {
		return false
	}
	data, ok := d.step(mailer.StageData, commands[len(commands)-1])
	if !ok {
		return false
	}
	return d.data(data)
}

// commands returns RSET where one is needed, MAIL, every RCPT, and DATA.
func (t *transaction) commands(reset bool) []string {
	list := make([]string, 0, len(t.results)+3)
	if reset {
		list = append(list, "RSET\r\n")
	}
	list = append(list, "MAIL FROM:<"+t.reversePath+">"+t.params+"\r\n")
	for _, r := range t.results {
		list = append(list, "RCPT TO:<"+r.ForwardPath+">\r\n")
	}
	return append(list, "DATA\r\n")
}

// rcpt records the reply to the RCPT of one recipient.
func (t *transaction) rcpt(c *conn, r *mailer.Result, reply mailer.Reply) {
	r.Reply = reply
	if reply.Positive() && !relays.Drops(r.Reply) {
		t.accepted = append(t.accepted, r)
		return
	}
	r.Failure = c.refused(mailer.StageRcpt, reply)
	if t.isTooMany(r) {
		r.Failure.Class = mailer.ClassTransient
		t.tooMany = append(t.tooMany, r)
		return
	}
	t.refused++
}

// isTooMany reports whether a recipient was refused because of the number of
// recipients before it (RFC 5321 §4.5.3.1.10). Some relays, such as Exim, count
// refused ones, too.
func (t *transaction) isTooMany(r *mailer.Result) bool {
	switch {
	case r.Reply.Code != 452 && r.Reply.Code != 552, r.Failure.Class == mailer.ClassRelay:
		return false
	case len(t.accepted) > 0:
		return true
	default:
		return t.refused > 0 && (strings.HasSuffix(r.Reply.Enhanced, ".5.3") ||
			strings.Contains(strings.ToLower(r.Reply.Text), "too many recipients"))
	}
}

// dialogue is the exchange of one envelope: all commands at once, or one by one.
type dialogue struct {
	conn      *conn
	t         *transaction
	ctx       context.Context
	pipelined bool
	sent      bool // all commands are; else each step sends its own
}

// reset ends the transaction before this one.
func (d *dialogue) reset(command string) bool {
	c := d.conn
	reply, ok := d.step(mailer.StageMail, command)
	if !ok {
		return false
	}
	if !reply.Positive() {
		d.lose(c.failed(d.ctx, mailer.StageMail, readCause(errReplyMalformed)))
		return false
	}
	c.dirty = false
	if c.fruitless > 2 { // this one, the last and one before
		c.resets++
	}
	return true
}

// send sends commands in one flight, MAIL among them. Without success it ends the
// transaction and closes the connection.
func (d *dialogue) send(commands []string) bool {
	flight := strings.Join(commands, "")
	_, err := d.conn.write(d.ctx, d.conn.relay.opts.Timeouts.Command, []byte(flight))
	d.sent = true
	d.conn.relay.pace.written(d.t.turn)
	if err != nil {
		d.broken(mailer.StageMail, err)
	}
	return err == nil
}

// step sends a command, unless it was sent already, and reads its reply. Without a
// reply, or with 421, it ends the transaction, closes the connection and returns
// false.
func (d *dialogue) step(stage mailer.Stage, command string) (mailer.Reply, bool) {
	timeouts := d.conn.relay.opts.Timeouts
	limit := timeouts.Command
	switch {
	case stage == mailer.StageData:
		limit = timeouts.Data
	case stage == mailer.StageMail && d.t.sent:
		limit = min(limit, bookedReplyTimeout)
	case d.conn.stale:
		limit = min(limit, staleTimeout)
	}
	var err error
	if !d.sent {
		_, err = d.conn.write(d.ctx, limit, []byte(command))
	}
	var r mailer.Reply
	if err == nil {
		r, err = d.conn.read(d.ctx, limit)
	}
	switch {
	case err != nil:
		d.broken(stage, err)
		return r, false
	case r.Code == 421:
		d.lose(d.conn.refused(stage, r))
		return r, false
	case stage != mailer.StageData && r.Code/100 == 3, !d.pipelined && d.conn.br.Buffered() > 0:
		return r, d.outOfStep(stage)
	default:
		d.conn.stale = false
		return r, true
	}
}

// broken ends the transaction and closes the connection because no valid reply
// came.
func (d *dialogue) broken(stage mailer.Stage, err error) {
	f := d.conn.failed(d.ctx, stage, readCause(err))
	switch ProblemOf(f) {
	case ProblemDropped:
		d.lose(f)
		return
	case ProblemNotSMTP:
		if d.pipelined {
			d.t.badReply = f
		}
	case ProblemSilent:
		switch {
		case d.conn.stale:
			d.lose(f)
			return
		case d.t.sent:
			d.t.badReply = f
		case d.pipelined && stage > mailer.StageMail && d.ctx.Err() == nil:
			// MAIL was answered, but not the commands in the same flight: the relay may
			// have discarded them.
			d.conn.relay.switchOff("PIPELINING", f)
		}
	default: // a fault of the network
	}
	failAll(d.t.undecided(), f)
	d.conn.abort(d.ctx)
}

// suspect returns the extension to distrust after badReply.
func (t *transaction) suspect() string {
	if t.sent {
		return behindDot
	}
	return "PIPELINING"
}

// lose ends the transaction because the relay ended the connection.
func (d *dialogue) lose(f *mailer.Failure) {
	d.t.lost = f
	if d.t.sent && f.Stage == mailer.StageMail && f.Reply.Code == 0 {
		d.conn.relay.endedBehind(d.t.began, f)
	}
	failAll(d.t.undecided(), f)
	d.conn.close()
}

// outOfStep ends a dialogue whose replies no longer match its commands.
func (d *dialogue) outOfStep(stage mailer.Stage) bool {
	d.broken(stage, errReplyMalformed)
	return false
}

// distrustRefused switches off the extensions with whose parameters MAIL was
// refused, once MAIL is accepted without them.
func (c *conn) distrustRefused() {
	for _, keyword := range c.refusedExtensions {
		c.relay.switchOff(keyword, &mailer.Failure{Stage: mailer.StageMail, Text: "MAIL is accepted only without it"})
	}
	c.refusedExtensions = nil
}

// data reads the reply to DATA and reports whether the content may follow. A 354
// although all recipients were refused means that the relay is out of step, and
// might deliver to unknown recipients: the connection is closed without a final
// dot, which ends the transaction without mail.
func (d *dialogue) data(r mailer.Reply) bool {
	switch {
	case d.conn.br.Buffered() > 0: // more replies than commands
		return d.outOfStep(mailer.StageData)
	case r.Code == 354 && len(d.t.accepted) > 0:
		return true
	case r.Code == 354:
		d.conn.close()
		return false
	case r.Code < 400:
		return d.outOfStep(mailer.StageData)
	default:
		failAll(d.t.undecided(), d.conn.refused(mailer.StageData, r))
		return false
	}
}

// content writes the message with the final dot, and in the same flight the
// envelope of a delivery that books the connection. It returns false when the dot
// was not sent.
func (c *conn) content(ctx context.Context, t *transaction) bool {
	buf := slices.Grow(c.buf[:0], min(len(t.data), contentChunk)+min(len(t.data), contentChunk)/64+maxTail)
	defer func() { c.buf = buf }()
	for rest, dot := t.data, math.MaxInt; ; {
		piece := rest[:min(len(rest), contentChunk)]
		lineStart := len(rest) == len(t.data) || t.data[len(t.data)-len(rest)-1] == '\n'
		rest = rest[len(piece):]
		buf = appendStuffed(buf[:0], piece, lineStart)
		if len(rest) == 0 {
			if !bytes.HasSuffix(t.data, []byte("\r\n")) {
				buf = append(buf, "\r\n"...)
			}
			buf = append(buf, ".\r\n"...)
			dot = len(buf)
			if t.last && len(t.tooMany) == 0 {
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
	c.verdict(t, a)
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
	if t.last && len(t.tooMany) == 0 {
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

// verdict gives the accepted recipients the verdict by the reply to the final dot.
func (c *conn) verdict(t *transaction, a answer) {
	c.dirty = false
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
		c.fruitless = 0
	}
	for _, r := range t.accepted {
		r.Reply, r.Failure = a.reply, nil
		if !a.reply.Positive() || notAcceptedFor(a.reply, r.ForwardPath, len(t.accepted)) {
			r.Failure = c.refused(mailer.StageContent, a.reply)
		}
	}
}

// notAcceptedFor reports whether a positive reply says that the mail is dropped for
// this recipient: it names the recipient, or there is only one.
func notAcceptedFor(reply mailer.Reply, forwardPath string, recipients int) bool {
	return relays.Drops(reply) &&
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
