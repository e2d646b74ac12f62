// Package handler is the HTTP server and its native API.
//
// It promises that a request is judged as early as possible: key, sizes and types
// before its body is read, every field before anything is sent or stored. A refused
// request leaves no trace. Every error answer is an application/problem+json with a
// stable code, and every answer names its request.
package handler

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/singleflight"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/conns"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/mailer"
	"mailsidecar/mailer/compose"
	"mailsidecar/processor"
	"mailsidecar/queue"
)

// Options are what a [Server] needs. Only Submitter must be set.
type Options struct {
	Submitter Submitter
	// Ledger has the messages that Submitter accepts. With nil no message is stored:
	// routes that need a stored one answer [queue.ErrQueueRequired].
	Ledger Ledger
	// Relays serves /v1/relays; nil answers 404 there.
	Relays Relays
	// Operator serves the pauses of relays and /v1/drain; nil answers 404 there.
	Operator Operator
	// Metrics answers GET /metrics, for keys with the role admin; nil answers 404 there.
	Metrics http.Handler
	// Meter counts requests; nil counts nothing.
	Meter Meter
	// Settings are those in force, without secrets, for GET /v1/settings; nil answers 404 there.
	Settings func() []api.Setting
	// Pages makes what serves people's browsers under /ui/; nil serves no pages.
	Pages func(*Door) http.Handler
	// PagesPath is what a reverse proxy has in front of /ui/, such as /mail; empty for nothing.
	PagesPath string
	// Events are what happened lately, for GET /v1/events; nil answers 404 there.
	Events func() api.Events
	// Keys are the API keys. Without any, every request is let in, and the server
	// listens on loopback addresses only.
	Keys []keys.Entry
	// ShareRates has the keys count their rates together with those of other instances; nil
	// has each instance allow the whole rate.
	ShareRates mailer.ChangeNote
	// From is the default of a message's from field, such as
	// "Shop <shop@example.com>"; empty makes the field required.
	From string
	// ForceFrom takes the place of every message's From, see [mailer.Message]; empty
	// leaves From as it is. Where From above is empty, it is the default, too.
	ForceFrom string
	// Rewrites says that relays may change any message, see [mailer.Rewrites].
	Rewrites bool
	// Signer signs every message (DKIM) that it has a key for; nil signs none.
	Signer compose.Signer
	// Ready returns why the server cannot do its work now: /readyz answers 503 meanwhile.
	// Nil means that it always can.
	Ready func() error
	// Compat are the APIs of hosted providers that are served beside the native one.
	Compat []*compat.API
	Logger *slog.Logger // nil discards
	// TLS has the settings of [Server.ServeTLS]; nil when that is not called.
	TLS *tls.Config
	// Version is shown in the Server header field to clients with a key; empty leaves
	// the field out.
	Version string

	// Processor has the turns of what takes long, also of others than the server; nil: its own.
	Processor *processor.Turns

	MaxConnections int   // open at once, over HTTP and HTTPS together; default 2000
	MaxMessageSize int64 // octets of a composed message; default 25 MiB
	MaxRecipients  int   // of one message; default 1000
	// MaxInFlight is the memory for all requests under way, in octets: for their bodies
	// and for the messages that are made of them. What else is made on the way takes half
	// as much at most. Default 128 MiB.
	MaxInFlight    int64
	RequestTimeout time.Duration // for a verdict or a commit; default 30 s
	// BodyTimeout is how long a body may take to arrive, besides what its size
	// needs at 32 KiB/s; default 30 s.
	BodyTimeout time.Duration
}

// Server serves the HTTP interface. It is an http.Handler, and it serves
// listeners by itself when given them.
type Server struct {
	submitter  Submitter
	ledger     Ledger // nil when nothing is stored
	relays     Relays
	operator   Operator
	keys       *keys.Ring
	from       mailbox
	forceFrom  mailer.Address
	rewrites   bool
	signer     compose.Signer // nil signs nothing
	ready      func() error
	log        *slog.Logger
	version    string
	metrics    http.Handler // nil: no /metrics
	meter      Meter        // nil counts nothing
	settings   func() []api.Setting
	events     func() api.Events
	started    time.Time
	patterns   map[string]bool
	budget     *intake.Budget
	strangers  turnstile
	flow       flow
	checks     singleflight.Group
	checking   *checkLine
	crossSites http.CrossOriginProtection
	compat     []*compat.API

	maxMessageSize int64
	maxRecipients  int
	requestTimeout time.Duration
	bodyTimeout    time.Duration

	echo  *echo.Echo
	http  *http.Server
	tls   *tls.Config // nil without HTTPS
	conns *conns.Set
	done  chan error
	// serving ends when Shutdown begins, and composing when it is high time for the last
	// answers.
	serving, composing context.Context //nolint:containedctx // they span all requests
	stopComposing      context.CancelFunc
}

