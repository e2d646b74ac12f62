package diagnosis

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/mailer/smtp/token"
	"mailsidecar/netaddr"
	"mailsidecar/relays"
)

// finding is one fault of a relay: the rungs that stopped for the same reason, and what
// the words about it depend on.
type finding struct {
	// report is the whole check; that of a delivery has no more than the host.
	report   smtp.Report
	rungs    []smtp.RungCheck // that stopped; one at least
	ports    []int            // theirs
	preset   relays.Preset
	known    bool // there is a preset: the relay is a public one
	settings Settings
}

func (f finding) failure() *smtp.CheckFailure { return f.rungs[0].Failure }

func (f finding) problem() smtp.Problem { return f.failure().Problem }

// checked reports whether a check has found it, and not a delivery.
func (f finding) checked() bool { return len(f.report.Rungs) > 0 }

// stage returns where in the dialogue it was.
func (f finding) stage() mailer.Stage { return stageNamed(f.failure().Stage) }

// stageNamed returns the stage with that name. An unknown name is the first one.
func stageNamed(name string) mailer.Stage {
	for stage := mailer.StageContent; stage > mailer.StageCompose; stage-- {
		if stage.String() == name {
			return stage
		}
	}
	return mailer.StageCompose
}

// afterTLS reports whether the connection was encrypted by then.
func (f finding) afterTLS() bool { return f.rungs[0].TLS != nil && f.rungs[0].TLS.Version != "" }

// advice is what is said of the fault alone.
func (f finding) advice() Advice {
	a := Advice{Ports: f.ports}
	a.take(f.text())
	a.said, a.cause, a.sender = quoteReply(f.failure()), f.failure().Cause, f.report.Sender
	if t := f.rungs[0].TLS; t != nil {
		a.pin = t.Pin
		a.issuer, a.names = cmp.Or(t.Interceptor, t.Issuer), strings.Join(t.Names[:min(maxNames, len(t.Names))], ", ")
	}
	if why := libraryWords(f.failure().Err); why != "" && (f.problem() == smtp.ProblemTLS || f.problem() == smtp.ProblemCertificate) {
		a.cause = why
		a.Found += " The error is: $CAUSE"
	}
	f.addWords(&a)
	return a
}

// libraryWords is the last part of an error of TLS: what was wrong.
func libraryWords(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	for _, mark := range []string{"tls: ", "x509: "} {
		if i := strings.LastIndex(text, mark); i >= 0 {
			text = text[i+len(mark):]
		}
	}
	return text
}

// maxNames is how many names of a certificate are shown.
const maxNames = 5

