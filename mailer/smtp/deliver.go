package smtp

import (
	"context"
	"crypto/tls"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/compose"
)

// Deliver makes one attempt at one message, see [mailer.Deliverer]. It takes as many
// transactions as the number of recipients needs.
func (r *Relay) Deliver(ctx context.Context, env mailer.Envelope, content mailer.Content) mailer.Attempt {
	a := mailer.Attempt{Relay: r.opts.Name, Started: time.Now(), Results: make([]mailer.Result, len(env.ForwardPaths))}
	d := delivery{relay: r, env: env, content: content, attempt: &a, due: due(env.Priority, a.Started)}
	for i, path := range env.ForwardPaths {
		a.Results[i] = mailer.Result{ForwardPath: path, Failure: errOpen}
		d.open = append(d.open, &a.Results[i])
	}
	if r.enter() {
		d.run(ctx)
		r.work.Done()
	} else {
		settle(d.open, &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageConnect, Relay: r.opts.Name, Text: "shutting down"})
	}
	a.Duration = time.Since(a.Started)
	return a
}

// delivery is one call of Deliver.
type delivery struct {
	relay   *Relay
	env     mailer.Envelope
	content mailer.Content
	attempt *mailer.Attempt
	due     time.Time        // who is due first is served first
	open    []*mailer.Result // recipients that are still to go
	conn    *conn            // nil when one is needed
	place   bool             // there is a place in the pool to open it
	pushed  bool             // the relay has pushed it back before
	// booked has its envelope sent already, on conn; nil mostly.
	booked *transaction
}

func (d *delivery) run(ctx context.Context) {
	d.dropUnspeakable()
	if len(d.open) == 0 {
		return
	}
	if err := d.relay.pace.turn(ctx, d.env.Priority, d.due); err != nil {
		settle(d.open, d.relay.tooFast(ctx, err))
		return
	}
	for len(d.open) > 0 {
		if d.conn == nil {
			if f := d.connect(ctx); f != nil {
				settle(d.unsettled(), f)
				return
			}
		}
		t := d.booked
		if d.booked = nil; t == nil {
			t = d.plan()
		}
		if t != nil {
			d.conn.transact(ctx, t)
			d.conclude(ctx, t)
		}
	}
	d.release()
}

// mostRefused is how many recipients of a transaction may be refused before a
// relay's ending the connection is put down to them. Postfix ends it at the
// twentieth.
const mostRefused = 5

// conclude puts back in line what a transaction has left open, and gives up a
// connection that it was the end of.
func (d *delivery) conclude(ctx context.Context, t *transaction) {
	d.open = append(t.tooMany, d.open...)
	f := d.heed(t)
	switch {
	case f != nil && ctx.Err() == nil && !d.pushed:
		// No content was sent: once more, when one of the other connections is free.
		d.pushed = true
		d.open = append(t.reopen(f), d.open...)
		d.release()
		return
	case !d.conn.dead:
		if t.barred != nil {
			d.retryBare(t)
		}
		return
	case t.misstep != nil && ctx.Err() == nil:
		// No content was sent: once more, with less in one flight.
		d.relay.switchOff(t.suspect(), t.misstep)
		d.renew(t.reopen(t.misstep))
		return
	case t.lost != nil && (d.conn.served > 1 || t.refused >= mostRefused) && ctx.Err() == nil:
		// The relay was about to end the connection, or has had enough of unknown
		// recipients, and has not seen an octet of the content: once more, on one that
		// is new.
		d.renew(t.reopen(t.lost))
		return
	case !t.anyAccepted():
		settle(d.unsettled(), d.conn.failed(ctx, mailer.StageMail, &cause{
			problem: ProblemDropped, text: "the connection ended before this recipient's turn",
		}))
		d.open = nil
	}
	d.release()
}

// heed tells the pool when the relay has pushed back. It returns the failure of
// those that may go once more over another connection, which must be there.
func (d *delivery) heed(t *transaction) *mailer.Failure {
	for _, r := range t.results {
		f := r.Failure
		if f == nil || f.Class != mailer.ClassTransient || f.Reply.Code/100 != 4 || f == t.lost && t.refused >= mostRefused {
			continue
		}
		pushed, others := d.relay.pool.heed(d.conn, f)
		switch {
		case !pushed && f.Stage == mailer.StageRcpt && f != t.lost:
			continue // others may have been refused for another reason
		case pushed && others && (f == t.lost || f.Stage == mailer.StageMail || f.Stage == mailer.StageData):
			return f
		}
		return nil
	}
	return nil
}

