package smtp

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mailsidecar/mailer"
)

// Report is the result of [Relay.Check] for one relay: every rung of its ladder, each
// on its own, without sending mail. Durations are in milliseconds.
type Report struct {
	Name string `json:"name"`
	Host string `json:"host"`
	// Addresses are the IP addresses that Host resolves to.
	Addresses []string `json:"addresses,omitempty"`
	DNSMillis int64    `json:"dns_ms"`
	// Failure is set when Host could not be resolved; the rungs are then not tried.
	Failure *CheckFailure `json:"failure,omitempty"`
	Rungs   []RungCheck   `json:"rungs,omitempty"` // in the ladder's order
	// OK says that a message could be sent now: some rung has no failure, and the
	// credentials, if there are any, were accepted.
	OK bool `json:"ok"`
}

// RungCheck is how far the check of one rung came.
type RungCheck struct {
	Port int `json:"port"`
	// Mode is "starttls", "tls" (implicit) or "none".
	Mode string `json:"mode"`
	// TCP is the state of the port: "open", "refused", "no_answer" (a firewall drops
	// the packets, or the host is down), or "unreachable" for any other error.
	TCP       string `json:"tcp"`
	TCPMillis int64  `json:"tcp_ms"`
	Address   string `json:"address,omitempty"` // IP address and port that answered
	Banner    string `json:"banner,omitempty"`
	// Capabilities are the lines of the last EHLO reply, after TLS where there is any.
	Capabilities []string `json:"capabilities,omitempty"`
	// Mechanisms are the AUTH mechanisms offered there, in upper case.
	Mechanisms []string  `json:"mechanisms,omitempty"`
	TLS        *TLSCheck `json:"tls,omitempty"`
	// Auth is "accepted", "refused", "paused" or "not_tried". One login is enough, and
	// repeated failures lock accounts out, so only the first rung that gets so far is
	// tried; none is without credentials. "paused" is a login that is not tried before
	// NextLogin: Failure is that of the last one, which this check has not made.
	Auth      string    `json:"auth"`
	Mechanism string    `json:"mechanism,omitempty"` // the AUTH mechanism tried
	NextLogin time.Time `json:"next_login_at,omitzero"`
	// Failure is why the rung is of no use; nil when it could take mail.
	Failure *CheckFailure `json:"failure,omitempty"`
	Millis  int64         `json:"ms"` // the whole check of this rung
}

// TLSCheck is the TLS session and the certificate of a rung, also of a certificate
// that does not verify.
type TLSCheck struct {
	Version  string    `json:"version,omitempty"` // "TLS 1.3"; empty when the handshake failed
	Subject  string    `json:"subject,omitempty"`
	Names    []string  `json:"names,omitempty"` // DNS names and IP addresses
	Issuer   string    `json:"issuer,omitempty"`
	NotAfter time.Time `json:"not_after"`
	DaysLeft int       `json:"days_left"` // negative when expired
}

// CheckFailure is a [mailer.Failure] for printing.
type CheckFailure struct {
	Stage    string  `json:"stage"` // Stage.String
	Class    string  `json:"class"` // Class.String
	Problem  Problem `json:"problem"`
	Code     int     `json:"code,omitempty"`
	Enhanced string  `json:"enhanced_code,omitempty"`
	// Text is the relay's own words where there is a code, else ours.
	Text string `json:"text"`
	// Cause is why a login failed beyond that: what the relay says of an OAuth2 token,
	// or why none could be fetched. Empty where there is no more to say.
	Cause string `json:"cause,omitempty"`
	// Err is the failure's, for [errors.As]; may be nil.
	Err error `json:"-"`
}

// Check tries every rung on its own, all at the same time and without a race, and
// logs in on the first that could take mail. It sends no mail, and does not change
// which rung deliveries use.
func (r *Relay) Check(ctx context.Context) Report {
	report := Report{Name: r.opts.Name, Host: r.opts.Host}
	if !r.enter() {
		report.Failure = checkFailure(&mailer.Failure{Stage: mailer.StageConnect, Text: "shutting down"})
		return report
	}
	defer r.work.Done()
	begin := time.Now()
	addresses, f := r.resolve(ctx)
	report.Addresses, report.DNSMillis = addresses, time.Since(begin).Milliseconds()
	if f != nil {
		report.Failure = checkFailure(f)
		return report
	}
	report.Rungs = make([]RungCheck, len(r.opts.Ladder))
	conns := make([]*conn, len(r.opts.Ladder))
	var rungs sync.WaitGroup
	for i, rung := range r.opts.Ladder {
		rungs.Go(func() { report.Rungs[i], conns[i] = r.checkRung(ctx, rung) })
	}
	rungs.Wait()
	r.checkLogins(ctx, report.Rungs, conns)
	report.OK = slices.ContainsFunc(report.Rungs, func(c RungCheck) bool {
		return c.Failure == nil && (!r.opts.authenticates() || c.Auth == authAccepted)
	})
	return report
}

