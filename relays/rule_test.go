package relays

import (
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// TestRulesAreWhole: each rule has a verdict that there is, a sentence for people, what
// to do, and where it was read. It may judge a positive reply only by its code.
func TestRulesAreWhole(t *testing.T) {
	rules := slices.Clone(general.read())
	for _, p := range Presets() {
		rules = append(rules, p.Replies.read()...)
	}
	for _, r := range rules {
		_, ok := verdictNamed(r.Verdict)
		_, err := time.Parse("2006-01", r.Date)
		switch {
		case !ok, err != nil, !strings.HasPrefix(r.Source, "https://"):
			t.Errorf("rule %+v: verdict, source or date is missing", r)
		case r.Cause == "" || r.Remedy == "" || !strings.HasSuffix(r.Cause, "."):
			t.Errorf("rule %+v: cause or remedy is no sentence", r)
		case r.Of != "" && r.Of != ofUs && r.Of != ofRecipient, r.Means != "" && r.Means != endsConnection && r.Means != tooManyRecipients:
			t.Errorf("rule %+v: of or means has an unknown word", r)
		case r.Passes && r.Verdict != "pause":
			t.Errorf("rule %+v: only a pause is said to end by itself", r)
		case r.Passes != strings.HasPrefix(r.Remedy, "Mail waits, and nothing has to be done.") && strings.Contains(r.Remedy, "larger plan"):
			t.Errorf("rule %+v: passes and remedy contradict", r)
		case r.Verdict == "less" && r.Less != "rate" && r.Less != "connections":
			t.Errorf("rule %+v: less of what?", r)
		}
		for _, phrases := range slices.Concat(r.Text, r.Not) {
			if phrases != strings.ToLower(phrases) || strings.Contains(phrases, "||") || strings.HasPrefix(phrases, "|") || strings.HasSuffix(phrases, "|") {
				t.Errorf("rule %+v: %q is not in lower case, or has an empty phrase", r, phrases)
			}
		}
		for _, stage := range r.Stages {
			if stageNamed(stage) == mailer.StageCompose {
				t.Errorf("rule %+v: there is no stage %s", r, stage)
			}
		}
	}
}

// TestOwnRulesFirst: a relay's own rules come before the general ones; where the host is
// not known, its words tell whose the reply is; and what it quotes of another server
// does not.
func TestOwnRulesFirst(t *testing.T) {
	for _, tt := range []struct{ host, text, relay string }{
		{"smtp.zoho.com", "Relaying disallowed as a@example.org", "zoho"},
		{"smtp.example.com", "Relaying disallowed as a@example.org", ""},
		{"", "5.2.252 SendAsDenied; STOREDRV.Submission.Exception:SendAsDeniedException", "microsoft365"},
		{"tunnel.example.com", "5.2.252 SendAsDenied; STOREDRV.Submission.Exception:SendAsDeniedException", "microsoft365"},
		{"", "host mx.example.com said: STOREDRV.Submission.Exception:SendAsDeniedException", ""},
	} {
		if j := Judge(tt.host, mailer.StageContent, mailer.Reply{Code: 553, Text: tt.text}, time.Time{}); j.Relay != tt.relay {
			t.Errorf("Judge(%q, %s) is a rule of %q (%s), want of %q", tt.host, tt.text, j.Relay, j.Cause, tt.relay)
		}
	}
}

// TestAuthAgrees: at AUTH the verdict and the word about the login do not contradict.
func TestAuthAgrees(t *testing.T) {
	for _, row := range readCorpus(t) {
		if row.stage != mailer.StageAuth || row.reply.Code/100 != 5 {
			continue
		}
		later := LoginRefusal(row.reply, nil) == LoginLater
		if v := Judge(row.host, row.stage, row.reply, time.Time{}).Verdict; later != (v != Login && v != Pause) {
			t.Errorf("replies.tsv:%d: %s is judged %s, and as a login later=%v", row.line, row.reply, v, later)
		}
	}
}
