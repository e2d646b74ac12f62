package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/netaddr"
)

// quitTimeout bounds the farewell, and lastQuitTimeout what is left of it when
// Close waits.
const (
	quitTimeout     = 2 * time.Second
	lastQuitTimeout = 500 * time.Millisecond
)

// conn is one connection to a relay. It serves one caller at a time. Whoever
// holds it must end it with close or quit.
type conn struct {
	relay *Relay
	rung  mailer.Rung
	raw   net.Conn // the TCP connection; closing it ends everything
	nc    net.Conn // raw, or TLS over it
	br    *bufio.Reader

	up      chan struct{} // closed when there is a TCP connection
	dialled time.Duration // how long that took
	banner  string
	ext     extensions
	ehlo    []string // lines of the last EHLO reply after the first
	tls     *tls.ConnectionState
	auth    string // the mechanism that logged us in

	since   time.Time     // logged in
	buf     []byte        // for content, kept from one message to the next
	served  int           // transactions begun
	vain    int           // transactions in a row that no message came of
	resets  int           // RSETs after several of these
	dirty   bool          // a transaction is open that must be reset before the next
	dead    bool          // closed, or given to somebody else
	broken  bool          // an envelope has gone out in part: no more may be sent
	next    *waiter       // has booked the connection
	joined  chan struct{} // next is there since the content went out; of one
	rested  time.Time     // idle since then
	stale   bool          // it was idle for long enough to be lost without a word
	doubted []string      // extensions that are not used on it since MAIL was refused with them
	watched chan error    // how the watch over the idle connection ended; of one
}

// extensions are the EHLO keywords in upper case with their parameters
// (RFC 5321 §4.1.1.1).
type extensions map[string]string

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
	return &conn{relay: r, rung: rung, up: make(chan struct{}), watched: make(chan error, 1), joined: make(chan struct{}, 1)}
}

// open connects to the rung and goes as far as a verified TLS session and its
// EHLO, but not to AUTH: any number of rungs may be opened at once. After a
// failure the connection is closed, and tells how far it got.
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
	addr := net.JoinHostPort(c.relay.opts.Host, strconv.Itoa(c.rung.Port))
	begin := time.Now()
	raw, err := c.relay.opts.Dial(dialCtx, "tcp", addr)
	c.dialled = time.Since(begin)
	if err != nil {
		return c.failed(ctx, mailer.StageConnect, dialCause(err))
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

// use makes nc the connection that is spoken on, with nothing read from it yet.
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
	// A rung where we cannot log in is of no use: better to know it while other
	// rungs are still in the race.
	if c.relay.opts.Username != "" {
		_, f := c.mechanism(ctx)
		return f
	}
	return nil
}

func (c *conn) greeting(ctx context.Context) *mailer.Failure {
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

// sayEHLO forgets what was offered before (RFC 3207 §4.2). HELO is the answer
// to a relay that does not know EHLO, and only where none of its extensions is
// needed.
func (c *conn) sayEHLO(ctx context.Context) *mailer.Failure {
	c.ext, c.ehlo = nil, nil
	w, f := c.exchange(ctx, mailer.StageEHLO, "EHLO "+c.helo())
	if f != nil {
		return f
	}
	if (w.code == 500 || w.code == 502) && (c.rung.Clear || c.tls != nil) && c.relay.opts.Username == "" {
		if w, f = c.exchange(ctx, mailer.StageEHLO, "HELO "+c.helo()); f != nil {
			return f
		}
		w.lines = w.lines[:1]
	}
	if r := w.reply(); !r.Positive() {
		return c.refused(mailer.StageEHLO, r)
	}
	c.ehlo = w.lines[1:]
	c.ext = c.relay.distrust.among(parseExtensions(c.ehlo))
	return nil
}

// helo is the configured name, else the address literal (RFC 5321 §4.1.4) of
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

// startTLS asks for TLS and takes it. What the relay, or somebody between, has
// sent in clear after its 220 would otherwise be read as if it came over TLS
// (RFC 3207 §6): it ends the connection.
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
	tc := tls.Client(c.raw, c.relay.tlsConfig())
	c.arm(ctx, c.relay.opts.Timeouts.Hello)
	if err := tc.HandshakeContext(ctx); err != nil {
		return c.failed(ctx, mailer.StageTLS, tlsCause(err))
	}
	state := tc.ConnectionState()
	c.tls = &state
	c.use(tc)
	return nil
}

