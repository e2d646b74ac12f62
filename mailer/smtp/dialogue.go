package smtp

import (
	"context"
	"maps"
	"slices"
	"strings"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

// dialogue is the exchange of one envelope: all commands at once, or one by one.
//
// A reply says nothing of the command that it answers: what tells is its place. One
// reply too many, or one too few, shifts those that follow, and then a recipient may
// seem to be refused that was accepted. So verdicts are provisional until there is proof
// of the step:
//
//   - DATA is answered with 354, and no reply is left: their number is right.
//   - All recipients were refused for good, and so was DATA. One reply too many would
//     only make the last refusal that of DATA.
//   - Otherwise, where something was refused for good, the reply to a further EHLO,
//     which looks like no other (see fence).
//
// A reply out of step takes back all verdicts of the envelope, which goes once more
// in lock-step over another connection. Where the connection ends before there is
// proof, what was refused for good goes once more, too; without proof even then, it
// is transient.
type dialogue struct {
	conn      *conn
	t         *transaction
	ctx       context.Context //nolint:containedctx // it spans one call of envelope
	pipelined bool
	sent      bool // all commands are; else each step sends its own
	mailReply mailer.Reply
	// oddAfterMail says that a RCPT after a refused MAIL was answered otherwise than
	// with 503.
	oddAfterMail bool
}

// envelope sends MAIL, every RCPT and DATA, and reports whether the content may
// follow: the relay waits for it, and some recipient is accepted. With PIPELINING
// all go in one flight (RFC 2920 §3.1), and every reply is read, whatever those
// before it say.
func (c *conn) envelope(ctx context.Context, t *transaction) bool {
	d := dialogue{conn: c, t: t, ctx: ctx, pipelined: c.ext.has("PIPELINING") && !t.lockStep, sent: t.sent}
	commands, ok := d.begin()
	if !ok {
		return false
	}
	last := len(commands) - 1
	if !d.mail(commands[0]) || !d.rcpts(commands[1:last]) {
		return false
	}
	if !d.pipelined && len(t.accepted) == 0 && !t.refusedForGood(t.results) {
		return false
	}
	if t.careful && len(t.accepted) == 0 {
		d.fence()
		return false
	}
	data, ok := d.step(mailer.StageData, commands[last])
	return ok && d.data(data)
}

// begin sends the flight, RSET with it where the transaction before is open, and returns
// the commands from MAIL on. In lock-step the commands are sent later.
func (d *dialogue) begin() ([]string, bool) {
	c, t := d.conn, d.t
	reset := c.dirty && !t.sent
	commands := t.commands(reset)
	// Within a rate the time counts at which the relay reads MAIL, and it may take its
	// time for RSET.
	apart := reset && t.turn != nil
	if !d.sent && c.relay.pace.stale(t.turn) {
		failAll(t.undecided(), c.relay.staleTurn())
		return nil, false
	}
	if d.pipelined && !d.sent && !apart && !d.send(commands) {
		return nil, false
	}
	if reset {
		if !d.reset(commands[0]) {
			return nil, false
		}
		commands = commands[1:]
	}
	switch {
	case d.sent:
		return commands, true
	case isOver(t.expires): // the relay took its time for RSET
		failAll(t.undecided(), c.relay.expiredFailure())
		return nil, false
	case c.relay.pace.stale(t.turn):
		failAll(t.undecided(), c.relay.staleTurn())
		return nil, false
	case d.pipelined:
		return commands, d.send(commands)
	default:
		c.relay.pace.written(t.turn)
		return commands, true
	}
}

// commands returns RSET where one is needed, MAIL, every RCPT, and DATA.
func (t *transaction) commands(reset bool) []string {
	list := make([]string, 0, len(t.results)+3)
	if reset {
		list = append(list, "RSET\r\n")
	}
	list = append(list, "MAIL FROM:<"+mailer.HeaderAddrSpec(t.reversePath)+">"+t.params+"\r\n")
	for _, r := range t.results {
		list = append(list, "RCPT TO:<"+t.rcptTo(r)+">\r\n")
	}
	return append(list, "DATA\r\n")
}

// rcptTo returns the path of RCPT. An address such as a..b@example.org, which carriers
// gave out and RFC 5321 allows in quotes only, goes as it is first: Postfix and Exim take
// both forms, and servers of carriers may know just this one. SendGrid, Gmail and go-smtp
// refuse it, and take the quoted one. Of a reverse-path there is no second try: it is
// quoted.
func (t *transaction) rcptTo(r *mailer.Result) string {
	if t.quoted[r] {
		return mailer.HeaderAddrSpec(r.ForwardPath)
	}
	return r.ForwardPath
}

// goesQuoted reports whether a recipient that was refused is to go once more, with its
// local part quoted.
func (t *transaction) goesQuoted(r *mailer.Result) bool {
	if t.quoted[r] || r.Failure.Class != mailer.ClassPermanent || mailer.HeaderAddrSpec(r.ForwardPath) == r.ForwardPath {
		return false
	}
	t.quoted[r] = true
	return true
}

// reset ends the transaction before.
func (d *dialogue) reset(command string) bool {
	r, ok := d.step(mailer.StageMail, command)
	if !ok {
		return false
	}
	if !r.Positive() {
		d.lose(d.conn.failed(d.ctx, mailer.StageMail, readCause(errReplyMalformed)))
		return false
	}
	d.conn.noteReset()
	return true
}

// noteReset records a command that ended a transaction, beyond those that Exim does
// not count.
func (c *conn) noteReset() {
	c.dirty = false
	if c.fruitless > 2 { // this one, the last and one before
		c.resets++
	}
}

func (d *dialogue) mail(command string) bool {
	c, t := d.conn, d.t
	r, ok := d.step(mailer.StageMail, command)
	if !ok {
		return false
	}
	d.mailReply = r
	if t.sent {
		if t.notBegun = r.Code == 503 && c.dirty; r.Code == 503 && !t.notBegun { // the relay read RCPT, but not MAIL
			return d.outOfStep(mailer.StageMail)
		}
		c.relay.distrust.answered()
	}
	switch {
	case r.Positive():
		c.dirty = true
		c.distrustRefused()
		return true
	case t.notBegun: // no verdict; the flight must be read to its end
		return true
	}
	f, j := c.judged(mailer.StageMail, r)
	if t.params != "" && refusesParameters(r) {
		t.mailParamRefused = f
	}
	if f.Class == mailer.ClassTransient && c.served > 1 && j.EndsConnection {
		t.sessionFull = f
	}
	failAll(t.undecided(), f)
	return true
}

// distrustRefused switches off the extensions with whose parameters MAIL was
// refused, once MAIL is accepted without them.
func (c *conn) distrustRefused() {
	for _, keyword := range c.refusedExtensions {
		c.relay.switchOff(keyword, &mailer.Failure{Stage: mailer.StageMail, Text: "MAIL is accepted only without it"})
	}
	c.refusedExtensions = nil
}

func (d *dialogue) rcpts(commands []string) bool {
	if !d.mailReply.Positive() && !d.pipelined {
		return true
	}
	for i, r := range d.t.results {
		reply, ok := d.step(mailer.StageRcpt, commands[i])
		switch {
		case !ok:
			return false
		case d.mailReply.Positive():
			d.t.rcpt(d.conn, r, reply)
		case reply.Code != 503:
			d.oddAfterMail = true
		}
	}
	return true
}

// rcpt records the reply to the RCPT of one recipient.
func (t *transaction) rcpt(c *conn, r *mailer.Result, reply mailer.Reply) {
	r.Reply = reply
	if reply.Positive() && !relays.Drops(c.relay.opts.Host, mailer.StageRcpt, reply) {
		t.accepted = append(t.accepted, r)
		return
	}
	f, j := c.judged(mailer.StageRcpt, reply)
	r.Failure = f
	if t.isTooMany(r, j) || t.goesQuoted(r) {
		r.Failure.Class = mailer.ClassTransient
		t.again = append(t.again, r)
		return
	}
	t.refused++
}

// isTooMany reports whether a recipient was refused because of the number of
// recipients before it (RFC 5321 §4.5.3.1.10). Some relays, such as Exim, count
// refused ones, too.
func (t *transaction) isTooMany(r *mailer.Result, j relays.Judgement) bool {
	switch {
	case r.Failure.Class == mailer.ClassRelay, r.Reply.Positive(), j.Verdict == relays.Less:
		return false
	case j.TooManyRecipients:
		return len(t.accepted) > 0 || t.refused > 0
	default:
		return len(t.accepted) > 0 && (r.Reply.Code == 452 || r.Reply.Code == 552)
	}
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
		d.t.takeBack()
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
	d.t.takeBackRefusals()
	failAll(d.t.undecided(), f)
	d.conn.abort(d.ctx)
}

// lose ends the transaction because the relay ended the connection.
func (d *dialogue) lose(f *mailer.Failure) {
	d.t.lost = f
	if d.t.sent && f.Stage == mailer.StageMail && f.Reply.Code == 0 {
		d.conn.relay.endedBehind(d.t.began, f)
	}
	d.t.doubtful = d.t.takeBackRefusals()
	failAll(d.t.undecided(), f)
	d.conn.close()
}

// outOfStep ends a dialogue whose replies no longer match its commands.
func (d *dialogue) outOfStep(stage mailer.Stage) bool {
	d.broken(stage, errReplyMalformed)
	return false
}

// takeBack takes back every verdict of the envelope.
func (t *transaction) takeBack() {
	for _, r := range t.results {
		r.Reply, r.Failure = mailer.Reply{}, noVerdict
	}
	t.accepted, t.again, t.refused = nil, nil, 0
}

// takeBackRefusals takes back what was refused for good, and returns it.
func (t *transaction) takeBackRefusals() []*mailer.Result {
	var list []*mailer.Result
	for _, r := range t.results {
		if isForGood(r) {
			r.Reply, r.Failure = mailer.Reply{}, noVerdict
			list = append(list, r)
		}
	}
	return list
}

// refusedForGood reports whether any in list was refused for good.
func (t *transaction) refusedForGood(list []*mailer.Result) bool {
	return slices.ContainsFunc(list, isForGood)
}

func isForGood(r *mailer.Result) bool {
	return r.Failure != nil && r.Failure.Class == mailer.ClassPermanent
}

// suspect returns the extension to distrust after badReply.
func (t *transaction) suspect() string {
	if t.sent {
		return behindDot
	}
	return "PIPELINING"
}

// data reads the reply to DATA and reports whether the content may follow. After a
// 354 although all recipients were refused, the relay might deliver to unknown
// recipients: the connection is closed without a final dot, which ends the transaction
// without mail.
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
	case d.t.notBegun:
		return false
	}
	failAll(d.t.undecided(), d.conn.refused(mailer.StageData, r))
	if d.t.refusedForGood(d.t.results) && !d.isPlainRefusal(r) {
		d.fence()
	}
	return false
}

