package alerts

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
)

const (
	redacted = "[redacted]"
	// maxURL limits one URL, in octets. Those of Teams have about 300.
	maxURL = 2048
)

// service is who takes the messages.
type service string

const (
	slack    service = "slack"
	discord  service = "discord"
	teams    service = "teams"
	ntfy     service = "ntfy"
	telegram service = "telegram"
	generic  service = "json"
)

// Target is where alerts go: one URL of MAILSIDECAR_ALERTS. What is secret in it is never
// printed. The zero value is none.
type Target struct {
	masked
	// A pointer, because fmt prints the fields of a struct in an unexported field without
	// calling its methods: it then shows an address.
	*target
}

type target struct {
	service service
	url     string // where requests go
	label   string // without secrets
	secrets []string
	// user and password log in; with a password alone it is a token.
	user, password string
	topic          string // of ntfy
	chat, thread   string // of Telegram
}

// Cleartext reports whether the URL begins with http: only private addresses are reached
// that way.
func (t Target) Cleartext() bool { return t.target != nil && strings.HasPrefix(t.url, "http:") }

// Same reports whether both lead to the same place.
func (t Target) Same(o Target) bool {
	return t.url == o.url && t.topic == o.topic && t.chat == o.chat && t.thread == o.thread
}

// InvalidError is what is wrong with a URL. It shows nothing of it.
type InvalidError struct {
	What   string // such as "is no URL"
	Remedy string // what to write
}

func (e *InvalidError) Error() string { return e.What + "; " + e.Remedy }

// Split returns the URLs of a setting, which stand between commas, blanks or line ends.
// Lines that begin with # are left out.
func Split(setting string) []string {
	var all []string
	for line := range strings.Lines(setting) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			all = append(all, strings.FieldsFunc(line, func(c rune) bool { return strings.ContainsRune(", \t\r\n", c) })...)
		}
	}
	return all
}

const forms = "write the webhook's https URL as Slack, Discord, Teams or ntfy.sh shows it; or ntfy+https://, slack+https://, discord+https://, teams+https:// or json+https:// before any other host and path; or telegram://TOKEN@CHAT"

// Parse reads one URL. The error is an [*InvalidError].
func Parse(text string) (Target, error) {
	t, bad := parse(text)
	if bad != nil {
		return Target{}, bad
	}
	return Target{masked{t.label}, t}, nil
}

func parse(text string) (*target, *InvalidError) {
	if holdsTwo(text) {
		return nil, &InvalidError{"holds several URLs", "put a comma or a line end between them"}
	}
	if rest, ok := cutScheme(text, string(telegram)); ok {
		return parseTelegram(rest)
	}
	scheme, _, ok := strings.Cut(text, "://")
	if !ok {
		return nil, &InvalidError{"is no URL", forms}
	}
	name, inner, own := strings.Cut(strings.ToLower(scheme), "+")
	if !own {
		inner = name
	}
	if inner != "https" && inner != "http" || own && !slices.Contains([]service{slack, discord, teams, ntfy, generic}, service(name)) {
		return nil, &InvalidError{"has a scheme that is not known", forms}
	}
	u, bad := readURL(inner + text[len(scheme):])
	if bad != nil {
		return nil, bad
	}
	t := &target{service: service(name)}
	if !own {
		if t.service = serviceAt(u); t.service == "" {
			return nil, unknownHost(u)
		}
	}
	if bad := t.take(u); bad != nil {
		return nil, bad
	}
	t.label = u.Scheme + "://" + u.Host + "/" + redacted
	if own {
		t.label = name + "+" + t.label
	}
	return t, nil
}

// secondURL is where another URL begins behind a separator.
var secondURL = lazy(`(?i)[,;|\s](?:[a-z]+\+)?(?:https?|telegram)://`)

// holdsTwo reports whether the text is more than one URL, which a server would take for a strange path.
func holdsTwo(text string) bool { return secondURL().MatchString(text) }

// Number gives each of several targets its place in the setting, which tells those of one host apart.
func Number(targets []Target) {
	if len(targets) < 2 {
		return
	}
	for i := range targets {
		targets[i].shown = fmt.Sprintf("%s (entry %d)", targets[i].label, i+1)
	}
}

