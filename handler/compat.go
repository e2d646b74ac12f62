package handler

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"mailsidecar/handler/compat"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/mailer/compose"
	"mailsidecar/queue"
)

// desk is the server as the providers' APIs see it.
type desk struct{ *Server }

var _ compat.Desk = desk{}

func (d desk) Stores() bool { return d.ledger != nil }

func (d desk) Idempotency(h http.Header) (string, error) { return d.idempotency(h) }

func (d desk) Open(w http.ResponseWriter, r *http.Request, limit int64, share *intake.Share) (*intake.Body, error) {
	return intake.Open(w, r, limit, share, d.bodyTimeout)
}

func (d desk) UntilStopped(ctx context.Context) context.Context { return d.untilStopped(ctx) }

func (d desk) CheckSize(octets int) error { return d.checkSize(octets) }

func (d desk) Accept(sub queue.Submission, m compose.Composed, key *keys.Key) (queue.Submission, error) {
	return d.accept(sub, m, key)
}

func (d desk) Takes(key, sender string) bool { return d.ledger == nil || d.ledger.Takes(key, sender) }

func (d desk) Submit(ctx context.Context, subs []queue.Submission) ([]queue.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, d.requestTimeout)
	defer cancel()
	if len(subs) == 1 {
		m, err := d.submitOne(ctx, subs[0])
		return []queue.Message{m}, err
	}
	receipts, err := d.ledger.SubmitBatch(ctx, subs)
	messages := make([]queue.Message, len(receipts))
	for i, r := range receipts {
		messages[i] = r.Message
	}
	return messages, err
}

func (d desk) submitOne(ctx context.Context, sub queue.Submission) (queue.Message, error) {
	receipt, err := d.submitter.Submit(ctx, sub)
	if err == nil && !d.Stores() {
		err = relayProblem(receipt.Message)
	}
	return receipt.Message, err
}

func (d desk) Get(ctx context.Context, key, id string) (queue.Message, error) {
	if !d.Stores() {
		return queue.Message{}, queue.ErrQueueRequired
	}
	return d.ledger.Get(ctx, key, id)
}

func (d desk) Reschedule(ctx context.Context, key, id string, at time.Time) (queue.Message, error) {
	if !d.Stores() {
		return queue.Message{}, queue.ErrQueueRequired
	}
	return d.ledger.Reschedule(ctx, key, id, at)
}

func (d desk) Cancel(ctx context.Context, key, id string) (queue.Message, error) {
	if !d.Stores() {
		return queue.Message{}, queue.ErrQueueRequired
	}
	return d.ledger.Cancel(ctx, key, id)
}

// addCompat adds the providers' routes. Echo writes {name} as :name.
func (s *Server) addCompat(e *echo.Echo) {
	host := compat.Host{
		Desk: desk{s}, Keys: s.keys, Budget: s.budget, MaxBody: s.maxBody(), ForceFrom: s.forceFrom, Rewrites: s.rewrites, Signer: s.signer, Log: s.log,
	}
	pattern := strings.NewReplacer("{", ":", "}", "")
	for _, a := range s.compat {
		for _, r := range a.Routes {
			e.Add(r.Verb(), pattern.Replace(r.Path), func(c echo.Context) error {
				info := request(c)
				for i, name := range c.ParamNames() {
					c.Request().SetPathValue(name, c.ParamValues()[i])
				}
				x := host.Begin(a, c.Response(), c.Request(), info.id)
				defer func() {
					info.key, info.message = x.Key, x.LoggedID
					x.Close()
				}()
				return x.Serve(r)
			})
		}
	}
}

// tidyPath takes out of a path what clients put there whose base URL ends in a slash: "//"
// at the beginning, and "//" and the slash at the end of a path of a provider's API. In a
// path of the native API these may be an id that is empty. A slash that is written %2F is a
// part of a name.
func (s *Server) tidyPath(c echo.Context) {
	u := c.Request().URL // of the request itself: echo's router looks there
	written := cmp.Or(u.RawPath, u.Path)
	if !strings.Contains(written, "//") && !strings.HasSuffix(written, "/") {
		return
	}
	tidy := strings.TrimSuffix(slashes.ReplaceAllString(written, "/"), "/")
	if s.compatOf(tidy) == nil {
		tidy = "/" + strings.TrimLeft(written, "/")
	}
	if u.RawPath == "" {
		u.Path = tidy
	} else if path, err := url.PathUnescape(tidy); err == nil {
		u.Path, u.RawPath = path, tidy
	}
}

var slashes = regexp.MustCompile(`//+`)

// compatOf returns the API whose clients use the path, or nil.
func (s *Server) compatOf(path string) *compat.API {
	for _, a := range s.compat {
		if a.Owns(path) {
			return a
		}
	}
	return nil
}
