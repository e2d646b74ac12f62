package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/netaddr"
	"mailsidecar/relays"
)

// quitTimeout limits QUIT, and lastQuitTimeout what is left of it once Close waits.
const (
	quitTimeout     = 2 * time.Second
	lastQuitTimeout = 500 * time.Millisecond
)

// conn is one connection to a relay. It serves one caller at a time. Its holder
// must end it with close or quit, or give it back to the pool.
type conn struct {
	relay *Relay
	rung  mailer.Rung
	raw   net.Conn // the TCP connection; closing it ends everything
	nc    net.Conn // raw, or TLS over it
	br    *bufio.Reader

	// dialer connects in place of Options.Dial; nil outside a check.
	dialer func(ctx context.Context, port int) (net.Conn, error)

	opening *opening      // records how far the connection has come; nil outside pool and check
	up      chan struct{} // closed once TCP has connected
	dialled time.Duration // how long that took
	banner  string
	ext     extensions
	ehlo    []string // lines of the last EHLO reply after the first
	tls     *tls.ConnectionState
	// certificateAsked says that the relay has asked for a client certificate.
	certificateAsked bool
	auth             string // the mechanism that logged us in

	session *session // the login, once it is accepted; nil without one
	// failedBefore is how many logins of the account had failed when this one began.
	failedBefore int
	// failedAll is that of all instances, loginID names the login among theirs, and loginBegun is until
	// when it counts as one in progress.
	failedAll  int
	loginID    string
	loginBegun int64
	tookMail   bool     // the relay has taken mail on it
	lastJudged struct { // the last failure by reply, see judgementOf
		failure   *mailer.Failure
		judgement relays.Judgement
	}
	reports      []mailer.RungReport // of the race that it won; none without a race
	loggedIn     time.Time
	buf          []byte // for content, kept from one message to the next
	served       int    // transactions begun
	fruitless    int    // consecutive transactions that delivered nothing
	resets       int    // RSETs after several of these, and further EHLOs
	fences       int    // further EHLOs, see dialogue.fence
	loginDoubted bool   // the relay may have forgotten the login, see delivery.doubtLogin
	dirty        bool   // a transaction is open and must be reset before the next
	unbind       func() // the release of the last bind; nil before
	dead         bool   // closed, or ended in the background
	retiring     bool   // the relay takes no more messages on it
	partialWrite bool   // part of an envelope was sent: no more may follow it
	// refusedExtensions are not used on this connection, because MAIL was refused
	// with their parameters.
	refusedExtensions []string

	next      *waiter       // the delivery that gets the connection next; nil mostly
	booked    chan struct{} // tells the holder that next was set after the content went out; of one
	idleSince time.Time     // when the pool last got it back
	stale     bool          // it was idle long enough to be lost without notice
	watched   chan error    // how the watch over the idle connection ended; of one
}

// extensions are the EHLO keywords in upper case with their parameters
// (RFC 5321 §4.1.1.1).
type extensions map[string]string

// with returns the extensions with one more, as the relay offers it.
func (e extensions) with(keyword string, offered extensions) extensions {
	more := maps.Clone(e)
	more[keyword] = offered[keyword]
	return more
}

func (e extensions) has(keyword string) bool {
	_, ok := e[keyword]
	return ok
}

// parseExtensions reads the lines of an EHLO reply after the first. Keywords
// are case-insensitive and whole tokens.
func parseExtensions(lines []string) extensions {
	ext := extensions{}
	for _, line := range lines {
		keyword, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		if keyword != "" {
			ext[strings.ToUpper(keyword)] = strings.TrimSpace(params)
		}
	}
	return ext
}

func (r *Relay) newConn(rung mailer.Rung) *conn {
	return &conn{relay: r, rung: rung, up: make(chan struct{}), watched: make(chan error, 1), booked: make(chan struct{}, 1)}
}

// open connects to the rung and goes as far as EHLO over verified TLS, but not to
// AUTH, so that any number of rungs may be opened at once. After a failure the
// connection is closed; its fields show how far it got.
func (c *conn) open(ctx context.Context) *mailer.Failure {
	if f := c.dial(ctx); f != nil {
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, c.relay.opts.Timeouts.Hello)
	defer cancel()
	release := c.bind(ctx)
	defer release()
	f := c.hello(ctx)
	if f != nil {
		c.close()
	}
	return f
}

