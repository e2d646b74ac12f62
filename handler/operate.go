package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/queue"
	"mailsidecar/units"
)

// Operator is what a person may do to the queue as a whole.
type Operator interface {
	// PauseRelay lets no attempt begin at the relay of that name until then; a zero time
	// means no end. The error may be a [*queue.UnknownRelayError].
	PauseRelay(ctx context.Context, name string, until time.Time, reason string) (queue.ManualPause, error)
	// ResumeRelay ends that.
	ResumeRelay(ctx context.Context, name string) error
	// Drain refuses new mail, until EndDrain.
	Drain()
	EndDrain()
	// Drained says how far that is.
	Drained(ctx context.Context) (queue.Drain, error)
}

// The limits of a pause that has an end.
const (
	shortestPause = time.Second
	longestPause  = 366 * 24 * time.Hour
)

// relayName is the name in the path.
func relayName(c echo.Context) string {
	name := c.Param("name")
	if c.Request().URL.RawPath != "" { // echo has matched that
		if plain, err := url.PathUnescape(name); err == nil {
			return plain
		}
	}
	return name
}

// postRelayPause serves POST /v1/relays/:name/pause.
func (s *Server) postRelayPause(c echo.Context) error {
	var r api.Pause
	if c.Request().ContentLength != 0 { // it may be left out
		if err := s.readSmall(c, &r); err != nil {
			return err
		}
	}
	until, bad := readPause(r, time.Now())
	if len(bad) > 0 {
		return problem.New(api.CodeInvalidParameter, "", bad...)
	}
	name := relayName(c)
	if _, err := s.operator.PauseRelay(c.Request().Context(), name, until, r.Reason); err != nil {
		return err
	}
	return s.showRelay(c, name)
}

// showRelay answers with the relay as GET /v1/relays shows it.
func (s *Server) showRelay(c echo.Context, name string) error {
	for _, r := range s.relays.Status() {
		if r.Name == name {
			return writeJSON(c, http.StatusOK, intake.TypeJSON, newRelay(r))
		}
	}
	return problem.New(api.CodeRelayNotFound, "")
}

// readPause returns until when a pause lasts; zero for no end.
func readPause(r api.Pause, now time.Time) (until time.Time, bad []api.FieldError) {
	if r.For != "" {
		d, err := units.ParseDuration(r.For)
		switch {
		case err != nil:
			bad = append(bad, problem.At("for", err.Error()))
		case d < shortestPause || d > longestPause:
			bad = append(bad, problem.At("for", "must be from 1s to 366d"))
		}
		until = now.Add(d)
	}
	if utf8.RuneCountInString(r.Reason) > api.MaxReason || strings.ContainsFunc(r.Reason, unicode.IsControl) {
		bad = append(bad, problem.At("reason", fmt.Sprintf("must be one line of up to %d characters", api.MaxReason)))
	}
	return until, bad
}

// postRelayResume serves POST /v1/relays/:name/resume.
func (s *Server) postRelayResume(c echo.Context) error {
	name := relayName(c)
	if err := s.operator.ResumeRelay(c.Request().Context(), name); err != nil {
		return err
	}
	return s.showRelay(c, name)
}

func newRelayPause(p queue.ManualPause) api.RelayPause {
	return api.RelayPause{Since: inUTC(p.Since), Until: inUTC(p.Until), Reason: p.Reason}
}

// postDrain serves POST /v1/drain. Repeating it changes nothing.
func (s *Server) postDrain(c echo.Context) error {
	s.operator.Drain()
	return drainTold(s.getDrain(c), "New mail is refused from now on")
}

// deleteDrain serves DELETE /v1/drain.
func (s *Server) deleteDrain(c echo.Context) error {
	s.operator.EndDrain()
	return drainTold(s.getDrain(c), "The drain has ended")
}

// drainTold is the answer where what was asked for is done, and the database does not say what
// waits.
func drainTold(err error, done string) error {
	if !errors.Is(err, queue.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w (%w)", problem.New(api.CodeQueueUnavailable, done+". What waits is not known, for the database of the queue does not answer."), err)
}

// getDrain serves GET /v1/drain.
func (s *Server) getDrain(c echo.Context) error {
	d, err := s.operator.Drained(c.Request().Context())
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, api.Drain{
		Draining: !d.Since.IsZero(), Since: inUTC(d.Since), EndedAt: inUTC(d.Ended), Due: d.Left.Due, Later: d.Left.Later, NextAt: inUTC(d.Left.Next), Held: d.Left.Held,
	})
}
