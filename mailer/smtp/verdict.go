package smtp

import (
	"mailsidecar/mailer"
	"strings"
)

// classify is the policy above for a reply.
func classify(stage mailer.Stage, w wireReply) mailer.Class {
	r := w.reply()
	if r.Code == 421 {
		return mailer.ClassTransient
	}
	for _, v := range verdicts {
		if v.matches(stage, r) {
			return v.class
		}
	}
	switch {
	case stage < mailer.StageMail:
		return mailer.ClassRelay
	case stage == mailer.StageMail && aboutUs(r.Code):
		return mailer.ClassRelay
	case r.Code/100 == 5:
		return mailer.ClassPermanent
	case stage == mailer.StageContent && r.Code/100 != 4:
		return mailer.ClassUncertain
	default:
		return mailer.ClassTransient
	}
}

// aboutUs: the reply to MAIL is about our commands, parameters or login.
func aboutUs(code int) bool {
	return 500 <= code && code <= 504 || code == 530 || code == 555
}

// verdict is a reply of a relay that means something else than its code.
type verdict struct {
	code     int
	enhanced string // any when empty
	text     string // part of the text, in lower case
	class    mailer.Class
}

// verdicts holds only what relays document or are known to say, and only where
// it changes the class. A relay that refuses for its own quota has not judged
// the mail.
var verdicts = []verdict{
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
	// Oracle: on the suppression list. The mail is dropped, whatever the 2 says,
	// and would be again.
	{code: 254, text: "4.7.1 suppress", class: mailer.ClassPermanent},
}

func (v verdict) matches(stage mailer.Stage, r mailer.Reply) bool {
	return stage >= mailer.StageMail && v.code == r.Code &&
		(v.enhanced == "" || v.enhanced == r.Enhanced) &&
		strings.Contains(strings.ToLower(r.Text), v.text)
}

// notAccepted: the reply is positive, and yet the relay drops the mail.
func notAccepted(r mailer.Reply) bool {
	for _, v := range verdicts {
		if v.code/100 == 2 && v.matches(mailer.StageRcpt, r) {
			return true
		}
	}
	return false
}
