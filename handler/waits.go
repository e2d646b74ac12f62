package handler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// This file says why a message waits, in words for people: from what the queue knows of
// it, and from how the relays are that may take it.

// maxWaits is how many reasons of one message are told.
const maxWaits = 20

// relayStatus is what is known of the relays; nothing where they are not reported.
func (s *Server) relayStatus() []RelayStatus {
	if s.relays == nil {
		return nil
	}
	return s.relays.Status()
}

// waitsOf says why the recipients wait that are not final.
func waitsOf(m queue.Message, relays []RelayStatus, now time.Time) []api.Wait {
	if m.Status() == queue.StatusDelivered {
		return nil
	}
	w := waiting{message: m, relays: queue.Takers(relays, func(r RelayStatus) ([]string, map[string]int) { return r.Senders, r.Keys }, m.Key, m.Sender), now: now}
	var all []api.Wait
	for _, r := range m.Recipients {
		if r.State.Final() {
			continue
		}
		wait := w.of(r)
		i := slices.IndexFunc(all, func(known api.Wait) bool {
			return known.Reason == wait.Reason && known.Relay == wait.Relay && known.Found == wait.Found
		})
		switch {
		case i >= 0:
			all[i].Recipients++
		case len(all) < maxWaits:
			wait.Recipients, wait.Until = 1, inUTC(wait.Until)
			all = append(all, wait)
		}
	}
	return all
}

// waiting is a message that waits, with the relays that may take it.
type waiting struct {
	message queue.Message
	relays  []RelayStatus
	now     time.Time
}

// of is why one recipient waits.
func (w *waiting) of(r queue.Recipient) api.Wait {
	switch {
	case r.State == queue.Held:
		return held(r)
	case r.State == queue.Queued && w.message.SendAt.After(w.now):
		return api.Wait{
			Reason: api.WaitSchedule, Until: w.message.SendAt, Found: "it is to be sent at that time (send_at)",
			Do: "Nothing has to be done. A cancel takes it back.",
		}
	}
	if paused, ok := w.only(r.TakenBy).paused(); ok {
		if r.TakenBy != "" {
			paused.Found += "; no other one gets this, because the relay may have taken it already"
		}
		return paused
	}
	f := r.Result.Failure
	switch {
	case f != nil && r.NextAttempt.After(w.now):
		return retried(r, f)
	case r.NextAttempt.After(w.now):
		return w.turn(r)
	default:
		return w.inLine()
	}
}

// only is the same where no relay but that of the name may take it; an empty name means all.
func (w *waiting) only(relay string) *waiting {
	if relay == "" {
		return w
	}
	one := *w
	one.relays = slices.DeleteFunc(slices.Clone(w.relays), func(r RelayStatus) bool { return r.Name != relay })
	return &one
}

func held(r queue.Recipient) api.Wait {
	wait := api.Wait{
		Reason: api.WaitHeld, Found: "it waits for a person",
		Do: "Look for the Message-ID in the relay's own log. Then retry it, which may send it twice, or cancel it.",
	}
	if f := r.Result.Failure; f != nil {
		wait.Found, wait.Relay = newOutcome(r.Result).String(), f.Relay
	}
	return wait
}

// paused says that every relay that may take the message is left alone for now; the
// first that is asked again decides.
func (w *waiting) paused() (api.Wait, bool) {
	var first *RelayStatus
	for i := range w.relays {
		r := &w.relays[i]
		if !r.opens().After(w.now) {
			return api.Wait{}, false
		}
		if first == nil || r.opens().Before(first.opens()) {
			first = r
		}
	}
	if first == nil {
		return api.Wait{}, false
	}
	if p := first.Manual; p != nil && !p.Opens().Before(first.PausedUntil) {
		return pausedByOperator(*p), true
	}
	wait := api.Wait{Reason: api.WaitRelayPaused, Until: first.PausedUntil, Relay: first.Name, Found: "the relay is paused"}
	login := loginWaits(first.Failure)
	if login {
		wait.Found = "the relay is paused because the login failed, and the next login waits until then, also where a retry is asked for"
	}
	if first.Failure != nil {
		said := first.Failure.Stage.String() + ": " + newRelayFailure(first.Failure).String()
		if cause, _ := first.Failure.MailAdvice(); cause != "" {
			said = fmt.Sprintf("%s (%s)", strings.TrimSuffix(cause, "."), said)
		}
		wait.Found += ": " + said
	}
	for _, a := range first.Advice {
		if a.Do != "" {
			wait.Do = a.Do
			break
		}
	}
	switch {
	case wait.Do != "":
	case login:
		wait.Do = "See whether the user name and the password, or the token, are right: mailsidecar check looks for the cause."
	default:
		wait.Do = "Nothing has to be done if this passes: the relay is asked again by itself, and a retry asks it now. mailsidecar check looks for the cause."
	}
	return wait, true
}