// renew lets results go once more over a new connection.
func (d *delivery) renew(results []*mailer.Result) {
	if d.open = append(results, d.open...); len(d.open) > 0 {
		d.conn, d.place = nil, true
		return
	}
	d.release()
}

// retryBare lets the transaction go once more without the parameters that the
// relay refuses though it offers them.
func (d *delivery) retryBare(t *transaction) {
	c := d.conn
	if c.doubted != nil {
		// It made no difference: they were not to blame.
		c.doubted, c.ext = nil, d.relay.distrust.among(parseExtensions(c.ehlo))
		return
	}
	if c.doubted = c.ext.withoutParameters(t.params); c.doubted != nil {
		d.open = append(t.reopen(t.barred), d.open...)
	}
}

// release gives the connection back.
func (d *delivery) release() {
	if d.conn != nil {
		d.relay.pool.put(d.conn)
		d.conn = nil
	}
}

// connect takes a connection that is logged in.
func (d *delivery) connect(ctx context.Context) *mailer.Failure {
	c, f := d.acquire(ctx)
	if c == nil {
		return f
	}
	d.attempt.Rung, d.attempt.Auth = c.rung, c.auth
	if c.tls != nil {
		d.attempt.TLS = tls.VersionName(c.tls.Version)
	}
	if f == nil {
		d.conn = c
	}
	return f
}

// acquire takes a connection from the pool or opens one. A connection that comes
// with a failure did not get past AUTH, and is dead.
func (d *delivery) acquire(ctx context.Context) (*conn, *mailer.Failure) {
	var refused *mailer.Failure
	for {
		if !d.place {
			g := d.relay.pool.take(ctx, d, refused)
			if d.booked = g.booked; g.conn != nil || g.failure != nil {
				return g.conn, g.failure
			}
		}
		d.place = false
		d.relay.pool.opening.Add(1)
		c, reports, f := d.relay.dial(ctx)
		d.relay.pool.opening.Add(-1)
		if d.attempt.Ladder == nil {
			d.attempt.Ladder = reports
		}
		if f == nil {
			return c, nil
		}
		if !d.relay.pool.refused(ctx, f) {
			return c, f
		}
		refused = f
	}
}

// dial opens a connection on the rung that wins and logs in.
func (r *Relay) dial(ctx context.Context) (*conn, []mailer.RungReport, *mailer.Failure) {
	c, reports, f := r.race(ctx)
	if f != nil {
		return nil, reports, f
	}
	if f := c.login(ctx); f != nil {
		if f.Reply.Code == 0 || f.Reply.Code == 421 {
			c.close()
		}
		c.quit()
		return c, reports, f
	}
	c.since = time.Now()
	return c, reports, nil
}

// unsettled returns those of the open recipients that have no verdict: some
// were refused as too many, and keep that.
func (d *delivery) unsettled() []*mailer.Result {
	t := transaction{results: d.open}
	return t.open()
}

func (t *transaction) anyAccepted() bool {
	for _, r := range t.results {
		if r.Failure == nil {
			return true
		}
	}
	return false
}

// plan makes the next transaction for what the connection offers. It is nil when
// none of its recipients can go, and they are settled then.
func (d *delivery) plan() *transaction {
	if f := d.adapt(d.conn.ext); f != nil {
		settle(d.open, f)
		d.open = nil
		return nil
	}
	return d.transaction(d.conn.ext)
}

// fits says whether the message can go as it is, to all that are open.
func (d *delivery) fits(ext extensions) bool {
	if d.content.EightBit && !ext.has("8BITMIME") {
		return false
	}
	if limit := ext.sizeLimit(); limit > 0 && int64(len(d.content.Data)) > limit {
		return false
	}
	if ext.has("SMTPUTF8") {
		return true
	}
	unicode := slices.ContainsFunc(d.open, func(r *mailer.Result) bool { return !mailer.IsASCII(r.ForwardPath) })
	return !unicode && !d.content.UTF8Header && mailer.IsASCII(d.env.ReversePath)
}

