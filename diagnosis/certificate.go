package diagnosis

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	"mailsidecar/mailer/smtp"
)

// impostor is what to do where the certificate is not that of a relay which is known to
// have a good one. Its names are never to be trusted: its maker would get the password.
const impostor = "Something on the way takes the relay's place: antivirus software, a firewall, or a network that redirects mail ports. Exempt $HOST there, or use another port." +
	" Do not trust this certificate: its maker would get your password."

// seenKey is for a relay whose key may be pinned. What is seen here alone proves nothing: it
// is that of an impostor, too.
const seenKey = " The key seen from here is $PIN: pin it only if the relay's operator names the same one."

// certificateText is for a certificate that did not verify.
func (f finding) certificateText(text adviceText) adviceText {
	t := f.rungs[0].TLS
	if t == nil {
		return text
	}
	stranger := f.known // a public relay has a good certificate
	switch f.problem() {
	case smtp.ProblemExpired:
		return expiredText(t, text)
	case smtp.ProblemWrongName:
		return f.wrongNameText(t, text)
	case smtp.ProblemSelfSigned:
		if stranger {
			return adviceText{"what answers is not $HOST: its certificate is signed by itself ($ISSUER).", impostor}
		}
		text.found += shownIssuer(" It is that of $ISSUER.", t)
		text.do += seenKey
	case smtp.ProblemUnknownCA:
		if stranger {
			return adviceText{"what answers is not $HOST: its certificate is signed by an authority that this machine does not know ($ISSUER).", impostor}
		}
		text.found += shownIssuer(" The authority is $ISSUER.", t)
		text.do += seenKey
	case smtp.ProblemNoIntermediate:
		text.found += shownIssuer(" That is $ISSUER.", t)
	default:
	}
	return text
}

// pinText is for a key that is not pinned. It may be a new one of the relay's, or that of an
// impostor.
func (f finding) pinText(text adviceText) adviceText {
	var pinned *smtp.PinError
	wrongKind := errors.As(f.failure().Err, &pinned) && pinned.OfCertificate
	if wrongKind {
		text = adviceText{
			"SMTP_TLS_PIN names the fingerprint of the relay's certificate, and not that of its key.",
			"A certificate is replaced often, and its key seldom: SMTP_TLS_PIN takes the key.",
		}
	}
	switch t := f.rungs[0].TLS; {
	case t == nil:
		return text
	case wrongKind:
		text.do += " If this is your relay, set SMTP_TLS_PIN=$PIN."
		return text
	}
	text.found += " It has the key $PIN."
	text.do += " If the key is the relay's new one, add $PIN to SMTP_TLS_PIN."
	return text
}

func shownIssuer(text string, t *smtp.TLSCheck) string {
	if t.Issuer == "" {
		return ""
	}
	return text
}

const day = "2 January 2006"

// expiredText says whose certificate has ended, and when.
func expiredText(t *smtp.TLSCheck, text adviceText) adviceText {
	switch {
	case t.NotAfter.IsZero():
	case t.DaysLeft >= 0 && !t.LinkExpired.IsZero():
		text.found = fmt.Sprintf("the relay sends a certificate of its authority that expired on %s, beside its own, which is good.", t.LinkExpired.Format(day))
		text.do = "The relay's operator must send the authority's newer certificate. Check this machine's clock first (date -u)."
	default:
		text.found = fmt.Sprintf("the relay's certificate expired on %s, if this machine's clock is right.", t.NotAfter.Format(day))
		text.do = "Check the clock first (date -u). If it is right, the relay's operator must renew the certificate."
	}
	return text
}

func (f finding) wrongNameText(t *smtp.TLSCheck, text adviceText) adviceText {
	want := cmp.Or(f.report.ServerName, "$HOST")
	names := " It is for $NAMES."
	if len(t.Names) == 0 {
		names = " It has no name that counts, but at most an old Common Name."
	}
	_, err := netip.ParseAddr(f.report.Host)
	isIP := err == nil && f.report.ServerName == ""
	switch {
	case f.known:
		return adviceText{"what answers is not $HOST: its certificate is for another name." + names, impostor}
	case isIP && len(t.Names) > 0:
		return adviceText{
			"SMTP_HOST is an IP address, and the relay's certificate is for a name." + names,
			"Set SMTP_HOST to the name of the relay that its operator gives. Take no name from the certificate alone.",
		}
	case len(t.Names) == 0:
		return adviceText{"the relay's certificate does not have the name " + want + "." + names, "The relay's operator must make a certificate with that name (a subject alternative name)."}
	default:
		text.found = "the relay's certificate is for another name than " + want + "." + names
		return text
	}
}
