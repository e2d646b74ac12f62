package relays

import (
	"time"

	"mailsidecar/mailer"
)

// Verdict is what a reply of a relay means for the mail.
type Verdict int

const (
	// Retry: this message or recipient later, on its own schedule.
	Retry Verdict = iota
	// Permanent: the relay refuses this message or this recipient for good.
	Permanent
	// Pause: the relay takes no mail from us for a while, such as after a quota is used
	// up. All mail waits.
	Pause
	// Less: fewer connections, or a lower rate.
	Less
	// Login: the relay does not accept our login, or what the account is set up for. All
	// mail waits until a person has mended that.
	Login
	// Sender: the relay does not take mail of this sender.
	Sender
	// Suppressed: the recipient is on the relay's list of those that get no mail.
	Suppressed
)

var verdictNames = [...]string{"retry", "permanent", "pause", "less", "login", "sender", "suppressed"}

// Pushback is what a reply says of the load that we put on the relay.
type Pushback int

const (
	NoPushback         Pushback = iota
	TooManyConnections          // for this relay, or for this account or address of ours
	TooFast                     // too many messages in too short a time
)

func (v Verdict) String() string { return verdictNames[v] }

// verdictNamed returns the verdict of that name.
func verdictNamed(name string) (Verdict, bool) {
	for v, known := range verdictNames {
		if known == name {
			return Verdict(v), true
		}
	}
	return Retry, false
}

// Judgement is what is known of a reply.
type Judgement struct {
	Verdict Verdict
	// Known says that a rule knows the reply. Otherwise Verdict is what its stage and
	// code mean, and nothing more is known.
	Known bool
	// Relay is the preset whose own rule it is; empty for a rule that holds for all.
	Relay string
	// EndsConnection says that the relay ends this connection for a reason that lies in
	// it, such as its number of messages or its idle time.
	EndsConnection bool
	// TooManyRecipients says that a recipient is refused because of the number of those
	// before it, whatever the code: 452 (RFC 5321 §4.5.3.1.10), 552 of old, or 550 5.5.3.
	TooManyRecipients bool
	// Pushback is what there is too much of, with the verdict Less.
	Pushback Pushback
	// Until is when the relay may be asked again, with the verdict Pause, at most a day
	// ahead: the reply or the table names it. Zero means that it is not known.
	Until time.Time
	// Rolling says that the relay pauses for a quota that is a moving window: Until is
	// only when to try again.
	Rolling bool
	// Passes says that nobody has to do anything about a reply with the verdict Pause or
	// Less: what it complains about ends by itself.
	Passes bool
	// OfRecipient says that the reply speaks of the recipient, and not of us.
	OfRecipient bool
	// Cause and Remedy are one sentence each, for people. Empty where nothing is known.
	Cause, Remedy string
	Source        string // where the rule was read; empty without a rule
}

// What [Rule.Means] may be.
const (
	endsConnection    = "connection ends"
	tooManyRecipients = "too many recipients"
)

// longestPause limits a pause, because a relay may name any time.
const longestPause = 24 * time.Hour

// Judge tells what a reply at that stage means, which is not the one that is hoped for.
// host is the relay's, as configured: its own rules come first. Where it is not known,
// the words may tell whose the reply is. Only a rule makes anything else of a reply than
// its stage and code say.
//
// It is the one place where replies are judged. What follows for the mail is decided
// elsewhere, see mailer/smtp/classify.go.
func Judge(host string, stage mailer.Stage, reply mailer.Reply, now time.Time) Judgement {
	w := newWords(stage, reply)
	w.findsPassedOn(host)
	for _, own := range rulesFor(host, &w) {
		if r := firstMatch(own.rules, &w); r != nil {
			j := r.judgement(&w, now)
			j.Relay = own.name
			return j
		}
	}
	if r := firstMatch(general.read(), &w); r != nil {
		return r.judgement(&w, now)
	}
	return Judgement{Verdict: w.byCode(), OfRecipient: w.of == ofRecipient || w.own != nil}
}

// byCode is [byCode], without what another server said of a login.
func (w *words) byCode() Verdict {
	v := byCode(w.stage, w.code)
	if v == Login && w.own != nil && w.stage >= mailer.StageMail {
		return Permanent
	}
	return v
}

// Drops reports whether a positive reply (2yz) says that the relay drops the mail.
func Drops(host string, stage mailer.Stage, reply mailer.Reply) bool {
	switch reply.Code {
	case 250, 251, 252: // those of RFC 5321 cost nothing
		return false
	}
	return reply.Positive() && Judge(host, stage, reply, time.Time{}).Verdict != Retry
}

// byCode is the verdict on a reply that no rule knows.
func byCode(stage mailer.Stage, code int) Verdict {
	switch {
	case code/100 != 5:
		if stage == mailer.StageAuth && code != 421 {
			return Pause
		}
		return Retry
	case code == 530, code == 535, code == 538:
		return Login
	case stage >= mailer.StageMail:
		return Permanent
	case stage == mailer.StageGreeting:
		return Pause
	default:
		return Login
	}
}

// judgement returns what the rule says of the reply.
func (r *Rule) judgement(w *words, now time.Time) Judgement {
	v, _ := verdictNamed(r.Verdict)
	j := Judgement{
		Verdict: v, Known: true, OfRecipient: w.of == ofRecipient,
		EndsConnection: r.Means == endsConnection, TooManyRecipients: r.Means == tooManyRecipients,
		Cause: r.Cause, Remedy: r.Remedy, Source: r.Source,
	}
	switch v {
	case Less:
		j.Pushback, j.Passes = TooFast, true
		if r.Less == "connections" {
			j.Pushback = TooManyConnections
		}
	case Pause:
		j.Rolling, j.Passes = r.Probe > 0, r.Passes
		j.Until = r.until(w, now)
	default: // no time
	}
	return j
}

// until returns when the relay may be asked again.
func (r *Rule) until(w *words, now time.Time) time.Time {
	wait := time.Duration(r.For)
	if r.Probe > 0 {
		wait = time.Duration(r.Probe)
	}
	if named, ok := timeNamed(w.spoken, now); ok {
		wait = named
	}
	if wait <= 0 {
		return time.Time{}
	}
	return now.Add(min(wait, longestPause))
}
