package queue

import (
	"bytes"
	"context"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"

	"mailsidecar/queue/dispatch"
)

// Instances at one store share the pauses of relays. Those that a person wishes are in the store,
// see manual. Those because of trouble are notes. An instance tells at once what it meets, and
// looks every second for what the others have told. One of them probes: it asks before.

const (
	// peersPoll is how often an instance looks what others have stored.
	peersPoll = time.Second
	// peersTime is how long one look, or one change, may take, and askTime how long a delivery
	// waits for the answer whether it may probe.
	peersTime = 5 * time.Second
	askTime   = 2 * time.Second
	// heardLately is how long what was heard of others holds before messages are claimed.
	heardLately = 50 * time.Millisecond
	// relayKind is the kind of the notes of relays in trouble.
	relayKind = "relay"
	// othersLater is how much later than the instance that met a failure others probe, and once more
	// up to as much at random: they learn meanwhile what became of its probe.
	othersLater = time.Second
)

// peers are the other instances, as one instance has them; nil where the store is not shared.
type peers struct {
	shared
	driver *driver
	who    string        // this instance
	kick   chan struct{} // capacity 1: there is something to tell

	telling chan struct{} // capacity 1: has an element while something is told, which must stay in order

	mu   sync.Mutex
	told map[int]told   // by relay: what is not told yet
	seen map[int][]byte // by relay: the note that the dispatcher knows
	// moved counts, by relay, what was told and seen: what was read before is old then.
	moved map[int]int
	// heard is when the others were asked last.
	heard time.Time
}

// told is what this instance has met of a relay.
type told struct {
	pause *dispatch.Pause // nil: nothing; without failures: the relay works
	over  bool            // a probe is over
}

func newPeers(s shared, dr *driver) *peers {
	if s.owner.store == nil {
		return nil
	}
	return &peers{
		shared: s, driver: dr, who: uuid.NewString(), kick: make(chan struct{}, 1),
		telling: make(chan struct{}, 1), told: map[int]told{}, seen: map[int][]byte{}, moved: map[int]int{},
	}
}

// run tells and learns, until ctx ends.
func (p *peers) run(ctx context.Context, m *manual) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.kick:
			p.tell(ctx)
			continue
		case <-timer.C:
			timer.Reset(peersPoll)
		}
		within, cancel := context.WithTimeout(ctx, peersTime)
		if err := m.refresh(within); err != nil {
			p.log.Debug("look for pauses that other instances have stored", "error", err)
		}
		p.tell(within)
		if err := p.learn(within); err != nil {
			p.log.Debug("look for relays that other instances have found in trouble", "error", err)
		}
		cancel()
	}
}

// news is what the dispatcher has found out.
func (p *peers) news(n *dispatch.News) {
	if p == nil || n == nil || !n.Paused && !n.Resumed {
		return
	}
	pause := n.Pause
	if n.Resumed {
		pause.Failures = 0
	}
	p.mu.Lock()
	for i, r := range p.router.relays {
		if r.Name() == pause.Relay {
			t := p.told[i]
			t.pause = &pause
			p.told[i] = t
		}
	}
	p.mu.Unlock()
	p.look()
}

func (p *peers) look() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// tell writes what is not told yet. What fails is tried again after a second.
func (p *peers) tell(ctx context.Context) {
	select {
	case p.telling <- struct{}{}:
		defer func() { <-p.telling }()
	case <-ctx.Done():
		return
	}
	for i := range p.router.relays {
		p.mu.Lock()
		t, found := p.told[i]
		seen := p.seen[i]
		if found {
			delete(p.told, i)
			p.moved[i]++
		}
		p.mu.Unlock()
		if !found {
			continue
		}
		if err := p.tellOf(ctx, i, t, seen); err != nil {
			p.log.Debug("tell other instances of a relay", "relay", p.router.relays[i].Name(), "error", err)
			p.mu.Lock()
			later := p.told[i]
			if later.pause == nil {
				later.pause = t.pause
			}
			later.over = later.over || t.over
			p.told[i] = later
			p.mu.Unlock()
		}
	}
}

