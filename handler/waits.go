package handler

import (
	"fmt"
	"slices"
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
	w := waiting{message: m, relays: queue.Takers(relays, func(r RelayStatus) []string { return r.Senders }, m.Sender), now: now}
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
	if paused, ok := w.paused(); ok {
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
		if !r.PausedUntil.After(w.now) {
			return api.Wait{}, false
		}
		if first == nil || r.PausedUntil.Before(first.PausedUntil) {
			first = r
		}
	}
	if first == nil {
		return api.Wait{}, false
	}
	wait := api.Wait{Reason: api.WaitRelayPaused, Until: first.PausedUntil, Relay: first.Name, Found: "the relay is paused"}
	if first.Failure != nil {
		wait.Found += ": " + first.Failure.Stage.String() + ": " + newRelayFailure(first.Failure).String()
	}
	for _, a := range first.Advice {
		if a.Do != "" {
			wait.Do = a.Do
			break
		}
	}
	if wait.Do == "" {
		wait.Do = "Nothing has to be done if this passes: the relay is asked again by itself, and a retry asks it now. mailsidecar check looks for the cause."
	}
	return wait, true
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
		if n := relay.Connections.Waiting; n > 0 {
			wait.Relay = relay.Name
			wait.Found = fmt.Sprintf("it is due, and waits for a connection: %d in line, %d connections at most", n, relay.Connections.Limit)
			break
		}
	}
	return wait
}