func (c *conn) dial(ctx context.Context) *mailer.Failure {
	dialCtx, cancel := context.WithTimeout(ctx, c.relay.opts.Timeouts.Connect)
	defer cancel()
	begin := time.Now()
	raw, err := c.connect(dialCtx)
	c.dialled = time.Since(begin)
	if err != nil {
		why, stage := dialCause(err), mailer.StageConnect
		if why.problem == ProblemDropped { // it was there, for a moment
			stage = mailer.StageGreeting
		}
		return c.failed(ctx, stage, why)
	}
	c.raw = raw
	c.use(raw)
	close(c.up)
	if c.rung.Clear && !c.relay.opts.AllowCleartext && !netaddr.IsPrivate(raw.RemoteAddr()) {
		c.close()
		return c.failed(ctx, mailer.StageConnect, &cause{
			problem: ProblemCleartext,
			text:    "SMTP_TLS=none is refused: the relay's address is neither loopback nor private",
		})
	}
	return nil
}

func (c *conn) connect(ctx context.Context) (net.Conn, error) {
	if c.dialer != nil {
		return c.dialer(ctx, c.rung.Port)
	}
	return c.relay.opts.Dial(ctx, "tcp", net.JoinHostPort(c.relay.opts.Host, strconv.Itoa(c.rung.Port)))
}

// use makes nc the connection for commands and replies, with nothing read from it.
func (c *conn) use(nc net.Conn) {
	c.nc = nc
	c.br = bufio.NewReader(nc)
}

// hello goes from the greeting to the last EHLO.
func (c *conn) hello(ctx context.Context) *mailer.Failure {
	if c.rung.Implicit {
		if f := c.handshake(ctx); f != nil {
			return f
		}
	}
	if f := c.greeting(ctx); f != nil {
		return f
	}
	if f := c.sayEHLO(ctx); f != nil {
		return f
	}
	if c.tls == nil && !c.rung.Clear {
		if f := c.startTLS(ctx); f != nil {
			return f
		}
		if f := c.sayEHLO(ctx); f != nil {
			return f
		}
	}
	// A rung that offers no login for us is of no use. Find out while other rungs
	// are still in the race.
	if c.relay.opts.authenticates() {
		_, f := c.mechanism(ctx)
		return f
	}
	return nil
}

func (c *conn) greeting(ctx context.Context) *mailer.Failure {
	c.reached(mailer.StageGreeting)
	r, err := c.read(ctx, c.relay.opts.Timeouts.Hello)
	if err != nil {
		return c.failed(ctx, mailer.StageGreeting, readCause(err))
	}
	c.banner = r.String()
	if !r.Positive() {
		return c.refused(mailer.StageGreeting, r)
	}
	return nil
}

// sayEHLO asks for the relay's extensions and forgets those of an earlier reply
// (RFC 3207 §4.2). A relay that does not know EHLO gets HELO, where no extension is
// needed.
func (c *conn) sayEHLO(ctx context.Context) *mailer.Failure {
	c.ext, c.ehlo = nil, nil
	w, f := c.exchange(ctx, mailer.StageEHLO, "EHLO "+c.helo())
	if f != nil {
		return f
	}
	if (w.code == 500 || w.code == 502) && (c.rung.Clear || c.tls != nil) && !c.relay.opts.authenticates() {
		if w, f = c.exchange(ctx, mailer.StageEHLO, "HELO "+c.helo()); f != nil {
			return f
		}
		w.lines = w.lines[:1]
	}
	if r := w.reply(); !r.Positive() {
		return c.refused(mailer.StageEHLO, r)
	}
	c.ehlo = w.lines[1:]
	c.ext = c.relay.distrust.filter(parseExtensions(c.ehlo))
	return nil
}

