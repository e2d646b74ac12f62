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

// contentChunk is how much of the content is written at once, and so how much
// must be taken within Timeouts.Write.
const contentChunk = 64 << 10

// bookedTimeout bounds the wait for the first reply to an envelope that went out
// behind the content of another message. Some relays and firewalls discard what
// follows the final dot.
const bookedTimeout = 10 * time.Second

const (
	// staleAfter is how long a connection must have been idle to be taken for one
	// that may have been lost without a word: firewalls and address translation
	// forget connections, and then packets go nowhere.
	staleAfter = 5 * time.Second
	// staleTimeout bounds the wait for the first reply on such a connection. What
	// was sent holds no content and is sent again on a new one, where a slow relay
	// has all its time.
	staleTimeout = 10 * time.Second
	// joinTimeout bounds the write of an envelope that joins a connection whose
	// holder waits for its reply. It is small, and the relay has read what was
	// before it or is about to.
	joinTimeout = time.Second
)

// transaction is one MAIL, its RCPTs and the content, on one connection.
type transaction struct {
	reversePath string
	params      string // of MAIL, each after a blank
	data        []byte
	messageID   string // for the log of a late verdict
	results     []*mailer.Result
	accepted    []*mailer.Result // by RCPT, and waiting for the content's verdict
	refused     int              // recipients that RCPT was refused for their own sake
	// tooMany were refused only because of those before them.
	tooMany []*mailer.Result
	last    bool      // of its delivery
	sent    bool      // the envelope has gone out behind the content before it
	began   time.Time // when it went out
	// The failure of a dialogue without content that may go better next time: the
	// relay ended the connection, replies did not match the commands that were
	// pipelined or did not come for those behind the content of another message,
	// or MAIL was refused for its parameters. Nil mostly.
	lost, misstep, barred *mailer.Failure
}

// reopen undoes what f has settled, and returns those recipients.
func (t *transaction) reopen(f *mailer.Failure) []*mailer.Result {
	var list []*mailer.Result
	for _, r := range t.results {
		if r.Failure == f {
			r.Reply, r.Failure = mailer.Reply{}, errOpen
			list = append(list, r)
		}
	}
	return list
}

// settle gives every recipient in list the same failure.
func settle(list []*mailer.Result, f *mailer.Failure) {
	for _, r := range list {
		r.Reply, r.Failure = f.Reply, f
	}
}

// open returns the recipients that no reply has settled yet.
func (t *transaction) open() []*mailer.Result {
	var list []*mailer.Result
	for _, r := range t.results {
		if r.Failure == errOpen {
			list = append(list, r)
		}
	}
	return list
}

// errOpen marks a recipient without a verdict. No attempt returns it.
var errOpen = &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageMail, Text: "not tried"}

