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

// What instances at one store have in common beside messages: the pauses of relays. Those that a
// person wishes are in the store as ever, see manual. Those because of trouble are notes. What
// an instance meets it tells at once, and it looks every second what others have told.
// One of them probes: it has to ask before.

const (
	// commonPoll is how often an instance looks what others have stored.
	commonPoll = time.Second
	// commonTime is how long one look, or one change, may take, and askTime how long a delivery
	// waits for the answer whether it may probe.
	commonTime = 5 * time.Second
	askTime    = 2 * time.Second
	// heardLately is how long what was heard of others holds before messages are claimed.
	heardLately = 50 * time.Millisecond
	// relayKind is the kind of the notes of relays in trouble.
	relayKind = "relay"
	// othersLater is how much later than the instance that met a failure others probe, and once more
	// up to as much at random: they learn meanwhile what became of its probe.
	othersLater = time.Second
)

// common is that of one instance; nil where the store is not shared.
type common struct {
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

func newCommon(s shared, dr *driver) *common {
	if s.owner.store == nil {
		return nil
	}
	return &common{
		shared: s, driver: dr, who: uuid.NewString(), kick: make(chan struct{}, 1),
		telling: make(chan struct{}, 1), told: map[int]told{}, seen: map[int][]byte{}, moved: map[int]int{},
	}
}

// run tells and learns, until ctx ends.
func (c *common) run(ctx context.Context, m *manual) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.kick:
			c.tell(ctx)
			continue
		case <-timer.C:
			timer.Reset(commonPoll)
		}
		within, cancel := context.WithTimeout(ctx, commonTime)
		if err := m.refresh(within); err != nil {
			c.log.Debug("look for pauses that other instances have stored", "error", err)
		}
		c.tell(within)
		if err := c.learn(within); err != nil {
			c.log.Debug("look for relays that other instances have found in trouble", "error", err)
		}
		cancel()
	}
}

// news is what the dispatcher has found out.
func (c *common) news(n *dispatch.News) {
	if c == nil || n == nil || !n.Paused && !n.Resumed {
		return
	}
	pause := n.Pause
	if n.Resumed {
		pause.Failures = 0
	}
	c.mu.Lock()
	for i, r := range c.router.relays {
		if r.Name() == pause.Relay {
			t := c.told[i]
			t.pause = &pause
			c.told[i] = t
		}
	}
	c.mu.Unlock()
	c.look()
}

func (c *common) look() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// tell writes what is not told yet. What fails is tried again after a second.
func (c *common) tell(ctx context.Context) {
	select {
	case c.telling <- struct{}{}:
		defer func() { <-c.telling }()
	case <-ctx.Done():
		return
	}
	for i := range c.router.relays {
		c.mu.Lock()
		t, any := c.told[i]
		seen := c.seen[i]
		delete(c.told, i)
		c.moved[i]++
		c.mu.Unlock()
		if !any {
			continue
		}
		if err := c.tellOf(ctx, i, t, seen); err != nil {
			c.log.Debug("tell other instances of a relay", "relay", c.router.relays[i].Name(), "error", err)
			c.mu.Lock()
			later := c.told[i]
			if later.pause == nil {
				later.pause = t.pause
			}
			later.over = later.over || t.over
			c.told[i] = later
			c.mu.Unlock()
		}
	}
}