// text returns what is wrong and what to do about it.
func (f finding) text() adviceText {
	text, ok := adviceTexts[f.problem()]
	if !ok {
		text = adviceTexts[smtp.ProblemOther]
	}
	switch p := f.problem(); p {
	case smtp.ProblemName, smtp.ProblemNameFailed, smtp.ProblemNameSilent:
		return f.nameText(text)
	case smtp.ProblemRefused:
		if netaddr.IsLoopback(f.report.Host) && !slices.ContainsFunc(f.report.Rungs, isOpen) {
			text.do = "Start the relay. In a container, $HOST is the container itself: set SMTP_HOST to the relay's own name."
		}
	case smtp.ProblemUnreachable:
		return f.routeText(text)
	case smtp.ProblemSilent, smtp.ProblemDropped:
		return f.brokenText(text)
	case smtp.ProblemTLSMode:
		return f.modeText()
	case smtp.ProblemExpired, smtp.ProblemWrongName, smtp.ProblemSelfSigned, smtp.ProblemNoIntermediate, smtp.ProblemUnknownCA:
		return f.certificateText(text)
	case smtp.ProblemPin:
		return f.pinText(text)
	case smtp.ProblemClientCert:
		if f.settings.ClientCertificate {
			return adviceText{
				"the relay does not take the client certificate in SMTP_TLS_CERT_FILE.",
				"Ask the relay's operator which certificates it takes. It may have ended, or be signed by an authority that the relay does not know.",
			}
		}
	case smtp.ProblemTLS:
		if f.settings.TLS13 {
			text.do = "The relay may not speak TLS 1.3: remove SMTP_TLS_MIN_VERSION. If it does, look for a proxy or firewall that intercepts the connection."
		}
	case smtp.ProblemNoMechanism:
		return f.mechanismText()
	case smtp.ProblemMechanism:
		return otherMechanism(f.rungs[0], f.settings)
	case smtp.ProblemToken:
		if err := f.failure().Err; err != nil {
			return tokenText(err, f.settings)
		}
	case smtp.ProblemSubmissionOff:
		if f.known && f.preset.Name == "outlook" { // Microsoft's personal accounts
			text.do = "Outlook.com has no switch for it that is known: some new accounts cannot send by SMTP. Use another mailbox."
		}
	case smtp.ProblemNotSMTP:
		return f.otherProtocol(text)
	case smtp.ProblemSender:
		if f.failure().Code == 0 { // see smtp.Relay.Check
			return adviceText{"the sender $SENDER needs SMTPUTF8, which the relay does not offer.", "Set MAILSIDECAR_FROM (for a try: --from) to an address in ASCII."}
		}
		if f.settings.Forced != "" {
			text.do = "Set SMTP_" + f.settings.Forced + " to an address that this account may send from. Most providers want the address or its domain confirmed first."
		}
	default:
		text.do = cmp.Or(grantRemedies[f.settings.Grant][p], text.do)
	}
	return text
}

// brokenText is for a connection on which no reply came any more, by how far it had
// come.
func (f finding) brokenText(text adviceText) adviceText {
	silent := f.problem() == smtp.ProblemSilent
	what := "closed the connection"
	if silent {
		what = "said nothing more"
	}
	const inspected = "Firewalls and proxies that inspect mail do so: exempt the relay there, or use a port with TLS from the first octet, such as SMTP_PORTS=465."
	switch stage := f.stage(); {
	case stage == mailer.StageAuth:
		return adviceText{
			"the relay broke off the login, or did not answer it.",
			"Try again in some minutes. Some relays do so after too many failed logins, and for addresses that they block: ask the provider if this stays.",
		}
	case stage == mailer.StageMail:
		return adviceText{"the relay took the login, and at the sender (MAIL) it " + what + ".", "Try again in some minutes. If this stays, ask the provider."}
	case f.afterTLS():
		return adviceText{
			"TLS is up and the certificate is good, and then the relay " + what + ".",
			"Compare SMTP_PORTS with what the provider names: what answers there may be no mail server. If the port is right, the relay itself has trouble: ask its operator, or use another port.",
		}
	case stage == mailer.StageTLS && silent:
		return adviceText{
			"the relay does not answer the TLS handshake.",
			"Something on the way stops TLS: a firewall or proxy that inspects it, or a tunnel that loses large packets (lower its MTU). Exempt the relay there, or use another port.",
		}
	case stage == mailer.StageTLS:
		return adviceText{
			"the connection was closed in the TLS handshake.",
			"Something on the way stops TLS, such as a firewall or proxy that inspects it, or the relay's own TLS is broken. Exempt the relay there, or use another port.",
		}
	case stage == mailer.StageStartTLS:
		return adviceText{"the relay offers STARTTLS, and after that command it " + what + ".", inspected}
	case stage == mailer.StageEHLO:
		return adviceText{"the relay sent its greeting, and after our own (EHLO) it " + what + ".", inspected}
	case silent && f.checked():
		return adviceText{
			"connected, but no greeting came, and the port does not speak TLS from the first octet.",
			"Something on the way takes connections in the relay's place, such as a firewall, a proxy, or a load balancer whose server is down. Use another port, or ask the relay's operator.",
		}
	case f.checked():
		return adviceText{
			"the connection was closed before a greeting came.",
			"Some relays do so for addresses that they block, and firewalls for all: ask the relay's provider, or use another port.",
		}
	default:
		return text
	}
}

