package relays

import (
	"strings"

	"mailsidecar/mailer"
)

// exception is a reply of a relay that means something else than its code.
type exception struct {
	code     int
	enhanced string // any when empty
	text     string // part of the text, in lower case
	class    mailer.Class
}

// exceptions holds only what relays document or are known to say, and only where
// it changes the class. A relay that refuses for its own quota has not judged
// the mail.
var exceptions = []exception{
	// Gmail: the account's rolling 24-hour limit, as 550 or 552.
	{code: 550, enhanced: "5.4.5", class: mailer.ClassRelay},
	{code: 552, enhanced: "5.4.5", class: mailer.ClassRelay},
	// Microsoft 365: the mailbox's daily limit; its basic authentication is off.
	{code: 554, enhanced: "5.2.0", text: "submissionquotaexceeded", class: mailer.ClassRelay},
	{code: 550, enhanced: "5.7.30", class: mailer.ClassRelay},
	// Amazon SES: the daily quota. The rate limit, also 454, passes in seconds.
	{code: 454, text: "daily message quota exceeded", class: mailer.ClassRelay},
	// MailerSend: a validation error, which no retry heals.
	{code: 450, text: "given data was invalid", class: mailer.ClassPermanent},
	// Oracle: the recipient is on the suppression list. The relay drops the mail,
	// whatever the 2 says, and would drop it again.
	{code: 254, text: "4.7.1 suppress", class: mailer.ClassPermanent},
}

// ClassOf returns the class of a reply to MAIL or a later command that means
// something else than its code. Where ok is false the code decides.
func ClassOf(r mailer.Reply) (class mailer.Class, ok bool) {
	for _, e := range exceptions {
		if e.matches(r) {
			return e.class, true
		}
	}
	return 0, false
}

// Drops reports whether a positive reply (2yz) says that the relay drops the mail.
func Drops(r mailer.Reply) bool {
	_, known := ClassOf(r)
	return known && r.Code/100 == 2
}

func (e exception) matches(r mailer.Reply) bool {
	return e.code == r.Code && (e.enhanced == "" || e.enhanced == r.Enhanced) && contains(r, e.text)
}

// contains reports whether the reply's text holds words, which are in lower case.
func contains(r mailer.Reply, words string) bool {
	return strings.Contains(strings.ToLower(r.Text), words)
}
