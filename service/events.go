package service

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"

	"mailsidecar/api"
)

// Limits of the events that are kept in memory, and of the text of one, in characters.
const (
	maxEvents    = 100
	maxEventText = 300
)

// eventLog is a log that keeps the last lines which tell an operator that something has changed: see
// eventTexts. They are those of this instance since its start. What is not logged, because of
// MAILSIDECAR_LOG_LEVEL, is not kept either.
type eventLog struct {
	slog.Handler
	kept  *keptEvents
	attrs []slog.Attr // of the logger
}

// repeatedEvent is for how long an event is left out that says the same as the one before it.
const repeatedEvent = 2 * time.Hour

type keptEvents struct {
	since time.Time
	mu    sync.Mutex
	all   []api.Event // the oldest first; maxEvents at most
}

// keepEvents returns a logger that keeps events of what it logs.
func keepEvents(l *slog.Logger) (*slog.Logger, *keptEvents) {
	kept := &keptEvents{since: time.Now()}
	return slog.New(eventLog{Handler: l.Handler(), kept: kept}), kept
}

func (h eventLog) Handle(ctx context.Context, r slog.Record) error {
	if e, ok := eventKinds[r.Message]; ok {
		h.kept.add(h.event(e, r))
	}
	return h.Handler.Handle(ctx, r)
}

func (h eventLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.Handler = h.Handler.WithAttrs(attrs)
	h.attrs = append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)
	return h
}

func (h eventLog) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