// isPlainRefusal reports whether the replies prove themselves: everything was refused
// for good, MAIL or each recipient, and DATA because of that. Codes that other commands
// are answered with prove nothing.
func (d *dialogue) isPlainRefusal(data mailer.Reply) bool {
	if len(d.t.accepted) > 0 || data.Code/100 != 5 {
		return false
	}
	if !d.mailReply.Positive() {
		return data.Code == 503 && !d.oddAfterMail
	}
	return !slices.ContainsFunc(d.t.results, func(r *mailer.Result) bool { return !isForGood(r) || blamesSender(r.Reply.Code) })
}

// fence proves that every reply was read, or ends the dialogue as out of step: the
// reply to EHLO has the extensions of the one before, and no other reply has. EHLO ends
// the transaction as RSET does (RFC 5321 §4.1.4). Of a relay that does not take it a
// second time, that answers it without extensions, or that offers none but AUTH, RSET is
// asked: less of a proof, because its reply may look like the one to RCPT.
func (d *dialogue) fence() bool {
	c := d.conn
	offers := len(offered(c.ehlo)) > 0
	if offers {
		w, ok := d.ask("EHLO " + c.helo())
		switch {
		case !ok:
			return false
		case w.code/100 == 2:
			c.noteFence()
		case w.code < 400:
			return d.outOfStep(mailer.StageData)
		}
		if c.isEHLO(w) {
			return true
		}
	}
	w, ok := d.ask("RSET")
	switch {
	case !ok:
		return false
	case w.code/100 != 2, offers && c.isEHLO(w):
		return d.outOfStep(mailer.StageData)
	}
	c.noteReset()
	return true
}

