// Package diagnosis says in plain words what is wrong with a relay, and what its
// operator can do about it: for the check command, the log and HTTP alike.
package diagnosis

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/mailer/smtp/token"
	"mailsidecar/netaddr"
	"mailsidecar/relays"
)

// Advice is one thing that was found out about a relay, and what to do about it.
type Advice struct {
	Relay string `json:"relay"`
	Ports []int  `json:"ports,omitempty"` // none: the relay as a whole
	Found string `json:"found"`
	Do    string `json:"do,omitempty"` // empty: nothing has to be done

	said, cause string // what $SAID and $CAUSE stand for: the words of others
}

// Settings is what advice needs to know of a relay's settings. The zero value stands
// for the first relay, with a password.
type Settings struct {
	Number int // of the relay: 2 for SMTP2_…
	// Others reports whether there are further relays, so that commands have to name
	// this one.
	Others bool
	// Grant is how an OAuth2 token is got.
	Grant Grant
	// Issuer is the OAuth2 server: "microsoft", "google", or empty for another one.
	Issuer string
	// LoginURL and DeviceURL report whether the settings name where a person logs in at
	// another server, with a browser or with a device code.
	LoginURL, DeviceURL bool
	// Proof is what the OAuth2 client proves itself with.
	Proof Proof
	// KeyFile reports whether the key of a certificate has a file of its own.
	KeyFile bool
	// Auth is the AUTH mechanism that SMTP_AUTH names, in lower case; empty where the
	// best that the relay offers is chosen.
	Auth string
	// Ends reports whether the advice is that of a command that ends: it does not try
	// again by itself, as a server does.
	Ends bool
}

// Proof is what an OAuth2 client proves itself with.
type Proof int

const (
	ProofNone Proof = iota // a public client, or a grant without a client
	ProofSecret
	ProofCertificate
	ProofAssertion // a JWT of another issuer
)

// Grant is how a relay's OAuth2 token is got.
type Grant int

const (
	NoGrant             Grant = iota // without OAuth2
	GrantGiven                       // another program provides it
	GrantLogin                       // by the login of a person
	GrantClient                      // by the client's own credentials
	GrantServiceAccount              // by a service account
)

// prefix is that of the relay's variables, such as "SMTP_" or "SMTP2_".
func (s Settings) prefix() string {
	if s.Number <= 1 {
		return "SMTP_"
	}
	return fmt.Sprintf("SMTP%d_", s.Number)
}

// login is the command that logs in for the relay, for a sentence.
func (s Settings) login() string {
	command := "mailsidecar login"
	switch {
	case s.Issuer != "":
		command += " " + s.Issuer
	case s.LoginURL:
	case s.DeviceURL:
		command += " --device"
	default:
		return "get a refresh token from the provider and set SMTP_OAUTH2_REFRESH_TOKEN," +
			" or set SMTP_OAUTH2_AUTHORIZE_URL or SMTP_OAUTH2_DEVICE_URL and run mailsidecar login"
	}
	if s.Number > 1 || s.Others {
		command += fmt.Sprintf(" --relay %d", max(1, s.Number))
	}
	return command + " (with Compose: docker compose exec mailsidecar " + command + ")"
}

// adviceText is the advice for a problem before [Advice.expand]: $HOST is the
// relay's name, $PORTS/tls the ports in question with that mode, $LOGIN the command
// that logs in, and SMTP_ becomes the prefix of the relay's own variables. $SAID and
// $CAUSE are the words of relay and OAuth2 server, in which nothing is replaced. Of
// {this|that} a server says this, and a command that ends says that.
type adviceText struct{ found, do string }