// cutScheme returns what follows the scheme, in any case.
func cutScheme(text, scheme string) (string, bool) {
	n := len(scheme) + len("://")
	if len(text) < n || !strings.EqualFold(text[:n], scheme+"://") {
		return "", false
	}
	return text[n:], true
}

// readURL reads an http or https URL.
func readURL(text string) (*url.URL, *InvalidError) {
	if len(text) > maxURL {
		return nil, &InvalidError{fmt.Sprintf("is over %d characters long", maxURL), "write the URL alone"}
	}
	for _, c := range text {
		if c <= ' ' || c > '~' {
			return nil, &InvalidError{"holds a character that no URL has", "write other characters as %XX, and the host in ASCII"}
		}
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return nil, &InvalidError{"is no URL", forms}
	case u.Fragment != "" || strings.Contains(text, "#"):
		return nil, &InvalidError{"has a # in it, and what follows would not be sent", "take that out, or write it as %23"}
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

// hosts are those of services whose URLs are known without a scheme of ours; one that
// begins with a dot is all hosts below it.
var hosts = map[string]service{
	"hooks.slack.com": slack, "hooks.slack-gov.com": slack,
	"discord.com": discord, "discordapp.com": discord, "canary.discord.com": discord, "ptb.discord.com": discord,
	"ntfy.sh":          ntfy,
	".logic.azure.com": teams, ".api.powerplatform.com": teams, ".webhook.office.com": teams,
}

// serviceAt is the service that the host belongs to; empty for one that is not known.
func serviceAt(u *url.URL) service {
	host := u.Hostname()
	if s, ok := hosts[host]; ok {
		return s
	}
	for suffix, s := range hosts {
		if suffix[0] == '.' && strings.HasSuffix(host, suffix) {
			return s
		}
	}
	return ""
}

func unknownHost(u *url.URL) *InvalidError {
	if u.Hostname() == "api.telegram.org" {
		return &InvalidError{"is a URL of Telegram's API", "write telegram://TOKEN@CHAT"}
	}
	const what = "does not say for which service it is"
	if u.Scheme == "http" {
		return &InvalidError{what, "put the service before the URL: ntfy+http://, slack+http:// (also for Mattermost and Rocket.Chat), or json+http:// for a program of yours; http needs MAILSIDECAR_ALERTS_ALLOW_PRIVATE=true"}
	}
	return &InvalidError{what, "put the service before the URL: ntfy+https://, slack+https:// (also for Mattermost and Rocket.Chat), discord+https://, teams+https://, or json+https:// for a program of yours"}
}

// mayLogIn reports whether the service takes a user name and password, or a token.
func (t *target) mayLogIn() bool { return t.service == ntfy || t.service == generic }

// lazy compiles an expression when it is first used: these take a quarter of a megabyte, and
// most servers have no alerts.
func lazy(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// topicForm is that of a topic of ntfy.
var topicForm = lazy(`^[-_A-Za-z0-9]{1,64}$`)

// take takes over what the URL says.
func (t *target) take(u *url.URL) *InvalidError {
	t.secrets = secretsOf(u)
	if u.User != nil {
		if !t.mayLogIn() {
			return &InvalidError{"has a user name or password, which this service does not take", "write the webhook's URL as the service shows it"}
		}
		t.user = u.User.Username()
		t.password, _ = u.User.Password()
		if strings.Contains(t.user, ":") {
			return &InvalidError{"has a user name with a colon, which HTTP cannot send", "write USER:PASSWORD before the host, other characters as %XX, or :TOKEN"}
		}
		u.User = nil
	}
	switch {
	case t.service == ntfy:
		if t.topic = strings.Trim(u.Path, "/"); !topicForm().MatchString(t.topic) {
			return &InvalidError{"has no topic, or one that ntfy does not take", "write ntfy+https://HOST/TOPIC, the topic in up to 64 letters, digits, hyphens and underscores"}
		}
		if u.RawQuery != "" {
			return &InvalidError{"has a ? and something behind it", "take it out; a token goes before the host: ntfy+https://:TOKEN@HOST/TOPIC"}
		}
		u.Path, u.RawPath = "/", ""
	case t.service == serviceAt(u):
		if bad := t.checkForm(u); bad != nil {
			return bad
		}
	case t.service != generic && strings.Trim(u.Path, "/") == "":
		return &InvalidError{"has no path", "write the webhook's URL as the service shows it, all of it"}
	}
	t.url = u.String()
	return nil
}

// The paths of the services' own webhooks, as far as each shows the same one. A URL that was cut when it was
// copied is refused: the service would refuse each alert. Slack's secrets have 24 characters, those of Discord 68.
var (
	slackPath   = lazy(`^/services/[A-Za-z0-9]+/[A-Za-z0-9]+/[A-Za-z0-9]{20,}$`)
	discordPath = lazy(`^/api/(?:v[0-9]+/)?webhooks/[0-9]+/[-_A-Za-z0-9]{60,}$`)
	officePath  = lazy(`^/webhook(?:b2)?/[^/]+/IncomingWebhook/[^/]+/[^/]+`)
)

// leastSignature is the length from which a signature of Teams is whole: they have 43 characters.
const leastSignature = 40

// checkForm refuses a URL at the service's own host that is no webhook, or is cut.
func (t *target) checkForm(u *url.URL) *InvalidError {
	path := strings.TrimSuffix(u.Path, "/")
	switch {
	case t.service == slack && !strings.HasPrefix(u.Path, "/services/"):
		return &InvalidError{"is no incoming webhook of Slack", "make one: its URL is https://hooks.slack.com/services/…; those of workflows take other fields"}
	case t.service == slack && !slackPath().MatchString(path):
		return &InvalidError{"is a webhook of Slack that is not whole", "copy all of it: https://hooks.slack.com/services/T…/B…/ and 24 letters and digits"}
	case t.service == discord && !strings.HasPrefix(u.Path, "/api/"):
		return &InvalidError{"is no webhook of Discord", "write the URL that the channel's settings show under Integrations, Webhooks: https://discord.com/api/webhooks/…"}
	case t.service == discord && !discordPath().MatchString(path):
		return &InvalidError{"is a webhook of Discord that is not whole", "copy all of it: https://discord.com/api/webhooks/, a number, a slash and 68 characters"}
	case t.service == teams && strings.HasSuffix(u.Hostname(), ".webhook.office.com"):
		if !officePath().MatchString(path) {
			return &InvalidError{"is a webhook of Teams that is not whole", "copy all of it: https://….webhook.office.com/webhookb2/…/IncomingWebhook/…/…"}
		}
	case t.service == teams && len(u.Query().Get("sig")) < leastSignature:
		return &InvalidError{"is a webhook of Teams without its signature, or with a part of it", "copy all of it: it ends in &sig= and 43 characters; in a shell, put quotes around the URL, because it has & in it"}
	}
	return nil
}

var (
	telegramToken = lazy(`^[0-9]{1,20}:[-_A-Za-z0-9]{35,100}$`)
	telegramChat  = lazy(`^(-?[0-9]{1,20}|@[A-Za-z][A-Za-z0-9_]{3,63})$`)
	telegramTopic = lazy(`^[0-9]{1,20}$`)
)

// parseTelegram reads TOKEN@CHAT, also with ?thread=NUMBER, a topic of the group. It does
// so by hand: a chat is no host.
func parseTelegram(text string) (*target, *InvalidError) {
	const form = "write telegram://TOKEN@CHAT, with the token that @BotFather gave (123456:ABC…, 35 characters behind the colon), and the chat's number or its @name"
	rest, thread, threaded := strings.Cut(text, "?thread=")
	token, chat, ok := strings.Cut(rest, "@")
	switch {
	case !ok || !telegramToken().MatchString(token):
		return nil, &InvalidError{"has no token of a bot, or a part of one", form}
	case !telegramChat().MatchString(chat):
		return nil, &InvalidError{"has no chat", form}
	case threaded && !telegramTopic().MatchString(thread):
		return nil, &InvalidError{"has a thread that is no number", "write ?thread= and the number of the topic, or leave it out"}
	}
	_, key, _ := strings.Cut(token, ":")
	return &target{
		service: telegram, url: "https://api.telegram.org/bot" + token + "/sendMessage", chat: chat, thread: thread,
		label: "telegram://" + redacted + "@" + chat, secrets: written([]string{token, key}),
	}, nil
}