// New returns a server that does not serve yet. It fails on keys or a From
// that cannot be used.
func New(o Options) (*Server, error) {
	if o.Submitter == nil {
		return nil, errors.New("no submitter")
	}
	signed := slices.ContainsFunc(o.Compat, func(a *compat.API) bool { return a.Signed })
	ring, err := keys.NewRing(o.Keys, signed)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(o.Keys, func(k keys.Entry) bool { return k.Name == queue.AnyKey }) {
		return nil, fmt.Errorf("an API key cannot be named %q", queue.AnyKey)
	}
	s := &Server{
		submitter: o.Submitter, ledger: o.Ledger, relays: o.Relays, operator: o.Operator, keys: ring, rewrites: o.Rewrites, ready: o.Ready, log: o.Logger, version: o.Version,
		maxMessageSize: positiveOr(o.MaxMessageSize, 25<<20),
		maxRecipients:  positiveOr(o.MaxRecipients, 1000),
		requestTimeout: positiveOr(o.RequestTimeout, 30*time.Second),
		bodyTimeout:    positiveOr(o.BodyTimeout, 30*time.Second),
		done:           make(chan error, maxListeners),
		compat:         o.Compat,
		signer:         o.Signer,
		metrics:        o.Metrics,
		meter:          o.Meter,
		settings:       o.Settings,
		events:         o.Events,
		started:        time.Now(),
	}
	s.strangers, s.checking = newTurnstile(), newCheckLine()
	s.budget = intake.NewBudget(positiveOr(o.MaxInFlight, 128<<20), s.maxBody(), s.maxRecipients)
	if o.Processor != nil {
		s.budget.ShareProcessors(o.Processor)
	}
	if s.ledger == nil && len(o.Keys) > 1 {
		s.budget.SpareForOthers()
	}
	if err := s.setSenders(o.From, o.ForceFrom); err != nil {
		return nil, err
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.ready == nil {
		s.ready = func() error { return nil }
	}
	if o.ShareRates != nil {
		ring.Share(o.ShareRates)
	} else {
		s.recallRates()
	}
	s.echo = s.routes()
	if o.Pages != nil {
		s.addPages(s.echo, o.Pages(newDoor(s)), o.PagesPath)
	}
	s.patterns = patterns(s.echo)
	s.conns = conns.New(conns.Limits{
		Open: o.MaxConnections, Header: s.maxHeader(), Fields: max(s.maxRecipients, 1000) + otherFields,
	}, s.log)
	s.http = s.httpServer()
	if o.TLS != nil {
		s.tls = o.TLS.Clone()
		s.tls.NextProtos = []string{"http/1.1"}
	}
	var stop context.CancelFunc
	s.serving, stop = context.WithCancel(context.Background())
	s.http.RegisterOnShutdown(stop)
	s.composing, s.stopComposing = context.WithCancel(context.Background())
	return s, nil
}

// setSenders sets the From of messages without one, and the From that takes the place of
// all others; empty for none.
func (s *Server) setSenders(from, force string) (err error) {
	if from != "" {
		if _, err := mailer.ParseAddress(from); err != nil {
			return fmt.Errorf("default sender: %w", err)
		}
		s.from = mailbox{text: from, given: true}
	}
	if force == "" {
		return nil
	}
	if s.forceFrom, err = mailer.ParseAddress(force); err != nil {
		return fmt.Errorf("forced sender: %w", err)
	}
	if !s.from.given {
		s.from = mailbox{text: force, given: true}
	}
	return nil
}

// positiveOr returns v, or the default where v is not positive.
func positiveOr[T int | int64 | time.Duration](v, byDefault T) T {
	if v <= 0 {
		return byDefault
	}
	return v
}

// anyRole is of a route that tells nothing of mail: every key may use it.
const anyRole keys.Role = 0

func (s *Server) routes() *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = s.writeProblem
	e.Pre(s.logAndGuard)

	e.Match([]string{http.MethodGet, http.MethodHead}, "/livez", s.getLive)
	e.Match([]string{http.MethodGet, http.MethodHead}, "/readyz", s.getReady)
	e.Match([]string{http.MethodGet, http.MethodHead}, "/healthz/flow", s.getFlow)

	// Not echo's groups: a group with middleware answers 404 where a method is
	// not allowed.
	keyed := func(method, path string, roles keys.Role, h echo.HandlerFunc) {
		e.Add(method, path, s.authenticate(roles, h))
	}
	keyed(http.MethodPost, "/v1/messages", keys.Send, s.postMessage)
	keyed(http.MethodPost, "/v1/messages/batch", keys.Send, s.postBatch)
	keyed(http.MethodGet, "/v1/messages", keys.Read, s.getMessages)
	keyed(http.MethodGet, "/v1/messages/count", keys.Read, s.getCount)
	keyed(http.MethodGet, "/v1/messages/:id", keys.Read, s.getMessage)
	keyed(http.MethodGet, "/v1/messages/:id/content", keys.Read, s.getContent)
	keyed(http.MethodPost, "/v1/messages/:id/retry", keys.Mend, s.postRetry)
	keyed(http.MethodPost, "/v1/messages/:id/resend", keys.Mend, s.postResend)
	keyed(http.MethodPost, "/v1/messages/retry", keys.Mend, s.postRetryMatching)
	keyed(http.MethodPost, "/v1/messages/cancel", keys.Mend, s.postCancelMatching)
	keyed(http.MethodDelete, "/v1/messages/:id", keys.Mend, s.deleteMessage)
	keyed(http.MethodGet, "/v1/stats", keys.Read, s.getStats)
	keyed(http.MethodGet, "/v1/keys", keys.Admin, s.getKeys)
	if s.settings != nil {
		keyed(http.MethodGet, "/v1/settings", keys.Admin, s.getSettings)
	}
	if s.events != nil {
		keyed(http.MethodGet, "/v1/events", keys.Admin, s.getEvents)
	}
	keyed(http.MethodGet, "/openapi.yaml", anyRole, s.getOpenAPI)
	if s.metrics != nil {
		keyed(http.MethodGet, "/metrics", keys.Admin, echo.WrapHandler(s.metrics))
	}
	s.addCompat(e)
	if s.relays != nil {
		keyed(http.MethodGet, "/v1/relays", anyRole, s.getRelays)
		keyed(http.MethodPost, "/v1/relays/check", anyRole, s.postRelaysCheck)
	}
	if s.operator != nil && s.relays != nil {
		keyed(http.MethodPost, "/v1/relays/:name/pause", keys.Admin, s.postRelayPause)
		keyed(http.MethodPost, "/v1/relays/:name/resume", keys.Admin, s.postRelayResume)
	}
	if s.operator != nil {
		keyed(http.MethodGet, "/v1/drain", keys.Admin, s.getDrain)
		keyed(http.MethodPost, "/v1/drain", keys.Admin, s.postDrain)
		keyed(http.MethodDelete, "/v1/drain", keys.Admin, s.deleteDrain)
	}
	return e
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// getLive answers that the process runs: nothing else may fail it, or an
// orchestrator would restart what a restart cannot mend.
func (s *Server) getLive(c echo.Context) error {
	s.takeStrangersTurn(c)
	return c.String(http.StatusOK, "ok\n")
}

// getReady answers whether requests should come here. It needs no key: the kind of reason is
// all that it says, for it is what an operator looks for elsewhere. The log has the details.
func (s *Server) getReady(c echo.Context) error {
	s.takeStrangersTurn(c)
	err := s.ready()
	if err == nil {
		return c.String(http.StatusOK, "ok\n")
	}
	return c.String(http.StatusServiceUnavailable, "not ready"+whyNotReady(err)+"\n")
}

func whyNotReady(err error) string {
	switch {
	case errors.Is(err, queue.ErrDraining):
		return ": it is drained, until mailsidecar drain --end"
	case errors.Is(err, queue.ErrShuttingDown):
		return ": it stops"
	case errors.Is(err, queue.ErrUnavailable) && errors.As(err, new(*queue.StoreError)):
		return ": the database of the queue cannot be used, and the log has the remedy"
	case errors.Is(err, queue.ErrUnavailable):
		return ": the database of the queue does not answer"
	default:
		return ""
	}
}