// transact runs one transaction and settles its recipients. Afterwards the
// connection is dead, or fit for another one.
func (c *conn) transact(ctx context.Context, t *transaction) {
	c.served++
	c.vain++
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

// envelope sends MAIL, every RCPT and DATA, and says whether the content may
// follow: the relay waits for it, and some recipient is accepted. Where
// PIPELINING is offered all go in one flight (RFC 2920 §3.1), and then every
// reply is read whatever the ones before it say.
func (c *conn) envelope(ctx context.Context, t *transaction) bool {
	d := dialogue{conn: c, t: t, ctx: ctx, pipelined: c.ext.has("PIPELINING")}
	commands := t.commands(c.dirty)
	if d.pipelined && !t.sent && !d.send(strings.Join(commands, "")) {
		return false
	}
	if c.dirty {
		reset, ok := d.step(mailer.StageMail, commands[0])
		if !ok {
			return false
		}
		if !reset.Positive() {
			d.lose(c.failed(ctx, mailer.StageMail, readCause(errReplyMalformed)))
			return false
		}
		c.dirty = false
		if c.vain > 2 { // this one, the last and one before
			c.resets++
		}
		commands = commands[1:]
	}
	mail, ok := d.step(mailer.StageMail, commands[0])
	if !ok {
		return false
	}
	if t.sent {
		if mail.Code == 503 { // RCPT was heard, MAIL was not
			return d.outOfStep(mailer.StageMail)
		}
		c.relay.distrust.heard()
	}
	if mail.Positive() {
		c.confirmDoubts()
	} else {
		f := c.refused(mailer.StageMail, mail)
		if t.params != "" && refusesParameters(mail) {
			t.barred = f
		}
		settle(t.open(), f)
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

// commands are RSET where one is needed, MAIL, the RCPTs, and DATA.
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

// rcpt settles one recipient by the reply to its RCPT, unless it is accepted.
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

// isTooMany: the refusal is due to the number of recipients before it (RFC 5321
// §4.5.3.1.10). Some relays, such as Exim, count those that they refuse.
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

// dialogue sends the commands of an envelope, all at once or one by one.
type dialogue struct {
	conn      *conn
	t         *transaction
	ctx       context.Context
	pipelined bool
}

func (d *dialogue) send(commands string) bool {
	if _, err := d.conn.write(d.ctx, d.conn.relay.opts.Timeouts.Command, []byte(commands)); err != nil {
		d.broken(mailer.StageMail, err)
		return false
	}
	return true
}

// step sends a command, unless it has gone already, and reads its reply. Where
// that is none, or 421, the transaction is over and the connection closed.
func (d *dialogue) step(stage mailer.Stage, command string) (mailer.Reply, bool) {
	timeouts := d.conn.relay.opts.Timeouts
	limit := timeouts.Command
	switch {
	case stage == mailer.StageData:
		limit = timeouts.Data
	case stage == mailer.StageMail && d.t.sent:
		limit = min(limit, bookedTimeout)
	case d.conn.stale:
		limit = min(limit, staleTimeout)
	}
	var err error
	if !d.pipelined {
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

// broken ends the transaction, and the connection with it.
func (d *dialogue) broken(stage mailer.Stage, err error) {
	f := d.conn.failed(d.ctx, stage, readCause(err))
	switch ProblemOf(f) {
	case ProblemDropped:
		d.lose(f)
		return
	case ProblemNotSMTP:
		if d.pipelined {
			d.t.misstep = f
		}
	case ProblemSilent:
		switch {
		case d.conn.stale:
			d.lose(f)
			return
		case d.t.sent:
			d.t.misstep = f
		case d.pipelined && stage > mailer.StageMail && d.ctx.Err() == nil:
			// MAIL was answered and what came with it was not: it may have been lost.
			d.conn.relay.switchOff("PIPELINING", f)
		}
	default: // the network's doing
	}
	settle(d.t.open(), f)
	d.conn.close()
}

// suspect is what a misstep puts under distrust.
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
	settle(d.t.open(), f)
	d.conn.close()
}

// outOfStep ends a dialogue whose replies no longer match its commands.
func (d *dialogue) outOfStep(stage mailer.Stage) bool {
	d.broken(stage, errReplyMalformed)
	return false
}

// confirmDoubts switches off what MAIL was refused with, now that it is accepted
// without.
func (c *conn) confirmDoubts() {
	for _, keyword := range c.doubted {
		c.relay.switchOff(keyword, &mailer.Failure{Stage: mailer.StageMail, Text: "MAIL is accepted only without it"})
	}
	c.doubted = nil
}

// data looks at the reply to DATA. A relay that waits for content though nobody
// is to get it has lost step, or would deliver it we know not whom: no final
// dot is sent, and the closed connection ends the transaction without mail.
func (d *dialogue) data(r mailer.Reply) bool {
	switch {
	case d.conn.br.Buffered() > 0: // more replies than commands: which is whose?
		return d.outOfStep(mailer.StageData)
	case r.Code == 354 && len(d.t.accepted) > 0:
		return true
	case r.Code == 354:
		d.conn.close()
		return false
	case r.Code < 400:
		return d.outOfStep(mailer.StageData)
	default:
		settle(d.t.open(), d.conn.refused(mailer.StageData, r))
		return false
	}
}

// content writes the message with the final dot, and in the same flight the
// envelope of a delivery that waits for the connection. False means that the dot
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

// maxTail is room for what mostly stands behind the content: the final dot and
// the envelope of the next message.
const maxTail = 512

// appendNext appends the envelope of the delivery that gets the connection next.
func (c *conn) appendNext(buf []byte) []byte {
	if w := c.relay.pool.book(c); w != nil {
		buf = w.booked.append(buf)
	}
	return buf
}

// append appends the envelope, which goes out now.
func (t *transaction) append(buf []byte) []byte {
	t.sent, t.began = true, time.Now()
	for _, command := range t.commands(false) {
		buf = append(buf, command...)
	}
	return buf
}

// sendNext sends the envelope of the delivery that has booked the connection
// since the content went out. The reply to the content is awaited whatever becomes
// of it.
func (c *conn) sendNext() {
	if c.relay.pool.gone(c.next) {
		return
	}
	buf := c.next.booked.append(c.buf[:0])
	c.raw.SetWriteDeadline(time.Now().Add(joinTimeout))
	if _, err := c.nc.Write(buf); err != nil {
		c.broken = true
	}
	c.buf = buf
}

// lastWord is how long a relay that takes no more of the content is listened to.
const lastWord = time.Second

// cutShort settles a transaction whose content the relay did not take. It may
// have said why, such as 552, before it closed the connection.
func (c *conn) cutShort(ctx context.Context, t *transaction, err error) {
	f := c.failed(ctx, mailer.StageContent, readCause(err))
	if ctx.Err() == nil {
		if r, err := c.read(ctx, lastWord); err == nil && r.Code >= 400 {
			f = c.refused(mailer.StageContent, r)
		}
	}
	settle(t.open(), f)
	c.close()
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

// answer is what was read after the final dot.
type answer struct {
	reply mailer.Reply
	err   error
}

// finalReply waits for the verdict on the content. When ctx ends first, the
// recipients are uncertain at once, and the connection is left to a listener
// that logs the verdict.
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
		late.accepted, listener.next = cloneResults(t.accepted), nil
		settle(t.open(), c.unanswered(&cause{problem: ProblemSilent, text: "the relay did not answer the final dot in time"}))
		c.dead = true // for its holder; the listener has the socket now
		c.relay.late.add(&listener, c.relay.opts.MaxConnections)
		c.relay.background(func(ctx context.Context) { listener.listenLate(ctx, &late, answers) })
		return
	}
	c.verdict(t, a)
	switch wait := time.Since(begin); {
	case !t.anyAccepted():
	case len(t.data) > contentChunk: // the wait is for the way, not for the relay
		c.relay.pool.accepted(c, 0)
	default:
		c.relay.pool.accepted(c, wait)
	}
}

// awaitReply waits for the reply to the final dot, and lets another delivery join
// the connection meanwhile. It is false when ctx ends first.
func (c *conn) awaitReply(ctx context.Context, t *transaction, answers <-chan answer) (answer, bool) {
	if t.last && len(t.tooMany) == 0 {
		c.relay.pool.await(c)
		defer c.relay.pool.unawait(c)
	}
	for {
		select {
		case a := <-answers:
			return a, true
		case <-c.joined:
			c.sendNext()
			continue
		case <-ctx.Done():
		}
		select {
		case a := <-answers: // both came at once
			return a, true
		default:
			return answer{}, false
		}
	}
}

// verdict settles the accepted recipients by the reply to the final dot.
func (c *conn) verdict(t *transaction, a answer) {
	c.dirty = false
	if a.err != nil {
		c.close()
		f := c.unanswered(readCause(a.err))
		if w := c.next; w != nil && w.booked.sent && ProblemOf(f) == ProblemDropped {
			c.relay.endedBehind(w.booked.began, f)
		}
		settle(t.accepted, f)
		return
	}
	if a.reply.Code == 421 || a.reply.Code/100 == 3 || c.broken {
		c.close()
	}
	if a.reply.Positive() {
		c.vain = 0
	}
	for _, r := range t.accepted {
		r.Reply, r.Failure = a.reply, nil
		if !a.reply.Positive() || notAcceptedFor(a.reply, r.ForwardPath, len(t.accepted)) {
			r.Failure = c.refused(mailer.StageContent, a.reply)
		}
	}
}

// notAcceptedFor: a positive reply that speaks of a dropped recipient is about
// those it names, or about the only one there is.
func notAcceptedFor(reply mailer.Reply, forwardPath string, recipients int) bool {
	return relays.Drops(reply) &&
		(recipients == 1 || strings.Contains(strings.ToLower(reply.Text), strings.ToLower(forwardPath)))
}

// unanswered is the failure of a final dot without a valid reply.
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
