package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailsidecar/mailer"
)

// Deliver makes one attempt at one message, see [mailer.Deliverer]. More recipients
// than Options.MaxRecipients go in several transactions.
func (r *Relay) Deliver(ctx context.Context, env mailer.Envelope, content mailer.Content) mailer.Attempt {
	a := mailer.Attempt{Relay: r.opts.Name, Started: time.Now(), Results: make([]mailer.Result, len(env.ForwardPaths))}
	d := r.newDelivery(env, content)
	d.attempt, d.due = &a, due(env.Priority, a.Started)
	if d.env.ReversePath != env.ReversePath {
		a.ReversePath = d.env.ReversePath
	}
	for i, path := range env.ForwardPaths {
		a.Results[i] = mailer.Result{ForwardPath: path, Failure: noVerdict}
		d.open = append(d.open, &a.Results[i])
	}
	if r.enter() {
		d.run(ctx)
		r.doubtRefusals(content, a.Results)
		r.work.Done()
	} else {
		failAll(d.open, &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageConnect, Relay: r.opts.Name, Text: "shutting down"})
	}
	a.Duration = time.Since(a.Started)
	return a
}

func (r *Relay) newDelivery(env mailer.Envelope, content mailer.Content) delivery {
	env.ReversePath = r.opts.reversePath(env.ReversePath)
	return delivery{relay: r, env: env, forms: newForms(r, content)}
}

// delivery is one call of Deliver.
type delivery struct {
	relay   *Relay
	env     mailer.Envelope
	attempt *mailer.Attempt
	due     time.Time        // the delivery that is due first is served first
	open    []*mailer.Result // recipients that no transaction has taken yet
	// doubtful are recipients that were refused for good, without proof that the reply
	// was theirs. They go once more after the open ones, few at a time.
	doubtful []*mailer.Result
	lockStep bool  // replies came out of step: no more pipelining
	turn     *turn // for the next MAIL; nil when one is needed, and without a rate
	conn     *conn // nil when one is needed
	// wantsNew says that a connection was lost under the delivery: the next one is not
	// one that was idle, where another can be had.
	wantsNew bool
	// refusedParams are parameters of MAIL that were refused on another connection:
	// the next MAIL is without them.
	refusedParams string
	// retriedPushback says that the relay has pushed the message back, and that it
	// goes once more over another connection.
	retriedPushback bool
	// triedNewLogin says that it goes once more because an older session wanted a login.
	triedNewLogin bool
	booked        *transaction // its envelope was sent on conn already; nil mostly
	forms         forms        // of the content
	// quoted are the recipients that go with their local part quoted, see
	// [transaction.rcptTo].
	quoted map[*mailer.Result]bool
	// before holds the failures of recipients that go once more, see keep.
	before map[*mailer.Result]*mailer.Failure
	// refusedInDoubt holds the refusals that were taken back, see doubtLogin.
	refusedInDoubt map[*mailer.Result]mailer.Reply
}

func (d *delivery) run(ctx context.Context) {
	d.rejectUnsafePaths()
	d.forceFrom(ctx)
	for len(d.open)+len(d.doubtful) > 0 || d.booked != nil {
		if f := d.prepare(ctx); f != nil {
			d.fail(f)
			break
		}
		t := d.booked
		if d.booked = nil; t == nil {
			t = d.plan(ctx)
		}
		if t != nil {
			d.conn.transact(ctx, t)
			d.spend()
			d.conclude(ctx, t)
		}
	}
	d.release()
	if d.turn != nil {
		d.relay.pace.giveBack(d.turn)
	}
}

// prepare gets what the next transaction needs: a turn, and a connection. Where a
// booking was not kept, both may be needed again: the connection has ended, or the turn
// is used up.
func (d *delivery) prepare(ctx context.Context) *mailer.Failure {
	for {
		var f *mailer.Failure
		switch {
		case d.expired() && (d.booked == nil || !d.booked.sent):
			f = d.expiry()
		case !d.env.Sendable() && (d.booked == nil || !d.booked.sent):
			f = d.stopped()
		case d.turn != nil && (d.booked == nil || !d.booked.sent) && d.relay.pace.stale(d.turn):
			d.dropTurn()
		case d.needsTurn():
			f = d.getTurn(ctx)
		case d.conn == nil:
			f = d.connect(ctx)
		default:
			d.refusedParams = "" // the connection leaves them out
			return nil
		}
		if f != nil {
			return f
		}
	}
}