// helo returns the configured name, else the address literal (RFC 5321 §4.1.4) of
// our end of the connection.
func (c *conn) helo() string {
	if c.relay.opts.Helo != "" {
		return c.relay.opts.Helo
	}
	ap, err := netip.ParseAddrPort(c.raw.LocalAddr().String())
	if err != nil {
		return "localhost"
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		return "[IPv6:" + ip.String() + "]"
	}
	return "[" + ip.String() + "]"
}

// startTLS asks for TLS and starts it. Clear text after the 220 ends the
// connection: it would be read as if it came over TLS, and an attacker on the way
// may have sent it (RFC 3207 §6).
func (c *conn) startTLS(ctx context.Context) *mailer.Failure {
	if !c.ext.has("STARTTLS") {
		return c.failed(ctx, mailer.StageStartTLS, &cause{problem: ProblemNoSTARTTLS, text: "the relay does not offer STARTTLS"})
	}
	w, f := c.exchange(ctx, mailer.StageStartTLS, "STARTTLS")
	if f != nil {
		return f
	}
	if w.code != 220 {
		return c.refused(mailer.StageStartTLS, w.reply())
	}
	if c.br.Buffered() > 0 {
		return c.failed(ctx, mailer.StageStartTLS, &cause{problem: ProblemTLS, text: "clear text was injected after STARTTLS"})
	}
	return c.handshake(ctx)
}

func (c *conn) handshake(ctx context.Context) *mailer.Failure {
	c.reached(mailer.StageTLS)
	tc := tls.Client(c.raw, c.tlsConfig())
	c.arm(ctx, c.relay.opts.Timeouts.Hello)
	if err := tc.HandshakeContext(ctx); err != nil {
		if c.certificateAsked && strings.Contains(err.Error(), "remote error: tls: handshake failure") {
			return c.failed(ctx, mailer.StageTLS, ourCertificate(err))
		}
		return c.failed(ctx, mailer.StageTLS, c.relay.opts.tlsCause(err))
	}
	state := tc.ConnectionState()
	c.tls = &state
	c.relay.seen.note(c.rung.Port, &state)
	c.use(tc)
	return nil
}

func (c *conn) tlsConfig() *tls.Config {
	o := &c.relay.opts
	config := &tls.Config{
		ServerName: o.ServerName,
		RootCAs:    o.RootCAs,
		MinVersion: o.MinTLS,
		// No ClientSessionCache: no session is ever resumed. Microsoft's relays
		// break when one is (golang/go#70232), and connections are kept anyway.
		// Messages are written in large chunks: no need to begin with small records.
		DynamicRecordSizingDisabled: true,
		GetClientCertificate:        c.clientCertificate,
	}
	if len(o.Pins) > 0 {
		config.InsecureSkipVerify = true // verifyPins does more
		config.VerifyConnection = o.verifyPins
	}
	return config
}

// bind interrupts reads and writes of the connection when ctx ends, until release
// is called.
func (c *conn) bind(ctx context.Context) (release func()) {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.raw.SetDeadline(time.Unix(1, 0))
		close(fired)
	})
	c.unbind = sync.OnceFunc(func() {
		if !stop() {
			<-fired
		}
	})
	return c.unbind
}

// arm limits the next reads and writes to d and to ctx's deadline, all together: a
// relay that sends one octet at a time gains no time by that.
func (c *conn) arm(ctx context.Context, d time.Duration) {
	deadline := time.Now().Add(d)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	c.raw.SetDeadline(deadline)
	// If ctx has just ended, this overwrote the deadline in the past that bind set.
	if ctx.Err() != nil {
		c.raw.SetDeadline(time.Unix(1, 0))
	}
}

func (c *conn) read(ctx context.Context, d time.Duration) (mailer.Reply, error) {
	c.arm(ctx, d)
	return readReply(c.br)
}

// write returns how much of data may have been sent. What is beyond that was not.
func (c *conn) write(ctx context.Context, d time.Duration, data []byte) (int, error) {
	c.arm(ctx, d)
	return c.nc.Write(data)
}

