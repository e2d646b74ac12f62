package alerts

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"mailsidecar/mailer"
)

// The longest texts that the services take, or that fit on their screens.
const (
	slackText    = 12000 // octets; Slack cuts at 40,000 characters
	discordText  = 2000  // UTF-16 units
	telegramText = 4096  // UTF-16 units
	ntfyText     = 4096  // octets; longer ones become an attachment
	ntfyTitle    = 250   // octets
	teamsText    = 4000  // octets; Teams takes 28 KB in all
)

// payload is the message in the form of the target's service.
func (t *target) payload(m Message) ([]byte, error) {
	title, body := m.Title(), m.Body()
	switch text := title + "\n" + body; t.service {
	case slack:
		return encode(newSlack(text))
	case discord:
		return encode(newDiscord(text))
	case teams:
		return encode(newTeams(title, body))
	case ntfy:
		return encode(newNtfy(t.topic, title, body, m))
	case telegram:
		return encode(telegramMessage{t.chat, t.thread, fit(text, telegramText, units16, same), telegramPreview{true}})
	default:
		return encode(newGeneric(title, body, m))
	}
}

// encode writes v as JSON, without the escapes for HTML, which would count.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// slackMessage is for incoming webhooks of Slack, and others of that form.
type slackMessage struct {
	Text string `json:"text"`
	// Without mrkdwn Slack formats nothing; it still reads <…>, which is escaped.
	Mrkdwn      bool `json:"mrkdwn"`
	UnfurlLinks bool `json:"unfurl_links"`
	UnfurlMedia bool `json:"unfurl_media"`
}

func newSlack(text string) slackMessage {
	return slackMessage{Text: fit(text, slackText, octets, func(c rune) string {
		switch c {
		case '&':
			return "&amp;"
		case '<':
			return "&lt;"
		case '>':
			return "&gt;"
		default:
			return string(c)
		}
	})}
}

type discordMessage struct {
	Content string `json:"content"`
	// AllowedMentions without any keeps @everyone from being one.
	AllowedMentions discordMentions `json:"allowed_mentions"`
	Flags           int             `json:"flags"`
}

type discordMentions struct {
	Parse []string `json:"parse"`
}

// discordNoEmbeds is SUPPRESS_EMBEDS: no preview of a link.
const discordNoEmbeds = 1 << 2

func newDiscord(text string) discordMessage {
	return discordMessage{AllowedMentions: discordMentions{[]string{}}, Flags: discordNoEmbeds, Content: fit(text, discordText, units16, func(c rune) string {
		if strings.ContainsRune("\\*_~`|>[]()#<", c) {
			return `\` + string(c) // what would be formatted
		}
		return string(c)
	})}
}

// teamsMessage is for a workflow that posts what it gets as an adaptive card.
type teamsMessage struct {
	Type        string            `json:"type"`
	Attachments []teamsAttachment `json:"attachments"`
}

type teamsAttachment struct {
	ContentType string    `json:"contentType"`
	Content     teamsCard `json:"content"`
}

type teamsCard struct {
	Schema  string       `json:"$schema"`
	Type    string       `json:"type"`
	Version string       `json:"version"`
	Body    []teamsBlock `json:"body"`
}

type teamsBlock struct {
	Type   string `json:"type"`
	Text   string `json:"text"`
	Weight string `json:"weight,omitempty"`
	Wrap   bool   `json:"wrap"`
}

func newTeams(title, body string) teamsMessage {
	card := teamsCard{Schema: "http://adaptivecards.io/schemas/adaptive-card.json", Type: "AdaptiveCard", Version: "1.2"}
	// A TextBlock reads a little Markdown: links and emphasis must not come from a relay.
	escape := func(c rune) string {
		if strings.ContainsRune("\\*_[]()`", c) {
			return `\` + string(c)
		}
		return string(c)
	}
	card.Body = append(card.Body, teamsBlock{Type: "TextBlock", Text: fit(title, teamsText, octets, escape), Weight: "Bolder", Wrap: true})
	for line := range strings.Lines(body) {
		card.Body = append(card.Body, teamsBlock{Type: "TextBlock", Text: fit(strings.TrimSuffix(line, "\n"), teamsText, octets, escape), Wrap: true})
	}
	return teamsMessage{Type: "message", Attachments: []teamsAttachment{{ContentType: "application/vnd.microsoft.card.adaptive", Content: card}}}
}

// ntfyMessage goes to the server's root, as JSON: in header fields nothing of a relay
// would be safe.
type ntfyMessage struct {
	Topic    string   `json:"topic"`
	Title    string   `json:"title"`
	Message  string   `json:"message"`
	Priority int      `json:"priority"`
	Tags     []string `json:"tags"`
}

func newNtfy(topic, title, body string, m Message) ntfyMessage {
	n := ntfyMessage{Topic: topic, Title: fit(title, ntfyTitle, octets, same), Message: fit(body, ntfyText, octets, same), Priority: 3, Tags: []string{"warning"}}
	switch {
	case m.State == Resolved, m.State == Test:
		n.Tags = []string{"white_check_mark"}
	case m.Severity == Critical:
		n.Priority, n.Tags = 4, []string{"rotating_light"}
	}
	return n
}

type telegramMessage struct {
	ChatID  string          `json:"chat_id"`
	Thread  string          `json:"message_thread_id,omitempty"`
	Text    string          `json:"text"` // without parse_mode nothing is formatted
	Preview telegramPreview `json:"link_preview_options"`
}

type telegramPreview struct {
	Disabled bool `json:"is_disabled"`
}

// genericMessage is for programs of one's own.
type genericMessage struct {
	State    State      `json:"state"`
	Kind     Kind       `json:"kind,omitempty"`
	Subject  string     `json:"subject,omitempty"`
	Severity Severity   `json:"severity,omitempty"`
	Instance string     `json:"instance"`
	Title    string     `json:"title"`
	Text     string     `json:"text"`
	Found    string     `json:"found,omitempty"`
	Do       string     `json:"do,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
	Resolved *time.Time `json:"resolved_at,omitempty"`
	LeftOut  int        `json:"left_out,omitempty"`
}

func newGeneric(title, body string, m Message) genericMessage {
	return genericMessage{
		State: m.State, Kind: m.Kind, Subject: mailer.Printable(m.Subject, maxName), Severity: m.Severity, Instance: mailer.Printable(m.Instance, maxName), Title: title, Text: body,
		Found: mailer.Printable(m.Found, maxText), Do: mailer.Printable(m.Do, maxText), Since: seconds(m.Since), Resolved: seconds(m.Ended), LeftOut: m.LeftOut,
	}
}

func seconds(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

func octets(s string) int { return len(s) }

// units16 is how many UTF-16 units s has: so Telegram and Discord count.
func units16(s string) int {
	n := 0
	for _, c := range s {
		n += utf16.RuneLen(c)
	}
	return n
}

func same(c rune) string { return string(c) }

// fit escapes the text and cuts it to that size, never within a character or an escape.
func fit(text string, limit int, size func(string) int, escape func(rune) string) string {
	const more = "…"
	var b strings.Builder
	used, kept := 0, 0 // kept: how many octets would leave room for the mark
	for _, c := range strings.ToValidUTF8(text, string(utf8.RuneError)) {
		piece := escape(c)
		if used += size(piece); used > limit {
			return b.String()[:kept] + more
		}
		b.WriteString(piece)
		if used+size(more) <= limit {
			kept = b.Len()
		}
	}
	return b.String()
}
