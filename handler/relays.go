package handler

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
)

// checkTimeout limits a check of all relays, which are tried in parallel.
const checkTimeout = time.Minute

// Relays reports on the configured relays, in order of preference.
type Relays interface {
	// Status is what is known of every relay, without asking it.
	Status() []RelayStatus
	// Check asks every relay, without sending mail, also whether it takes mail of that
	// sender; an empty one means the server's own. It returns when all are done or ctx
	// ends.
	Check(ctx context.Context, sender string) []RelayReport
}

// RelayReport is what a check found out about one relay.
type RelayReport struct {
	smtp.Report
	// Advice says what is wrong and what to do; empty when every rung works.
	Advice []api.Advice `json:"advice,omitempty"`
	// OAuth2 is how the relay's access tokens fare; nil where it uses none.
	OAuth2 *api.OAuth2 `json:"oauth2,omitempty"`
}

// RelayStatus is what is known of one relay.
type RelayStatus struct {
	Name string
	Host string
	// Ladder holds the rungs in order of preference.
	Ladder []mailer.Rung
	// Serving is the rung that is in use; zero when no rung is known to work.
	Serving mailer.Rung
	// Senders are those whose mail it takes; without any, it takes all mail.
	Senders []string
	// Keys are the API keys that name it, as [queue.Route] has them.
	Keys map[string]int
	// PausedUntil is when the queue asks it again; zero when it is not paused.
	PausedUntil time.Time
	// Manual says that a person keeps mail from it; nil otherwise.
	Manual *queue.ManualPause
	// Failure is why it is paused, or the last one about the relay since it
	// last worked; nil when there was no failure.
	Failure *mailer.Failure
	// FailingSince is when the first of these failures was seen, and FailedAt when the last
	// one was; zero where the relay can be used, or nothing was tried lately.
	FailingSince, FailedAt time.Time
	// Advice says what is wrong and what to do about it; empty when nothing is.
	Advice []api.Advice
	// Connections are the current ones.
	Connections smtp.Connections
	// CertificateExpires is when the certificate of Serving ends, as it was seen last; zero: unknown.
	CertificateExpires time.Time
	// LastDelivery is when it last took mail; zero: not since the start.
	LastDelivery time.Time
	// Turns is the current state of the relay's rate; zero where it has none.
	Turns smtp.Turns
	// OAuth2 is how the relay's access tokens fare; nil where it uses none.
	OAuth2 *api.OAuth2
	// Logins are those that were refused in a row; zero when the last was accepted.
	Logins smtp.LoginState
}

type checkBody struct {
	OK     bool          `json:"ok"` // some relay is
	Relays []RelayReport `json:"relays"`
}

// getRelays serves GET /v1/relays.
func (s *Server) getRelays(c echo.Context) error {
	b := api.Relays{Relays: []api.Relay{}}
	for _, r := range s.relays.Status() {
		b.Relays = append(b.Relays, newRelay(r))
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, b)
}

// newRelayFailure is a failure of the relay itself. Its codes are those of the relay alone.
func newRelayFailure(f *mailer.Failure) api.Outcome {
	o := newOutcome(mailer.Result{Failure: f})
	o.Kind, o.EnhancedCode = "", f.Reply.Enhanced
	return o
}

