package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailsidecar/queue/dispatch"
)

// ManualPause says that a person keeps mail from a relay.
type ManualPause = dispatch.ManualPause

// ErrPaused: a person has paused every relay that may take the message, and there is no
// store for it to wait in.
var ErrPaused = errors.New("relay paused by an operator")

// UnknownRelayError says which relays there are.
type UnknownRelayError struct {
	Name  string
	Known []string
}

func (e *UnknownRelayError) Error() string {
	return fmt.Sprintf("no relay is named %q; there are: %s", e.Name, strings.Join(e.Known, ", "))
}

// manualInterval is how often the log says that a pause lasts.
const manualInterval = time.Hour

// manual has the pauses that a person wishes. The dispatcher has them too, but does not
// know when the store did last, nor the log.
type manual struct {
	shared
	driver *driver

	// turn is held until the store was read, and while it is written, so that the last wish
	// counts. It is no mutex: who waits for it must end with its context where the store hangs.
	turn     chan struct{}
	list     []ManualPause // of relays that are configured
	told     map[string]time.Time
	recalled bool
	// doubt says that the store may have other pauses than list: the outcome of the last write
	// is not known.
	doubt bool
}

func newManual(s shared, dr *driver) *manual {
	m := &manual{shared: s, driver: dr, turn: make(chan struct{}, 1), told: map[string]time.Time{}}
	m.turn <- struct{}{} // until recall gives it back
	return m
}

// takeTime is how long a wish waits for its turn where the store is shared: its database may not
// answer to the one before, or to the start.
const takeTime = 2 * time.Second

// take waits for the turn; give gives it back.
func (m *manual) take(ctx context.Context) error {
	var over <-chan time.Time
	if m.owner.store != nil {
		timer := time.NewTimer(takeTime)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case m.turn <- struct{}{}:
		return nil
	case <-over:
		return fmt.Errorf("%w: %w: no turn within %v", ErrUnavailable, ErrNothingDone, takeTime)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *manual) give() { <-m.turn }

// PauseRelay lets no attempt begin at the relay any more until then, or until
// [Durable.ResumeRelay]; a zero time means no end. Attempts under way end. It survives a
// restart. The error may be an [*UnknownRelayError].
func (d *Durable) PauseRelay(ctx context.Context, name string, until time.Time, reason string) (ManualPause, error) {
	return d.manual.pause(ctx, name, until, reason)
}

// ResumeRelay ends what PauseRelay began; it does nothing where the relay is not paused.
func (d *Durable) ResumeRelay(ctx context.Context, name string) error {
	return d.manual.resume(ctx, name)
}

// ManualPauses lists the relays that a person has paused.
func (d *Durable) ManualPauses() (pauses []ManualPause) {
	d.driver.ask(func(p *dispatch.Dispatcher, now time.Time) { pauses = p.ManualPauses(now) })
	return pauses
}

// recall takes the pauses from the store, before deliveries begin. Those of relays that are
// not configured any more are forgotten.
func (m *manual) recall(ctx context.Context) error {
	if m.recalled { // by a start that failed later
		return nil
	}
	stored, err := m.store.ManualPauses(ctx)
	if err != nil {
		return fmt.Errorf("read pauses: %w", err)
	}
	m.recalled = true
	defer m.give()
	for _, p := range stored {
		switch {
		case p.Over(m.now()):
		case len(m.router.named(p.Relay)) == 0:
			m.log.Warn("pause of a relay that is not configured is forgotten", "relay", p.Relay, "since", p.Since)
		default:
			p.Relay = m.router.relays[m.router.named(p.Relay)[0]].Name() // it may have got a number since
			m.list = append(m.list, p)
			m.apply(p)
			m.tell(p, m.now())
		}
	}
	return nil
}

func (m *manual) pause(ctx context.Context, name string, until time.Time, reason string) (ManualPause, error) {
	if err := m.known(name); err != nil {
		return ManualPause{}, err
	}
	if err := m.take(ctx); err != nil {
		return ManualPause{}, err
	}
	defer m.give()
	p := ManualPause{Relay: name, Since: m.now(), Reason: reason}
	if !until.IsZero() {
		p.Until = until.UTC().Truncate(time.Microsecond)
	}
	list := append(m.without(name), p)
	if err := m.write(ctx, list, name); err != nil {
		return ManualPause{}, err
	}
	m.list = list
	m.apply(p)
	delete(m.told, name)
	m.tell(p, p.Since)
	return p, nil
}

func (m *manual) resume(ctx context.Context, name string) error {
	if err := m.known(name); err != nil {
		return err
	}
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.give()
	list := m.without(name)
	if len(list) == len(m.list) && !m.doubt && m.owner.store == nil {
		return nil
	}
	if err := m.write(ctx, list, name); err != nil {
		return err
	}
	if len(list) == len(m.list) {
		return nil
	}
	m.list = list
	m.end(name, true)
	return nil
}

// end lets mail go to the relay again.
func (m *manual) end(name string, resumed bool) {
	delete(m.told, name)
	for _, i := range m.router.named(name) {
		m.driver.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders { return d.EndPause(i, now) })
	}
	logManualEnd(m.log, name, resumed)
}

