package service

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"

	"mailsidecar/config"
	"mailsidecar/handler"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// relayMonitor knows how the relays fare, from the attempts that go through it.
type relayMonitor struct {
	configs []config.Relay
	relays  []Relay // one for each of configs
	pauses  func() []queue.Pause
	resume  func(relayName string) // called for a relay that a check finds at work
	observe func(mailer.Attempt)   // called for every attempt; or nil
	from    string                 // the sender that checks try; empty tries none
	log     *slog.Logger

	mu   sync.Mutex
	seen []relayState // by relay
}

var _ handler.Relays = (*relayMonitor)(nil)

// relayState is what the last attempt showed of a relay.
type relayState struct {
	serving mailer.Rung
	failure *mailer.Failure // nil when the relay itself was all right
}

func newRelayMonitor(configs []config.Relay, relays []Relay, observe func(mailer.Attempt), log *slog.Logger) *relayMonitor {
	return &relayMonitor{
		configs: configs, relays: relays, observe: observe, log: log, seen: make([]relayState, len(relays)),
		pauses: func() []queue.Pause { return nil }, resume: func(string) {},
	}
}

// routes says which relay takes whose mail. The relays in them are watched.
func (m *relayMonitor) routes() queue.Routes {
	routes := make(queue.Routes, len(m.relays))
	for i, r := range m.relays {
		routes[i] = queue.Route{Relay: &watchedRelay{r, m, i}, Senders: m.configs[i].Senders}
	}
	return routes
}

// watchedRelay is a relay whose attempts the monitor sees.
type watchedRelay struct {
	Relay
	monitor *relayMonitor
	number  int
}

// Deliver has the relay make the attempt, and records what it shows of the relay.
func (w *watchedRelay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	a := w.Relay.Deliver(ctx, env, c)
	if ctx.Err() == nil { // an attempt that ends with the service says nothing of the relay
		w.monitor.note(w.number, a)
	}
	return a
}

func (m *relayMonitor) note(i int, a mailer.Attempt) {
	if now, known := stateIn(a); known {
		m.mu.Lock()
		before := m.seen[i].failure
		m.seen[i] = now
		m.mu.Unlock()
		if f := now.failure; f != nil && (before == nil || adviceOn(m.configs[i], before).Found != adviceOn(m.configs[i], f).Found) {
			m.logTrouble(m.configs[i], f)
		}
	}
	if m.observe != nil {
		m.observe(a)
	}
}

// stateIn is what the attempt shows of the relay. known is false where the relay's rate
// was used up: then the relay was not asked.
func stateIn(a mailer.Attempt) (now relayState, known bool) {
	now = relayState{serving: a.Rung}
	for _, r := range a.Results {
		switch f := r.Failure; {
		case f == nil || f.Class != mailer.ClassRelay:
		case errors.As(f.Err, new(*mailer.RateError)):
			return relayState{}, false
		default:
			now = relayState{failure: f}
		}
	}
	return now, true
}

// logTrouble logs why a relay cannot be used, and which setting may change that:
// "mailsidecar check" says more.
func (m *relayMonitor) logTrouble(c config.Relay, f *mailer.Failure) {
	a := adviceOn(c, f)
	m.log.Error("relay cannot be used", "relay", f.Relay, "stage", f.Stage.String(), "code", f.Reply.Code, "cause", f.Error(),
		"found", a.Found, "do", a.Do)
}

// Status reports of every relay what its last attempt showed, or why the queue does not
// ask it now.
func (m *relayMonitor) Status() []handler.RelayStatus {
	pauses := map[string]queue.Pause{}
	for _, p := range m.pauses() {
		pauses[p.Relay] = p
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]handler.RelayStatus, len(m.relays))
	for i, r := range m.relays {
		c := m.configs[i]
		all[i] = handler.RelayStatus{
			Name: r.Name(), Host: c.Host, Ladder: ladder(c), Senders: c.Senders,
			Serving: m.seen[i].serving, Failure: m.seen[i].failure, Connections: r.Connections(), Turns: r.Turns(), Logins: r.Logins(),
		}
		if p, ok := pauses[r.Name()]; ok {
			all[i].PausedUntil, all[i].Failure = p.Until, p.Reason
		}
		all[i].OAuth2, all[i].Advice = OAuth2Status(r), forAPI(statusAdvice(c, r, all[i]))
	}
	return all
}

// Check checks every relay, and ends the pause of each that works. An empty sender
// means the one of the settings.
func (m *relayMonitor) Check(ctx context.Context, sender string) []handler.RelayReport {
	reports := make([]handler.RelayReport, len(m.relays))
	for i, r := range CheckRelays(ctx, m.configs, m.relays, cmp.Or(sender, m.from)) {
		if r.OK {
			m.resume(r.Name)
		}
		reports[i] = handler.RelayReport{
			Report: r, OAuth2: OAuth2Status(m.relays[i]), Advice: forAPI(CheckAdvice(AdviceSettings(m.configs[i]), m.relays[i], r)),
		}
	}
	return reports
}