// noteFence records a further EHLO that the relay took.
func (c *conn) noteFence() {
	c.dirty = false
	c.resets++
	if c.fences++; c.fences >= maxFences {
		c.retiring = true
	}
	c.loginDoubted = c.auth != "" && !c.relay.keepsLogin.Load()
}

// isEHLO reports whether w answers EHLO: it offers most of what the last one did. A
// relay may offer less or more after a login, and Exim offers PIPECONNECT only before the
// first MAIL.
func (c *conn) isEHLO(w wireReply) bool {
	if w.code/100 != 2 {
		return false
	}
	again, same := offered(w.lines[1:]), 0
	before := offered(c.ehlo)
	for keyword := range before {
		if again.has(keyword) {
			same++
		}
	}
	return 2*same > len(before)
}

// offered returns the extensions that a relay offers before and after a login.
func offered(lines []string) extensions {
	ext := parseExtensions(lines)
	maps.DeleteFunc(ext, func(keyword, _ string) bool { return strings.HasPrefix(keyword, "AUTH") })
	return ext
}

// ask sends a command of the fence and reads its reply, as step does.
func (d *dialogue) ask(command string) (wireReply, bool) {
	limit := d.conn.relay.opts.Timeouts.Hello
	var w wireReply
	_, err := d.conn.write(d.ctx, limit, []byte(command+"\r\n"))
	if err == nil {
		w, err = readLines(d.conn.br)
	}
	switch {
	case isTimeout(err) && !hasEnded(d.ctx): // the replies before were read
		d.lose(d.conn.failed(d.ctx, mailer.StageData, readCause(err)))
		return w, false
	case err != nil:
		d.broken(mailer.StageData, err)
		return w, false
	case w.code == 421:
		d.lose(d.conn.refused(mailer.StageData, w.reply()))
		return w, false
	case d.conn.br.Buffered() > 0:
		return w, d.outOfStep(mailer.StageData)
	default:
		return w, true
	}
}