// transaction takes the next recipients from the open ones. It is nil when none
// of those taken can go, and they are settled then.
func (d *delivery) transaction(ext extensions) *transaction {
	n := min(len(d.open), d.relay.opts.MaxRecipients)
	t := &transaction{reversePath: d.env.ReversePath, data: d.content.Data, messageID: d.content.MessageID}
	utf8 := d.content.UTF8Header || !mailer.IsASCII(d.env.ReversePath)
	for _, r := range d.open[:n] {
		if !mailer.IsASCII(r.ForwardPath) {
			if !ext.has("SMTPUTF8") {
				settle([]*mailer.Result{r}, d.unsendable("5.6.7", "the recipient's address needs SMTPUTF8, which the relay does not offer"))
				continue
			}
			utf8 = true
		}
		r.Reply, r.Failure = mailer.Reply{}, errOpen
		t.results = append(t.results, r)
	}
	d.open = d.open[n:]
	t.last = len(d.open) == 0
	if len(t.results) == 0 {
		return nil
	}
	t.params = d.params(ext, utf8)
	return t
}

// params are the parameters of MAIL, only such as are offered and needed: some
// relays refuse the others.
func (d *delivery) params(ext extensions, utf8 bool) string {
	var params string
	if ext.has("SIZE") {
		params += " SIZE=" + strconv.Itoa(len(d.content.Data))
	}
	if ext.has("8BITMIME") && (d.content.EightBit || d.content.UTF8Header) {
		params += " BODY=8BITMIME"
	}
	if utf8 {
		params += " SMTPUTF8"
	}
	return params
}

// adapt makes the content fit what the relay offers, or says why it cannot.
func (d *delivery) adapt(ext extensions) *mailer.Failure {
	if !ext.has("SMTPUTF8") && (d.content.UTF8Header || !mailer.IsASCII(d.env.ReversePath)) {
		return d.unsendable("5.6.7", "the message needs SMTPUTF8, which the relay does not offer")
	}
	if d.content.EightBit && !ext.has("8BITMIME") {
		content, err := compose.SevenBit(d.content)
		if err != nil {
			f := d.unsendable("5.6.3", "the message needs 8BITMIME, which the relay does not offer, and cannot be converted")
			f.Err = err
			return f
		}
		d.content = content
	}
	if limit := ext.sizeLimit(); limit > 0 && int64(len(d.content.Data)) > limit {
		return d.unsendable("5.3.4", "the message is larger than the relay takes: "+
			strconv.Itoa(len(d.content.Data))+" octets of "+strconv.FormatInt(limit, 10))
	}
	return nil
}

// unsendable is a permanent failure that the relay need not be asked for.
func (d *delivery) unsendable(enhanced, text string) *mailer.Failure {
	f := &mailer.Failure{Class: mailer.ClassPermanent, Stage: mailer.StageMail, Relay: d.relay.opts.Name, Text: text, Reply: mailer.Reply{Enhanced: enhanced}}
	if d.conn != nil {
		f.Port = d.conn.rung.Port
	}
	return f
}

// sizeLimit is the relay's SIZE in octets; zero means that it names none
// (RFC 1870 §3).
func (e extensions) sizeLimit() int64 {
	n, err := strconv.ParseInt(e["SIZE"], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// dropUnspeakable settles addresses that would break out of their command. The
// envelope was checked long before; here it becomes SMTP.
func (d *delivery) dropUnspeakable() {
	if !isSpeakable(d.env.ReversePath) {
		settle(d.open, d.unsendable("5.1.7", "the reverse-path is not an address"))
		d.open = nil
	}
	open := d.open[:0]
	for _, r := range d.open {
		if r.ForwardPath == "" || !isSpeakable(r.ForwardPath) {
			settle([]*mailer.Result{r}, d.unsendable("5.1.3", "the recipient is not an address"))
			continue
		}
		open = append(open, r)
	}
	d.open = open
}

// isSpeakable: no control characters, and no blank or angle bracket outside of
// a quoted string.
func isSpeakable(path string) bool {
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