// write stores the list; where the store is shared, what it has of one relay. Where that fails it
// may have happened: what is in memory counts then, and look writes that. What a shared store
// has counts, and refresh reads that.
func (m *manual) write(ctx context.Context, list []ManualPause, name string) error {
	if m.owner.store != nil {
		list = slices.DeleteFunc(slices.Clone(list), func(p ManualPause) bool { return p.Relay != name })
		return m.store.SetManualPauses(ctx, list, name)
	}
	err := m.store.SetManualPauses(ctx, list)
	m.doubt = err != nil
	return err
}

// overFor is how long a pause is over before a shared store forgets it: the clock of another
// instance may be behind.
const overFor = 10 * time.Minute

// refresh takes over what other instances have stored. While a wish is being stored it does
// nothing.
func (m *manual) refresh(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
		defer m.give()
	default:
		return nil
	}
	stored, err := m.store.ManualPauses(ctx)
	if err != nil {
		return err
	}
	now := m.now()
	var list []ManualPause
	for _, p := range stored {
		switch {
		case p.Over(now.Add(-overFor)):
			if err := m.store.SetManualPauses(ctx, nil, p.Relay); err != nil {
				return err
			}
		case p.Over(now), len(m.router.named(p.Relay)) == 0: // another instance may know the relay
		default:
			named := m.router.relays[m.router.named(p.Relay)[0]].Name()
			if named != p.Relay {
				stale := p.Relay
				p.Relay = named
				if err := m.store.SetManualPauses(ctx, []ManualPause{p}, stale, named); err != nil {
					return err
				}
			}
			list = append(list, p)
		}
	}
	for _, p := range m.list {
		if !slices.ContainsFunc(list, func(q ManualPause) bool { return q.Relay == p.Relay }) {
			m.end(p.Relay, !p.Over(now))
		}
	}
	for _, p := range list {
		if !slices.Contains(m.list, p) {
			delete(m.told, p.Relay)
			m.apply(p)
		}
		m.tell(p, now)
	}
	m.list = list
	return nil
}

// without is the list without a relay.
func (m *manual) without(name string) []ManualPause {
	return slices.DeleteFunc(slices.Clone(m.list), func(p ManualPause) bool { return p.Relay == name })
}

func (m *manual) known(name string) error { return knownRelay(name, m.router.names()) }

func knownRelay(name string, names []string) error {
	if !slices.Contains(names, name) {
		return &UnknownRelayError{name, names}
	}
	return nil
}

func (m *manual) apply(p ManualPause) {
	for _, i := range m.router.named(p.Relay) {
		m.driver.event(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders { return d.Pause(i, p, now) })
	}
}

// tell logs a pause, and again every hour that it lasts.
func (m *manual) tell(p ManualPause, now time.Time) {
	if last, told := m.told[p.Relay]; told && now.Sub(last).Abs() < manualInterval {
		return
	}
	m.told[p.Relay] = now
	logManual(m.log, p)
}

// look is called every minute. It logs what lasts, and forgets what is over. While a wish is
// being stored it does nothing: the leases wait for whoever calls it.
func (m *manual) look(ctx context.Context) {
	select {
	case m.turn <- struct{}{}:
		defer m.give()
	default:
		return
	}
	if m.owner.store != nil { // refresh does it
		return
	}
	now := m.now()
	var left, over []ManualPause
	for _, p := range m.list {
		if p.Over(now) {
			over = append(over, p)
			continue
		}
		left = append(left, p)
		m.tell(p, now)
	}
	if len(over) == 0 && !m.doubt {
		return
	}
	if err := m.write(ctx, left, ""); err != nil {
		return // the next start forgets them, too
	}
	m.list = left
	for _, p := range over {
		delete(m.told, p.Relay)
		logManualEnd(m.log, p.Relay, false)
	}
}
