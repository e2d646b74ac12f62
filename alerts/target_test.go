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

// Secrets of the services' length.
var (
	slackHook   = "https://hooks.slack.com/services/T0/B0/" + strings.Repeat("s", 24)
	discordHook = "https://discord.com/api/webhooks/1/" + strings.Repeat("d", 68)
	teamsHook   = "https://prod-12.westeurope.logic.azure.com:443/workflows/ab/triggers/manual/paths/invoke?api-version=2016-06-01&sig=" + strings.Repeat("t", 43)
)

func TestParse(t *testing.T) {
	for _, test := range []struct{ text, service, url, shown string }{
		{slackHook, "slack", slackHook, "https://hooks.slack.com/[redacted]"},
		{"HTTPS://Hooks.Slack.com" + slackHook[23:], "slack", slackHook, "https://hooks.slack.com/[redacted]"},
		{discordHook + "?thread_id=7", "discord", discordHook + "?thread_id=7", "https://discord.com/[redacted]"},
		{teamsHook, "teams", teamsHook, "https://prod-12.westeurope.logic.azure.com:443/[redacted]"},
		{"https://default1.environment.api.powerplatform.com:443/powerautomate/x?" + teamsHook[len(teamsHook)-47:], "teams", "https://default1.environment.api.powerplatform.com:443/powerautomate/x?" + teamsHook[len(teamsHook)-47:], "https://default1.environment.api.powerplatform.com:443/[redacted]"},
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
		"https://" + secret + ".example.com/hook":                          "does not say for which service it is",
		"http://" + secret + ".example.com/hook":                           "does not say for which service it is",
		"https://api.telegram.org/bot" + secret + "/sendMessage":           "is a URL of Telegram's API",
		"https://hooks.slack.com/":                                         "is no incoming webhook of Slack",
		"https://hooks.slack.com/triggers/" + secret:                       "is no incoming webhook of Slack",
		slackHook[:len(slackHook)-5]:                                       "is a webhook of Slack that is not whole",
		"https://hooks.slack.com/services/T0/B0/":                          "is a webhook of Slack that is not whole",
		"https://hooks.slack.com/services/" + secret:                       "is a webhook of Slack that is not whole",
		discordHook[:len(discordHook)-9]:                                   "is a webhook of Discord that is not whole",
		"https://discord.com/api/webhooks/123456789012345678":              "is a webhook of Discord that is not whole",
		teamsHook[:strings.IndexByte(teamsHook, '&')]:                      "is a webhook of Teams without its signature, or with a part of it",
		teamsHook[:len(teamsHook)-9]:                                       "is a webhook of Teams without its signature, or with a part of it",
		"https://a.webhook.office.com/webhookb2/" + secret:                 "is a webhook of Teams that is not whole",
		"telegram://" + botToken[:len(botToken)-1] + "@1":                  "has no token of a bot, or a part of one",
		slackHook + "," + discordHook:                                      "holds several URLs",
		"json+https://example.com/x;ntfy+https://" + secret + "/x":         "holds several URLs",
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
		"telegram://" + secret + "@1":                                      "has no token of a bot, or a part of one",
		"telegram://1@" + botToken:                                         "has no token of a bot, or a part of one",
		"telegram://" + botToken + "@" + secret:                            "has no chat",
		"telegram://" + botToken + "@1?thread=" + secret:                   "has a thread that is no number",
		"telegram://" + botToken:                                           "has no token of a bot, or a part of one",
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

// TestNumber: several targets of one host are told apart, and nothing more is shown of them.
func TestNumber(t *testing.T) {
	one := []Target{must(t, slackHook)}
	two := []Target{must(t, slackHook), must(t, slackHook+"2"), must(t, "telegram://"+botToken+"@1")}
	Number(one)
	Number(two)
	got := fmt.Sprint(one, two)
	if want := "[https://hooks.slack.com/[redacted]] [https://hooks.slack.com/[redacted] (entry 1) https://hooks.slack.com/[redacted] (entry 2) telegram://[redacted]@1 (entry 3)]"; got != want {
		t.Errorf("targets are shown as %s, want %s", got, want)
	}
}

// TestParseWhole: the services' own URLs are taken in all their forms.
func TestParseWhole(t *testing.T) {
	for _, text := range []string{
		strings.Replace(discordHook, "/api/", "/api/v10/", 1), slackHook + "/", "https://hooks.slack-gov.com" + slackHook[23:],
		"https://x.webhook.office.com/webhookb2/0a-1b@2c/IncomingWebhook/0123abcd/4d-5e/V2abc",
	} {
		if _, err := Parse(text); err != nil {
			t.Errorf("Parse(%s) = %v", text, err)
		}
	}
}

// TestHeartbeatOfTwo: one monitor is told, and a second URL would become part of the path of the first.
func TestHeartbeatOfTwo(t *testing.T) {
	for _, between := range []string{",", ", ", ";", "|", " ", "\n"} {
		_, err := ParseHeartbeat("https://hc-ping.com/a" + between + "https://hc-ping.com/b")
		if bad, ok := errors.AsType[*InvalidError](err); !ok || bad.What != "holds several URLs" {
			t.Errorf("two URLs with %q between: %v", between, err)
		}
	}
	if _, err := ParseHeartbeat("https://kuma.example.com/api/push/x?status=up&msg=see,here&url=https://a"); err != nil {
		t.Error(err)
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
		"https://hooks.slack.com/services/T0/B0/%s", "ntfy+https://:%s@ntfy.example.com/top", "telegram://123456:%s000000000000@-1", "telegram://123456:%s000000000000@@abcd?thread=1",
		"https://discord.com/api/webhooks/1/%s000000000000000000000000000000000000000000000?thread_id=7", "json+http://u:%s@[::1]:80/", "https://x.logic.azure.com:443/a?sig=%s00000000000000000000", "json+https://%s", "%s://x", "json+https://a/%%%s",
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
