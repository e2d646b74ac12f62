package handler

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/queue"
	"mailsidecar/units"
)

const (
	// flowAge is how long mail may have been due where the request does not say.
	flowAge = 15 * time.Minute
	// maxFlowAge is the longest that a request may say.
	maxFlowAge = 30 * units.Day
	// flowLife is how long an answer of the store serves: strangers may ask as often as
	// they like.
	flowLife = time.Second
	// flowTimeout is how long the store may take to answer.
	flowTimeout = 2 * time.Second
)

// briefTrouble is how long a relay may fail before mail does not flow where there is no queue:
// a single failure that no other mail has disproved yet calls nobody.
const briefTrouble = time.Minute

// flow knows how mail of all keys waits.
type flow struct {
	mu    sync.Mutex
	asked time.Time
	line  line
	err   error
}

// line is what waits.
type line struct {
	oldest time.Time // since when the oldest is due; zero: nothing is
	waits  bool      // something does that is due or was tried
}

// getFlow serves GET /healthz/flow: whether mail has waited for longer than max_age.
// It needs no key, and says no more than that.
func (s *Server) getFlow(c echo.Context) error {
	ctx := c.Request().Context()
	s.takeStrangersTurn(c)
	age, err := readMaxAge(c.Request())
	if err != nil {
		return err
	}
	if !s.Flows(ctx, age) {
		return c.String(http.StatusServiceUnavailable, "mail waits\n")
	}
	return c.String(http.StatusOK, "mail flows\n")
}

func readMaxAge(r *http.Request) (time.Duration, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return 0, problem.New(api.CodeInvalidParameter, "The query cannot be read.")
	}
	text := ""
	if bad := readParameters(query, map[string]*string{"max_age": &text}); len(bad) > 0 {
		return 0, problem.New(api.CodeInvalidParameter, "", bad...)
	}
	if text == "" {
		return flowAge, nil
	}
	age, err := units.ParseDuration(text)
	if err != nil || age < time.Second || age > maxFlowAge {
		return 0, problem.New(api.CodeInvalidParameter, "", problem.At("max_age", "must be a duration from 1s to 30d, such as 90s, 15m or 2h"))
	}
	return age, nil
}

// Flows reports whether nothing has been due for longer than the age, and no relay has failed for
// longer than that while mail waits: each try of a message begins its time anew. Without a queue
// mail flows while some relay can be used. A store that does not answer is taken for a no.
func (s *Server) Flows(ctx context.Context, age time.Duration) bool {
	if s.ledger == nil {
		return s.someRelayOpen()
	}
	l, err := s.flow.look(ctx, s.ledger)
	if err != nil || !l.oldest.IsZero() && time.Since(l.oldest) > age {
		return false
	}
	return !l.waits || !slices.ContainsFunc(s.relayStatus(), func(r RelayStatus) bool {
		return !r.FailingSince.IsZero() && time.Since(r.FailingSince) > age
	})
}

func (s *Server) someRelayOpen() bool {
	relays := s.relayStatus()
	for _, r := range relays {
		if r.PausedUntil.IsZero() && r.Manual == nil && r.FailedAt.Sub(r.FailingSince) < briefTrouble {
			return true
		}
	}
	return len(relays) == 0
}

// look asks the store, unless it was asked just now.
func (f *flow) look(ctx context.Context, ledger Ledger) (line, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.asked.IsZero() && time.Since(f.asked) < flowLife {
		return f.line, f.err
	}
	// The answer is for those who come after this request, too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flowTimeout)
	defer cancel()
	stats, err := ledger.Stats(ctx, queue.AnyKey)
	f.line, f.err, f.asked = line{stats.OldestDue, stats.Waits()}, err, time.Now()
	return f.line, f.err
}
