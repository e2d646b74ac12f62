package queue

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue/dispatch"
)

// The mail log: one function for each event, the same keys in the same order.

// logAccepted joins the message to its request, and tells when each recipient is tried.
func (in *intake) logAccepted(e Entry, o Origin) {
	if !in.log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	in.log.Info("accepted", "id", e.Message.ID, "key", e.Message.Key, "door", o.Door, "request_id", o.RequestID,
		"reverse_path", e.Message.Envelope.ReversePath, "recipients", len(e.Message.Envelope.ForwardPaths),
		"message_id", e.Message.MessageID, "size", e.Message.Size, "priority", e.Message.Envelope.Priority.String())
	for _, path := range e.Message.Envelope.ForwardPaths {
		in.log.Info("queued", "id", e.Message.ID, "reverse_path", e.Message.Envelope.ReversePath, "forward_path", path,
			"message_id", e.Message.MessageID, "size", e.Message.Size, "next_attempt", e.Due)
	}
}

// logOutcome logs the new state of each recipient, with the state as the message.
func (r *recorder) logOutcome(o pendingOutcome) {
	if !r.log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	last := map[string]mailer.Result{}
	attempt := map[string]mailer.Attempt{}
	for _, a := range o.Attempts {
		for _, result := range a.Results {
			last[result.ForwardPath], attempt[result.ForwardPath] = result, a
		}
	}
	attempts := map[string]int{}
	for _, leased := range o.job.Recipients {
		attempts[leased.ForwardPath] = leased.Attempts
	}
	for _, c := range o.Changes {
		result, tried := last[c.ForwardPath]
		if !tried && !c.State.Final() {
			continue
		}
		logState(r.log, stateLine{
			Change: c, id: o.ID, reversePath: cmp.Or(attempt[c.ForwardPath].ReversePath, o.job.Envelope.ReversePath), result: result, relay: attempt[c.ForwardPath].Relay,
			why: attempt[c.ForwardPath].Why, attempt: attempts[c.ForwardPath] + 1,
		})
	}
}

// canceledChanges returns the changes of an outcome as the store has them: a wish to cancel
// made waiting into canceled.
func (r *recorder) canceledChanges(ctx context.Context, o pendingOutcome) []Change {
	m, err := r.store.Get(ctx, AnyKey, o.ID)
	if err != nil {
		return o.Changes
	}
	changes := slices.Clone(o.Changes)
	for i := range changes {
		c := &changes[i]
		if !c.State.Final() && stateOf(m, c.ForwardPath) == Canceled {
			c.State, c.Next = Canceled, time.Time{}
		}
	}
	return changes
}

func stateOf(m Message, path string) State {
	i := slices.IndexFunc(m.Recipients, func(r Recipient) bool { return r.ForwardPath == path })
	if i < 0 {
		return ""
	}
	return m.Recipients[i].State
}

// logReleased logs which recipients of jobs that were given back are canceled.
func (r *recorder) logReleased(ctx context.Context, released []*dispatch.Job) {
	jobs := make([]*job, len(released))
	for i, j := range released {
		jobs[i] = j.Value.(*job)
	}
	for j := range r.driver.canceled(jobs) {
		m, err := r.store.Get(ctx, AnyKey, j.ID)
		if err != nil {
			continue
		}
		for _, path := range j.Envelope.ForwardPaths {
			if stateOf(m, path) == Canceled {
				logCanceled(r.log, m, path)
			}
		}
	}
}

// logCanceled logs that a recipient was canceled.
func logCanceled(log *slog.Logger, m Message, path string) {
	log.Info(string(Canceled), "id", m.ID, "reverse_path", m.Envelope.ReversePath, "forward_path", path)
}

// logVerdicts logs the state of each recipient where nothing is stored. The client
// decides what follows.
func (d *Direct) logVerdicts(m Message) {
	for _, a := range m.Attempts {
		if f, _ := dispatch.Trouble(a); f != nil && !isPaused(f) {
			d.log.Warn("relay failed", append([]any{"id", m.ID, "relay", a.Relay}, relayTrouble(f)...)...)
		}
	}
	attempt := map[string]mailer.Attempt{}
	for _, a := range m.Attempts {
		for _, r := range a.Results {
			attempt[r.ForwardPath] = a
		}
	}
	for _, r := range m.Recipients {
		logState(d.log, stateLine{
			Change: Change{ForwardPath: r.ForwardPath, State: r.State}, id: m.ID, reversePath: cmp.Or(attempt[r.ForwardPath].ReversePath, m.Envelope.ReversePath),
			result: r.Result, relay: attempt[r.ForwardPath].Relay, why: attempt[r.ForwardPath].Why, attempt: 1,
		})
	}
}

// logRescheduled logs when a message that waits for its send_at is due now.
func (d *Durable) logRescheduled(m Message) {
	for _, r := range m.Recipients {
		d.log.Info("rescheduled", "id", m.ID, "reverse_path", m.Envelope.ReversePath, "forward_path", r.ForwardPath, "next_attempt", m.SendAt)
	}
}