func newRelay(r RelayStatus) api.Relay {
	b := api.Relay{
		Name: r.Name, Host: r.Host, Status: api.RelayUnknown, Ladder: []api.RelayRung{}, Senders: r.Senders, PausedUntil: inUTC(r.PausedUntil),
		FailingSince: inUTC(r.FailingSince), CertificateExpires: inUTC(r.CertificateExpires), LastDelivery: inUTC(r.LastDelivery),
		Advice: r.Advice, OAuth2: r.OAuth2, Connections: api.Connections(r.Connections),
	}
	for _, rung := range r.Ladder {
		b.Ladder = append(b.Ladder, api.RelayRung{Port: rung.Port, Mode: rung.Mode(), Serving: rung == r.Serving})
	}
	if r.Failure != nil {
		o := newRelayFailure(r.Failure)
		b.Failure = &o
	}
	if l := r.Logins; l.Failure != nil {
		b.Login = &api.Login{Refused: l.Refused, Next: inUTC(l.Next), Failure: newRelayFailure(l.Failure)}
	}
	if t := r.Turns; t.Messages > 0 {
		b.Rate = &api.Rate{Messages: t.Messages, Per: t.Per.String(), Waiting: t.Waiting, Next: inUTC(t.Next.Truncate(time.Millisecond))}
		if t.Used >= 0 {
			b.Rate.Used = &t.Used
		}
	}
	if r.Manual != nil {
		p := newRelayPause(*r.Manual)
		b.PausedByOperator = &p
	}
	switch {
	case !r.PausedUntil.IsZero(), r.Manual != nil:
		b.Status = api.RelayPaused
	case r.Failure != nil:
		b.Status = api.RelayFailing
	case r.Serving != (mailer.Rung{}):
		b.Status = api.RelayUp
	}
	return b
}

// postRelaysCheck serves POST /v1/relays/check. Requests at the same time share
// one check: a relay that counts logins must not be asked by each of them. So it
// goes on when the client that began it leaves, but not past Shutdown. Those for
// different senders are made one after the other.
func (s *Server) postRelaysCheck(c echo.Context) error {
	sender, err := checkSender(c)
	if err != nil {
		return err
	}
	reports, err, _ := s.checks.Do(sender, func() (any, error) {
		leave, err := s.checking.enter(s.serving, request(c).key.Name())
		if err != nil {
			return nil, err
		}
		defer leave()
		ctx, cancel := context.WithTimeout(s.serving, checkTimeout)
		defer cancel()
		return s.relays.Check(ctx, sender), nil
	})
	switch {
	case s.serving.Err() != nil:
		return queue.ErrShuttingDown
	case err != nil:
		return err
	}
	b := checkBody{Relays: reports.([]RelayReport)}
	for _, report := range b.Relays {
		b.OK = b.OK || report.OK
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, b)
}

// checkLine lets one check of the relays at a time be made. A key may have one in the line.
type checkLine struct {
	turn chan struct{}

	mu   sync.Mutex
	keys map[string]bool
}

func newCheckLine() *checkLine {
	return &checkLine{turn: make(chan struct{}, 1), keys: map[string]bool{}}
}

// enter waits for the turn, and returns a function that ends it. The error is a problem where
// the key has a check in the line already.
func (l *checkLine) enter(ctx context.Context, key string) (leave func(), err error) {
	if !l.add(key) {
		return nil, problem.New(api.CodeBusy, "A check of the relays for another sender is under way with this key: try again when it is done.")
	}
	select {
	case l.turn <- struct{}{}:
		return func() {
			<-l.turn
			l.remove(key)
		}, nil
	case <-ctx.Done():
		l.remove(key)
		return nil, ctx.Err()
	}
}

func (l *checkLine) add(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys[key] {
		return false
	}
	l.keys[key] = true
	return true
}

func (l *checkLine) remove(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.keys, key)
}

// checkSender returns the address that the parameter from names; empty without one.
func checkSender(c echo.Context) (string, error) {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return "", problem.New(api.CodeInvalidParameter, "The query cannot be read.")
	}
	text := ""
	if bad := readParameters(query, map[string]*string{"from": &text}); len(bad) > 0 {
		return "", problem.New(api.CodeInvalidParameter, "", bad...)
	}
	if text == "" {
		return "", nil
	}
	address, err := mailer.ParseAddress(text)
	if err != nil {
		return "", problem.New(api.CodeInvalidParameter, "", problem.At("from", err.Error()))
	}
	if key := request(c).key; !key.MaySend(address.Email) {
		return "", problem.New(api.CodeSenderNotAllowed, fmt.Sprintf("The key %s may not send from %s (MAILSIDECAR_KEY_SENDERS).", key.Name(), problem.Cut(address.Email)),
			problem.At("from", "is not allowed for this key"))
	}
	return address.Email, nil
}
