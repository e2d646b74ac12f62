package relays

import (
	"testing"
	"time"

	"mailsidecar/mailer"
)

// TestPassedOn: what another server said, and a relay passes on, tells nothing of the
// relay itself: it pauses nothing, and blames no login and no sender of ours. A quota or
// a rate there passes, so that the message waits.
func TestPassedOn(t *testing.T) {
	for _, tt := range []struct {
		host, line string
		want       Verdict
	}{
		{"", "554 5.0.0 host aspmx.l.google.com[192.0.2.1] said: 550 5.4.5 Daily user sending quota exceeded. s5sm12197523qke.120 - gsmtp (in reply to end of DATA command)", Retry},
		{"", "550 5.4.5 host aspmx.l.google.com[192.0.2.1] said: 550 5.4.5 Daily user sending quota exceeded.", Retry},
		{"", "550 SMTP error from remote mail server after end of data: 550 5.4.5 Daily user sending quota exceeded. - gsmtp", Retry},
		{"", "550 SMTP error from remote mail server after RCPT TO:<user@example.org>: 550 Domain example.com has exceeded the max emails per hour (3/2 (150%)) allowed. Message discarded.", Retry},
		{"", "554 Remote host said: 550 Daily sending quota exceeded", Retry},
		{"", "450 Remote host said: 421 4.7.0 too many connections from your IP", Retry},
		{"", "452 4.3.1 host mx.example.com[192.0.2.1] said: 452 4.3.1 Insufficient system storage", Retry},
		{"", "421 4.4.2 host mx.example.com[192.0.2.1] said: 421 4.4.2 Too many messages in this connection", Retry},
		{"", "550 5.7.1 host mx.example.com[192.0.2.1] said: 550 5.7.1 Relaying denied", Permanent},
		{"", "530 5.7.1 host mx.example.com[192.0.2.1] said: 530 5.7.1 Client was not authenticated", Permanent},
		{"", "535 SMTP error from remote mail server after RCPT TO:<user@example.org>: 535 no", Permanent},
		{"", "550 5.7.1 host mx.example.com[192.0.2.1] said: 550 5.7.1 Your account has been suspended", Permanent},
		{"", "550 5.7.1 host mx.example.com[192.0.2.1] said: 550 5.7.1 Sender address rejected: not allowed", Permanent},
		{"", "554 5.4.0 Remote server returned '550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP.'", Permanent},
		{"", "550 5.1.1 host mx.example.com[192.0.2.1] said: 550 5.1.1 User unknown", Permanent},
		{"", "450 5.4.0 host mx.example.com[192.0.2.1] refused to talk to me: 554 your IP address is listed", Retry},
		{"smtp.mailgun.org", "421 4.7.0 [192.0.2.1] Our system has detected an unusual rate of unsolicited mail originating from your IP address. To protect our users from spam, mail sent from your IP address has been temporarily rate limited. z1si9679476pln.401 - gsmtp", Retry},
		{"smtp.sendgrid.net", "550 5.4.5 Daily user sending quota exceeded. s5sm12197523qke.120 - gsmtp", Retry},
		{"smtp.sendgrid.net", "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP. AS(7230) [BM1PR01MB1076.INDPRD01.PROD.OUTLOOK.COM]", Permanent},
		// What the relay says itself still counts.
		{"", "450 Your daily quota is exceeded; host mx.example.com said: 550 no", Pause},
		{"smtp.gmail.com", "550 5.4.5 Daily user sending quota exceeded. s5sm12197523qke.120 - gsmtp", Pause},
		{"smtp.office365.com", "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP. AS(7230) [BM1PR01MB1076.INDPRD01.PROD.OUTLOOK.COM]", Login},
	} {
		j := Judge(tt.host, mailer.StageContent, parse(t, tt.line), time.Time{})
		if j.Verdict != tt.want || j.EndsConnection || j.Pushback != NoPushback {
			t.Errorf("Judge(%q, %s) = %s (%s), want %s", tt.host, tt.line, j.Verdict, j.Cause, tt.want)
		}
	}
}