func (r *Relay) tlsConfig() *tls.Config {
	return &tls.Config{
		ServerName: r.opts.ServerName,
		RootCAs:    r.opts.RootCAs,
		MinVersion: tls.VersionTLS12,
		// No ClientSessionCache: no session is ever resumed. Microsoft's relays
		// break when one is (golang/go#70232), and connections are kept anyway.
		// Messages are written in large chunks: no need to begin with small records.
		DynamicRecordSizingDisabled: true,
	}
}

// bind makes the end of ctx break off whatever the connection waits for, until
// release is called.
func (c *conn) bind(ctx context.Context) (release func()) {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.raw.SetDeadline(time.Unix(1, 0))
		close(fired)
	})
	return sync.OnceFunc(func() {
		if !stop() {
			<-fired
		}
	})
}

// arm bounds the next reads and writes by d and by ctx. The bound is absolute:
// a relay that drips octets does not move it.
func (c *conn) arm(ctx context.Context, d time.Duration) {
	deadline := time.Now().Add(d)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	c.raw.SetDeadline(deadline)
	// When ctx ended just before, bind's past deadline was overwritten.
	if ctx.Err() != nil {
		c.raw.SetDeadline(time.Unix(1, 0))
	}
}

func (c *conn) read(ctx context.Context, d time.Duration) (mailer.Reply, error) {
	c.arm(ctx, d)
	return readReply(c.br)
}

// write says how much of data may have gone out when it fails: what is beyond
// that has not.
func (c *conn) write(ctx context.Context, d time.Duration, data []byte) (int, error) {
	c.arm(ctx, d)
	return c.nc.Write(data)
}

// exchange sends one command of the part before MAIL and reads its reply.
func (c *conn) exchange(ctx context.Context, stage mailer.Stage, command string) (wireReply, *mailer.Failure) {
	if _, err := c.write(ctx, c.relay.opts.Timeouts.Command, []byte(command+"\r\n")); err != nil {
		return wireReply{}, c.failed(ctx, stage, readCause(err))
	}
	c.arm(ctx, c.relay.opts.Timeouts.Command)
	w, err := readLines(c.br)
	if err != nil {
		return wireReply{}, c.failed(ctx, stage, readCause(err))
	}
	return w, nil
}

// failed is a failure without a reply. An attempt that was stopped says nothing
// about the relay.
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

// refused is a failure by reply.
func (c *conn) refused(stage mailer.Stage, r mailer.Reply) *mailer.Failure {
	return &mailer.Failure{Class: classify(stage, r), Stage: stage, Relay: c.relay.opts.Name, Port: c.rung.Port, Reply: r}
}

// close ends the connection without a word.
func (c *conn) close() {
	c.dead = true
	c.raw.Close()
}

// quit says farewell in the background: the mail's outcome is known, and no
// answer waits for courtesy.
func (c *conn) quit() {
	if c.dead {
		return
	}
	c.dead = true
	c.relay.background(func(context.Context) { c.farewell() })
}

// farewell says QUIT and closes.
func (c *conn) farewell() {
	defer c.close()
	c.raw.SetDeadline(time.Now().Add(quitTimeout))
	stop := context.AfterFunc(c.relay.ctx, func() { c.raw.SetDeadline(time.Now().Add(lastQuitTimeout)) })
	defer stop()
	if _, err := c.nc.Write([]byte("QUIT\r\n")); err == nil {
		_, _ = readReply(c.br)
	}
}
