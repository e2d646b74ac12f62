package alerts

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// hostile is a condition with what a relay could say to fool a service.
func hostile() Message {
	return Message{
		State: Firing, Instance: "web1", Since: time.Date(2030, 1, 31, 14, 2, 5, 0, time.UTC),
		Condition: Condition{
			Kind: LoginRefused, Subject: "smtp.example.com", Severity: Critical,
			Found: "The relay says: 535 <!channel> @everyone *x* [a](http://b)\r\nX: y & z.", Do: "Set SMTP_PASSWORD.",
		},
	}
}

// TestPayload has the exact body for each service.
func TestPayload(t *testing.T) {
	const title = "mailsidecar on web1: relay smtp.example.com: the login fails"
	solved := hostile()
	solved.State, solved.Ended = Resolved, solved.Since.Add(72*time.Minute+5*time.Second)
	for _, test := range []struct {
		name, url string
		message   Message
		want      string
	}{
		{"slack", slackHook, hostile(), `{"text":"` + title + `\nThe relay says: 535 &lt;!channel&gt; @everyone *x* [a](http://b)\\x0d\\x0aX: y &amp; z.\nWhat to do: Set SMTP_PASSWORD.\nSince 2030-01-31 14:02 UTC.","mrkdwn":false,"unfurl_links":false,"unfurl_media":false}`},
		{"discord", discordHook, hostile(), `{"content":"` + title + `\nThe relay says: 535 \\<!channel\\> @everyone \\*x\\* \\[a\\]\\(http://b\\)\\\\x0d\\\\x0aX: y & z.\nWhat to do: Set SMTP\\_PASSWORD.\nSince 2030-01-31 14:02 UTC.","allowed_mentions":{"parse":[]},"flags":4}`},
		{"teams", teamsHook, hostile(), `{"type":"message","attachments":[{"contentType":"application/vnd.microsoft.card.adaptive","content":{"$schema":"http://adaptivecards.io/schemas/adaptive-card.json","type":"AdaptiveCard","version":"1.2","body":[` +
			`{"type":"TextBlock","text":"` + title + `","weight":"Bolder","wrap":true},` +
			`{"type":"TextBlock","text":"The relay says: 535 <!channel> @everyone \\*x\\* \\[a\\]\\(http://b\\)\\\\x0d\\\\x0aX: y & z.","wrap":true},` +
			`{"type":"TextBlock","text":"What to do: Set SMTP\\_PASSWORD.","wrap":true},{"type":"TextBlock","text":"Since 2030-01-31 14:02 UTC.","wrap":true}]}}]}`},
		{"ntfy", "https://ntfy.sh/topic", hostile(), `{"topic":"topic","title":"` + title + `","message":"The relay says: 535 <!channel> @everyone *x* [a](http://b)\\x0d\\x0aX: y & z.\nWhat to do: Set SMTP_PASSWORD.\nSince 2030-01-31 14:02 UTC.","priority":4,"tags":["rotating_light"]}`},
		{"telegram", "telegram://" + botToken + "@-1?thread=5", hostile(), `{"chat_id":"-1","message_thread_id":"5","text":"` + title + `\nThe relay says: 535 <!channel> @everyone *x* [a](http://b)\\x0d\\x0aX: y & z.\nWhat to do: Set SMTP_PASSWORD.\nSince 2030-01-31 14:02 UTC.","link_preview_options":{"is_disabled":true}}`},
		{"json", "json+https://example.com/", solved, `{"state":"resolved","kind":"login_refused","subject":"smtp.example.com","severity":"critical","instance":"web1","title":"Solved: ` + title + `","text":"It lasted for 1h12m, since 2030-01-31 14:02 UTC.",` +
			`"found":"The relay says: 535 <!channel> @everyone *x* [a](http://b)\\x0d\\x0aX: y & z.","do":"Set SMTP_PASSWORD.","since":"2030-01-31T14:02:05Z","resolved_at":"2030-01-31T15:14:10Z"}`},
		{"ntfy, solved", "https://ntfy.sh/topic", solved, `{"topic":"topic","title":"Solved: ` + title + `","message":"It lasted for 1h12m, since 2030-01-31 14:02 UTC.","priority":3,"tags":["white_check_mark"]}`},
		{"left out", "json+https://example.com/", Message{State: LeftOut, LeftOut: 3, Instance: "web1"}, `{"state":"left_out","instance":"web1","title":"mailsidecar on web1: 3 alerts were left out","text":"More than 30 messages would have been sent within an hour. What was left out is over. The log has it all.","left_out":3}`},
		{"test", "json+https://example.com/", Message{State: Test, Instance: "web1"}, `{"state":"test","instance":"web1","title":"mailsidecar on web1: a test","text":"Alerts arrive here. Nothing is wrong."}`},
	} {
		got, err := must(t, test.url).payload(test.message)
		if err != nil || string(got) != test.want {
			t.Errorf("%s: payload = %s, %v, want\n%s", test.name, got, err, test.want)
		}
	}
}

// TestPayloadFits: the longest texts are cut to what each service takes, never within a
// character or an escape.
func TestPayloadFits(t *testing.T) {
	for _, filler := range []string{"a", "é", "世", "😀", "<", "&", "*", `\`, "\n", "\x80"} {
		m := hostile()
		m.Instance, m.Subject = strings.Repeat(filler, 5000), strings.Repeat(filler, 5000)
		m.Found, m.Do = strings.Repeat(filler, 5000), strings.Repeat(filler, 5000)
		for _, test := range []struct {
			url    string
			limit  int
			field  func(map[string]any) string
			length func(string) int
		}{
			{slackHook, slackText, func(b map[string]any) string { return b["text"].(string) }, octets},
			{discordHook, discordText, func(b map[string]any) string { return b["content"].(string) }, units16},
			{"https://ntfy.sh/topic", ntfyText, func(b map[string]any) string { return b["message"].(string) }, octets},
			{"https://ntfy.sh/topic", ntfyTitle, func(b map[string]any) string { return b["title"].(string) }, octets},
			{"telegram://" + botToken + "@1", telegramText, func(b map[string]any) string { return b["text"].(string) }, units16},
			{teamsHook, 28 << 10, func(b map[string]any) string { data, _ := encode(b); return string(data) }, octets},
			{"json+https://example.com/", 16 << 10, func(b map[string]any) string { data, _ := encode(b); return string(data) }, octets},
		} {
			data, err := must(t, test.url).payload(m)
			if err != nil {
				t.Fatal(err)
			}
			var body map[string]any
			if err := json.Unmarshal(data, &body); err != nil {
				t.Fatal(err)
			}
			text := test.field(body)
			if n := test.length(text); n > test.limit || n < 30 || !utf8.ValidString(text) || strings.ContainsRune(text, utf8.RuneError) {
				t.Errorf("%s with %q: %d units, want %d at most: %.50q … %q", test.url, filler, n, test.limit, text, text[max(0, len(text)-20):])
			}
		}
	}
}

func TestFit(t *testing.T) {
	double := func(c rune) string { return `\` + string(c) }
	for _, test := range []struct {
		text   string
		limit  int
		escape func(rune) string
		want   string
	}{
		{"abc", 3, same, "abc"},
		{"abcdef", 5, same, "ab…"},
		{"ééé", 5, same, "é…"},
		{"***", 6, double, `\*\*\*`},
		{"****", 7, double, `\*\*…`},
		{"", 0, same, ""},
	} {
		if got := fit(test.text, test.limit, octets, test.escape); got != test.want {
			t.Errorf("fit(%q, %d) = %q, want %q", test.text, test.limit, got, test.want)
		}
	}
}