// adviceTexts has one for each problem. [OfReport] adds what depends on the
// relay's preset or on the other rungs.
var adviceTexts = map[smtp.Problem]adviceText{
	smtp.ProblemName: {
		"DNS has no address for $HOST.",
		"Check the spelling of SMTP_HOST. If it is right, look whether this machine or container resolves names at all.",
	},
	smtp.ProblemRefused: {
		"the connection was refused: nothing listens there, or a firewall rejects it.",
		"Compare SMTP_HOST and SMTP_PORTS with what the provider names.",
	},
	smtp.ProblemNoAnswer: {
		"no answer: the packets are dropped. That is how hosting providers and firewalls block mail ports.",
		"Waiting longer does not help. Ask the hosting provider to open the port, or use another one.",
	},
	smtp.ProblemUnreachable: {
		"the network does not lead there.",
		"Check this machine's routes, and that its container network is not an internal one.",
	},
	smtp.ProblemSilent: {
		"connected, but the relay said nothing.",
		"Often a firewall or proxy answers in the relay's place, or the port expects TLS from the first byte: try SMTP_PORTS=$PORTS/tls.",
	},
	smtp.ProblemDropped: {
		"the relay, or something on the way to it, closed the connection.",
		"Some relays do so for addresses that they block: ask the provider. A port that expects TLS from the first byte does so too: try SMTP_PORTS=$PORTS/tls.",
	},
	smtp.ProblemTLSMode: {
		"the TLS mode is the wrong one: TLS from the first byte where the relay speaks STARTTLS, or the reverse.",
		"Say the mode with the port: SMTP_PORTS=$PORTS/starttls.",
	},
	smtp.ProblemNoSTARTTLS: {
		"the relay offers no STARTTLS, so no password and no mail is sent to it. Either it has none there, or a firewall strips the offer.",
		"Use a port with TLS, such as 465. For a relay on your own machine or private network only: SMTP_TLS=none.",
	},
	smtp.ProblemTLS: {
		"the TLS handshake failed: no version or cipher in common, or the relay broke it off.",
		"The relay must speak TLS 1.2 or newer. If it does, look for a proxy or firewall that intercepts the connection.",
	},
	smtp.ProblemExpired: {
		"the relay's certificate is expired or not valid yet.",
		"Check this machine's clock (date -u). If it is right, the relay's operator must renew the certificate.",
	},
	smtp.ProblemWrongName: {
		"the relay's certificate is for another name than $HOST.",
		"Set SMTP_HOST to a name in the certificate, or SMTP_TLS_SERVER_NAME if the relay must be dialled by another name.",
	},
	smtp.ProblemUnknownCA: {
		"the relay's certificate is signed by an authority that this machine does not know.",
		"For a relay of your own, name its authority's certificate in SMTP_TLS_CA_FILE. For a public one, something intercepts the connection.",
	},
	smtp.ProblemCertificate: {
		"the relay's certificate is not valid.",
		"The relay's operator must replace it, or something intercepts the connection.",
	},
	smtp.ProblemNoMechanism: {
		"the relay offers no AUTH mechanism that can be used with these credentials.",
		"Leave SMTP_AUTH unset or \"auto\". If it is, the account may need OAuth2, which docs/oauth2.md sets up.",
	},
	smtp.ProblemCredentials: {
		"the relay refused the user name or the password.",
		"Check SMTP_USERNAME and SMTP_PASSWORD. Look for blanks or a line end from copying, and for quotes that became part of the value.",
	},
	smtp.ProblemAppPassword: {
		"the relay refused the password: accounts with two-step verification need an app password.",
		"Create an app password in the account's security settings and set it as SMTP_PASSWORD.",
	},
	smtp.ProblemOAuth2: {
		"the relay no longer takes passwords: it needs OAuth2.",
		"Set SMTP_OAUTH2_… as docs/oauth2.md shows, and leave SMTP_AUTH unset. For Microsoft 365 see that SMTP AUTH is enabled for the mailbox.",
	},
	smtp.ProblemSubmissionOff: {
		"SMTP AUTH is switched off for this mailbox, or for the whole organization: no password and no token gets in.",
		"Switch it on in Exchange Online PowerShell: Set-CASMailbox -Identity MAILBOX -SmtpClientAuthenticationDisabled $false," +
			" or for all: Set-TransportConfig -SmtpClientAuthenticationDisabled $false. The mailbox's setting wins. Security defaults switch it off, too.",
	},
	smtp.ProblemForbidden: {
		"a rule of the mailbox's organization forbids this login: security defaults, an authentication policy or Conditional Access.",
		"Ask the organization's administrator: Entra's sign-in logs name the rule. If it forbids passwords, set SMTP_OAUTH2_…; if OAuth2 is set already, a new token does not help.",
	},
	smtp.ProblemLoginNeeded: {
		"the relay says that the session is not logged in.",
		"Set SMTP_USERNAME, with SMTP_PASSWORD or SMTP_OAUTH2_…. If they are set, SMTP_AUTH must not be none.",
	},
	smtp.ProblemBrowser: {
		"the provider wants the account's owner to log in with a browser first.",
		"Log in as SMTP_USERNAME at the provider's web page and confirm what it asks. A new token does not help before that.",
	},
	smtp.ProblemMechanism: {
		"the relay offers this AUTH mechanism, and yet does not know it.",
		"Set SMTP_AUTH to another one that it offers; \"mailsidecar check\" lists them.",
	},
	smtp.ProblemTokenDead: {
		"the relay refused the OAuth2 token: it has expired or was revoked, or is of another account than SMTP_USERNAME.",
		"{A new token is fetched by itself, once. If it is refused, too, compare|Compare} SMTP_USERNAME with the account that the token is for.",
	},
	smtp.ProblemTokenEndsSoon: {
		"the relay refused the OAuth2 token because it ends soon: High Volume Email wants 10 minutes at least.",
		"{A new token is fetched by itself, once. |}A program that writes SMTP_OAUTH2_ACCESS_TOKEN_FILE must renew it earlier.",
	},
	smtp.ProblemTokenUnfit: {
		"the relay refused the OAuth2 token: it is for another resource or another mailbox, or a permission is missing.",
		"Check that SMTP_USERNAME is the mailbox, and that the scope is the relay's own: for Microsoft 365 not one of Microsoft Graph." +
			" For client credentials: New-ServicePrincipal must have the object id of Enterprise applications, the mailbox a role or permission for it, and the app an administrator's consent." +
			" Such a change can take hours{; a new token is fetched when the old one ends, or at the next start|}.",
	},
	smtp.ProblemTokenScope: {
		"the relay refused the OAuth2 token: it has no right to send mail.",
		"Compare SMTP_OAUTH2_SCOPES with the scope that the relay names.",
	},
	smtp.ProblemToken: {
		"the OAuth2 access token could not be fetched, so there was nothing to log in with.",
		"Check SMTP_OAUTH2_…: the client may have been removed, or the refresh token may have run out.",
	},
	smtp.ProblemAuthUnavailable: {
		"the relay cannot check logins just now.",
		"Try again in some minutes. Too many failed logins cause this, too.",
	},
	smtp.ProblemCleartext: {
		"SMTP_TLS=none, but the relay's address is a public one: no password and no mail is sent there in the clear.",
		"Remove SMTP_TLS. Only if the path is protected in another way: SMTP_ALLOW_CLEARTEXT=true.",
	},
	smtp.ProblemNotSMTP: {
		"what answers there does not speak SMTP.",
		"Compare SMTP_HOST and SMTP_PORTS with what the provider names.",
	},
	smtp.ProblemOther: {
		"the relay turned us away.",
		"Its own words say why.",
	},
}

