package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/queue"
)

// postRetryMatching serves POST /v1/messages/retry.
func (s *Server) postRetryMatching(c echo.Context) error {
	return s.bulk(c, queue.Filter.Retryable, Ledger.RetryMatching, func(b queue.Bulk) any {
		done := api.Retried{Retried: b.Changed, Matched: b.Matched, Next: b.Next}
		if b.Changed > 0 {
			done.Paused = s.pausedRelays(time.Now())
		}
		return done
	})
}

// pausedRelays are those that a retry does not get asked.
func (s *Server) pausedRelays(now time.Time) (all []api.PausedRelay) {
	for _, r := range s.relayStatus() {
		one := waiting{relays: []RelayStatus{r}, now: now}
		if w, ok := one.paused(); ok {
			all = append(all, api.PausedRelay{Relay: r.Name, Until: inUTC(w.Until), Found: w.Found, Do: w.Do})
		}
	}
	return all
}

// postCancelMatching serves POST /v1/messages/cancel.
func (s *Server) postCancelMatching(c echo.Context) error {
	return s.bulk(c, queue.Filter.Cancelable, Ledger.CancelMatching, func(b queue.Bulk) any {
		return api.CanceledMessages{Canceled: b.Changed, Matched: b.Matched, Next: b.Next}
	})
}

// bulk does what command does to the messages that the request's filter selects, or counts
// them, as the request says. An empty filter is refused: it is more likely a mistake than
// a wish.
func (s *Server) bulk(c echo.Context, concerns func(queue.Filter) queue.Filter,
	command func(Ledger, context.Context, queue.Filter, int, string) (queue.Bulk, error), answer func(queue.Bulk) any,
) error {
	var r api.Bulk
	if err := s.readSmall(c, &r); err != nil {
		return err
	}
	if r.Filter == (api.Filter{}) {
		return problem.New(api.CodeInvalidParameter, "Name at least one of "+filterNames+".")
	}
	whose, err := scopeOf(c, r.Key)
	if err != nil {
		return err
	}
	filter, bad := readFilter(r.Filter, whose)
	if r.Limit < 0 || r.Limit > api.MaxBulk {
		bad = append(bad, problem.At("limit", fmt.Sprintf("must be a number from 1 to %d", api.MaxBulk)))
	}
	if len(bad) > 0 {
		return problem.New(api.CodeInvalidParameter, "", bad...)
	}
	if s.ledger == nil {
		return queue.ErrQueueRequired
	}
	var body any
	if r.DryRun {
		n, next, counted := s.ledger.Count(c.Request().Context(), concerns(filter), r.Cursor)
		body, err = api.Matching{Matching: n, Next: next}, counted
	} else {
		done, failed := command(s.ledger, c.Request().Context(), filter, r.Limit, r.Cursor)
		body, err = answer(done), failed
	}
	if errors.Is(err, queue.ErrInvalidCursor) {
		return badCursor()
	}
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, body)
}

func badCursor() error {
	return problem.New(api.CodeInvalidParameter, "", problem.At("cursor", "was not given by this server"))
}