// dropTurn gives up a turn that may not be used any more, for another one.
func (d *delivery) dropTurn() {
	if d.booked != nil {
		d.unbook(d.booked)
		d.booked = nil
	}
	d.relay.pace.giveBack(d.turn)
	d.turn = nil
}

// expired reports whether it is too late to send MAIL.
func (d *delivery) expired() bool { return isOver(d.env.Expires) }

// isOver reports whether the time is not zero and has come.
func isOver(at time.Time) bool { return !at.IsZero() && !time.Now().Before(at) }

// expiry returns the failure of the recipients whose time is over.
func (d *delivery) expiry() *mailer.Failure {
	if d.booked != nil {
		d.unbook(d.booked)
		d.booked = nil
	}
	return d.relay.expiredFailure()
}

// stopped returns the failure of the recipients that may not be sent to any more.
func (d *delivery) stopped() *mailer.Failure {
	if d.booked != nil {
		d.unbook(d.booked)
		d.booked = nil
	}
	return d.relay.stoppedFailure()
}

func (r *Relay) stoppedFailure() *mailer.Failure {
	return &mailer.Failure{
		Class: mailer.ClassTransient, Stage: mailer.StageConnect, Relay: r.opts.Name,
		Text: "this instance may not send the message any more", Err: mailer.ErrMayNotSend,
	}
}

func (r *Relay) expiredFailure() *mailer.Failure {
	return &mailer.Failure{
		Class: mailer.ClassTransient, Stage: mailer.StageConnect, Relay: r.opts.Name,
		Text: "the message expired before its turn at the relay", Err: mailer.ErrExpired,
	}
}

// getTurn gets a turn. The connection that the delivery has is given back where it must
// wait: those that have their turn need it.
func (d *delivery) getTurn(ctx context.Context) *mailer.Failure {
	p := &d.relay.pace
	if d.conn != nil {
		d.turn = p.turnNow(d.env.Priority, d.due)
	}
	if d.turn != nil {
		return d.noteTurns(ctx)
	}
	d.releaseForTurn()
	var err error
	d.turn, err = p.awaitTurn(ctx, d.env, d.due)
	switch {
	case err == nil:
		return d.noteTurns(ctx)
	case d.expired() && ctx.Err() == nil:
		return d.expiry()
	default:
		return d.noTurn(ctx, err)
	}
}

// needsTurn reports whether the next transaction needs a turn first.
func (d *delivery) needsTurn() bool {
	return d.turn == nil && d.booked == nil && d.relay.pace.rate.Messages > 0
}

// releaseForTurn gives the connection back, and keeps in mind what was about to be
// tried on it.
func (d *delivery) releaseForTurn() {
	if d.conn != nil && d.conn.refusedExtensions != nil {
		d.conn.trustExtensions()
	} else {
		d.refusedParams = ""
	}
	d.release()
}

// noTurn returns the failure of the recipients for which there is no turn. They wait
// for one, those too that were refused as too many.
func (d *delivery) noTurn(ctx context.Context, why error) *mailer.Failure {
	if ctx.Err() == nil {
		failAll(slices.Concat(d.open, d.doubtful), noVerdict)
	}
	return d.relay.noTurn(ctx, why)
}

// noteTurns has the turns noted that the attempt has used already, before it uses another
// one: a crash loses what the attempt tells at its end, and one turn is counted for it then.
func (d *delivery) noteTurns(ctx context.Context) *mailer.Failure {
	if len(d.attempt.Turns) == 0 || d.relay.noteUsed == nil {
		return nil
	}
	err := d.relay.noteUsed(ctx, d.attempt.Turns)
	switch {
	case err == nil:
		d.attempt.Turns = nil
		return nil
	case ctx.Err() != nil:
		return d.noTurn(ctx, err)
	default: // the relay has no part in it
		return &mailer.Failure{
			Class: mailer.ClassTransient, Stage: mailer.StageConnect, Relay: d.relay.opts.Name,
			Text: "the queue could not note what was used of the rate (SMTP_RATE)", Err: err,
		}
	}
}