// OfReport says what a check found wrong with a relay and what to do, the whole
// before its parts. No advice means that every rung works.
func OfReport(r smtp.Report, s Settings) []Advice {
	preset, _ := relays.PresetFor(r.Host)
	var all []Advice
	if r.Failure != nil {
		all = append(all, adviceFor(r, r.Failure.Problem, nil, s))
	} else {
		all = append(all, overall(r, preset)...)
		for _, g := range groupByProblem(r.Rungs) {
			all = append(all, explain(r, g, preset, s))
		}
	}
	for i := range all {
		all[i].Relay = r.Name
		all[i].expand(r.Host, s)
	}
	return all
}

// OfFailure says what a failed delivery shows of the relay at host. ports are
// those in question: the failure's own, or the whole ladder.
func OfFailure(f *mailer.Failure, host string, ports []int, s Settings) Advice {
	problem := smtp.ProblemOf(f)
	a := adviceFor(smtp.Report{Host: host}, problem, ports, s)
	a.inLogin(problem, f.Stage.String())
	if problem == smtp.ProblemToken && f.Err != nil {
		a.take(tokenText(f.Err, s))
	}
	a.Relay = f.Relay
	a.expand(host, s)
	return a
}

// inLogin replaces the texts where a connection ended in the login: then the port and
// its TLS mode are the right ones.
func (a *Advice) inLogin(p smtp.Problem, stage string) {
	if stage == mailer.StageAuth.String() && (p == smtp.ProblemSilent || p == smtp.ProblemDropped) {
		a.take(adviceText{
			"the relay broke off the login, or did not answer it.",
			"Try again in some minutes. Some relays do so after too many failed logins, and for addresses that they block: ask the provider if this stays.",
		})
	}
}

