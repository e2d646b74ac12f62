package smtp

import (
	"mailsidecar/mailer"
	"mailsidecar/relays"
)

// classify returns the class of a failure by reply. It is the part of the failure
// policy that is about replies; [conn.failed] is the part without one. Permanent is
// narrow and unknown is transient, because a mail wrongly kept is retried and a
// mail wrongly bounced is lost. The whole policy, stage by stage:
//
//	any stage         421: the connection is closed. Transient, unless the table knows
//	                  better. The attempt was stopped by its owner: transient
//	connect           any error is about the relay: nobody has judged the mail
//	greeting, EHLO    no reply, and any but 2yz: about the relay
//	STARTTLS, TLS     not offered, refused, broken off, certificate not valid:
//	                  about the relay
//	AUTH              4yz, 5yz, no answer, no mechanism in common, no token: about
//	                  the relay or our settings. For the next login see breaker
//	MAIL to content   what the table says, see below. Where it knows nothing:
//	MAIL              500-504, 530, 555: transient, because they are about the
//	                  reverse-path, our parameters or our login, and one reply does
//	                  not tell which: here the table counts only where it has a rule of
//	                  that relay's own. 535, 538: about our login, hence the relay.
//	                  Other 5yz: permanent; 4yz: transient.
//	                  But 4yz that says there were too many messages on the
//	                  connection: once more over another one.
//	                  We refuse by ourselves, without asking the relay: a message
//	                  over its SIZE (5.3.4), and one that needs SMTPUTF8 (5.6.7) or
//	                  8BITMIME (5.6.3) where the relay does not offer it and the
//	                  message cannot be converted. That is permanent, but final only
//	                  if no other relay of the route can take the message
//	RCPT              530, 535, 538: about our login, hence the relay; other 5yz:
//	                  permanent; 4yz: transient. But 452 or 552 means "too many
//	                  recipients" (RFC 5321 §4.5.3.1.10) where the relay accepted a
//	                  recipient before, and so does any code, where it accepted or
//	                  refused one, if the relay says so in its enhanced code or words:
//	                  transaction.isTooMany judges that. These recipients go in a
//	                  further transaction at once
//	DATA              as RCPT
//	content           a reply to the final dot: 2yz accepted; 4yz and 5yz as RCPT. No valid reply after the final dot was sent:
//	                  uncertain. Whatever follows a 2yz changes nothing
//	MAIL to content   no answer, a broken dialogue or a reply of the wrong kind,
//	                  before the final dot: transient
//
// The table of relays ([relays.Judge]) knows replies that mean something else than their
// code, and the sources of that:
//
//	permanent, suppressed   permanent
//	retry, less             transient, a 5yz too
//	pause                   about the relay, until the time that reply or table names
//	login                   about the relay
//	sender                  5yz: permanent at this relay, final only if no other relay of
//	                        the route takes mail of the sender
//	                        ([mailer.ErrSenderRefused]); 4yz, 421 included: transient, and
//	                        it holds up no other sender
//
// Where the table knows nothing, a 5yz that unrelated messages have met in a row, with
// nothing accepted in between, is transient from the second one on: see refusals. A
// login that is wanted late is tried anew first: see delivery.loginWanted.
//
// The class is one half of the policy. [mailer.Failure.Scope] is the other half: it
// tells whose mail a failure may be about. Where that is more than the message, and
// the relay cannot have accepted it, the next relay of the route is asked at once
// ([mailer.Failure.TriesNext]). The verdict "less" means that we send too much at a time.
//
// Nothing is permanent before it is proved that the reply answers that command, see
// dialogue: what cannot be told for certain is transient, and uncertain after the
// final dot.
//
// No class depends on the content, on what we doubt of the relay (see distrust), or on
// the relay's place in the route.
//
// j is what the table says of the reply.
func classify(stage mailer.Stage, r mailer.Reply, j relays.Judgement) mailer.Class {
	switch {
	case stage < mailer.StageMail && r.Code == 421:
		return mailer.ClassTransient
	case stage < mailer.StageMail:
		return mailer.ClassRelay
	case stage == mailer.StageMail && blamesSender(r.Code) && j.Relay == "":
		return mailer.ClassTransient
	case stage == mailer.StageContent && !j.Known && r.Code < 400:
		return mailer.ClassUncertain
	default:
		return classOf(j.Verdict, r)
	}
}

// classOf is classify from MAIL on, by the verdict alone.
func classOf(v relays.Verdict, r mailer.Reply) mailer.Class {
	switch v {
	case relays.Permanent, relays.Suppressed:
		return mailer.ClassPermanent
	case relays.Pause, relays.Login:
		return mailer.ClassRelay
	case relays.Sender:
		if r.Code/100 == 5 {
			return mailer.ClassPermanent
		}
		return mailer.ClassTransient
	default: // retry, less
		return mailer.ClassTransient
	}
}

// blamesSender reports whether a reply to MAIL is about the reverse-path or about our
// commands, parameters or login, rather than a judgement of the mail: Postfix says 501
// 5.1.7 to an odd address, and Microsoft 365 says 530 5.7.57 to a session without login.
func blamesSender(code int) bool {
	return 500 <= code && code <= 504 || code == 530 || code == 555
}

// cannotTake reports whether a permanent refusal is about what this relay can carry:
// the message is too big for it (RFC 3463 §3.4), or it cannot do without a conversion
// that the relay lacks (RFC 3463 §3.7, RFC 6531 §3.5).
func cannotTake(stage mailer.Stage, r mailer.Reply) bool {
	return stage != mailer.StageRcpt && (r.Enhanced == "5.3.4" || r.Enhanced == "5.6.3" || r.Enhanced == "5.6.7")
}
