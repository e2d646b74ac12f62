package relays

import (
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// TestTimeNamed has the times to wait that replies name. Now is 2025-10-05 19:00 UTC.
func TestTimeNamed(t *testing.T) {
	now := time.Date(2025, 10, 5, 19, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		text string
		want time.Duration // zero: none
	}{
		{"Account will be enabled in 341 seconds", 341 * time.Second},
		{"Too many messages. Try again in 92 seconds.", 92 * time.Second},
		{"try again within 2 minutes", 2 * time.Minute},
		{"Rate limit exceeded, try again in 1 hour", time.Hour},
		{"please wait an hour", time.Hour},
		{"retry after 60s", time.Minute},
		{"retry-after: 15min", 15 * time.Minute},
		{"limit reached, wait 3 days", 24 * time.Hour},
		{"Bitte versuchen Sie es in 5 Minuten erneut", 5 * time.Minute},
		{"recipient limit exceeded, try again after Sun, 05 Oct 2025 19:22:44 UTC", 22*time.Minute + 44*time.Second},
		{"disabled until Sun, 05 Oct 2025 21:30:00 +0200", 30 * time.Minute},
		{"disabled until Sun, 05 Oct 2025 21:30:00 CEST", 30 * time.Minute},
		{"try again after 2025-10-05T19:10:00Z", 10 * time.Minute},
		{"try again after 2025-10-05T21:10:00+02:00", 10 * time.Minute},
		{"blocked until 2025-10-05 19:15:00 UTC", 15 * time.Minute},
		{"blocked until 2025-10-05 19:15:00", 15 * time.Minute},
		{"quota resets at 20:00 UTC", time.Hour},
		{"quota resets at 18:00 UTC", 23 * time.Hour},
		{"quota resets at 15:30 EDT", 30 * time.Minute},
		{"blocked until Thu, 01 Jan 2015 00:00:00 GMT", 0}, // past
		{"limited to 100 messages / hour", 0},
		{"more than 400 rcpts per 24 hours for client", 0},
		{"too many messages in the last 24 hours", 0},
		{"rate overlimit = 83.6 / 1h", 0},
		{"exceeded its 24-hour sending limit", 0},
		{"in 99999999999999999999 seconds", 0},
		{"in 9999999 days", 24 * time.Hour},
		{"try again in 2135040 hours", 24 * time.Hour},
		{"try again after 24 hours", 24 * time.Hour},
		{"limit reached. Wait 24 hours before you send more", 24 * time.Hour},
		{"You may send again in one hour", time.Hour},
		{"Bitte in einer Stunde erneut, nach 2 Stunden", 2 * time.Hour},
		{"only 500 messages in 24 hours allowed", 0},
		{"exceeded the limit of 500 recipients within 24 hours", 0},
		{"You have exceeded your limit in a 24 hour period", 0},
		{"500 messages in 24 hours, try again in 10 minutes", 10 * time.Minute},
		{"limit exceeded for 24hours@example.org", 0},
		{"limit exceeded for 24hours.example", 0},
		{"resets tomorrow", 0},
		{"temporarily refused connection at 11/27/15 11:25:27 from IP (192.0.2.1)", 0},
		{"in 0 seconds", 0},
		{"try again later", 0},
		{"wait", 0},
		{"", 0},
	} {
		got, ok := timeNamed(strings.ToLower(tt.text), now)
		if !ok {
			got = 0
		}
		if got != tt.want {
			t.Errorf("timeNamed(%s) = %s, want %s", tt.text, got, tt.want)
		}
	}
}

// TestPauseUntil: the time that a reply names counts more than that of the table, and
// neither is more than a day ahead.
func TestPauseUntil(t *testing.T) {
	now := time.Date(2025, 10, 5, 19, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		host, line string
		want       time.Duration
		rolling    bool
	}{
		{"smtp.gmail.com", "550 5.4.5 Daily user sending limit exceeded.", time.Hour, true},
		{"smtp-relay.gmail.com", "550 5.7.1 Daily SMTP relay limit exceeded for customer.", time.Hour, true},
		{"smtp.mailgun.org", "421 Domain example.org is not allowed to send: recipient limit exceeded, try again after Sun, 05 Oct 2025 19:22:44 UTC", 22*time.Minute + 44*time.Second, false},
		{"", "554 Your daily quota is exceeded, try again after Sun, 05 Oct 2031 19:22:44 UTC", 24 * time.Hour, true},
		{"", "450 Hourly quota exceeded", 15 * time.Minute, false},
		{"", `450 Hourly quota exceeded, <"wait 23 hours"@example.org> refused`, 15 * time.Minute, false},
		{"", "450 Hourly quota exceeded, wait 23hours@example.org refused", 15 * time.Minute, false},
		{"", "554 Your daily quota of 500 messages in 24 hours is exceeded", time.Hour, true},
	} {
		r := parse(t, tt.line)
		j := Judge(tt.host, mailer.StageContent, r, now)
		if got := j.Until.Sub(now); j.Verdict != Pause || got != tt.want || j.Rolling != tt.rolling {
			t.Errorf("Judge(%s, %s) = %s for %s, rolling %v, want a pause of %s, rolling %v", tt.host, tt.line, j.Verdict, got, j.Rolling, tt.want, tt.rolling)
		}
	}
}
