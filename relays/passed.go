package relays

import (
	"slices"
	"strings"
)

// passes are the words with which a relay passes on what another server said: Postfix,
// Exim, qmail, Exchange and others.
var passes = [...]string{
	" said: ", "remote host said", "error from remote mail server", "error from remote server", "remote server returned", "remote server responded",
	"remote server replied", "remote mail server returned", "remote mail server responded", "response from remote", "server response was",
	"refused to talk to me", "remote smtp server returned", "remote mta returned", "remote mta said", "diagnostic-code",
}

// signatures are in each reply of some servers, and only the named relays are theirs.
var signatures = [...]struct {
	sign   string
	relays []string
}{
	{" gsmtp", []string{"gmail", "google-workspace"}},
	{".prod.outlook.com", []string{"microsoft365", "outlook", "microsoft365-hve"}},
	{".protection.outlook.com", []string{"microsoft365", "outlook", "microsoft365-hve"}},
}

// findsPassedOn finds what the relay at that host passes on of another server. What the
// relay says itself stands before that.
func (w *words) findsPassedOn(host string) {
	at := -1
	for _, p := range passes {
		if i := strings.Index(w.spoken, p); i >= 0 && (at < 0 || i < at) {
			at = i
		}
	}
	if w.isSignedByOther(host) {
		at = 0
	}
	if at < 0 {
		return
	}
	own := words{stage: w.stage, code: w.code, raw: w.spoken[:at]} // the enhanced status code is often the other's
	own.read()
	w.own = &own
	w.of = w.whom()
}

// isSignedByOther reports whether the reply has a signature of servers that are not those
// of the relay at that host, which is a known one.
func (w *words) isSignedByOther(host string) bool {
	p, ok := PresetFor(host)
	if !ok {
		return false
	}
	for _, s := range signatures {
		if strings.Contains(w.spoken, s.sign) && !slices.Contains(s.relays, p.Name) {
			return true
		}
	}
	return false
}

// passedOn is what a quota or a rate of another server means for the message.
var passedOn = Rule{
	Verdict: "retry",
	Cause:   "Another server takes no more mail from the relay at the moment; the relay passes on its words.",
	Remedy:  "Nothing: the message is tried again by itself.",
	Source:  "https://github.com/vdukhovni/postfix/blob/master/postfix/src/smtp/smtp_trouble.c", Date: "2026-11",
}

// ruleFor returns the rule for a reply that r matches: what another server said tells
// nothing of the relay itself, of our account there and of our connection to it. It is
// nil where r says nothing of this message then.
func (r *Rule) ruleFor(w *words) *Rule {
	switch {
	case w.own == nil, !r.isOfRelay(), len(r.Text) > 0 && r.matches(w.own):
		return r
	case len(r.Text) > 0 && w.code/100 == 5 && (r.Verdict == "pause" || r.Verdict == "less"):
		return &passedOn
	default:
		return nil
	}
}

// isOfRelay reports whether the rule says something of more than this message.
func (r *Rule) isOfRelay() bool {
	switch r.Verdict {
	case "pause", "less", "login", "sender":
		return true
	default:
		return r.Means != ""
	}
}