// take replaces the texts.
func (a *Advice) take(text adviceText) { a.Found, a.Do = text.found, text.do }

// tellCause adds the cause, where there is one.
func (a *Advice) tellCause(text string) {
	if a.cause != "" {
		a.Found += text
	}
}

// expand fills in what both texts leave open, see [adviceText].
func (a *Advice) expand(host string, s Settings) {
	for _, text := range []*string{&a.Found, &a.Do} {
		*text = s.choose(*text)
		for _, mode := range []string{"/tls", "/starttls"} {
			*text = strings.ReplaceAll(*text, "$PORTS"+mode, withMode(a.Ports, mode))
		}
		*text = strings.ReplaceAll(*text, "$HOST", host)
		*text = strings.ReplaceAll(*text, "$LOGIN", s.login())
		*text = withPrefix(*text, s.prefix())
	}
	a.Found = strings.NewReplacer("$SAID", fullStop(a.said), "$CAUSE", fullStop(a.cause)).Replace(a.Found)
}

// fullStop ends a sentence.
func fullStop(s string) string {
	if s == "" || strings.HasSuffix(s, ".") || strings.HasSuffix(s, "!") || strings.HasSuffix(s, "?") {
		return s
	}
	return s + "."
}

// alternatives are those of {this|that} in an [adviceText].
var alternatives = regexp.MustCompile(`\{([^{|}]*)\|([^{|}]*)\}`)

// choose chooses among the alternatives.
func (s Settings) choose(text string) string {
	if s.Ends {
		return alternatives.ReplaceAllString(text, "$2")
	}
	return alternatives.ReplaceAllString(text, "$1")
}

// withPrefix gives the variables in text the prefix. The user name that SparkPost
// gives every account has the same letters.
func withPrefix(text, prefix string) string {
	const userName = "SMTP_Injection"
	text = strings.ReplaceAll(text, userName, "\x00")
	text = strings.ReplaceAll(text, "SMTP_", prefix)
	return strings.ReplaceAll(text, "\x00", userName)
}

// withMode lists the ports as SMTP_PORTS has them, each followed by mode.
func withMode(ports []int, mode string) string {
	list := make([]string, len(ports))
	for i, p := range ports {
		list[i] = fmt.Sprint(p, mode)
	}
	return strings.Join(list, ",")
}

// group is the rungs that stopped for the same reason.
type group struct {
	problem smtp.Problem
	rungs   []smtp.RungCheck
}

func groupByProblem(rungs []smtp.RungCheck) []group {
	var groups []group
	for _, rung := range rungs {
		if rung.Failure == nil {
			continue
		}
		i := slices.IndexFunc(groups, func(g group) bool { return g.problem == rung.Failure.Problem })
		if i < 0 {
			groups = append(groups, group{problem: rung.Failure.Problem})
			i = len(groups) - 1
		}
		groups[i].rungs = append(groups[i].rungs, rung)
	}
	return groups
}

func (g group) ports() []int {
	var ports []int
	for _, r := range g.rungs {
		ports = append(ports, r.Port)
	}
	return ports
}