// spend lets go of the turn once its MAIL is written, or may have been.
func (d *delivery) spend() {
	if d.turn != nil && !d.turn.sent.IsZero() {
		d.attempt.Turns = append(d.attempt.Turns, d.turn.sent)
		d.turn = nil
	}
}

// maxRefused is the number of refused recipients in a transaction from which on they
// count as the reason when the relay ends the connection. Postfix ends it at the
// twentieth.
const maxRefused = 5

// conclude decides what follows a transaction: it puts recipients back that may go
// once more, and gives up the connection where that has ended.
func (d *delivery) conclude(ctx context.Context, t *transaction) {
	d.open = append(t.again, d.open...)
	if t.stopped != nil { // the connection is dead, and no other one may be used
		failAll(d.undecided(), t.stopped)
		d.open, d.doubtful = nil, nil
		d.release()
		return
	}
	if list := d.doubtLogin(t); len(list) > 0 {
		d.retryOnNewConn(list)
		return
	}
	if list := d.loginWanted(t); len(list) > 0 {
		d.retryOnNewConn(list)
		return
	}
	f := d.pushedBack(t)
	switch {
	case f != nil && ctx.Err() == nil && !d.retriedPushback:
		// No content was sent: try again on one of the other connections.
		d.retriedPushback = true
		d.open = append(d.reopen(t, f), d.open...)
		d.release()
		return
	case t.notBegun && ctx.Err() == nil:
		d.beginAgain(t)
		return
	case t.sessionFull != nil && ctx.Err() == nil:
		d.conn.retiring = true
		d.retryOnNewConn(d.reopen(t, t.sessionFull))
		return
	case !d.conn.dead:
		switch {
		case t.mailParamRefused != nil:
			d.retryWithoutParams(ctx, t)
		case d.conn.retiring:
			d.release()
		}
		return
	case t.badReply != nil && ctx.Err() == nil:
		// No content was sent: try again without the extension.
		d.lockStep = d.lockStep || !t.sent
		d.relay.switchOff(t.suspect(), t.badReply)
		d.retryOnNewConn(d.reopen(t, t.badReply))
		return
	case t.lost != nil && ctx.Err() == nil && d.retryLost(t):
		return
	case !t.anyAccepted():
		failAll(d.undecided(), d.conn.failed(ctx, mailer.StageMail, &cause{
			problem: ProblemDropped, text: "the connection ended before this recipient's turn",
		}))
		d.open, d.doubtful = nil, nil
	}
	d.release()
}

// doubtLogin returns the recipients that were refused for want of a login, perhaps:
// Brevo, Proton and others forget the login with a further EHLO, and then refuse other
// mail at MAIL, RCPT or the final dot. Their verdicts are taken back, and the connection
// retires. A relay is trusted from then on that accepts a whole message after such an
// EHLO, or that says the same over a new connection.
func (d *delivery) doubtLogin(t *transaction) []*mailer.Result {
	var list []*mailer.Result
	kept := t.loginDoubted
	for _, r := range t.results {
		if !t.loginDoubted {
			before, doubted := d.refusedInDoubt[r]
			kept = kept || doubted && before == r.Reply
			continue
		}
		kept = kept && r.Failure == nil
		if r.Failure != nil && r.Reply.Code/100 == 5 && !slices.Contains(t.again, r) {
			if d.refusedInDoubt == nil {
				d.refusedInDoubt = map[*mailer.Result]mailer.Reply{}
			}
			d.refusedInDoubt[r] = r.Reply
			d.keep(r, r.Failure)
			r.Reply, r.Failure = mailer.Reply{}, noVerdict
			list = append(list, r)
		}
	}
	if kept {
		d.relay.keepsLogin.Store(true)
	}
	d.conn.loginDoubted = d.conn.loginDoubted && !d.relay.keepsLogin.Load()
	d.conn.retiring = d.conn.retiring || len(list) > 0
	return list
}

// beginAgain lets an envelope go once more that the relay did not begin, because the
// transaction before was still open. Where the relay has closed the connection, or
// waits for content that would belong to that transaction, it goes over another one.
func (d *delivery) beginAgain(t *transaction) {
	if d.conn.dead {
		d.retryOnNewConn(t.results)
		return
	}
	d.open = append(t.results, d.open...)
}

