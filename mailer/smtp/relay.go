// Package smtp hands finished messages to an upstream relay by authenticated SMTP:
// it finds a port that is open, keeps connections, and reads the relay's replies.
//
// It promises four things. Credentials and mail never cross an unencrypted
// connection, unless the relay is configured for clear text. Recipients fail one by
// one. What the relay did not clearly refuse is transient. And after the final dot
// nothing is blind: an attempt whose last reply was lost is
// [mailer.ClassUncertain], and this package never repeats it.
package smtp

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/processor"
	"mailsidecar/units"
)

// Options is how to reach one relay, and how to use it.
type Options struct {
	Name string // in logs and answers; empty means Host
	Host string // DNS name or IP address
	// Ladder holds the rungs in order of preference; at least one.
	Ladder []mailer.Rung

	// Username and Password log in; an empty Username means no AUTH, unless there is
	// an Account.
	Username string
	Password string
	// Mechanism is a SASL mechanism's name, or "auto" (also when empty):
	// with a TokenSource XOAUTH2, or OAUTHBEARER where that alone is offered, else the
	// best one offered.
	Mechanism string
	// TokenSource returns an OAuth2 access token, see [mailsidecar/mailer/smtp/token.Source];
	// nil when a password is used. It is called once for each login, and again where
	// the relay refused the token: then with that one.
	TokenSource func(ctx context.Context, refused string) (string, error)
	// Account, if not nil, returns the user name where Username is empty: that of the
	// login to which TokenSource's last token belongs; empty where it is not known.
	Account func() string
	// Logins limits the logins. Relays with the same host, user name and password
	// are one account there. Nil means that the relay shares it with no other.
	Logins *Logins

	// Cleartext is SMTP_TLS=none: no TLS at all, on every rung.
	Cleartext bool
	// AllowCleartext lets Cleartext leave loopback and private networks.
	AllowCleartext bool
	RootCAs        *x509.CertPool // nil: the system's
	ServerName     string         // name in the certificate; empty means Host
	// MinTLS is the oldest TLS version; zero means TLS 1.2 (RFC 8997 §3).
	MinTLS uint16
	// Pins, unless there are none, are the keys of which the relay must have one: its
	// certificate's, which needs no authority then, or that of an authority which vouches
	// for it.
	Pins []Pin
	// ClientCertificate returns our certificate for a relay that asks for one; nil where
	// there is none. It is called in each such handshake.
	ClientCertificate func() (*tls.Certificate, error)

	// Helo is our name in EHLO; empty means the host's name where that is a
	// domain, else the address literal of the connection (RFC 5321 §4.1.4).
	Helo string
	// MaxRecipients is the number of recipients in one transaction; zero means 100.
	MaxRecipients int

	// Processor has the turns in which large messages are converted; nil limits nothing.
	Processor *processor.Turns

	// ForceFrom, unless it is the zero Address, takes the place of the author of every
	// message, as [mailer.Message.ForceFrom] does, and of the reverse-path, unless that is
	// null or there is a ReturnPath. The address is canonical and in ASCII.
	ForceFrom mailer.Address
	// ReturnPath, unless it is empty, takes the place of every reverse-path that is not
	// null (RFC 5321 §4.5.5). It is canonical.
	ReturnPath string
	// Signer signs what goes in another form than the stored one; nil signs nothing.
	Signer Signer

	// MaxConnections limits the connections that are logged in at a time; zero means
	// 8. Those count that a caller has left, until the relay has ended them.
	MaxConnections int
	// MessagesPerConnection is how many transactions a connection serves before
	// it is closed; zero means 100, one means that none is kept.
	MessagesPerConnection int
	// IdleTimeout is how long an unused connection is kept; zero means 30 s. It
	// should be shorter than the relay's own limit, which can be a minute.
	IdleTimeout time.Duration
	// Rate limits how many messages start; zero means no limit. If its period is
	// longer than a second, a quarter may start as a burst, and the rest is spread
	// over the period, except mail of high priority.
	Rate units.Rate

	Meter    Meter        // nil counts nothing
	Timeouts Timeouts     // zero fields mean the defaults
	Logger   *slog.Logger // nil discards

	// Dial replaces the network in tests; nil means net.Dialer. Names replaces the DNS of
	// [Relay.Check] in tests; nil means that of the system.
	Dial  func(ctx context.Context, network, addr string) (net.Conn, error)
	Names *Names
}