// The values of RungCheck.Auth.
const (
	authAccepted = "accepted"
	authRefused  = "refused"
	authPaused   = "paused"
	authNotTried = "not_tried"
)

// resolve returns the host's IP addresses.
func (r *Relay) resolve(ctx context.Context) ([]string, *mailer.Failure) {
	if net.ParseIP(r.opts.Host) != nil {
		return []string{r.opts.Host}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*r.opts.Timeouts.Connect)
	defer cancel()
	addresses, err := r.lookup(ctx, r.opts.Host)
	if err != nil {
		why := dialCause(err)
		return nil, &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Relay: r.opts.Name, Text: why.text, Err: why}
	}
	return addresses, nil
}

// checkRung opens one rung, up to its last EHLO. The conn is nil when it did not get
// so far.
func (r *Relay) checkRung(ctx context.Context, rung mailer.Rung) (RungCheck, *conn) {
	begin := time.Now()
	c := r.newConn(rung)
	f := c.open(ctx)
	check := RungCheck{
		Port: rung.Port, Mode: rung.Mode(), TCP: tcpState(c, f), TCPMillis: c.dialled.Milliseconds(),
		Banner: c.banner, Auth: authNotTried, TLS: tlsCheck(c, f),
		Mechanisms: strings.Fields(strings.ToUpper(mailer.Printable(c.ext["AUTH"], maxReplyText))),
	}
	if c.raw != nil {
		check.Address = c.raw.RemoteAddr().String()
	}
	for _, line := range c.ehlo {
		check.Capabilities = append(check.Capabilities, mailer.Printable(line, maxReplyText))
	}
	if f != nil {
		if f.Stage == mailer.StageGreeting && ProblemOf(f) == ProblemSilent && r.speaksTLS(ctx, rung) {
			why := &cause{problem: ProblemTLSMode, text: "wrong TLS mode: the port speaks TLS from the first octet"}
			f.Text, f.Err = why.text, why
		}
		check.Failure, c = checkFailure(f), nil
	}
	check.Millis = time.Since(begin).Milliseconds()
	return check, c
}

func tcpState(c *conn, f *mailer.Failure) string {
	if c.raw != nil {
		return "open"
	}
	switch ProblemOf(f) {
	case ProblemRefused:
		return "refused"
	case ProblemNoAnswer:
		return "no_answer"
	default:
		return "unreachable"
	}
}

// speaksTLS reports whether a port that sends no greeting expects TLS from the first
// octet.
func (r *Relay) speaksTLS(ctx context.Context, rung mailer.Rung) bool {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeouts.Connect)
	defer cancel()
	raw, err := r.opts.Dial(ctx, "tcp", net.JoinHostPort(r.opts.Host, strconv.Itoa(rung.Port)))
	if err != nil {
		return false
	}
	defer raw.Close()
	err = tls.Client(raw, r.tlsConfig()).HandshakeContext(ctx)
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	return err == nil || unverified
}

// tlsCheck describes the session, or the certificate that did not verify. It returns
// nil when there was neither.
func tlsCheck(c *conn, f *mailer.Failure) *TLSCheck {
	if c.tls != nil {
		check := certificateCheck(c.tls.PeerCertificates[0])
		check.Version = tls.VersionName(c.tls.Version)
		return check
	}
	if f != nil {
		if e, ok := errors.AsType[*tls.CertificateVerificationError](f.Err); ok && len(e.UnverifiedCertificates) > 0 {
			return certificateCheck(e.UnverifiedCertificates[0])
		}
	}
	return nil
}

func certificateCheck(cert *x509.Certificate) *TLSCheck {
	check := &TLSCheck{
		Subject: mailer.Printable(cert.Subject.String(), maxReplyText), Issuer: mailer.Printable(cert.Issuer.String(), maxReplyText),
		NotAfter: cert.NotAfter, DaysLeft: int(math.Floor(time.Until(cert.NotAfter).Hours() / 24)),
	}
	for _, name := range cert.DNSNames {
		check.Names = append(check.Names, mailer.Printable(name, maxReplyText))
	}
	for _, ip := range cert.IPAddresses {
		check.Names = append(check.Names, ip.String())
	}
	return check
}

// checkLogins logs in on the first rung that can, and on the next one only when no
// answer came. Then it says QUIT on all.
func (r *Relay) checkLogins(ctx context.Context, checks []RungCheck, conns []*conn) {
	answered := !r.opts.authenticates()
	for i, c := range conns {
		if c == nil {
			continue
		}
		if !answered {
			answered = checkLogin(ctx, &checks[i], c)
		}
		c.quit()
	}
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

func checkFailure(f *mailer.Failure) *CheckFailure {
	return &CheckFailure{
		Stage: f.Stage.String(), Class: f.Class.String(), Problem: ProblemOf(f),
		Code: f.Reply.Code, Enhanced: f.Reply.Enhanced, Text: cmp.Or(f.Reply.Text, f.Text), Cause: LoginCause(f), Err: f.Err,
	}
}