func (p *peers) tellOf(ctx context.Context, relay int, t told, seen []byte) error {
	ctx, cancel := context.WithTimeout(ctx, peersTime)
	defer cancel()
	var after []byte
	var at clocks
	var news bool // others have met something else
	err := p.owner.store.ChangeNote(ctx, relayKind, p.router.relays[relay].Name(), func(value []byte, now time.Time) []byte {
		at, news = clocks{p.now(), now}, false
		n := readRelayNote(value)
		switch {
		case t.pause == nil:
			news = !bytes.Equal(value, seen)
		case t.pause.Failures == 0 && (n == nil || n.Probe == p.who || bytes.Equal(value, seen)):
			n = nil
		case t.pause.Failures == 0: // what was met since is newer
			news = true
		default:
			met := &relayNote{
				Failures: t.pause.Failures, Since: at.toThere(t.pause.Since), Until: at.toThere(t.pause.Until),
				Reason: packFailure(t.pause.Reason, at), By: p.who,
			}
			n = n.merge(p.who, met)
			news = n != met
		}
		if n != nil && t.over && n.Probe == p.who {
			n.Probe, n.ProbeUntil = "", 0
		}
		after = n.bytes()
		return after
	})
	if err != nil {
		return err
	}
	if news {
		p.apply(relay, after, at, nil)
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[relay] = after
	p.moved[relay]++
	return nil
}

// learnLately is learn before the store is looked at: what another instance has given back because a
// relay is in trouble must not be tried there. It does nothing where others were heard just now.
func (p *peers) learnLately(ctx context.Context) {
	if p == nil {
		return
	}
	p.mu.Lock()
	lately := !p.heard.IsZero() && time.Since(p.heard) < heardLately
	p.mu.Unlock()
	if lately {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := p.learn(ctx); err != nil {
		p.log.Debug("look for relays that other instances have found in trouble", "error", err)
	}
}

// learn reads what others have told.
func (p *peers) learn(ctx context.Context) error {
	here, began := p.now(), time.Now()
	p.mu.Lock()
	before := maps.Clone(p.moved)
	p.mu.Unlock()
	notes, there, err := p.owner.store.Notes(ctx, relayKind)
	if err != nil {
		return err
	}
	for i, r := range p.router.relays {
		p.mu.Lock()
		p.heard = began
		_, untold := p.told[i]
		known := bytes.Equal(p.seen[i], notes[r.Name()]) || p.moved[i] != before[i]
		p.mu.Unlock()
		if !untold && !known {
			p.apply(i, notes[r.Name()], clocks{here, there}, nil)
		}
	}
	return nil
}

// apply has the dispatcher know a note. yields is a delivery that may not probe.
func (p *peers) apply(relay int, value []byte, at clocks, yields *dispatch.Job) {
	p.mu.Lock()
	p.seen[relay] = bytes.Clone(value)
	p.moved[relay]++
	p.mu.Unlock()
	pause := dispatch.Pause{Relay: p.router.relays[relay].Name()}
	if n := readRelayNote(value); n != nil {
		pause.Failures, pause.Since, pause.Until = n.Failures, at.toHere(n.Since), at.toHere(n.Until)
		pause.Reason = n.Reason.unpack(pause.Relay, at)
		if n.By != p.who {
			pause.Until = pause.Until.Add(othersLater + time.Duration(p.opts.Random()*float64(othersLater)).Truncate(time.Microsecond))
		}
		if n.Probe != "" && n.Probe != p.who {
			pause.Until = latest(pause.Until, at.toHere(n.ProbeUntil))
		}
	}
	p.driver.learned(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders { return d.Learn(relay, pause, yields, now) })
}

// mayProbe says whether a delivery that the dispatcher has taken may ask the relay, and whether it is
// a probe: that ends with probed.
func (p *peers) mayProbe(ctx context.Context, relay int, j *dispatch.Job) (may, probes bool) {
	if p == nil {
		return true, false
	}
	var asked bool
	p.driver.ask(func(d *dispatch.Dispatcher, _ time.Time) { probes, asked = d.Probing(relay, j) })
	if !probes {
		return true, false
	}
	p.mu.Lock()
	_, untold := p.told[relay]
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if untold { // others do not know yet of the pause that it is to end
		p.tell(ctx)
	}
	var granted bool
	var after []byte
	var at clocks
	err := p.owner.store.ChangeNote(ctx, relayKind, p.router.relays[relay].Name(), func(value []byte, now time.Time) []byte {
		at = clocks{p.now(), now}
		n := readRelayNote(value)
		if granted = n == nil || n.begin(p.who, asked, now); granted {
			value = n.bytes()
		}
		after = value
		return value
	})
	switch {
	case err != nil: // it waits, and asks again
		p.log.Debug("ask whether a relay may be probed", "relay", p.router.relays[relay].Name(), "error", err)
		p.driver.learned(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
			k := d.PauseOf(relay)
			k.Until = latest(k.Until, now.Add(othersLater))
			return d.Learn(relay, k, j, now)
		})
		return false, false
	case !granted:
		p.apply(relay, after, at, j)
		return false, false
	case len(after) == 0: // another one has found that it works
		p.apply(relay, nil, at, nil)
		return true, false
	}
	p.mu.Lock()
	p.seen[relay] = after
	p.moved[relay]++
	p.mu.Unlock()
	return true, true
}

// probed says that a probe is over.
func (p *peers) probed(relay int) {
	p.mu.Lock()
	t := p.told[relay]
	t.over = true
	p.told[relay] = t
	p.mu.Unlock()
	p.look()
}
