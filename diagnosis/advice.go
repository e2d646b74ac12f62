// Package diagnosis says in plain words what is wrong with a relay, and what its
// operator can do about it: for the check command, the log and HTTP alike.
package diagnosis

import (
	"fmt"
	"regexp"
	"strings"

	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/relays"
)

// Advice is one thing that was found out about a relay, and what to do about it.
type Advice struct {
	Relay string `json:"relay"`
	Ports []int  `json:"ports,omitempty"` // none: the relay as a whole
	Found string `json:"found"`
	Do    string `json:"do,omitempty"` // empty: nothing has to be done

	foreign // what $SAID and the like stand for
}

// foreign is the words of others: nothing is replaced in them.
type foreign struct{ said, cause, names, issuer, sender, pin string }

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
	// Provider is the relay's name in SMTP_PROVIDER; empty where none is set.
	Provider string
	// NoLogin reports whether the settings say that no login is meant.
	NoLogin bool
	// Forced is the setting that chooses the reverse-path, FORCE_FROM or RETURN_PATH; empty
	// where messages have their own.
	Forced string
	// ClientCertificate reports whether there is one.
	ClientCertificate bool
	// TLS13 reports whether nothing older is spoken.
	TLS13 bool
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

// OfFailure says what a failed delivery shows of the relay at host. ports are
// those in question: the failure's own, or the whole ladder.
func OfFailure(f *mailer.Failure, host string, ports []int, s Settings) Advice {
	if cause, remedy := f.MailAdvice(); cause != "" {
		return Advice{Relay: f.Relay, Found: cause, Do: remedy}
	}
	preset, known := relays.PresetFor(host)
	a := finding{
		report: smtp.Report{Host: host}, rungs: []smtp.RungCheck{smtp.RungOf(f)}, ports: ports, preset: preset, known: known, settings: s,
	}.advice()
	a.Relay = f.Relay
	a.expand(host, s)
	return a
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
	words := strings.NewReplacer("$SAID", fullStop(a.said), "$CAUSE", fullStop(a.cause), "$NAMES", a.names, "$ISSUER", a.issuer, "$SENDER", a.sender, "$PIN", a.pin)
	a.Found, a.Do = words.Replace(a.Found), words.Replace(a.Do)
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
