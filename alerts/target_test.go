package alerts

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const botToken = "123456:AAE0f1g2h3i4j5k6l7m8n9o0p1q2r3s4t5u"

func TestParse(t *testing.T) {
	for _, test := range []struct{ text, service, url, shown string }{
		{"https://hooks.slack.com/services/T0/B0/s3cretpart", "slack", "https://hooks.slack.com/services/T0/B0/s3cretpart", "https://hooks.slack.com/[redacted]"},
		{"HTTPS://Hooks.Slack.com/services/T0/B0/X", "slack", "https://hooks.slack.com/services/T0/B0/X", "https://hooks.slack.com/[redacted]"},
		{"https://discord.com/api/webhooks/1/abcdefgh?thread_id=7", "discord", "https://discord.com/api/webhooks/1/abcdefgh?thread_id=7", "https://discord.com/[redacted]"},
		{"https://prod-12.westeurope.logic.azure.com:443/workflows/ab/triggers/manual/paths/invoke?api-version=2016-06-01&sig=secretsig", "teams", "https://prod-12.westeurope.logic.azure.com:443/workflows/ab/triggers/manual/paths/invoke?api-version=2016-06-01&sig=secretsig", "https://prod-12.westeurope.logic.azure.com:443/[redacted]"},
		{"https://default1.environment.api.powerplatform.com:443/powerautomate/x?sig=y", "teams", "https://default1.environment.api.powerplatform.com:443/powerautomate/x?sig=y", "https://default1.environment.api.powerplatform.com:443/[redacted]"},
		{"https://ntfy.sh/my-topic", "ntfy", "https://ntfy.sh/", "https://ntfy.sh/[redacted]"},
		{"ntfy+https://:tk_token@ntfy.example.com/top", "ntfy", "https://ntfy.example.com/", "ntfy+https://ntfy.example.com/[redacted]"},
		{"ntfy+http://ntfy:8080/top", "ntfy", "http://ntfy:8080/", "ntfy+http://ntfy:8080/[redacted]"},
		{"slack+https://mattermost.example.com/hooks/abc", "slack", "https://mattermost.example.com/hooks/abc", "slack+https://mattermost.example.com/[redacted]"},
		{"json+https://user:pass@example.com/hook", "json", "https://example.com/hook", "json+https://example.com/[redacted]"},
		{"JSON+HTTPS://example.com", "json", "https://example.com", "json+https://example.com/[redacted]"},
		{"telegram://" + botToken + "@-1001234", "telegram", "https://api.telegram.org/bot" + botToken + "/sendMessage", "telegram://[redacted]@-1001234"},
		{"telegram://" + botToken + "@@channel?thread=5", "telegram", "https://api.telegram.org/bot" + botToken + "/sendMessage", "telegram://[redacted]@@channel"},
	} {
		got, err := Parse(test.text)
		if err != nil {
			t.Errorf("Parse(%q) = %v", test.text, err)
			continue
		}
		if string(got.service) != test.service || got.url != test.url || got.String() != test.shown {
			t.Errorf("Parse(%q) = %s %s %s, want %s %s %s", test.text, got.service, got.url, got, test.service, test.url, test.shown)
		}
	}
}

