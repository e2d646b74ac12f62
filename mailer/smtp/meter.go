package smtp

import (
	"context"

	"mailsidecar/mailer"
)

// Meter counts what happens on connections to relays. Its methods return at once, and any
// number of goroutines may call them at the same time.
type Meter interface {
	// Opened counts a try to open a connection at a port, as far as the login. result is
	// "ok", or the [Problem] that it met.
	Opened(relay string, port int, result string)
	// LoggedIn counts a login: "accepted", "refused", or "undecided" where the relay did not
	// judge it.
	LoggedIn(relay, result string)
}

// countOpened counts a try to open a connection, unless it was cut short.
func (r *Relay) countOpened(ctx context.Context, rung mailer.Rung, f *mailer.Failure) {
	switch m := r.opts.Meter; {
	case m == nil:
	case f == nil:
		m.Opened(r.opts.Name, rung.Port, "ok")
	case ctx.Err() == nil:
		m.Opened(r.opts.Name, rung.Port, string(ProblemOf(f)))
	}
}

var loginResults = [...]string{accepted: "accepted", refused: "refused", undecided: "undecided"}

func (r *Relay) countLogin(result loginResult) {
	if m := r.opts.Meter; m != nil {
		m.LoggedIn(r.opts.Name, loginResults[result])
	}
}