// Timeouts limits each stage of the dialogue with a relay (RFC 5321 §4.5.3.2). The
// context given to Deliver or Check may shorten each of them.
type Timeouts struct {
	Connect time.Duration // name look-up and TCP, all addresses together; default 5 s
	Hello   time.Duration // greeting, EHLO, STARTTLS and TLS together; default 30 s
	Login   time.Duration // AUTH with all its steps, and the OAuth2 token; default 1 min
	Command time.Duration // MAIL, RCPT; default 5 min
	Data    time.Duration // the reply to DATA; default 2 min
	Write   time.Duration // each 64 KiB of the content; default 3 min
	Dot     time.Duration // the reply to the final dot; default 10 min
}

// withDefaults fills in what is zero.
func (t Timeouts) withDefaults() Timeouts {
	t.Connect = cmp.Or(t.Connect, 5*time.Second)
	t.Hello = cmp.Or(t.Hello, 30*time.Second)
	t.Login = cmp.Or(t.Login, time.Minute)
	t.Command = cmp.Or(t.Command, 5*time.Minute)
	t.Data = cmp.Or(t.Data, 2*time.Minute)
	t.Write = cmp.Or(t.Write, 3*time.Minute)
	t.Dot = cmp.Or(t.Dot, 10*time.Minute)
	return t
}

// Relay is one upstream relay. It is safe for concurrent use.
type Relay struct {
	opts     Options
	noteUsed func(context.Context, []time.Time) error // nil: nobody
	ladder   ladder
	pool     pool
	distrust distrust
	seen     certificates
	refusals refusals
	pace     pace
	account  *account
	unknown  unknownReplies
	// keepsLogin says that a further EHLO does not end the login, see delivery.doubtLogin.
	keepsLogin atomic.Bool

	// Background work (probes of preferred rungs, late listeners) ends with ctx, and
	// QUIT within its own timeout. work counts all of it, and every delivery.
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup
}

var _ mailer.Deliverer = (*Relay)(nil)