// loginWaits says that the failure is a refused login which is not repeated before its time: a retry does not change that.
func loginWaits(f *mailer.Failure) bool {
	if f == nil {
		return false
	}
	login, ok := errors.AsType[*mailer.LoginError](f.Err)
	return ok && !login.Next.IsZero()
}

// opens is when the relay may be asked again, as far as pauses go.
func (r *RelayStatus) opens() time.Time {
	if r.Manual == nil || r.Manual.Opens().Before(r.PausedUntil) {
		return r.PausedUntil
	}
	return r.Manual.Opens()
}

func pausedByOperator(p queue.ManualPause) api.Wait {
	wait := api.Wait{
		Reason: api.WaitRelayPaused, Until: p.Until, Relay: p.Relay,
		Found: "relay paused by an operator since " + p.Since.UTC().Format(time.RFC3339),
		Do:    fmt.Sprintf("Nothing has to be done if the operator ends it: mailsidecar relay resume %s.", p.Relay),
	}
	if p.Reason != "" {
		wait.Found += ": " + p.Reason
	}
	return wait
}

func retried(r queue.Recipient, f *mailer.Failure) api.Wait {
	wait := api.Wait{
		Reason: api.WaitRetry, Until: r.NextAttempt, Relay: f.Relay, Found: newOutcome(r.Result).String(),
		Do: "Nothing has to be done: it is tried again by itself, until it expires. A retry tries it now.",
	}
	if f.Class == mailer.ClassUncertain {
		wait.Found = "the relay may have taken it already: " + wait.Found
	}
	return wait
}

// turn is the wait of a recipient that was not tried and is not due yet.
func (w *waiting) turn(r queue.Recipient) api.Wait {
	for _, relay := range w.relays {
		if t := relay.Turns; t.Messages > 0 {
			return api.Wait{
				Reason: api.WaitRate, Until: r.NextAttempt, Relay: relay.Name,
				Found: fmt.Sprintf("SMTP_RATE=%s is used up for its priority", t.Rate),
				Do:    "Nothing has to be done: its turn comes then. SMTP_RATE is how fast the relay takes mail.",
			}
		}
	}
	return api.Wait{Reason: api.WaitInLine, Until: r.NextAttempt, Found: "it was put off without an attempt"}
}

// inLine is the wait of a recipient that is due.
func (w *waiting) inLine() api.Wait {
	wait := api.Wait{Reason: api.WaitInLine, Found: "it is due: it waits behind other mail, or is being tried"}
	for _, relay := range w.relays {
		if t := relay.Turns; t.Messages > 0 && (t.Waiting > 0 || t.Next.After(w.now)) {
			wait.Reason, wait.Relay = api.WaitRate, relay.Name
			wait.Found = fmt.Sprintf("it is due, and SMTP_RATE=%s is used up: it waits for a turn, behind other mail", t.Rate)
			if t.Next.After(w.now) {
				wait.Found += "; the next one is at " + t.Next.UTC().Format(time.RFC3339)
			}
			wait.Do = "Nothing has to be done. SMTP_RATE is how fast the relay takes mail."
			break
		}
		if n := relay.Connections.Waiting; n > 0 {
			wait.Relay = relay.Name
			wait.Found = fmt.Sprintf("it is due, and waits for a connection: %d in line, %d connections at most", n, relay.Connections.Limit)
			break
		}
	}
	return wait
}
