package relays

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"mailsidecar/mailer"
)

var replyLine = regexp.MustCompile(`^(\d{3})(?: ([245](?:\.\d{1,3}){2}))?(?: (.*))?$`)

// parse reads one line as smtp does.
func parse(t *testing.T, line string) mailer.Reply {
	t.Helper()
	m := replyLine.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("%q is no reply", line)
	}
	code, _ := strconv.Atoi(m[1])
	r := mailer.Reply{Code: code, Enhanced: m[2], Text: m[3]}
	if r.Enhanced != "" && r.Enhanced[0] != line[0] { // not of the code's class: only text
		r.Enhanced, r.Text = "", r.Enhanced+" "+r.Text
	}
	return r
}

// TestJudgeOfOld has the replies that were judged before there was a table, with the
// verdicts that follow from their class then.
func TestJudgeOfOld(t *testing.T) {
	tests := []struct {
		line  string
		want  Verdict
		drops bool
	}{
		{"550 5.4.5 Daily user sending limit exceeded.", Pause, false},
		{"552 5.4.5 Daily sending quota exceeded", Pause, false},
		{"550 5.7.30 Basic authentication is not supported", Login, false},
		{"554 5.2.0 STOREDRV.Submission; SubmissionQuotaExceededException", Pause, false},
		{"554 5.2.0 mailbox gone", Permanent, false},
		{"454 Throttling failure: Daily message quota exceeded.", Pause, false},
		{"454 Throttling failure: Maximum sending rate exceeded.", Less, false},
		{"450 The given data was invalid.", Permanent, false},
		{"450 4.2.1 busy", Retry, false},
		{"254 4.7.1 Suppression for user a to b", Suppressed, true},
		{"250 4.7.1 Suppression for user a to b", Retry, false},
		{"250 2.1.5 ok", Retry, false},
	}
	for _, tt := range tests {
		r := parse(t, tt.line)
		if got := Judge("", mailer.StageContent, r, time.Time{}).Verdict; got != tt.want {
			t.Errorf("Judge(%s) = %s, want %s", tt.line, got, tt.want)
		}
		if got := Drops("", mailer.StageContent, r); got != tt.drops {
			t.Errorf("Drops(%s) = %v, want %v", tt.line, got, tt.drops)
		}
	}
}

func TestPushback(t *testing.T) {
	tests := []struct {
		stage mailer.Stage
		line  string
		want  Pushback
	}{
		{mailer.StageMail, "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information.", TooManyConnections},
		{mailer.StageContent, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", TooManyConnections},
		{mailer.StageMail, "421 4.7.0 relay.test Error: too many connections from 192.0.2.1", TooManyConnections},
		{mailer.StageMail, "421 Too many concurrent SMTP connections; please try again later.", TooManyConnections},
		{mailer.StageMail, "450 4.7.1 Error: too much mail from 192.0.2.1", TooFast},
		{mailer.StageContent, "454 Throttling failure: Maximum sending rate exceeded.", TooFast},
		{mailer.StageRcpt, "450 4.2.1 Peak SMTP relay limit exceeded for customer.", TooFast},
		{mailer.StageRcpt, "450 4.2.1 The user you are trying to contact is receiving mail too quickly", NoPushback},
		{mailer.StageMail, "451 4.7.500 Server busy. Please try again later", TooFast},
		{mailer.StageContent, "451 4.4.5 try later", TooFast},
		{mailer.StageMail, "451 4.3.2 not now", TooFast},
		{mailer.StageMail, "452 4.3.1 Insufficient system resources", TooFast},
		{mailer.StageContent, "452 4.3.1 Insufficient system storage", TooFast},
		{mailer.StageMail, "452 Requested action not taken", TooFast},
		{mailer.StageRcpt, "452 4.5.3 too many recipients", NoPushback},
		{mailer.StageRcpt, "452 4.3.1 full", NoPushback},
		{mailer.StageRcpt, "450 4.7.1 Greylisted, try again in 5 minutes", NoPushback},
		{mailer.StageRcpt, "451 4.7.1 Service unavailable - try again later", NoPushback},
		{mailer.StageMail, "450 4.2.0 later", NoPushback},
		{mailer.StageMail, "421 4.7.0 try again later", NoPushback}, // when it comes has to tell
		{mailer.StageMail, "421 4.7.0 relay.test Error: too many errors", NoPushback},
		{mailer.StageMail, "421 Too many messages in this connection", NoPushback},
		{mailer.StageMail, "421 4.4.2 relay.test Error: timeout exceeded", NoPushback},
		{mailer.StageContent, "554 5.7.1 rate limit", NoPushback},
		{mailer.StageContent, "250 2.0.0 slow down", NoPushback},
	}
	for _, tt := range tests {
		if got := Judge("", tt.stage, parse(t, tt.line), time.Time{}).Pushback; got != tt.want {
			t.Errorf("Pushback of Judge(%v, %q) = %d, want %d", tt.stage, tt.line, got, tt.want)
		}
	}
}

func TestTooManyRecipients(t *testing.T) {
	for line, want := range map[string]bool{
		"452 4.5.3 Too many recipients":       true,
		"552 too many recipients":             true,
		"550 5.5.3 recipients limit":          true,
		"550 Too many recipients in one mail": true,
		"452 4.3.1 full":                      false,
		"552 5.2.2 mailbox full":              false,
		"550 5.1.1 unknown":                   false,
	} {
		if got := Judge("", mailer.StageRcpt, parse(t, line), time.Time{}).TooManyRecipients; got != want {
			t.Errorf("TooManyRecipients of Judge(%s) = %v, want %v", line, got, want)
		}
	}
}