func (c *common) tellOf(ctx context.Context, relay int, t told, seen []byte) error {
	ctx, cancel := context.WithTimeout(ctx, commonTime)
	defer cancel()
	var after []byte
	var at clocks
	var news bool // others have met something else
	err := c.owner.store.ChangeNote(ctx, relayKind, c.router.relays[relay].Name(), func(value []byte, now time.Time) []byte {
		at, news = clocks{c.now(), now}, false
		n := readRelayNote(value)
		switch {
		case t.pause == nil:
			news = !bytes.Equal(value, seen)
		case t.pause.Failures == 0 && (n == nil || n.Probe == c.who || bytes.Equal(value, seen)):
			n = nil
		case t.pause.Failures == 0: // what was met since is newer
			news = true
		default:
			met := &relayNote{
				Failures: t.pause.Failures, Since: at.toThere(t.pause.Since), Until: at.toThere(t.pause.Until),
				Reason: packFailure(t.pause.Reason, at), By: c.who,
			}
			n = n.merge(c.who, met)
			news = n != met
		}
		if n != nil && t.over && n.Probe == c.who {
			n.Probe, n.ProbeUntil = "", 0
		}
		after = n.bytes()
		return after
	})
	if err != nil {
		return err
	}
	if news {
		c.apply(relay, after, at, nil)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[relay] = after
	c.moved[relay]++
	return nil
}

// learnLately is learn before the store is looked at: what another instance has given back because a
// relay is in trouble must not be tried there. It does nothing where others were heard just now.
func (c *common) learnLately(ctx context.Context) {
	if c == nil {
		return
	}
	c.mu.Lock()
	lately := !c.heard.IsZero() && time.Since(c.heard) < heardLately
	c.mu.Unlock()
	if lately {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := c.learn(ctx); err != nil {
		c.log.Debug("look for relays that other instances have found in trouble", "error", err)
	}
}

// learn reads what others have told.
func (c *common) learn(ctx context.Context) error {
	here, began := c.now(), time.Now()
	c.mu.Lock()
	before := maps.Clone(c.moved)
	c.mu.Unlock()
	notes, there, err := c.owner.store.Notes(ctx, relayKind)
	if err != nil {
		return err
	}
	for i, r := range c.router.relays {
		c.mu.Lock()
		c.heard = began
		_, untold := c.told[i]
		known := bytes.Equal(c.seen[i], notes[r.Name()]) || c.moved[i] != before[i]
		c.mu.Unlock()
		if !untold && !known {
			c.apply(i, notes[r.Name()], clocks{here, there}, nil)
		}
	}
	return nil
}

// apply has the dispatcher know a note. yields is a delivery that may not probe.
func (c *common) apply(relay int, value []byte, at clocks, yields *dispatch.Job) {
	c.mu.Lock()
	c.seen[relay] = bytes.Clone(value)
	c.moved[relay]++
	c.mu.Unlock()
	pause := dispatch.Pause{Relay: c.router.relays[relay].Name()}
	if n := readRelayNote(value); n != nil {
		pause.Failures, pause.Since, pause.Until = n.Failures, at.toHere(n.Since), at.toHere(n.Until)
		pause.Reason = n.Reason.unpack(pause.Relay, at)
		if n.By != c.who {
			pause.Until = pause.Until.Add(othersLater + time.Duration(c.opts.Random()*float64(othersLater)).Truncate(time.Microsecond))
		}
		if n.Probe != "" && n.Probe != c.who {
			pause.Until = latest(pause.Until, at.toHere(n.ProbeUntil))
		}
	}
	c.driver.learned(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders { return d.Learn(relay, pause, yields, now) })
}

// mayProbe says whether a delivery that the dispatcher has taken may ask the relay, and whether it is
// a probe: that ends with probed.
func (c *common) mayProbe(ctx context.Context, relay int, j *dispatch.Job) (may, probes bool) {
	if c == nil {
		return true, false
	}
	var asked bool
	c.driver.ask(func(d *dispatch.Dispatcher, _ time.Time) { probes, asked = d.Probing(relay, j) })
	if !probes {
		return true, false
	}
	c.mu.Lock()
	_, untold := c.told[relay]
	c.mu.Unlock()
	if untold { // others do not know yet of the pause that it is to end
		c.tell(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var granted bool
	var after []byte
	var at clocks
	err := c.owner.store.ChangeNote(ctx, relayKind, c.router.relays[relay].Name(), func(value []byte, now time.Time) []byte {
		at = clocks{c.now(), now}
		n := readRelayNote(value)
		if granted = n == nil || n.begin(c.who, asked, now); granted {
			value = n.bytes()
		}
		after = value
		return value
	})
	switch {
	case err != nil: // it waits, and asks again
		c.log.Debug("ask whether a relay may be probed", "relay", c.router.relays[relay].Name(), "error", err)
		c.driver.learned(func(d *dispatch.Dispatcher, now time.Time) dispatch.Orders {
			k := d.PauseOf(relay)
			k.Until = latest(k.Until, now.Add(othersLater))
			return d.Learn(relay, k, j, now)
		})
		return false, false
	case !granted:
		c.apply(relay, after, at, j)
		return false, false
	case len(after) == 0: // another one has found that it works
		c.apply(relay, nil, at, nil)
		return true, false
	}
	c.mu.Lock()
	c.seen[relay] = after
	c.moved[relay]++
	c.mu.Unlock()
	return true, true
}

// probed says that a probe is over.
func (c *common) probed(relay int) {
	c.mu.Lock()
	t := c.told[relay]
	t.over = true
	c.told[relay] = t
	c.mu.Unlock()
	c.look()
}