// explain says what stopped a group of rungs.
func explain(r smtp.Report, g group, p relays.Preset, s Settings) Advice {
	a := adviceFor(r, g.problem, g.ports(), s)
	f := g.rungs[0].Failure
	a.inLogin(g.problem, f.Stage)
	a.said, a.cause = quoteReply(f), f.Cause
	if f.Text != "" && (f.Code != 0 || g.problem == smtp.ProblemOther) {
		a.Found += " The relay said: $SAID"
	}
	if i := slices.IndexFunc(g.rungs, loginPaused); i >= 0 {
		a.Found += " That was an earlier login: the next one is tried after " + g.rungs[i].NextLogin.Format(time.TimeOnly+" MST") + ", so that the provider does not lock the account."
	}
	switch g.problem {
	case smtp.ProblemNoAnswer, smtp.ProblemRefused, smtp.ProblemUnreachable:
		if r.OK {
			a.Do = "Nothing has to be done: another port serves."
		}
	case smtp.ProblemCredentials, smtp.ProblemAppPassword, smtp.ProblemOAuth2:
		if p.Advice != "" {
			a.Do += " Note: " + p.Advice + "."
		}
	case smtp.ProblemToken:
		if f.Err != nil {
			a.take(tokenText(f.Err, s))
		}
		if !errors.Is(f.Err, token.ErrNotStored) && !errors.As(f.Err, new(*token.ClientError)) { // that was said
			a.tellCause(" The error is: $CAUSE")
		}
	case smtp.ProblemTokenDead, smtp.ProblemTokenUnfit, smtp.ProblemTokenScope, smtp.ProblemBrowser:
		a.tellCause(" Before that, $CAUSE")
	case smtp.ProblemNoMechanism:
		if g.rungs[0].Mode == "none" && offersSTARTTLS(g.rungs[0]) {
			a.Found = "the relay offers no login in the clear: it wants STARTTLS first."
			a.Do = "Remove SMTP_TLS=none."
		} else {
			a.take(noMechanism(g.rungs[0].Mechanisms, s))
		}
	case smtp.ProblemMechanism:
		a.take(otherMechanism(g.rungs[0], s))
		a.Found += " The relay said: $SAID"
	case smtp.ProblemTLSMode:
		if g.rungs[0].Mode == "starttls" {
			a.Do = strings.Replace(a.Do, "/starttls", "/tls", 1)
		}
	case smtp.ProblemExpired:
		a.Found, a.Do = explainDates(g)
	case smtp.ProblemWrongName:
		if t := g.rungs[0].TLS; t != nil && len(t.Names) > 0 {
			a.Found += " It names " + strings.Join(t.Names[:min(5, len(t.Names))], ", ") + "."
		}
	case smtp.ProblemUnknownCA:
		if t := g.rungs[0].TLS; t != nil && t.Issuer != "" {
			a.Found += " The authority is " + t.Issuer + "."
		}
	default: // the text says it all
	}
	return a
}

// adviceFor is the advice for a problem alone.
func adviceFor(r smtp.Report, p smtp.Problem, ports []int, s Settings) Advice {
	text, ok := adviceTexts[p]
	if !ok {
		text = adviceTexts[smtp.ProblemOther]
	}
	answers := slices.ContainsFunc(r.Rungs, func(c smtp.RungCheck) bool { return c.TCP == "open" })
	switch {
	case p == smtp.ProblemRefused && netaddr.IsLoopback(r.Host) && !answers:
		text.do = "Start the relay. In a container, $HOST is the container itself: set SMTP_HOST to the relay's own name."
	case p == smtp.ProblemNoMechanism:
		text = noMechanism(nil, s)
	case p == smtp.ProblemMechanism:
		text = otherMechanism(smtp.RungCheck{}, s)
	case p == smtp.ProblemSubmissionOff && isPersonal(r.Host):
		text.do = "Outlook.com has no switch for it that is known: some new accounts cannot send by SMTP. Use another mailbox."
	default:
		text.do = cmp.Or(grantRemedies[s.Grant][p], text.do)
	}
	return Advice{Ports: ports, Found: text.found, Do: text.do}
}