// retryLost lets recipients go once more over a new connection after the relay has
// ended this one. It has not seen any of the content. Those without a verdict do where
// the relay ends connections after so many messages or refused recipients, and those
// that were refused for good do with more care, unless the relay says 421.
func (d *delivery) retryLost(t *transaction) bool {
	normal := t.lost.Class == mailer.ClassTransient && t.endedNormally(d.conn)
	if !t.careful && (normal || t.lost.Reply.Code == 0) {
		for _, r := range t.doubtful {
			d.keep(r, r.Failure)
			r.Reply, r.Failure = mailer.Reply{}, noVerdict
		}
		d.doubtful = append(d.doubtful, t.doubtful...)
	}
	switch {
	case normal:
		d.retryOnNewConn(d.reopen(t, t.lost))
	case len(d.doubtful) > 0:
		d.retryOnNewConn(nil)
	default:
		return false
	}
	return true
}

// endedNormally reports whether the relay may have ended the connection because of the
// number of messages or refused recipients, so that another one helps. It does not where
// the relay says that it is about the sender.
func (t *transaction) endedNormally(c *conn) bool {
	return !t.lost.OfSender() && (c.served > 1 || t.refused >= maxRefused)
}

// pushedBack tells the pool when the relay has pushed back. It returns the failure of
// the recipients that may go once more over another connection; nil where there are
// none, or no other connection.
func (d *delivery) pushedBack(t *transaction) *mailer.Failure {
	for _, r := range t.results {
		f := r.Failure
		if f == nil || f.Class != mailer.ClassTransient || f.Reply.Code < 400 || f.OfSender() || f == t.lost && t.refused >= maxRefused {
			continue
		}
		pushed, others := d.relay.pool.notePushback(d.conn, f)
		switch {
		case !pushed && f.Stage == mailer.StageRcpt && f != t.lost:
			continue // the next one may have been refused for another reason
		case pushed && others && (f == t.lost || f.Stage == mailer.StageMail || f.Stage == mailer.StageData):
			return f
		}
		return nil
	}
	return nil
}

// retryOnNewConn puts results back, to go once more over a new connection.
func (d *delivery) retryOnNewConn(results []*mailer.Result) {
	d.open = append(results, d.open...)
	d.wantsNew = true
	d.release()
}

// retryWithoutParams lets the transaction go once more without the MAIL parameters
// that the relay refuses although it offers them.
func (d *delivery) retryWithoutParams(ctx context.Context, t *transaction) {
	c := d.conn
	if c.refusedExtensions != nil {
		c.trustExtensions() // it made no difference
		return
	}
	c.refusedExtensions = c.ext.withoutParameters(t.params)
	if _, f := d.adapted(ctx, c.ext); f != nil {
		d.needsBack8BITMIME()
	}
	if len(c.refusedExtensions) == 0 {
		c.refusedExtensions = nil
		return
	}
	d.refusedParams = t.params
	d.open = append(d.reopen(t, t.mailParamRefused), d.open...)
}

// trustExtensions uses all extensions again.
func (c *conn) trustExtensions() {
	c.refusedExtensions, c.ext = nil, c.relay.distrust.filter(parseExtensions(c.ehlo))
}

// release gives the connection back to the pool.
func (d *delivery) release() {
	if d.conn != nil {
		d.relay.pool.put(d.conn)
		d.conn = nil
	}
}

// connect gets a connection that is logged in, and records it in the attempt. Without
// a connection and a failure, it is to be called again.
func (d *delivery) connect(ctx context.Context) *mailer.Failure {
	g := d.relay.pool.get(ctx, d)
	c, reports := g.conn, g.reports
	if c != nil {
		d.attempt.Rung, d.attempt.Auth, d.attempt.TLS = c.rung, c.auth, ""
		if c.tls != nil {
			d.attempt.TLS = tls.VersionName(c.tls.Version)
		}
		if c.served == 0 && g.failure == nil {
			reports = c.reports
		}
	}
	if d.attempt.Ladder == nil {
		d.attempt.Ladder = reports
	}
	if g.failure == nil && c != nil {
		d.conn, d.booked, d.wantsNew = c, g.booked, false
		if d.refusedParams != "" {
			c.refusedExtensions, d.refusedParams = c.ext.withoutParameters(d.refusedParams), ""
		}
	}
	return g.failure
}

