package queue

import (
	"log/slog"
	"net"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

func TestRemedy(t *testing.T) {
	login := func(code int, enhanced, text string) *mailer.Failure {
		return &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageAuth, Reply: mailer.Reply{Code: code, Enhanced: enhanced, Text: text}}
	}
	tests := []struct {
		name    string
		failure *mailer.Failure
		level   slog.Level
		want    string // part of it; empty: none
	}{
		{"wrong password", login(535, "5.7.8", "no"), slog.LevelError, "SMTP_PASSWORD"},
		{"app password", login(534, "5.7.9", "no"), slog.LevelError, "app password"},
		{"no passwords", login(535, "5.7.139", "basic authentication is disabled"), slog.LevelError, "SMTP_OAUTH2_"},
		{"login busy", login(454, "4.7.0", "later"), slog.LevelWarn, ""},
		{"login required", &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageMail, Reply: mailer.Reply{Code: 530}}, slog.LevelError, "SMTP_USERNAME"},
		{"quota", &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageMail, Reply: mailer.Reply{Code: 550}}, slog.LevelWarn, ""},
		{"no cause", &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Err: &net.OpError{Op: "dial", Err: net.ErrClosed}}, slog.LevelWarn, ""},
	}
	for _, tt := range tests {
		level, attrs := relayTrouble(tt.failure)
		got := remedy(tt.failure)
		if level != tt.level || !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: relayTrouble = %v %v, remedy = %q, want %v and %q", tt.name, level, attrs, got, tt.level, tt.want)
		}
	}
}

// TestNoneLog: without a store there is the same mail log.
func TestNoneLog(t *testing.T) {
	wrongPassword := fail(mailer.ClassRelay, mailer.StageAuth, 535)
	tests := []struct {
		name string
		say  func(int, string) *mailer.Failure
		want []string
	}{
		{"accepted", accept, []string{"level=INFO msg=delivered id=", "reverse_path=bounce@example.com forward_path=a@example.org relay=relay attempt=1 code=250"}},
		{"refused", refused, []string{"level=INFO msg=bounced", "code=550", "class=permanent stage=rcpt"}},
		{"deferred", greylisted, []string{"level=INFO msg=deferred", "code=450"}},
		{"lost", lostReply, []string{"level=WARN msg=deferred", "class=uncertain"}},
		{"down", unreachable, []string{`level=WARN msg="relay failed" id=`, "stage=connect", "msg=deferred", "class=relay"}},
		{"wrong password", wrongPassword, []string{`level=ERROR msg="relay failed" id=`, "stage=auth code=535", "SMTP_USERNAME and SMTP_PASSWORD", "msg=deferred"}},
	}
	for _, tt := range tests {
		var log lockedLog
		n := NewNone(Routes{{Relay: newFakeRelay(tt.say)}}, slog.New(slog.NewTextHandler(&log, nil)))
		if _, err := n.Submit(t.Context(), submission("x", "a@example.org")); err != nil {
			t.Fatalf("%s: Submit = %v", tt.name, err)
		}
		for _, want := range tt.want {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%s: log = %s, want %q in it", tt.name, log.String(), want)
			}
		}
	}
}
