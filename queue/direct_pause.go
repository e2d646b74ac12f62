package queue

import (
	"context"
	"errors"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue/dispatch"
)

// deliver tries the relays in turn until one of them judges the mail. A failure
// that may not be about the mail moves it on to the next. No relay has accepted
// it then, so no recipient can get it twice. A relay that has said until when it takes
// no mail is not asked before. why says why the first one was chosen, and of is how many
// relays may take the mail, with those that a person has paused.
func (d *Direct) deliver(ctx context.Context, relays []mailer.Deliverer, of int, why chosen, m Message, c mailer.Content) []mailer.Attempt {
	env := m.Envelope
	var attempts []mailer.Attempt
	var paused *mailer.Failure // of the relay that may be asked first
	for _, relay := range relays {
		j := &dispatch.Job{ID: m.ID, Lane: m.Lane(), ReversePath: env.ReversePath, Recipients: env.ForwardPaths}
		if f := d.asks(relay, j); f != nil {
			why.pass(relay.Name(), "paused")
			if paused == nil || f.Until.Before(paused.Until) {
				paused = f
			}
			continue
		}
		a := relay.Deliver(ctx, env, c)
		a.Why = why.next(relay.Name(), "failed")
		d.heard(ctx, relay, j, a)
		attempts = append(attempts, a)
		env.ForwardPaths = untouched(a)
		if len(env.ForwardPaths) == 0 || ctx.Err() != nil {
			break
		}
	}
	if len(attempts) == 0 {
		attempts = append(attempts, notAsked(paused, env))
	}
	waitForOthers(attempts, of)
	return attempts
}

// notAsked stands for an attempt where all relays are paused.
func notAsked(f *mailer.Failure, env mailer.Envelope) mailer.Attempt {
	a := mailer.Attempt{Relay: f.Relay, Started: time.Now()}
	for _, path := range env.ForwardPaths {
		a.Results = append(a.Results, mailer.Result{ForwardPath: path, Reply: f.Reply, Failure: f})
	}
	return a
}

// asks notes that a message goes to a relay. While that may not be asked it returns why.
func (d *Direct) asks(relay mailer.Deliverer, j *dispatch.Job) *mailer.Failure {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, n := time.Now(), d.named[relay.Name()]
	f := n.Reason(now)
	if f == nil {
		n.Begin(j, now)
	}
	return f
}

// heard notes what became of it. A failure that reads as the relay's, and is the message's
// own, becomes transient.
func (d *Direct) heard(ctx context.Context, relay mailer.Deliverer, j *dispatch.Job, a mailer.Attempt) {
	if ctx.Err() != nil { // cut short, which says nothing of the relay
		a.Results = nil
	}
	d.mu.Lock()
	news, ofMessage := d.named[relay.Name()].End(j, a, time.Now())
	d.mu.Unlock()
	if ofMessage {
		onOwnSchedule(a.Results)
	}
	logNews(d.log, news)
}

// Pauses lists the relays that are not asked now, because they have said until when they
// take no mail.
func (d *Direct) Pauses() []Pause {
	d.mu.Lock()
	defer d.mu.Unlock()
	var pauses []Pause
	for _, r := range d.routes {
		if p, ok := d.named[r.Relay.Name()].Paused(); ok {
			pauses = append(pauses, p)
		}
	}
	return pauses
}

// Resume ends the pause of a relay that works, as a check has shown. Where it refuses
// mail, the next message is a probe.
func (d *Direct) Resume(name string) {
	d.mu.Lock()
	n := d.named[name]
	if n == nil {
		d.mu.Unlock()
		return
	}
	news := n.Resume(time.Now())
	d.mu.Unlock()
	logNews(d.log, news)
}

// isPaused reports whether a failure is that of a relay that was not asked.
func isPaused(f *mailer.Failure) bool { return errors.As(f.Err, new(*mailer.PauseError)) }
