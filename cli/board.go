package cli

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"mailsidecar/config"
	"mailsidecar/diagnosis"
	"mailsidecar/handler"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
)

// relayBoard knows how the relays fare, from the attempts that go through it.
type relayBoard struct {
	configs []config.Relay
	relays  []*smtp.Relay
	pauses  func() []queue.Pause
	resume  func(relayName string) // called for a relay that a check finds at work
	observe func(mailer.Attempt)   // nil: nobody else wants to know
	log     *slog.Logger

	mu   sync.Mutex
	seen []relaySeen // by relay
}

// relaySeen is what the last attempt showed of a relay.
type relaySeen struct {
	serving mailer.Rung
	failure *mailer.Failure // nil when the relay itself was all right
}

func newRelayBoard(configs []config.Relay, relays []*smtp.Relay, observe func(mailer.Attempt)) *relayBoard {
	return &relayBoard{
		configs: configs, relays: relays, observe: observe, seen: make([]relaySeen, len(relays)),
		pauses: func() []queue.Pause { return nil }, resume: func(string) {}, log: slog.New(slog.DiscardHandler),
	}
}

// watch returns the relay with the number i, watched.
func (b *relayBoard) watch(i int) mailer.Deliverer { return &watchedRelay{b.relays[i], b, i} }

// watchedRelay is a relay whose attempts the board sees.
type watchedRelay struct {
	*smtp.Relay
	board  *relayBoard
	number int
}

// Deliver implements [mailer.Deliverer].
func (w *watchedRelay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	a := w.Relay.Deliver(ctx, env, c)
	if ctx.Err() == nil { // what ends with the service says nothing of the relay
		w.board.note(w.number, a)
	}
	return a
}

func (b *relayBoard) note(i int, a mailer.Attempt) {
	if now, told := seenIn(a); told {
		b.mu.Lock()
		before := b.seen[i].failure
		b.seen[i] = now
		b.mu.Unlock()
		if f := now.failure; f != nil && (before == nil || smtp.ProblemOf(before) != smtp.ProblemOf(f)) {
			b.logTrouble(b.configs[i], f)
		}
	}
	if b.observe != nil {
		b.observe(a)
	}
}

// seenIn is what a shows of the relay: nothing where its rate was used up, for
// then it was not asked.
func seenIn(a mailer.Attempt) (now relaySeen, told bool) {
	now = relaySeen{serving: a.Rung}
	for _, r := range a.Results {
		switch f := r.Failure; {
		case f == nil || f.Class != mailer.ClassRelay:
		case errors.As(f.Err, new(*mailer.RateError)):
			return relaySeen{}, false
		default:
			now = relaySeen{failure: f}
		}
	}
	return now, true
}

// logTrouble tells what keeps a relay from being used, when that is new, and
// which setting may change it: "mailsidecar check" says more.
func (b *relayBoard) logTrouble(c config.Relay, f *mailer.Failure) {
	ports := []int{f.Port}
	if f.Port == 0 {
		ports = nil
		for _, rung := range ladder(c) {
			ports = append(ports, rung.Port)
		}
	}
	a := diagnosis.OfFailure(f, c.Host, ports, relayPrefix(c))
	b.log.Error("relay cannot be used", "relay", f.Relay, "stage", f.Stage.String(), "code", f.Reply.Code, "cause", f.Error(),
		"found", a.Found, "do", a.Do)
}

// Status implements [handler.Relays].
func (b *relayBoard) Status() []handler.RelayStatus {
	pauses := map[string]queue.Pause{}
	for _, p := range b.pauses() {
		pauses[p.Relay] = p
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]handler.RelayStatus, len(b.relays))
	for i, r := range b.relays {
		c := b.configs[i]
		all[i] = handler.RelayStatus{
			Name: r.Name(), Host: c.Host, Ladder: ladder(c), Senders: c.Senders,
			Serving: b.seen[i].serving, Failure: b.seen[i].failure, Connections: r.Connections(), Turns: r.Turns(),
		}
		if p, ok := pauses[r.Name()]; ok {
			all[i].PausedUntil, all[i].Failure = p.Until, p.Reason
		}
	}
	return all
}

// Check implements [handler.Relays].
func (b *relayBoard) Check(ctx context.Context) []smtp.Report {
	reports := checkRelays(ctx, b.relays)
	for _, r := range reports {
		if r.OK {
			b.resume(r.Name)
		}
	}
	return reports
}
