package alerts

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mailsidecar/mailer"
)

const (
	// BeatInterval is how often the monitor is told.
	BeatInterval = time.Minute
	// beatRetry is when a beat that did not arrive is sent once more.
	beatRetry = 10 * time.Second
	// maxSentence limits what the monitor is told of a failure, in octets.
	maxSentence = 500
)

// Heartbeat is the URL of a monitor that expects to hear from us. What is secret in it is
// never printed. The zero value is none.
type Heartbeat struct {
	masked
	*heartbeat
}

type heartbeat struct {
	url     *url.URL
	secrets []string
}

// ParseHeartbeat reads the URL. The error is an [*InvalidError].
func ParseHeartbeat(text string) (Heartbeat, error) {
	if scheme, _, ok := strings.Cut(text, "://"); !ok || !strings.EqualFold(scheme, "https") && !strings.EqualFold(scheme, "http") {
		return Heartbeat{}, &InvalidError{"is no https URL", "write the ping URL as the monitor shows it, such as https://hc-ping.com/UUID"}
	}
	if holdsTwo(text) {
		return Heartbeat{}, &InvalidError{"holds several URLs", "write one: the heartbeat goes to a single monitor; MAILSIDECAR_ALERTS takes several"}
	}
	u, bad := readURL(text)
	if bad != nil {
		if bad.Remedy == forms {
			bad.Remedy = "write the ping URL as the monitor shows it, such as https://hc-ping.com/UUID"
		}
		return Heartbeat{}, bad
	}
	if u.User != nil {
		return Heartbeat{}, &InvalidError{"has a user name or password", "write the ping URL as the monitor shows it"}
	}
	return Heartbeat{masked{u.Scheme + "://" + u.Host + "/" + redacted}, &heartbeat{url: u, secrets: secretsOf(u)}}, nil
}

// Set reports whether there is a URL.
func (h Heartbeat) Set() bool { return h.heartbeat != nil }

// Cleartext reports whether the URL begins with http.
func (h Heartbeat) Cleartext() bool { return h.Set() && h.url.Scheme == "http" }

// request says that mail flows, or with a sentence why it does not. The convention is that
// of Healthchecks: the URL for success, and /fail at the end of its path with the sentence
// as the body for failure. A URL with the parameter status is one of Uptime Kuma: it has
// status and msg in the query.
func (h Heartbeat) request(ctx context.Context, trouble string) (*http.Request, error) {
	u := *h.url
	trouble = mailer.Printable(trouble, maxSentence)
	if q := u.Query(); q.Has("status") {
		q.Set("status", "up")
		if trouble != "" {
			q.Set("status", "down")
			q.Set("msg", trouble)
		}
		u.RawQuery = q.Encode()
		return http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	}
	if trouble == "" {
		return http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	}
	return http.NewRequestWithContext(ctx, http.MethodPost, u.JoinPath("fail").String(), strings.NewReader(trouble))
}

// Beat tells the monitor once: that mail flows, or why it does not. The error is a
// [*SendError].
func (c *Client) Beat(ctx context.Context, h Heartbeat, trouble string) error {
	ctx, cancel := context.WithTimeout(ctx, SendTimeout)
	defer cancel()
	r, err := h.request(ctx, trouble)
	if err != nil {
		return &SendError{What: "the URL cannot be used", Refused: true}
	}
	return c.exchange(r, h.secrets)
}

// Pulse tells a monitor each minute how mail is.
type Pulse struct {
	Heartbeat Heartbeat
	Client    *Client
	// Trouble says in a sentence why mail does not flow; empty while it does.
	Trouble func(context.Context) string
	Logger  *slog.Logger
}

// Run tells it until ctx ends, first after a minute: mail that had to wait for the start
// needs some time.
func (p *Pulse) Run(ctx context.Context) {
	tick := time.NewTicker(BeatInterval)
	defer tick.Stop()
	var logged time.Time // zero: the last one arrived
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := p.beat(ctx)
		switch now := time.Now(); {
		case ctx.Err() != nil:
			return
		case err == nil && !logged.IsZero():
			logged = time.Time{}
			p.Logger.Info("heartbeat is sent again", "target", p.Heartbeat)
		case err != nil && (logged.IsZero() || now.Sub(logged) >= logAgain):
			logged = now
			attrs := []any{"target", p.Heartbeat}
			if e, ok := errors.AsType[*SendError](err); ok {
				attrs = append(attrs, "cause", e.What, "do", e.Remedy)
			}
			p.Logger.Error("heartbeat not sent", attrs...)
		}
	}
}

// beat sends once, and once more when that fails.
func (p *Pulse) beat(ctx context.Context) error {
	err := p.Client.Beat(ctx, p.Heartbeat, p.Trouble(ctx))
	if err == nil || ctx.Err() != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return err
	case <-time.After(beatRetry):
		return p.Client.Beat(ctx, p.Heartbeat, p.Trouble(ctx))
	}
}