// TestParseProblems: each wrong URL is told with a remedy, and without a word of it.
func TestParseProblems(t *testing.T) {
	const secret = "s3cr3tp4rt"
	for text, want := range map[string]string{
		secret: "is no URL",

		"gopher://" + secret + "/x":                                        "has a scheme that is not known",
		"slack://" + secret:                                                "has a scheme that is not known",
		"email+https://" + secret + "/x":                                   "has a scheme that is not known",
		"json+ftp://" + secret + "/x":                                      "has a scheme that is not known",
		"https://" + secret + ".example.com/hook":                          "has a host of which it is not known what it takes",
		"https://api.telegram.org/bot" + secret + "/sendMessage":           "is a URL of Telegram's API",
		"https://hooks.slack.com/":                                         "is no incoming webhook of Slack",
		"https://hooks.slack.com/triggers/" + secret:                       "is no incoming webhook of Slack",
		"slack+https://chat.example.com/":                                  "has no path",
		"ntfy+https://example.com/top?auth=" + secret:                      "has a ? and something behind it",
		"https://u:" + secret + "@hooks.slack.com/services/x":              "has a user name or password, which this service does not take",
		"json+https://u%3a" + secret + ":p@example.com/":                   "has a user name with a colon, which HTTP cannot send",
		"https://discord.com/channels/" + secret:                           "is no webhook of Discord",
		"ntfy+https://" + secret:                                           "has no topic, or one that ntfy does not take",
		"ntfy+https://example.com/a/" + secret:                             "has no topic, or one that ntfy does not take",
		"json+https://" + secret + "/#x":                                   "has a # in it, and what follows would not be sent",
		"json+https:///" + secret:                                          "is no URL",
		"json+https://" + secret + ":port/":                                "is no URL",
		"json+https://bücher.example/" + secret:                            "holds a character that no URL has",
		"json+https://example.com/" + strings.Repeat("a", maxURL) + secret: "is over 2048 characters long",
		"telegram://" + secret + "@1":                                      "has no token of a bot",
		"telegram://1@" + botToken:                                         "has no token of a bot",
		"telegram://" + botToken + "@" + secret:                            "has no chat",
		"telegram://" + botToken + "@1?thread=" + secret:                   "has a thread that is no number",
		"telegram://" + botToken:                                           "has no token of a bot",
	} {
		_, err := Parse(text)
		bad, ok := errors.AsType[*InvalidError](err)
		if !ok || bad.What != want || bad.Remedy == "" || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), botToken[7:]) {
			t.Errorf("Parse(%.80q) = %v, want %q with a remedy", text, err, want)
		}
	}
}

func TestSplit(t *testing.T) {
	got := Split("# mine\nhttps://a/b, https://c/d\n\thttps://e/f\r\n  # https://g/h\n,,")
	if want := []string{"https://a/b", "https://c/d", "https://e/f"}; !slices.Equal(got, want) {
		t.Errorf("Split = %q, want %q", got, want)
	}
}

func TestSame(t *testing.T) {
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"https://ntfy.sh/a", "ntfy+https://ntfy.sh/a", true},
		{"https://ntfy.sh/a", "https://ntfy.sh/b", false},
		{"telegram://" + botToken + "@1", "telegram://" + botToken + "@1", true},
		{"telegram://" + botToken + "@1", "telegram://" + botToken + "@2", false},
	} {
		if got := must(t, test.a).Same(must(t, test.b)); got != test.same {
			t.Errorf("Same(%s, %s) = %t", test.a, test.b, got)
		}
	}
}

func must(t testing.TB, text string) Target {
	t.Helper()
	target, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// FuzzParse: reading a URL does not panic, nothing that could be a secret is printed, and
// what is accepted can be sent.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"https://hooks.slack.com/services/%s", "ntfy+https://:%s@ntfy.example.com/top", "telegram://123456:%s@-1", "telegram://123456:%s@@abcd?thread=1",
		"https://discord.com/api/webhooks/1/%s?thread_id=7", "json+http://u:%s@[::1]:80/", "https://x.logic.azure.com:443/a?sig=%s", "json+https://%s", "%s://x", "json+https://a/%%%s",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, form string) {
		const secret = "S3cr3tOfTheFuzzer000000"
		text := strings.Replace(form, "%s", secret, 1)
		target, err := Parse(text)
		heart, heartErr := ParseHeartbeat(text)
		data, _ := json.Marshal([]any{target, heart})
		printed := fmt.Sprintf("%v %+v %#v %s %q %v %v %v %s", target, target, target, target, target, heart, err, heartErr, data)
		host, _, _ := strings.Cut(strings.ToLower(text), secret)
		inHost := strings.HasSuffix(host, "/") || strings.HasSuffix(host, "@") || strings.HasSuffix(host, ".")
		if strings.Contains(printed, secret) && !inHost {
			t.Errorf("Parse(%q) prints a secret: %s", text, printed)
		}
		if err != nil {
			if bad, ok := errors.AsType[*InvalidError](err); !ok || bad.What == "" || bad.Remedy == "" {
				t.Errorf("Parse(%q) = %v, want what is wrong and a remedy", text, err)
			}
			return
		}
		if _, err := target.payload(Message{State: Test}); err != nil {
			t.Errorf("Parse(%q): %v", text, err)
		}
		if again, err := Parse(text); err != nil || !again.Same(target) {
			t.Errorf("Parse(%q) is not the same twice", text)
		}
	})
}
