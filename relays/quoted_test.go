package relays

import (
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// echoes are replies that repeat what a client of ours wrote: a recipient, a subject, a
// link or the name of a domain. The words in it are chosen to look like a quota, a
// blocked account or a rate.
var echoes = []struct {
	stage mailer.Stage
	line  string
}{
	{mailer.StageRcpt, `550 5.1.1 <"daily quota exceeded"@x.example>: Recipient address rejected: User unknown in relay recipient table`},
	{mailer.StageRcpt, `550 <"daily quota exceeded"@x.example> unacceptable`},
	{mailer.StageRcpt, `550 unacceptable: "your daily sending quota exceeded"@x.example`},
	{mailer.StageRcpt, `550 <"a\" your daily quota exceeded \"b"@x.example> unacceptable`},
	{mailer.StageRcpt, `550 <"a> your daily quota exceeded"@x.example> unacceptable`},
	{mailer.StageRcpt, `550 too.many.messages.today@x.example refused`},
	{mailer.StageRcpt, `550 Domain quota-exceeded-daily-limit.example refused`},
	{mailer.StageRcpt, `550 Domain quota.limited refused`},
	{mailer.StageRcpt, `550 Domain your.daily.quota.exceeded.example refused`},
	{mailer.StageRcpt, `550 Host relay-access-denied.account-suspended.example lookup problem`},
	{mailer.StageRcpt, `550 Host zen.spamhaus.org not found`},
	{mailer.StageRcpt, `550 5.1.2 Host unknown (Name server: account-suspended-sending-disabled.example.: host not found)`},
	{mailer.StageRcpt, `550 <disabled-until-hourly@mailgun.example> refused`},
	{mailer.StageContent, `550 Message refused, subject "your daily sending quota exceeded" matches a filter`},
	{mailer.StageContent, "550 Matches a filter. Subject: your daily sending quota exceeded, account suspended"},
	{mailer.StageRcpt, "550 'your daily quota exceeded@x.example' refused"},
	{mailer.StageContent, `550 Link to https://x.example/daily-quota-exceeded/account-suspended refused`},
	{mailer.StageContent, `550 Link to daily-quota-exceeded.example/account/suspended refused`},
	{mailer.StageContent, `550 5.7.1 Message from <"account suspended. relay access denied"@x.example> refused`},
	{mailer.StageRcpt, `450 4.7.1 <"rate limit exceeded, slow down"@x.example>: try again`},
	{mailer.StageRcpt, `450 4.7.1 <"too many connections from your ip"@x.example>: try again`},
}

// TestQuotedWordsPauseNothing: nobody who may send can hold up the mail of others by the
// words that a relay repeats.
func TestQuotedWordsPauseNothing(t *testing.T) {
	hosts := []string{"", "relay.example.com"}
	for _, p := range Presets() {
		hosts = append(hosts, p.InRegion("eu-west-1").Host)
	}
	for _, e := range echoes {
		for _, host := range hosts {
			r := parse(t, e.line)
			if v := Judge(host, e.stage, r, time.Time{}).Verdict; v != byCode(e.stage, r.Code) {
				t.Errorf("Judge(%q, %s, %s) = %s, want %s", host, e.stage, e.line, v, byCode(e.stage, r.Code))
			}
		}
	}
}

// TestWithoutQuoted has what is left of a text.
func TestWithoutQuoted(t *testing.T) {
	for text, want := range map[string]string{
		`<a@example.org>: quota exceeded`:                      "@ : quota exceeded",
		`<"a b"@example.org>... full`:                          "@ ... full",
		`"a \" b"@example.org full`:                            "@ full",
		`"quota exceeded"`:                                     "quota exceeded",
		`ratelimit "user" exceeded`:                            "ratelimit exceeded",
		`"mail from" is non-local account`:                     "mail from is non-local account",
		`user 'a b@example.org' isn't here, 'no'`:              "user @ isn't here, 'no'",
		`bad subject: quota exceeded`:                          "bad",
		`<data>: data command rejected`:                        "data : data command rejected",
		`a < b, and "never closed`:                             `a < b, and "never closed`,
		`see https://example.org/quota or www.example.org now`: "see or now",
		``: "",
	} {
		if got := strings.TrimSpace(strings.ReplaceAll(withoutQuoted(text), " :", " :")); got != want {
			t.Errorf("withoutQuoted(%s) = %q, want %q", text, got, want)
		}
	}
}

// TestHostIn: names of hosts are told from sentences without a blank between them, and
// from names of errors.
func TestHostIn(t *testing.T) {
	for token, want := range map[string]string{
		"mx.example.com[192.0.2.1]": "mx.example.com",
		"quota-exceeded.example":    "quota-exceeded.example",
		"quota.limited.":            "quota.limited",
		"exceeded.try":              "",
		"later.please":              "",
		"5.7.1":                     "",
		"192.0.2.1":                 "",
		"e.g.":                      "",
		"storedrv.submission.quotaexceededexception": "",
		"resolver.rst.restrictedtogroup;":            "",
		"wait...again":                               "",
		"quota":                                      "",
	} {
		if got := hostIn(token); got != want {
			t.Errorf("hostIn(%s) = %q, want %q", token, got, want)
		}
	}
}

// TestBlocklistNamed: of a host's name, the list of spammers counts.
func TestBlocklistNamed(t *testing.T) {
	for line, want := range map[string]Verdict{
		"550 5.7.1 Service unavailable; client [192.0.2.1] blocked using zen.spamhaus.org": Pause,
		"550 Listed in zen.spamhaus.org. https://www.spamhaus.org/query/ip/192.0.2.1":      Pause,
		"550 Rejected, see dnsbl.sorbs.net":                                                Pause,
		"550 Host zen.spamhaus.org not found":                                              Permanent,
		"550 Rejected, see spamhaus.org.example":                                           Permanent,
	} {
		if got := Judge("", mailer.StageRcpt, parse(t, line), time.Time{}).Verdict; got != want {
			t.Errorf("Judge(%s) = %s, want %s", line, got, want)
		}
	}
}

// FuzzEchoedAddress: whatever a local part is, the reply that repeats it means the same.
func FuzzEchoedAddress(f *testing.F) {
	for _, local := range []string{"user", "daily quota exceeded", `a" your daily quota exceeded`, "a> account suspended <b", "wait 24 hours", `\`, "said: 550 quota", "é@é", "\"\\"} {
		f.Add(local)
	}
	now := time.Date(2026, 11, 30, 7, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, local string) {
		if len(local) > 200 || strings.ContainsAny(local, "\x00\r\n") {
			return
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
		for _, format := range []string{"<ADDRESS> refused", "refused: ADDRESS", "your quota is used up, <ADDRESS> refused", "<ADDRESS>: your quota is used up"} {
			r := mailer.Reply{Code: 550, Text: strings.Replace(format, "ADDRESS", quoted+"@x.example", 1)}
			plain := mailer.Reply{Code: 550, Text: strings.Replace(format, "ADDRESS", "user@x.example", 1)}
			got, want := Judge("", mailer.StageRcpt, r, now), Judge("", mailer.StageRcpt, plain, now)
			if got != want {
				t.Errorf("Judge(%s) = %+v, want %+v", r.Text, got, want)
			}
		}
	})
}