// grantRemedies say what to do about a refused token where that depends on how it is
// got.
var grantRemedies = map[Grant]map[smtp.Problem]string{
	GrantGiven: {
		smtp.ProblemTokenDead:     renewGiven,
		smtp.ProblemTokenEndsSoon: renewGiven,
	},
	GrantLogin: {
		smtp.ProblemTokenDead: "{A new token is fetched by itself, once. If it is refused, too, compare|Compare} SMTP_USERNAME with the account that logged in," +
			" and log in again: $LOGIN.",
		smtp.ProblemTokenUnfit: "Check that SMTP_USERNAME is the mailbox that logged in, or one for which it has Send As. Leave SMTP_OAUTH2_SCOPES unset:" +
			" a token for Microsoft Graph is refused. Then log in again: $LOGIN.",
		smtp.ProblemTokenScope: "Leave SMTP_OAUTH2_SCOPES unset, and log in again with every box ticked: $LOGIN.",
	},
	GrantClient: {
		smtp.ProblemTokenDead: "{A new token is fetched by itself, once. If it is refused, too, check|Check} that SMTP_USERNAME is a mailbox that the app may send for.",
		smtp.ProblemTokenUnfit: "Check that SMTP_USERNAME is a mailbox that the app may send for: in Exchange Online PowerShell, New-ServicePrincipal with the object id of" +
			" Enterprise applications (not of App registrations), and a role or mailbox permission for it. Leave SMTP_OAUTH2_SCOPES unset." +
			" A change can take hours{; a new token comes when the old one ends, or at the next start|}.",
		smtp.ProblemTokenScope: "Leave SMTP_OAUTH2_SCOPES unset, and see which permissions the app's registration has.",
	},
	GrantServiceAccount: {
		smtp.ProblemTokenDead:  checkSubject,
		smtp.ProblemTokenUnfit: checkSubject,
		smtp.ProblemTokenScope: "Give the service account's delegation the scope https://mail.google.com/ and no other.",
	},
}

const (
	renewGiven = "The program that provides the token must renew it in time: see SMTP_OAUTH2_ACCESS_TOKEN_FILE. SMTP_OAUTH2_ACCESS_TOKEN is for tests." +
		" Check that SMTP_USERNAME is the token's account."
	checkSubject = "Set SMTP_USERNAME to the primary address of a user who has Gmail.{ A new token is fetched by itself.|}"
)

// isPersonal reports whether the relay is that of Microsoft's personal accounts.
func isPersonal(host string) bool {
	p, ok := relays.PresetFor(host)
	return ok && p.Name == "outlook"
}

// explainDates distinguishes an expired certificate from a wrong clock.
func explainDates(g group) (found, do string) {
	t := g.rungs[0].TLS
	switch {
	case t == nil || t.NotAfter.IsZero():
		text := adviceTexts[smtp.ProblemExpired]
		return text.found, text.do
	case t.DaysLeft < 0:
		return fmt.Sprintf("the relay's certificate expired on %s, if this machine's clock is right.", t.NotAfter.Format("2 January 2006")),
			"Check the clock first (date -u). If it is right, the relay's operator must renew the certificate."
	default:
		return "the relay's certificate is not valid yet: most likely this machine's clock is behind.",
			"Set the clock (date -u shows it); virtual machines lose time when they are paused."
	}
}

// overall says what matters beside the problems of single rungs.
func overall(r smtp.Report, p relays.Preset) []Advice {
	var all []Advice
	switch {
	case r.OK:
		all = append(all, preferServing(r)...)
	case allBlocked(r.Rungs):
		all = append(all, wayOut(r, p))
	}
	if i := slices.IndexFunc(r.Rungs, usable); i >= 0 {
		rung := r.Rungs[i]
		if rung.TLS != nil && rung.TLS.DaysLeft < 14 {
			all = append(all, Advice{
				Ports: []int{rung.Port},
				Found: fmt.Sprintf("the relay's certificate runs out in %d days.", rung.TLS.DaysLeft),
				Do:    "Tell the relay's operator. Mail waits once it has run out.",
			})
		}
		if len(rung.Mechanisms) > 0 && !slices.ContainsFunc(r.Rungs, triedLogin) {
			all = append(all, Advice{
				Found: "no login was tried, for SMTP_USERNAME is not set, though the relay offers one.",
				Do:    "Most relays refuse mail without a login: set SMTP_USERNAME and SMTP_PASSWORD.",
			})
		}
	}
	return all
}

func offersSTARTTLS(r smtp.RungCheck) bool {
	return slices.ContainsFunc(r.Capabilities, func(c string) bool { return strings.EqualFold(c, "STARTTLS") })
}

