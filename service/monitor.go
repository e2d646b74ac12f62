package service

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"mailsidecar/api"
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
	manual  func() []queue.ManualPause
	resume  func(relayName string) // called for a relay that a check finds at work
	observe func(mailer.Attempt)   // called for every attempt; or nil
	from    string                 // the sender that checks try; empty tries none
	log     *slog.Logger
	senders []refusedSenders // by relay
	out     *outgoing        // what went out; nil where nobody wants to know

	mu   sync.Mutex
	seen []relayState // by relay
}

var _ handler.Relays = (*relayMonitor)(nil)

// relayState is what the last attempt showed of a relay.
type relayState struct {
	serving mailer.Rung
	failure *mailer.Failure // nil when the relay itself was all right
	since   time.Time       // when the failures began
	told    time.Time       // when the log last said so
}

// troubleInterval is how often the log says that a relay cannot be used.
const troubleInterval = time.Hour

func newRelayMonitor(configs []config.Relay, relays []Relay, observe func(mailer.Attempt), log *slog.Logger) *relayMonitor {
	return &relayMonitor{
		configs: configs, relays: relays, observe: observe, log: log, seen: make([]relayState, len(relays)), senders: make([]refusedSenders, len(relays)),
		pauses: func() []queue.Pause { return nil }, manual: func() []queue.ManualPause { return nil }, resume: func(string) {},
	}
}

// routes says which relay takes whose mail. The relays in them are watched.
func (m *relayMonitor) routes() queue.Routes {
	routes := make(queue.Routes, len(m.relays))
	for i, r := range m.relays {
		c := m.configs[i]
		routes[i] = queue.Route{Relay: &watchedRelay{r, m, i}, Senders: c.Senders, Weight: c.Weight, Keys: c.Keys}
	}
	return routes
}

// rewrites reports whether some relay may change any message.
func (m *relayMonitor) rewrites() bool { return slices.ContainsFunc(m.relays, Relay.Rewrites) }

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
		w.monitor.noteSender(w.number, env, a)
	}
	return a
}

func (m *relayMonitor) note(i int, a mailer.Attempt) {
	m.noteOutgoing(i, a)
	if now, known := stateIn(a); known {
		m.follow(i, now)
	}
	if m.observe != nil {
		m.observe(a)
	}
}