// New checks the options and returns the relay. It does not connect yet. The caller
// must call Close in the end.
func New(opts Options) (*Relay, error) {
	if err := opts.complete(); err != nil {
		return nil, fmt.Errorf("relay %s: %w", cmp.Or(opts.Name, opts.Host, "without host"), err)
	}
	r := &Relay{opts: opts}
	r.ladder.known = -1
	r.account = opts.Logins.account(opts)
	r.pace.rate, r.pace.quit = schedule{opts.Rate}, make(chan struct{})
	r.pool = pool{relay: r, window: newWindow(opts.MaxConnections)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

// complete checks the options and fills in the defaults.
func (o *Options) complete() error {
	o.Name = cmp.Or(o.Name, o.Host)
	o.ServerName = cmp.Or(o.ServerName, o.Host)
	o.MaxRecipients = cmp.Or(o.MaxRecipients, 100)
	o.MaxConnections = cmp.Or(o.MaxConnections, 8)
	o.MessagesPerConnection = cmp.Or(o.MessagesPerConnection, 100)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 30*time.Second)
	o.Mechanism = cmp.Or(strings.ToUpper(o.Mechanism), "AUTO")
	o.Timeouts = o.Timeouts.withDefaults()
	o.Helo = cmp.Or(o.Helo, hostDomain())
	o.MinTLS = cmp.Or(o.MinTLS, tls.VersionTLS12)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	if o.Names == nil {
		o.Names = &systemNames
	}
	if o.Host == "" || strings.ContainsAny(o.Host+o.Helo, " \r\n") {
		return errors.New("host and HELO name must be single words")
	}
	if err := o.completeLadder(); err != nil {
		return err
	}
	return o.checkCredentials()
}

func (o *Options) completeLadder() error {
	if len(o.Ladder) == 0 {
		return errors.New("no port")
	}
	o.Ladder = slices.Clone(o.Ladder)
	for i := range o.Ladder {
		rung := &o.Ladder[i]
		if rung.Port < 1 || rung.Port > 65535 {
			return fmt.Errorf("port %d is out of range", rung.Port)
		}
		if rung.Clear && !o.Cleartext {
			return fmt.Errorf("port %d is without TLS, but clear text is not configured", rung.Port)
		}
		if o.Cleartext {
			*rung = mailer.Rung{Port: rung.Port, Clear: true}
		}
	}
	return nil
}

// reversePath returns the reverse-path that the relay gets in place of path. The null one
// stays: a bounce message must never cause another one.
func (o *Options) reversePath(path string) string {
	if path == "" {
		return ""
	}
	return cmp.Or(o.ReturnPath, o.ForceFrom.Email, path)
}

// authenticates reports whether there is a login.
func (o *Options) authenticates() bool { return o.Username != "" || o.Account != nil }

// username returns the user name, as far as it is known.
func (o *Options) username() string {
	if o.Username == "" && o.Account != nil {
		return o.Account()
	}
	return o.Username
}

func (o *Options) checkCredentials() error {
	if o.Mechanism != "AUTO" && !slices.Contains(mechanisms, o.Mechanism) {
		return fmt.Errorf("unknown AUTH mechanism %q", o.Mechanism)
	}
	switch {
	case o.Username == "" && (o.Password != "" || o.TokenSource != nil && o.Account == nil):
		return errors.New("credentials without a user name")
	case o.Username != "" && o.Password == "" && o.TokenSource == nil:
		return errors.New("a user name without password or token")
	case o.MaxRecipients < 1:
		return errors.New("less than one recipient in a transaction")
	case o.Rate.Messages < 0 || o.Rate.Per < 0:
		return errors.New("a negative rate")
	case o.MaxConnections < 1 || o.MessagesPerConnection < 1 || o.IdleTimeout < 0:
		return errors.New("less than one connection, or none that lasts")
	default:
		return nil
	}
}

// hostDomain returns the host's name where that is a domain; the random names of
// containers are not. Otherwise it returns the empty string.
func hostDomain() string {
	name, err := os.Hostname()
	if err != nil || !strings.Contains(name, ".") || strings.ContainsAny(name, " _") {
		return ""
	}
	return name
}

// Name returns the relay's name.
func (r *Relay) Name() string { return r.opts.Name }

// Rewrites reports whether messages of any kind may be changed for this relay, so that a
// delivery needs a copy of the message.
func (r *Relay) Rewrites() bool { return r.opts.ForceFrom.Email != "" }

// Close ends the background work, late listeners included, says QUIT on the
// connections that are kept, and waits for all of that and for the deliveries in
// flight, which end with their own contexts. Later calls of Deliver fail.
func (r *Relay) Close() {
	entered := r.enter() // for the QUITs
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	if entered {
		r.pool.close()
		r.work.Done()
	}
	r.work.Wait()
	if s := r.pace.shared; s != nil {
		s.finish()
	}
}

// enter counts a delivery, so that Close waits for it and for background work that
// it starts. It returns false once the relay is closed.
func (r *Relay) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.work.Add(1)
	return true
}

// background runs f, which must end soon after its context does. It may only be
// called between enter and its Done, or from background work.
func (r *Relay) background(f func(ctx context.Context)) {
	r.work.Go(func() { f(r.ctx) })
}

// logLateVerdict writes the mail-log line of a delivery whose caller was answered
// "uncertain" before the relay replied. The queue's id is not known here.
func (r *Relay) logLateVerdict(t *transaction, result mailer.Result) {
	code, enhanced, class := result.Reply.Code, result.Reply.Enhanced, "accepted"
	if f := result.Failure; f != nil {
		class = f.Class.String()
	}
	if f := result.Failure; f != nil && f.Class == mailer.ClassUncertain && f.Reply.Code == 0 {
		cause := f.Text
		if r.ctx.Err() != nil { // Close has ended the connection, not the relay
			cause = "the service ended before the relay replied"
		}
		r.opts.Logger.Info("no late verdict",
			"message_id", t.messageID, "reverse_path", t.reversePath, "forward_path", result.ForwardPath, "relay", r.opts.Name, "cause", cause)
		return
	}
	r.opts.Logger.Warn("late verdict",
		"message_id", t.messageID, "reverse_path", t.reversePath, "forward_path", result.ForwardPath,
		"relay", r.opts.Name, "code", code, "enhanced_code", enhanced, "class", class)
}