// dial opens a connection on the rung that wins the race and logs in. It does not
// connect where no login may be tried. A connection returned beside a failure is one
// whose login was refused; unless it is dead, the caller says QUIT on it.
func (r *Relay) dial(ctx context.Context, o *opening) (*conn, []mailer.RungReport, *mailer.Failure) {
	r.account.awaitVerdicts(ctx)
	if f := r.loginPaused(ctx); f != nil {
		return nil, nil, f
	}
	c, reports, f := r.race(ctx, o)
	if f != nil {
		return nil, reports, f
	}
	if f := c.login(ctx); f != nil {
		if f.Reply.Code == 0 || f.Reply.Code == 421 {
			c.close()
		}
		return c, reports, f
	}
	c.loggedIn = time.Now()
	return c, reports, nil
}

// undecided returns the recipients that are to go and have no verdict. The others were
// refused as too many, and keep that failure.
func (d *delivery) undecided() []*mailer.Result {
	t := transaction{results: slices.Concat(d.open, d.doubtful)}
	return t.undecided()
}

func (t *transaction) anyAccepted() bool {
	for _, r := range t.results {
		if r.Failure == nil {
			return true
		}
	}
	return false
}

// plan makes the next transaction, for the extensions of the connection. It returns
// nil when none of its recipients can go; they have their failures then.
func (d *delivery) plan(ctx context.Context) *transaction {
	careful := len(d.open) == 0
	if careful {
		n := min(len(d.doubtful), maxRefused)
		d.open, d.doubtful = slices.Clone(d.doubtful[:n]), d.doubtful[n:]
	}
	content, f := d.adapted(ctx, d.conn.ext)
	if f != nil && d.needsBack8BITMIME() {
		content, f = d.adapted(ctx, d.conn.ext)
	}
	if f != nil {
		failAll(d.open, f)
		d.open = nil
		return nil
	}
	t := d.take(content, d.conn.ext)
	if t != nil {
		t.careful, t.lockStep = careful, careful || d.lockStep
	}
	return t
}

// needsBack8BITMIME trusts 8BITMIME again where the message cannot go without it and
// the relay offers it: a doubt about an extension makes no mail unsendable. It returns
// false where there is no doubt.
func (d *delivery) needsBack8BITMIME() bool {
	const keyword = "8BITMIME"
	c := d.conn
	offered := parseExtensions(c.ehlo)
	if !d.forms.stored.EightBit || c.ext.has(keyword) || !offered.has(keyword) {
		return false
	}
	c.ext = c.ext.with(keyword, offered)
	c.refusedExtensions = slices.DeleteFunc(c.refusedExtensions, func(refused string) bool { return refused == keyword })
	return true
}

// unbook takes the recipients of t back, which was to be sent on a connection that was
// booked. If it was sent without its content, its turn is used up.
func (d *delivery) unbook(t *transaction) {
	d.open = append(t.results, d.open...)
	if t.sent && d.turn != nil {
		d.attempt.Turns = append(d.attempt.Turns, time.Now())
		d.turn = nil
	}
}

// mayBook reports whether the next transaction may go behind the content of another
// message: it needs no care, and the message need not be converted first.
func (d *delivery) mayBook(ext extensions) bool {
	return len(d.open) > 0 && !d.lockStep && !d.wantsNew && d.refusedParams == "" && d.fits(ext)
}

// fits reports whether the message can go to all open recipients in a form that is made
// already. It converts nothing: the caller holds the pool's lock.
func (d *delivery) fits(ext extensions) bool {
	content, ok := d.forms.made(d.forms.kind(ext))
	if !ok {
		return false
	}
	if limit := ext.sizeLimit(); limit > 0 && int64(len(content.Data)) > limit {
		return false
	}
	if ext.has("SMTPUTF8") {
		return true
	}
	unicode := slices.ContainsFunc(d.open, func(r *mailer.Result) bool { return !mailer.IsASCII(r.ForwardPath) })
	return !unicode && mailer.IsASCII(d.env.ReversePath)
}

// transaction takes the next recipients of a message that fits, see [delivery.fits].
func (d *delivery) transaction(ext extensions) *transaction {
	content, _ := d.forms.made(d.forms.kind(ext))
	return d.take(content, ext)
}

