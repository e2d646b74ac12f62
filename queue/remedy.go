package queue

import (
	"errors"
	"net"

	"mailsidecar/mailer"
)

// remedy says which settings to look at where waiting for the relay is unlikely
// to help; empty where it is all that can be done. The names are the first
// relay's: another's have its number.
func remedy(f *mailer.Failure) string {
	switch problem := mailer.ProblemOf(f); problem {
	case mailer.ProblemName:
		// A resolver that fails for a while says the same of every name.
		if dns, ok := errors.AsType[*net.DNSError](f.Err); ok && !dns.IsNotFound {
			return ""
		}
		return remedies[problem]
	case mailer.ProblemOther:
		if f.Reply.Code == 530 { // RFC 4954 §6, RFC 3207 §4
			return "check SMTP_USERNAME, SMTP_PASSWORD and SMTP_TLS"
		}
		return ""
	default:
		return remedies[problem]
	}
}

var remedies = map[mailer.Problem]string{
	mailer.ProblemName:        "check SMTP_HOST",
	mailer.ProblemTLSMode:     "check SMTP_PORTS and SMTP_TLS",
	mailer.ProblemNoSTARTTLS:  "check SMTP_HOST, SMTP_PORTS and SMTP_TLS",
	mailer.ProblemTLS:         "check SMTP_HOST, SMTP_PORTS and SMTP_TLS",
	mailer.ProblemExpired:     "check this machine's clock, else SMTP_TLS_CA_FILE: the relay's certificate is out of date",
	mailer.ProblemWrongName:   "check SMTP_HOST, or set SMTP_TLS_SERVER_NAME to the certificate's name",
	mailer.ProblemUnknownCA:   "check SMTP_HOST, or set SMTP_TLS_CA_FILE to the authority's certificate",
	mailer.ProblemCertificate: "check SMTP_HOST, SMTP_TLS_CA_FILE and SMTP_TLS_SERVER_NAME",
	mailer.ProblemNoMechanism: "check SMTP_AUTH",
	mailer.ProblemCredentials: "check SMTP_USERNAME and SMTP_PASSWORD",
	mailer.ProblemAppPassword: "set SMTP_PASSWORD to an app password of the account SMTP_USERNAME",
	mailer.ProblemOAuth2:      "set SMTP_OAUTH2_…: the provider takes no passwords",
	mailer.ProblemToken:       "check SMTP_OAUTH2_…",
	mailer.ProblemCleartext:   "check SMTP_TLS and SMTP_ALLOW_CLEARTEXT",
}
