package relays

import "mailsidecar/mailer"

// WantsOAuth2 reports whether a reply to AUTH says that the relay takes no
// passwords any more, as Microsoft 365 and Outlook.com do.
func WantsOAuth2(r mailer.Reply) bool {
	return r.Enhanced == "5.7.139" || r.Enhanced == "5.7.30" || contains(r, "basic authentication")
}

// WantsAppPassword reports whether a reply to AUTH asks for a password that is
// made for one program, as Gmail does of accounts with two-step verification.
func WantsAppPassword(r mailer.Reply) bool {
	return r.Code == 534 || r.Enhanced == "5.7.9" || contains(r, "application-specific password") || contains(r, "app password")
}