// event makes an event of a line of the log.
func (h eventLog) event(k eventKind, r slog.Record) api.Event {
	attrs := eventAttrs{}
	add := func(a slog.Attr) bool {
		attrs[a.Key] = a.Value.Resolve()
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	level := api.EventInfo
	switch {
	case r.Level >= slog.LevelError:
		level = api.EventError
	case r.Level >= slog.LevelWarn:
		level = api.EventWarning
	}
	return api.Event{At: r.Time.UTC(), Kind: k.kind, Level: level, Relay: attrs.text("relay"), Text: attrs.sentence(k.text)}
}

func (k *keptEvents) add(e api.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := len(k.all) - 1; i >= 0; i-- {
		// Of a relay one kind ends another; other things end by their own kind.
		if last := k.all[i]; last.Relay == e.Relay && (e.Relay != "" || last.Kind == e.Kind) {
			if last.Kind == e.Kind && last.Text == e.Text && e.At.Sub(last.At).Abs() < repeatedEvent {
				return
			}
			break
		}
	}
	if len(k.all) == maxEvents {
		k.all = append(k.all[:0], k.all[1:]...)
	}
	k.all = append(k.all, e)
}

// events are the last ones, the newest first.
func (k *keptEvents) events() api.Events {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := api.Events{Since: k.since.UTC(), Events: make([]api.Event, 0, len(k.all))}
	for i := len(k.all) - 1; i >= 0; i-- {
		b.Events = append(b.Events, k.all[i])
	}
	return b
}

// eventKind is what an event is made of.
type eventKind struct {
	kind string // one of the Event constants of package api
	// text is the sentence, in which {name} stands for the attribute of the log line. A part in
	// brackets is left out where one of its attributes is missing or empty.
	text string
}

// eventKinds are the messages of the log that are events. No text has an attribute that is an address of a sender or a
// recipient.
var eventKinds = map[string]eventKind{
	"listening":     {api.EventStarted, "The server has started, with its queue at {queue}."},
	"queue started": {api.EventQueue, "The queue has started. Messages in it: {messages}[. Runs before that crashed: {crashes}][. Recipients whose mail may have been sent when the last run ended: {uncertain}]."},
	"stopping":      {api.EventStopping, "The server stops."},

	"relay cannot be used":              {api.EventRelayFailing, "{relay} cannot be used: {found}"},
	"relay can be used again":           {api.EventRelayUsable, "{relay} can be used again."},
	"relay paused":                      {api.EventRelayPaused, "{relay} gets no mail for now: {cause}[. {found}]"},
	"relay resumed":                     {api.EventRelayResumed, "{relay} takes mail again."},
	"relay paused by an operator":       {api.EventRelayPaused, "An operator has paused {relay}[ until {until}][: {reason}]."},
	"pause by an operator ended":        {api.EventRelayResumed, "The pause of {relay} that an operator made has ended."},
	"rung serves":                       {api.EventPort, "{relay} takes mail on port {rung} now."},
	"OAuth2 token is not available":     {api.EventLogin, "{relay} has no access token: {found}"},
	"OAuth2 token is there again":       {api.EventLogin, "{relay} has an access token again."},
	"new OAuth2 login is in use":        {api.EventLogin, "{relay} uses a new OAuth2 login."},
	"OAuth2 needs attention":            {api.EventLogin, "{relay}: {found}"},
	"OAuth2 login is not stored":        {api.EventLogin, "The OAuth2 login of {relay} cannot be stored."},
	"OAuth2 login is stored":            {api.EventLogin, "The OAuth2 login of {relay} is stored again."},
	"new certificate":                   {api.EventCertificate, "The certificate in {file} was renewed, and is good until {not_after}."},
	"new certificate not read":          {api.EventCertificate, "The new certificate in {file} cannot be read: {error}. The old one serves."},
	"DKIM record is not right":          {api.EventDKIM, "The DKIM record {record} is not right: {found}"},
	"draining: new mail is refused":     {api.EventDrain, "An operator drains the server: new mail is refused."},
	"drain ended: new mail is accepted": {api.EventDrain, "The drain has ended: new mail is accepted."},

	"new mail is refused": {api.EventRefusing, "New mail is refused: {error}."},
	"outcomes cannot be stored: deliveries stop until they can":                                     {api.EventStore, "Deliveries stop, for what becomes of them cannot be stored: {error}."},
	"outcomes can be stored again":                                                                  {api.EventStore, "Outcomes can be stored again: deliveries go on."},
	"the database of the queue is not reached: nothing is accepted until it is":                     {api.EventStore, "The database of the queue is not reached: nothing is accepted until it is."},
	"the database of the queue is reached again":                                                    {api.EventStore, "The database of the queue is reached again[, after {after}]."},
	"took over from an instance that is gone":                                                       {api.EventQueue, "Messages of an instance that is gone were taken over."},
	"lease lost: other instances may send what this one had in memory; it goes on with a new lease": {api.EventQueue, "This instance was taken for dead: others may send what it had in memory. It goes on."},
	"no connection can be accepted":                                                                 {api.EventConnections, "No connection can be accepted: the process may open no more files."},
	"serving failed":                                                                                {api.EventStopping, "The server ends, for it cannot serve any more: {error}."},
	"queue failed":                                                                                  {api.EventStopping, "The server ends, for the queue has failed: {error}."},
}

type eventAttrs map[string]slog.Value

// text is an attribute for people.
func (a eventAttrs) text(name string) string {
	v, ok := a[name]
	if !ok {
		return ""
	}
	text := ""
	switch v.Kind() {
	case slog.KindTime:
		text = v.Time().UTC().Format(time.RFC3339)
	case slog.KindDuration:
		text = v.Duration().Round(time.Second).String()
	case slog.KindInt64:
		if v.Int64() != 0 {
			text = fmt.Sprint(v.Int64())
		}
	default:
		text = fmt.Sprint(v.Any())
	}
	return cleanEvent(text)
}

// addresses are mail addresses, which have no place in an event: what a relay says may have them in it.
var addresses = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[^\s<>"'(),;:]+@[^\s<>"'(),;:]+`) })

// cleanEvent makes a text one line, without mail addresses, of a limited length.
func cleanEvent(text string) string {
	if len(text) > 8*maxEventText { // nobody reads on, and it costs time
		text = text[:8*maxEventText]
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if strings.Contains(text, "@") {
		text = addresses().ReplaceAllString(text, "(an address)")
	}
	return cutEvent(text)
}

func cutEvent(text string) string {
	if runes := []rune(text); len(runes) > maxEventText {
		return string(runes[:maxEventText-1]) + "…"
	}
	return text
}

// sentence fills in a text of eventKinds.
func (a eventAttrs) sentence(text string) string {
	var b strings.Builder
	for text != "" {
		begin := strings.IndexByte(text, '[')
		if begin < 0 {
			begin = len(text)
		}
		part, _ := a.fill(text[:begin])
		b.WriteString(part)
		if begin == len(text) {
			break
		}
		optional, rest, _ := strings.Cut(text[begin+1:], "]")
		if part, whole := a.fill(optional); whole {
			b.WriteString(part)
		}
		text = rest
	}
	return cutEvent(strings.Replace(b.String(), "..", ".", 1))
}

// fill replaces names in braces by attributes, and says whether there were all.
func (a eventAttrs) fill(text string) (filled string, whole bool) {
	whole = true
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "{")
		b.WriteString(before)
		if !found {
			return b.String(), whole
		}
		name, after, _ := strings.Cut(rest, "}")
		value := a.text(name)
		whole = whole && value != ""
		if value == "" {
			value = "0"
			if v := a[name]; v.Kind() != slog.KindInt64 {
				value = "?"
			}
		}
		b.WriteString(value)
		text = after
	}
}
