package smtp

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mailsidecar/mailer"
	"mailsidecar/relays"

	"github.com/wneessen/go-mail/smtp"
)

const (
	// maxAuthCommand is the length of an AUTH command with an initial response, in
	// octets: the limit of an SMTP command line (RFC 4954 §4, RFC 5321 §4.5.3.1.4).
	maxAuthCommand = 512
	// maxAuthSteps limits the challenges of one login.
	maxAuthSteps = 10
	// maxSCRAMIterations limits the work that a relay may demand, to about half a
	// second.
	maxSCRAMIterations = 1_000_000
)

// mechanisms are the SASL mechanisms that can be configured by name. Those before
// NTLM are in the order of "auto", best first.
var mechanisms = []string{
	"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN", "LOGIN", "CRAM-MD5",
	"NTLM", "XOAUTH2", "OAUTHBEARER",
}

// What "auto" chooses from: with a password, and with a token. Where the relay offers
// both XOAUTH2 and the standard, all who wrote it test it with XOAUTH2.
var (
	automatic       = mechanisms[:7]
	tokenMechanisms = mechanisms[8:]
)

// takesToken reports whether the mechanism logs in with an OAuth2 token.
func takesToken(mechanism string) bool { return slices.Contains(tokenMechanisms, mechanism) }

// mechanism returns the AUTH mechanism for this connection: the configured one, or
// for "auto" the first that the relay offers.
func (c *conn) mechanism(ctx context.Context) (string, *mailer.Failure) {
	offered := strings.Fields(strings.ToUpper(c.ext["AUTH"]))
	wanted := automatic
	switch {
	case c.relay.opts.Mechanism != "AUTO":
		wanted = []string{c.relay.opts.Mechanism}
	case c.relay.opts.TokenSource != nil:
		wanted = tokenMechanisms
	}
	for _, m := range wanted {
		if slices.Contains(offered, m) && (c.tls != nil || !strings.HasSuffix(m, "-PLUS")) {
			return m, nil
		}
	}
	text := "the relay offers no AUTH"
	if len(offered) > 0 {
		text = "the relay offers no AUTH mechanism that is configured here, only " + mailer.Printable(strings.Join(offered, " "), 200)
	}
	return "", c.failed(ctx, mailer.StageAuth, &cause{problem: ProblemNoMechanism, text: text})
}

func (c *conn) authenticate(ctx context.Context, name, token string) *mailer.Failure {
	x := authExchange{conn: c, name: name, secrets: []string{token, c.relay.opts.Password}}
	if f := x.run(ctx, c.sasl(name, token)); f != nil {
		return f
	}
	c.auth = name
	return nil
}

// token returns the access token for a mechanism that takes one, where possible
// another one than the relay refused. Without a token source the password is the token.
func (c *conn) token(ctx context.Context, mechanism, refused string) (string, *mailer.Failure) {
	if !takesToken(mechanism) || c.relay.opts.TokenSource == nil {
		return c.relay.opts.Password, nil
	}
	token, err := c.relay.opts.TokenSource(ctx, refused)
	if err == nil && strings.ContainsFunc(token, notInToken) {
		token, err = "", errors.New("it holds a blank or another character that no token has")
	}
	if err == nil && c.relay.opts.username() == "" {
		token, err = "", errors.New("the account that it belongs to is not known, and no user name is set")
	}
	if err != nil {
		const text = "the OAuth2 token could not be fetched"
		f := c.failed(ctx, mailer.StageAuth, &cause{problem: ProblemToken, text: text, err: err})
		if f.Text == text {
			f.Text += ": " + WithoutAddresses(err)
		}
		return "", f
	}
	return token, nil
}