// take takes the next recipients from the open ones, for content as the relay takes
// it. It returns nil when none of those can go; they have their failures then.
func (d *delivery) take(content mailer.Content, ext extensions) *transaction {
	n := min(len(d.open), d.relay.opts.MaxRecipients)
	t := &transaction{turn: d.turn, expires: d.env.Expires, maySend: d.env.MaySend, reversePath: d.env.ReversePath, data: content.Data, messageID: content.MessageID}
	utf8 := content.UTF8Header || !mailer.IsASCII(d.env.ReversePath)
	for _, r := range d.open[:n] {
		if !mailer.IsASCII(r.ForwardPath) {
			if !ext.has("SMTPUTF8") {
				failAll([]*mailer.Result{r}, d.cannotTake("5.6.7", "the recipient's address needs SMTPUTF8, which the relay does not offer", nil))
				continue
			}
			utf8 = true
		}
		if d.quoted == nil && mailer.HeaderAddrSpec(r.ForwardPath) != r.ForwardPath {
			d.quoted = map[*mailer.Result]bool{}
		}
		r.Reply, r.Failure = mailer.Reply{}, noVerdict
		t.results = append(t.results, r)
	}
	t.quoted = d.quoted
	d.open = d.open[n:]
	t.last = len(d.open)+len(d.doubtful) == 0
	if len(t.results) == 0 {
		return nil
	}
	t.params = params(content, ext, utf8)
	return t
}

// params returns the parameters of MAIL that are offered and needed. Some relays
// refuse others.
func params(content mailer.Content, ext extensions, utf8 bool) string {
	var params string
	if ext.has("SIZE") {
		params += " SIZE=" + strconv.Itoa(len(content.Data))
	}
	if ext.has("8BITMIME") && (content.EightBit || content.UTF8Header) {
		params += " BODY=8BITMIME"
	}
	if utf8 {
		params += " SMTPUTF8"
	}
	return params
}

func (d *delivery) tooLarge(octets int, limit int64) *mailer.Failure {
	return d.cannotTake("5.3.4", "the message is larger than the relay takes: "+
		strconv.Itoa(octets)+" octets of "+strconv.FormatInt(limit, 10), nil)
}

// cannotTake returns the failure of a message that this relay cannot take, see
// [mailer.ErrCannotTake]. err may say more; nil when it does not.
func (d *delivery) cannotTake(enhanced, text string, err error) *mailer.Failure {
	f := d.unsendable(enhanced, text)
	f.Err = errors.Join(mailer.ErrCannotTake, err)
	return f
}

// unsendable returns a permanent failure that is certain without asking the relay.
func (d *delivery) unsendable(enhanced, text string) *mailer.Failure {
	f := &mailer.Failure{Class: mailer.ClassPermanent, Stage: mailer.StageMail, Relay: d.relay.opts.Name, Text: text, Reply: mailer.Reply{Enhanced: enhanced}}
	if d.conn != nil {
		f.Port = d.conn.rung.Port
	}
	return f
}

// sizeLimit returns the relay's SIZE in octets; zero means no limit (RFC 1870 §3).
func (e extensions) sizeLimit() int64 {
	n, err := strconv.ParseInt(e["SIZE"], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// rejectUnsafePaths fails addresses that would end their command and begin another.
// The envelope was checked before; this is the last check before it becomes SMTP.
func (d *delivery) rejectUnsafePaths() {
	if !isSafePath(d.env.ReversePath) {
		failAll(d.open, d.unsendable("5.1.7", "the reverse-path is not an address"))
		d.open = nil
	}
	open := d.open[:0]
	for _, r := range d.open {
		if r.ForwardPath == "" || !isSafePath(r.ForwardPath) {
			failAll([]*mailer.Result{r}, d.unsendable("5.1.3", "the recipient is not an address"))
			continue
		}
		open = append(open, r)
	}
	d.open = open
}

// isSafePath reports whether path has no control characters, and no blank or angle
// bracket outside a quoted string.
func isSafePath(path string) bool {
	quoted := false
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c < ' ' || c == 0x7f:
			return false
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
			if i == len(path) || path[i] < ' ' || path[i] == 0x7f {
				return false
			}
		case !quoted && strings.IndexByte(" <>", c) >= 0:
			return false
		}
	}
	return !quoted
}