// modeText is for TLS from the first octet where the relay speaks STARTTLS, or the
// reverse.
func (f finding) modeText() adviceText {
	switch f.rungs[0].Mode {
	case "none":
		return adviceText{"the port expects TLS from the first octet, and SMTP_TLS=none is configured.", "Remove SMTP_TLS=none, and say the mode with the port: SMTP_PORTS=$PORTS/tls."}
	case "starttls":
		return adviceText{
			"the TLS mode is the wrong one: the port expects TLS from the first octet, and STARTTLS is configured.",
			"Say the mode with the port: SMTP_PORTS=$PORTS/tls.",
		}
	}
	return adviceText{
		"the TLS mode is the wrong one: TLS from the first octet is configured, and what answers does not begin with it.",
		"Say the mode with the port: SMTP_PORTS=$PORTS/starttls.",
	}
}

// mechanismText is for a relay that offers no login which can be used.
func (f finding) mechanismText() adviceText {
	rung := f.rungs[0]
	switch {
	case !f.checked():
		return noMechanism(nil, f.settings)
	case rung.Mode == "none" && offersSTARTTLS(rung):
		return adviceText{"the relay offers no login in the clear: it wants STARTTLS first.", "Remove SMTP_TLS=none."}
	case rung.Mechanisms == nil:
		return noMechanism([]string{}, f.settings)
	default:
		return noMechanism(rung.Mechanisms, f.settings)
	}
}

// otherProtocols have the first words of what is no mail relay.
var otherProtocols = []struct{ begin, name string }{
	{"SSH-", "SSH"}, {"* OK", "IMAP"}, {"* BYE", "IMAP"}, {"+OK", "POP3"}, {"HTTP/", "HTTP"}, {"RFB ", "VNC"},
}

// otherProtocol names what answers, where its first words tell.
func (f finding) otherProtocol(text adviceText) adviceText {
	for _, other := range otherProtocols {
		if f.failure().Err != nil && strings.Contains(f.failure().Err.Error(), ": "+other.begin) {
			text.found = "what answers there speaks " + other.name + " and not SMTP."
		}
	}
	return text
}

// addWords adds what the relay itself says, and what a check knows beside the fault.
func (f finding) addWords(a *Advice) {
	failure := f.failure()
	if f.checked() && failure.Text != "" && (failure.Code != 0 || f.problem() == smtp.ProblemOther) {
		a.Found += " The relay said: $SAID"
	}
	if i := slices.IndexFunc(f.rungs, loginPaused); i >= 0 {
		a.Found += " That was an earlier login: the next one is tried after " + f.rungs[i].NextLogin.Format(time.TimeOnly+" MST") + ", so that the provider does not lock the account."
	}
	if !f.checked() {
		return
	}
	switch f.problem() {
	case smtp.ProblemCredentials, smtp.ProblemAppPassword, smtp.ProblemOAuth2:
		if f.preset.Advice.Value != "" {
			a.Do += " Note: " + f.preset.Advice.Value + "."
		}
	case smtp.ProblemToken:
		if !errors.Is(failure.Err, token.ErrNotStored) && !errors.As(failure.Err, new(*token.ClientError)) { // that was said
			a.tellCause(" The error is: $CAUSE")
		}
	case smtp.ProblemTokenDead, smtp.ProblemTokenUnfit, smtp.ProblemTokenScope, smtp.ProblemBrowser:
		a.tellCause(" Before that, $CAUSE")
	default: // the text says it all
	}
}

func offersSTARTTLS(r smtp.RungCheck) bool {
	return slices.ContainsFunc(r.Capabilities, func(c string) bool { return strings.EqualFold(c, "STARTTLS") })
}

// quoteReply gives the relay's words with their codes.
func quoteReply(f *smtp.CheckFailure) string {
	reply := mailer.Reply{Code: f.Code, Enhanced: f.Enhanced, Text: f.Text}
	if f.Code == 0 {
		return f.Text
	}
	return reply.String()
}