// follow takes the relay's new state, and logs it where it is news, or where the log has not
// said for an hour that the relay cannot be used.
func (m *relayMonitor) follow(i int, now relayState) {
	c, at := m.configs[i], time.Now()
	m.mu.Lock()
	before := m.seen[i]
	tell := false
	if f := now.failure; f != nil {
		now.since, now.told = before.since, before.told
		if before.failure == nil {
			now.since = at
		}
		tell = before.failure == nil || adviceOn(c, before.failure).Found != adviceOn(c, f).Found || at.Sub(before.told) >= troubleInterval
		if tell {
			now.told = at
		}
	}
	m.seen[i] = now
	m.mu.Unlock()
	switch {
	case tell:
		m.logTrouble(c, now.failure)
	case now.failure == nil && before.failure != nil:
		m.log.Info("relay can be used again", "relay", m.relays[i].Name(), "after_ms", at.Sub(before.since).Milliseconds())
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
// "mailsidecar check" says more. An operator is called only where somebody has to do
// something.
func (m *relayMonitor) logTrouble(c config.Relay, f *mailer.Failure) {
	a, level, until := adviceOn(c, f), slog.LevelError, []any(nil)
	if f.Passes {
		level = slog.LevelWarn
		if !f.Until.IsZero() {
			until = []any{"until", f.Until}
		}
	}
	m.log.Log(context.Background(), level, "relay cannot be used", append([]any{
		"relay", f.Relay, "stage", f.Stage.String(), "code", f.Reply.Code,
		"cause", f.Error(), "found", a.Found, "do", a.Do,
	}, until...)...)
}

// Status reports of every relay what its last attempt showed, or why the queue does not
// ask it now.
func (m *relayMonitor) Status() []handler.RelayStatus {
	pauses := map[string]queue.Pause{}
	for _, p := range m.pauses() {
		pauses[p.Relay] = p
	}
	manual := map[string]*queue.ManualPause{}
	for _, p := range m.manual() {
		manual[p.Relay] = &p
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]handler.RelayStatus, len(m.relays))
	for i, r := range m.relays {
		c := m.configs[i]
		all[i] = handler.RelayStatus{
			Name: r.Name(), Host: c.Host, Ladder: ladder(c), Senders: c.Senders, Keys: c.Keys,
			CertificateExpires: r.Certificates()[m.seen[i].serving.Port], LastDelivery: m.out.lastDeliveryOf(i),
			Serving: m.seen[i].serving, Failure: m.seen[i].failure, Connections: r.Connections(), Turns: r.Turns(), Logins: r.Logins(),
		}
		p, paused := pauses[r.Name()] // for its trouble
		if paused {
			all[i].PausedUntil, all[i].Failure = p.Until, p.Reason
		}
		all[i].FailingSince = m.failingSince(i, p, now)
		if !all[i].FailingSince.IsZero() {
			all[i].FailedAt = latest(m.out.lastAttempt(i), all[i].FailingSince)
		}
		all[i].OAuth2, all[i].Advice = OAuth2Status(r), forAPI(statusAdvice(c, r, all[i]))
		if p := manual[r.Name()]; p != nil {
			all[i].Manual, all[i].Advice = p, append([]api.Advice{pauseAdvice(*p)}, all[i].Advice...)
		}
	}
	return all
}

// failingSince is since when the relay cannot be used; zero where it can, or where nothing was tried lately.
// A pause lasts until mail goes there again: its probes, and what they meet, do not begin it anew. The caller
// holds the lock.
func (m *relayMonitor) failingSince(i int, p queue.Pause, now time.Time) time.Time {
	since := p.Since
	if !p.Until.After(now) && (p.Reason == nil || p.Reason.Passes || now.Sub(m.out.lastAttempt(i)) > staleFailure) {
		since = time.Time{} // a probe has been due for long, and there was no mail for it
	}
	if seen := m.seen[i]; seen.failure != nil && m.judge(i, seen.failure, p.Until, now) == relayUnusable && (since.IsZero() || seen.since.Before(since)) {
		since = seen.since
	}
	return since
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// relayVerdict is whether mail can go out by a relay, as far as is known.
type relayVerdict int

const (
	relayUsable relayVerdict = iota
	relayUnusable
	// relayUnknown is that of a relay which nobody has asked since its last failure could
	// have ended.
	relayUnknown
)

// staleFailure is how long after the last attempt a failure still says how the relay
// is, unless the relay is paused.
const staleFailure = 30 * time.Minute

// judge says whether a relay can be used, of which that failure is the last thing known, or
// nil, and which the queue leaves alone until then. A person's pause does not count.
func (m *relayMonitor) judge(i int, f *mailer.Failure, pausedUntil, now time.Time) relayVerdict {
	switch {
	case pausedUntil.After(now):
		return relayUnusable
	case f == nil:
		return relayUsable
	case f.Passes && !pausedUntil.IsZero(): // the quota of yesterday
		return relayUnknown
	case now.Sub(m.out.lastAttempt(i)) > staleFailure:
		return relayUnknown
	default:
		return relayUnusable
	}
}

// pauseAdvice says who keeps mail from a relay, and how that ends.
func pauseAdvice(p queue.ManualPause) api.Advice {
	a := api.Advice{
		Found: "an operator has paused this relay since " + p.Since.UTC().Format(time.RFC3339),
		Do:    "Nothing, if that is meant. mailsidecar relay resume " + p.Relay + " ends it.",
	}
	if !p.Until.IsZero() {
		a.Found += ", until " + p.Until.UTC().Format(time.RFC3339)
	}
	if p.Reason != "" {
		a.Found += ": " + p.Reason
	}
	a.Found += "."
	return a
}

// Check checks every relay, and ends the pause of each that works. An empty sender
// means the one of the settings.
func (m *relayMonitor) Check(ctx context.Context, sender string) []handler.RelayReport {
	reports := make([]handler.RelayReport, len(m.relays))
	for i, r := range CheckRelays(ctx, m.configs, m.relays, cmp.Or(sender, m.from)) {
		if r.OK {
			m.resume(r.Name)
			m.disprove(i)
		}
		reports[i] = handler.RelayReport{
			Report: r, OAuth2: OAuth2Status(m.relays[i]), Advice: forAPI(CheckAdvice(AdviceSettings(m.configs[i]), m.relays[i], r)),
		}
	}
	return reports
}

// disprove notes that a check has found the relay at work. It says nothing of mail that the
// relay refuses: a check hands over none.
func (m *relayMonitor) disprove(i int) {
	m.mu.Lock()
	f := m.seen[i].failure
	m.mu.Unlock()
	if f != nil && f.Stage < mailer.StageMail {
		m.follow(i, relayState{})
	}
}