// sasl returns the mechanism's client.
func (c *conn) sasl(name, token string) smtp.Auth {
	user, password := c.relay.opts.username(), c.relay.opts.Password
	host, clear := c.relay.opts.ServerName, c.rung.Clear
	switch name {
	case "PLAIN":
		return smtp.PlainAuth("", user, password, host, clear)
	case "LOGIN":
		return smtp.LoginAuth(user, password, host, clear)
	case "CRAM-MD5":
		return smtp.CRAMMD5Auth(user, password)
	case "SCRAM-SHA-1":
		return &scramGuard{Auth: smtp.ScramSHA1Auth(user, password)}
	case "SCRAM-SHA-256":
		return &scramGuard{Auth: smtp.ScramSHA256Auth(user, password)}
	case "SCRAM-SHA-1-PLUS":
		return &scramGuard{Auth: smtp.ScramSHA1PlusAuth(user, password, c.tls)}
	case "SCRAM-SHA-256-PLUS":
		return &scramGuard{Auth: smtp.ScramSHA256PlusAuth(user, password, c.tls)}
	case "NTLM":
		domain, account, ok := strings.Cut(user, `\`)
		if !ok {
			domain, account = "", user
		}
		return smtp.NTLMAuth(account, password, domain)
	default:
		return &bearer{mechanism: name, first: bearerMessage(name, user, token, host, c.rung.Port)}
	}
}

// authExchange is one AUTH command with its challenges (RFC 4954 §4).
type authExchange struct {
	conn    *conn
	name    string
	secrets []string // are cut out of the relay's words
	pending []byte   // the initial response, until an empty challenge asks for it
}

func (x *authExchange) run(ctx context.Context, client smtp.Auth) *mailer.Failure {
	c := x.conn
	_, initial, err := client.Start(&smtp.ServerInfo{
		Name: c.relay.opts.ServerName, TLS: c.tls != nil, Auth: strings.Fields(c.ext["AUTH"]),
	})
	if err != nil {
		return x.broken(ctx, err)
	}
	w, f := x.exchange(ctx, x.command(initial))
	if f == nil && initial != nil && x.pending == nil && isTooLong(w) {
		x.pending = initial
		w, f = x.exchange(ctx, "AUTH "+x.name)
	}
	for step := 0; f == nil && w.code == 334; step++ {
		if step == maxAuthSteps {
			return x.unanswered(client, x.broken(ctx, errors.New("too many challenges")))
		}
		var response []byte
		if response, err = x.respond(client, w); err != nil {
			return x.broken(ctx, err)
		}
		w, f = x.exchange(ctx, x.encode(response))
	}
	if f != nil {
		return x.unanswered(client, f)
	}
	if w.code != 235 {
		return x.refused(client, w)
	}
	if _, err := client.Next(nil, false); err != nil {
		return x.broken(ctx, err)
	}
	return nil
}

// exchange sends a line and reads what the relay says. The error of what is no reply
// quotes it.
func (x *authExchange) exchange(ctx context.Context, line string) (wireReply, *mailer.Failure) {
	w, f := x.conn.exchange(ctx, mailer.StageAuth, line)
	if f != nil {
		if why, ok := errors.AsType[*cause](f.Err); ok && errors.Is(why.err, errReplyMalformed) {
			why.err = errors.New(x.redact(why.err.Error()))
		}
	}
	return w, f
}

// refused returns the failure of a login that the relay refused.
func (x *authExchange) refused(client smtp.Auth, w wireReply) *mailer.Failure {
	for i := range w.lines {
		w.lines[i] = x.redact(w.lines[i])
	}
	f := x.conn.refused(mailer.StageAuth, w.reply())
	var said *relays.TokenError
	if b, ok := client.(*bearer); ok {
		said = x.readTokenError(b.challenge)
	}
	why := &loginRefused{word: relays.LoginRefusal(f.Reply, said), said: said}
	f.Text, f.Err = why.text(), why
	return f
}

// unanswered returns the failure of a login without a final reply. Where the relay has
// said before what is wrong with the token, it has refused it.
func (x *authExchange) unanswered(client smtp.Auth, f *mailer.Failure) *mailer.Failure {
	b, ok := client.(*bearer)
	if !ok || !b.failed || f.Class != mailer.ClassRelay {
		return f
	}
	if said := x.readTokenError(b.challenge); said.Status != "" {
		why := &loginRefused{word: relays.LoginRefusal(mailer.Reply{}, said), said: said}
		f.Text, f.Err = why.text(), why
	}
	return f
}

// command returns the AUTH command, with the initial response if that fits the line.
// Otherwise the response waits for the first challenge.
func (x *authExchange) command(initial []byte) string {
	command := "AUTH " + x.name
	if initial == nil {
		return command
	}
	if full := command + " " + x.encode(initial); len(full)+2 <= maxAuthCommand {
		return full
	}
	x.pending = initial
	return command
}

// isTooLong reports whether the relay takes shorter lines only than it should: Dovecot
// and Gmail say so in these words, with 500 and 555.
func isTooLong(w wireReply) bool {
	return (w.code == 500 || w.code == 555) && strings.Contains(strings.ToLower(strings.Join(w.lines, " ")), "too long")
}

// respond answers a challenge.
func (x *authExchange) respond(client smtp.Auth, w wireReply) ([]byte, error) {
	if x.pending != nil {
		response := x.pending
		x.pending = nil
		return response, nil
	}
	challenge, err := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.Join(w.lines, "")))
	switch {
	case err == nil:
	case x.name == "LOGIN":
		// The challenges of LOGIN are prompts in any form, without meaning.
	case takesToken(x.name):
		challenge = nil // the reply that follows counts
	default:
		return nil, fmt.Errorf("challenge: %w", err)
	}
	return client.Next(challenge, true)
}

func (x *authExchange) encode(response []byte) string {
	s := base64.StdEncoding.EncodeToString(response)
	x.secrets = append(x.secrets, s)
	return s
}

// broken returns the failure of a login that stopped in the middle. The connection
// cannot be used afterwards.
func (x *authExchange) broken(ctx context.Context, err error) *mailer.Failure {
	return x.conn.failed(ctx, mailer.StageAuth, &cause{
		problem: ProblemOther,
		text:    "AUTH " + x.name + " could not be completed",
		err:     errors.New(mailer.Printable(x.redact(err.Error()), maxReplyText)),
	})
}

// redact removes our secrets from a relay's words: some relays repeat the line that
// they refuse, or its beginning.
func (x *authExchange) redact(s string) string { return mailer.Redact(s, x.secrets) }

// scramGuard adds to a SCRAM client what RFC 5802 demands of it: messages in order, a
// limit on the work, and no success before the relay has proved that it knows the
// password, too. It also sends the first message as an initial response, which saves
// a round trip.
type scramGuard struct {
	smtp.Auth
	state scramState
}

type scramState int

const (
	scramStarted scramState = iota // we sent our first message
	scramProved                    // we sent our proof
	scramTrusted                   // the relay sent its proof
)

func (g *scramGuard) Start(server *smtp.ServerInfo) (string, []byte, error) {
	name, _, err := g.Auth.Start(server)
	if err != nil {
		return "", nil, err
	}
	first, err := g.Auth.Next(nil, true)
	return name, first, err
}

func (g *scramGuard) Next(challenge []byte, more bool) ([]byte, error) {
	switch {
	case !more && g.state != scramTrusted:
		return nil, errors.New("the relay did not prove that it knows the password")
	case !more:
		return nil, nil
	case g.state == scramStarted && bytes.HasPrefix(challenge, []byte("r=")):
		if err := checkIterations(challenge); err != nil {
			return nil, err
		}
		g.state = scramProved
	case g.state == scramProved && bytes.HasPrefix(challenge, []byte("v=")):
		g.state = scramTrusted
	default:
		return nil, errors.New("unexpected SCRAM message")
	}
	response, err := g.Auth.Next(challenge, true)
	if err != nil {
		g.state = scramStarted
	}
	return response, err
}

func checkIterations(serverFirst []byte) error {
	for field := range bytes.SplitSeq(serverFirst, []byte(",")) {
		if count, ok := bytes.CutPrefix(field, []byte("i=")); ok {
			if n, err := strconv.Atoi(string(count)); err != nil || n < 1 || n > maxSCRAMIterations {
				return errors.New("SCRAM iteration count out of bounds")
			}
		}
	}
	return nil
}
