package diagnosis

import (
	"cmp"
	"slices"
	"strings"

	"mailsidecar/mailer/smtp"
)

// tokenMechanisms are the AUTH mechanisms that take an OAuth2 token, the one first that
// is taken where both are offered.
var tokenMechanisms = []string{"XOAUTH2", "OAUTHBEARER"}

// noMechanism is for a relay that offers no AUTH mechanism which can be used. offered
// are its own; nil where they are not known.
func noMechanism(offered []string, s Settings) adviceText {
	token := slices.IndexFunc(tokenMechanisms, func(m string) bool { return slices.Contains(offered, m) })
	switch {
	case offered != nil && len(offered) == 0:
		return adviceText{
			"the relay offers no login there.",
			"Compare SMTP_HOST and SMTP_PORTS with what the provider names. For a relay without logins, set SMTP_AUTH=none.",
		}
	case s.Auth != "" && s.Grant != NoGrant && token >= 0:
		return adviceText{
			"the relay does not offer " + strings.ToUpper(s.Auth) + ", which SMTP_AUTH names." + offers(offered),
			"Leave SMTP_AUTH unset: then " + tokenMechanisms[token] + " is used.",
		}
	case s.Auth != "" && (s.Grant == NoGrant || offered == nil):
		return adviceText{
			"the relay does not offer " + strings.ToUpper(s.Auth) + ", which SMTP_AUTH names." + offers(offered),
			"Leave SMTP_AUTH unset, so that one is used which the relay offers.",
		}
	case s.Grant != NoGrant:
		return adviceText{
			"the relay offers no AUTH mechanism that takes an OAuth2 token: neither XOAUTH2 nor OAUTHBEARER." + offers(offered),
			"Compare SMTP_HOST with what the provider names. If this relay takes passwords only, remove SMTP_OAUTH2_… and set SMTP_PASSWORD.",
		}
	case token >= 0:
		return adviceText{
			"the relay offers no AUTH mechanism that takes a password." + offers(offered),
			"The account needs OAuth2, which docs/oauth2.md sets up.",
		}
	case slices.Contains(offered, "NTLM"):
		return adviceText{
			"the relay offers no AUTH mechanism that is chosen by itself." + offers(offered),
			"Set SMTP_AUTH=ntlm: it is weak, and so it must be asked for. Better is a relay that offers PLAIN or LOGIN.",
		}
	case len(offered) > 0 && !slices.ContainsFunc(offered, usesPassword):
		return adviceText{
			"the relay offers no AUTH mechanism that takes a password." + offers(offered),
			"The relay's operator must allow PLAIN or LOGIN for this account or this port (of Exchange: basic authentication). Compare SMTP_PORTS with what the provider names.",
		}
	default:
		text := adviceTexts[smtp.ProblemNoMechanism]
		text.found += offers(offered)
		return text
	}
}

// usesPassword says that a mechanism takes a password, and neither a ticket of Kerberos
// nor a certificate of the client.
func usesPassword(mechanism string) bool {
	return !slices.Contains([]string{"GSSAPI", "GS2-KRB5", "GSS-SPNEGO", "EXTERNAL", "ANONYMOUS"}, mechanism)
}

// otherMechanism is for an AUTH mechanism that the relay offers and then refuses.
func otherMechanism(rung smtp.RungCheck, s Settings) adviceText {
	text := adviceTexts[smtp.ProblemMechanism]
	text.found += offers(rung.Mechanisms)
	tried := strings.ToUpper(cmp.Or(rung.Mechanism, s.Auth))
	others := slices.DeleteFunc(slices.Clone(rung.Mechanisms), func(m string) bool {
		return m == tried || slices.Contains(tokenMechanisms, m) != (s.Grant != NoGrant)
	})
	switch {
	case s.Auth != "":
		text.do = "Leave SMTP_AUTH unset, so that another one is used which the relay offers."
	case len(others) > 0:
		text.do = "Set SMTP_AUTH=" + strings.ToLower(others[0]) + ", which it offers, too."
	case len(rung.Mechanisms) > 0 && s.Grant != NoGrant:
		text.do = "It offers no other one that takes an OAuth2 token. Compare SMTP_HOST with what the provider names, and ask the provider."
	case len(rung.Mechanisms) > 0:
		text.do = "It offers no other one that takes a password. Ask the provider; the account may need OAuth2, which docs/oauth2.md sets up."
	case s.Grant != NoGrant:
		text.do = "Set SMTP_AUTH to the other one that takes an OAuth2 token, xoauth2 or oauthbearer, if the relay offers it: \"mailsidecar check\" says what it offers."
	}
	return text
}

// offers says which AUTH mechanisms the relay offers; nothing where they are not known.
func offers(mechanisms []string) string {
	known := slices.DeleteFunc(slices.Clone(mechanisms), func(m string) bool { return strings.ContainsFunc(m, notInMechanism) })
	if len(known) == 0 {
		return ""
	}
	return " It offers " + strings.Join(known, " ") + "."
}

// notInMechanism says that no name of a mechanism has the character (RFC 4422 §3.1).
func notInMechanism(r rune) bool {
	return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}