// exchange sends one command, of those before MAIL, and reads its reply.
func (c *conn) exchange(ctx context.Context, stage mailer.Stage, command string) (wireReply, *mailer.Failure) {
	c.reached(stage)
	if _, err := c.write(ctx, c.relay.opts.Timeouts.Command, []byte(command+"\r\n")); err != nil {
		return wireReply{}, c.failed(ctx, stage, c.unsentCause(err))
	}
	c.arm(ctx, c.relay.opts.Timeouts.Command)
	w, err := readLines(c.br)
	if err != nil {
		return wireReply{}, c.failed(ctx, stage, readCause(err))
	}
	return w, nil
}

// failed returns a failure without a reply: about the relay before MAIL, transient
// after it. An attempt that was stopped says nothing about the relay and is
// transient.
func (c *conn) failed(ctx context.Context, stage mailer.Stage, why *cause) *mailer.Failure {
	f := c.failure(mailer.ClassRelay, stage, why)
	if stage >= mailer.StageMail {
		f.Class = mailer.ClassTransient
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		f.Class, f.Text = mailer.ClassTransient, "the attempt was stopped"
	}
	return f
}

func (c *conn) failure(class mailer.Class, stage mailer.Stage, why *cause) *mailer.Failure {
	return &mailer.Failure{Class: class, Stage: stage, Relay: c.relay.opts.Name, Port: c.rung.Port, Text: why.text, Err: why}
}

// refused returns a failure by reply.
func (c *conn) refused(stage mailer.Stage, r mailer.Reply) *mailer.Failure {
	f, _ := c.judged(stage, r)
	return f
}

// judged returns a failure by reply, and what the table says of that.
func (c *conn) judged(stage mailer.Stage, r mailer.Reply) (*mailer.Failure, relays.Judgement) {
	j := relays.Judge(c.relay.opts.Host, stage, r, time.Now())
	f := &mailer.Failure{
		Class: classify(stage, r, j), Stage: stage, Relay: c.relay.opts.Name, Port: c.rung.Port, Reply: r,
		Until: j.Until, Passes: j.Passes,
	}
	if stage != mailer.StageAuth || j.Verdict != relays.Login { // of a refused login diagnosis says more
		f.Cause, f.Remedy = j.Cause, j.Remedy
	}
	switch {
	case f.Class == mailer.ClassPermanent && cannotTake(stage, r):
		f.Err = mailer.ErrCannotTake
	case j.Verdict == relays.Sender && stage >= mailer.StageMail:
		f.Err = mailer.ErrSenderRefused
	case f.Class == mailer.ClassRelay && takesToken(c.auth) && relays.WantsOAuth2(r):
		f.Err = &loginRefused{word: relays.LoginForbidden} // after a login with a token
	}
	if !j.Known {
		c.relay.logUnknown(f)
	}
	c.lastJudged.failure, c.lastJudged.judgement = f, j
	return f, j
}

// judgementOf returns what the table says of the reply of a failure.
func (c *conn) judgementOf(f *mailer.Failure) relays.Judgement {
	if c.lastJudged.failure == f {
		return c.lastJudged.judgement
	}
	return relays.Judge(c.relay.opts.Host, f.Stage, f.Reply, time.Now())
}

// close ends the connection without QUIT.
func (c *conn) close() {
	c.dead = true
	c.hangUp()
}

// hangUp ends the TCP connection, and the session with it.
func (c *conn) hangUp() {
	c.raw.Close()
	if c.session != nil {
		c.relay.account.judged(c.session)
	}
}

// quit says QUIT and closes in the background: the mail's outcome is known, and no
// caller waits for the reply.
func (c *conn) quit() {
	if c.dead {
		return
	}
	c.dead = true
	c.relay.background(func(context.Context) { c.farewell() })
}

// farewell says QUIT, waits briefly for the relay to end the connection, and closes.
func (c *conn) farewell() {
	defer c.close()
	c.raw.SetDeadline(time.Now().Add(quitTimeout))
	stop := context.AfterFunc(c.relay.ctx, func() { c.raw.SetDeadline(time.Now().Add(lastQuitTimeout)) })
	defer stop()
	if _, err := c.nc.Write([]byte("QUIT\r\n")); err == nil {
		_, _ = readReply(c.br)
		c.drain()
	}
}