func usable(r smtp.RungCheck) bool      { return r.Failure == nil }
func loggedIn(r smtp.RungCheck) bool    { return r.Auth == "accepted" }
func loginPaused(r smtp.RungCheck) bool { return r.Auth == "paused" }
func blocked(r smtp.RungCheck) bool     { return r.TCP == "no_answer" }

// triedLogin reports whether there are credentials: one rung is enough to try them.
func triedLogin(r smtp.RungCheck) bool {
	return r.Auth != "not_tried" && r.Auth != "" || r.Mechanism != "" || r.Failure != nil && r.Failure.Stage == mailer.StageAuth.String()
}

func allBlocked(rungs []smtp.RungCheck) bool {
	return len(rungs) > 0 && !slices.ContainsFunc(rungs, func(r smtp.RungCheck) bool { return !blocked(r) })
}

// preferServing says which port serves when the first one does not.
func preferServing(r smtp.Report) []Advice {
	serving := r.Rungs[slices.IndexFunc(r.Rungs, usable)].Port
	if r.Rungs[0].Failure == nil {
		return nil
	}
	a := Advice{Ports: []int{serving}, Found: "this port serves: mail goes out there."}
	if r.Rungs[0].TCP != "open" {
		a.Do = fmt.Sprintf("If port %d is never going to open, SMTP_PORTS=%s saves trying it.", r.Rungs[0].Port, portSetting(r, serving))
	}
	return []Advice{a}
}

func portSetting(r smtp.Report, port int) string {
	for _, rung := range r.Rungs {
		if rung.Port == port && rung.Mode == "tls" {
			return fmt.Sprintf("%d/tls", port)
		}
	}
	return fmt.Sprint(port)
}

// wayOut is for a machine from which no port of the relay answers: another port
// of the same relay, another place for mailsidecar, or another relay.
func wayOut(r smtp.Report, p relays.Preset) Advice {
	a := Advice{Found: "none of the relay's ports answers from here: they are blocked on this machine's way out, or $HOST is down."}
	known := p.Ports
	if known == nil {
		known = []int{2525} // where most relays listen that listen on more than the registered ports
	}
	switch untried := seldomBlocked(known, r.Rungs); {
	case len(untried) > 0 && p.Ports == nil:
		a.Do = "Try the fallback submission port: SMTP_PORTS=587,2525. "
	case len(untried) > 0:
		a.Do = fmt.Sprintf("This relay also listens on ports that are seldom blocked: SMTP_PORTS=%s. ", withMode(untried, ""))
	case len(seldomBlocked(known, nil)) == 0:
		a.Do = fmt.Sprintf("This relay listens on %s only, so it cannot be reached from here. ", withMode(known, ""))
	}
	if a.Do != "" {
		a.Do += "If that does not help: "
	}
	a.Do += "Run mailsidecar on another machine, whose ports are open, and let the app call it there over HTTPS;" +
		" or choose a relay that listens on 443, such as SMTP2GO with SMTP_PORTS=443."
	return a
}

// seldomBlocked returns the ports that were not tried and that hosting providers
// seldom block, unlike the registered mail ports.
func seldomBlocked(ports []int, tried []smtp.RungCheck) []int {
	var rest []int
	for _, port := range ports {
		registered := port == 25 || port == 465 || port == 587
		if !registered && !slices.ContainsFunc(tried, func(r smtp.RungCheck) bool { return r.Port == port }) {
			rest = append(rest, port)
		}
	}
	return rest
}

// quoteReply gives the relay's words with their codes.
func quoteReply(f *smtp.CheckFailure) string {
	reply := mailer.Reply{Code: f.Code, Enhanced: f.Enhanced, Text: f.Text}
	if f.Code == 0 {
		return f.Text
	}
	return reply.String()
}

// Conclusion says in a sentence whether mail can go to the relay, and on which
// port.
func Conclusion(r smtp.Report) string {
	if !r.OK {
		return fmt.Sprintf("Result: no mail can go to %s as things are.", r.Host)
	}
	serving := slices.IndexFunc(r.Rungs, loggedIn)
	if serving < 0 {
		serving = slices.IndexFunc(r.Rungs, usable)
	}
	return fmt.Sprintf("Result: mail can go to %s on port %d.", r.Host, r.Rungs[serving].Port)
}