// logSummary logs the numbers of the last hour.
func logSummary(log *slog.Logger, s Stats, now time.Time) {
	attrs := []any{"queued", s.Statuses[StatusQueued], "deferred", s.Statuses[StatusDeferred], "held", s.Statuses[StatusHeld]}
	if !s.OldestDue.IsZero() {
		attrs = append(attrs, "oldest_due_ms", max(0, now.Sub(s.OldestDue).Milliseconds()))
	}
	attrs = append(attrs, "hour_since", s.Hour.Since, "hour_accepted", s.Hour.Accepted, "hour_delivered", s.Hour.Delivered,
		"hour_deferred", s.Hour.Deferred, "hour_bounced", s.Hour.Bounced, "hour_uncertain", s.Hour.Uncertain)
	if s.Counting {
		attrs = append(attrs, "counting", true)
	}
	log.Info("queue summary", attrs...)
}

// stateLine is the line of a recipient's new state.
type stateLine struct {
	Change
	id, reversePath string
	result          mailer.Result // of the last attempt; zero without one
	relay, why      string        // why it was this one; empty where there is no other
	attempt         int
}

func logState(log *slog.Logger, c stateLine) {
	result := c.result
	attrs := []any{
		"id", c.id, "reverse_path", c.reversePath, "forward_path", c.ForwardPath, "relay", c.relay, "attempt", c.attempt,
		"code", result.Reply.Code, "enhanced_code", result.Reply.Enhanced, "text", result.Reply.Text,
	}
	if c.why != "" {
		attrs = append(attrs, "why", c.why)
	}
	level := slog.LevelInfo
	if f := result.Failure; f != nil {
		attrs = append(attrs, "class", f.Class.String(), "stage", f.Stage.String(), "cause", f.Text)
		if found, do := f.MailAdvice(); f.Class == mailer.ClassPermanent && found != "" {
			attrs = append(attrs, "found", found, "do", do)
		}
		if f.Class == mailer.ClassUncertain {
			level = slog.LevelWarn
		}
	}
	if !c.Next.IsZero() {
		attrs = append(attrs, "next_attempt", c.Next)
	}
	log.Log(context.Background(), level, string(c.State), attrs...)
}

func (dr *driver) logExpired(e Ended) {
	for _, path := range e.ForwardPaths {
		dr.log.Warn(string(Expired), "id", e.ID, "reverse_path", e.ReversePath, "forward_path", path)
	}
}

func logNews(log *slog.Logger, n *dispatch.News) {
	if n == nil {
		return
	}
	if n.RateUsedUp {
		log.Info("rate used up", "relay", n.Pause.Relay, "setting", "SMTP_RATE", "priority", n.Priority.String(), "until", n.RestsUntil)
	}
	switch p := n.Pause; {
	case n.Paused:
		log.Warn("relay paused",
			append([]any{"relay", p.Relay, "failures", p.Failures, "until", p.Until}, relayTrouble(p.Reason)...)...)
	case n.Resumed:
		log.Info("relay resumed", "relay", p.Relay)
	}
	switch relay := n.Pause.Relay; {
	case n.SenderRests:
		log.Warn("reverse-path rests",
			append([]any{"relay", relay, "reverse_path", n.ReversePath, "until", n.SenderUntil}, relayTrouble(n.Reason)...)...)
	case n.SenderResumed:
		log.Info("reverse-path goes out again", "relay", relay, "reverse_path", n.ReversePath)
	}
}

func logManual(log *slog.Logger, p ManualPause) {
	attrs := []any{"relay", p.Relay, "since", p.Since}
	if !p.Until.IsZero() {
		attrs = append(attrs, "until", p.Until)
	}
	log.Warn("relay paused by an operator", append(attrs, "reason", p.Reason)...)
}

// logManualEnd logs the end of a pause: a person has resumed the relay, or its time was over.
func logManualEnd(log *slog.Logger, relay string, resumed bool) {
	log.Info("pause by an operator ended", "relay", relay, "resumed", resumed)
}

// relayTrouble returns the attributes of a relay's failure.
func relayTrouble(f *mailer.Failure) []any {
	attrs := []any{"stage", f.Stage.String(), "code", f.Reply.Code, "cause", f.Error()}
	if cause, remedy := f.MailAdvice(); cause != "" {
		attrs = append(attrs, "found", cause, "do", remedy)
	}
	return attrs
}

// refusalInterval is how often the log says so.
const refusalInterval = time.Minute

// logRefusal logs that new mail is refused because there is no room, or because
// the store is faulty. Clients are told to come back; an operator should look.
func (in *intake) logRefusal(err error) {
	var broken *StoreError
	if !errors.Is(err, ErrFull) && !errors.Is(err, ErrDiskFull) && !errors.As(err, &broken) {
		return
	}
	now := in.now()
	in.trouble.refuse(now, err)
	in.opts.Meter.Refused(err)
	in.mu.Lock()
	due := in.refused.IsZero() || now.Sub(in.refused).Abs() >= refusalInterval
	if due {
		in.refused = now
	}
	in.mu.Unlock()
	if due {
		in.log.Error("new mail is refused", "error", err)
	}
}
