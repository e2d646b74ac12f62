package sim

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"mailsidecar/mailer/relaytest"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/sqlite"
	"mailsidecar/sim/events"
	"mailsidecar/sim/face"
	"mailsidecar/sim/model"
	"mailsidecar/sim/network"
	"mailsidecar/sim/relay"
)

// Result is what came of a history.
type Result struct {
	Found []string // what must not have happened; each begins with the name of the check
	model.Measured

	Events *events.Log
	Facts  model.History
}

// history is a world at work.
type history struct {
	t        *testing.T
	world    *World
	log      *events.Log
	began    time.Time
	network  *network.Network
	relays   []*relay.Relay
	weather  *face.Weather
	path     string // of the file of SQLite
	memory   *memory.Store
	database *memory.Database // that the nodes share; else nil
	nodes    []*node
	off      atomic.Int64 // by how much the clock is off
	spreads  atomic.Int64
	usage    []queue.Usage // as the queues had it in the end

	clients sync.WaitGroup
	graves  sync.WaitGroup

	mu      sync.Mutex
	ids     map[string]string
	paused  map[string]bool // relays that an action pauses just now
	unknown []Draft         // with an Idempotency-Key
	told    model.History
	found   []string
}

// node is where one instance of the service runs.
type node struct {
	number  int
	skew    time.Duration // by how much its clock is off
	restart sync.Mutex    // is held while the service is down on purpose
	service *service      // nil: it does not run; the history's mutex guards it
}

// warm is done when what the process makes once, and takes random numbers for, is made:
// otherwise its first history would get other random numbers than the next ones.
var warm sync.Once

// Run plays the history of a world, in a bubble of its own, and judges it. The random
// source of the whole process is the world's meanwhile.
func Run(t *testing.T, w *World) Result {
	warm.Do(func() { play(t, NewWorld(0, w.SQLite)) })
	return play(t, w)
}

func play(t *testing.T, w *World) (r Result) {
	defer func() {
		if p := recover(); p != nil {
			r.Found = append(r.Found, fmt.Sprint("bubble: ", p))
		}
	}()
	dir := ""
	if w.SQLite {
		dir = t.TempDir()
	}
	synctest.Test(t, func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, w.Seed)
		h := &history{t: t, world: w, log: events.New(), began: time.Now(), path: filepath.Join(dir, "queue.db"), ids: map[string]string{}, paused: map[string]bool{}}
		r.Events = h.log
		h.run()
		found, measured := model.Check(&h.told)
		r.Found, r.Measured = append(h.found, found...), measured
		r.Facts = h.told
	})
	return r
}

// fail notes what the history itself found.
func (h *history) fail(check, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.found = append(h.found, check+": "+fmt.Sprintf(format, args...))
}

func (h *history) skew() time.Duration { return time.Duration(h.off.Load()) }

func (h *history) now() time.Time { return time.Now().Add(h.skew()) }

// spread keeps apart what failed together.
func (h *history) spread() float64 {
	return h.world.chance.Of("spread").N(int(h.spreads.Add(1))).Float()
}

// running is the run of a node, or of the next one where that is down; nil where all are.
func (h *history) running(node int) *service {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.nodes {
		if s := h.nodes[(node+i)%len(h.nodes)].service; s != nil {
			return s
		}
	}
	return nil
}

// at is the run of this node alone.
func (h *history) at(n *node) *service {
	h.mu.Lock()
	defer h.mu.Unlock()
	return n.service
}

// run plays the history.
func (h *history) run() {
	h.prepare()
	for _, n := range h.nodes {
		h.up(n)
	}
	for _, a := range h.world.Actions {
		time.Sleep(time.Until(h.began.Add(a.At)))
		h.clients.Go(func() { h.act(a) })
	}
	time.Sleep(time.Until(h.began.Add(h.world.Length)))
	h.clients.Wait()
	h.settle()
	for _, n := range h.nodes {
		h.down(n, func(s *service) { s.stop() })
	}
	h.graves.Wait()
	h.weather.Wait()
	h.audit()
	for _, r := range h.relays {
		r.Close()
	}
}

func (h *history) prepare() {
	c, w := h.world.chance, h.world
	hosts := map[int]network.Host{}
	h.told.Relays = map[string]model.Relay{}
	for i, r := range w.Relays {
		o := r.Options
		if r.TLS {
			o.TLS = relaytest.ServerConfig()
		}
		made := relay.New(o, c.Of("the relay").N(i), h.log)
		h.relays = append(h.relays, made)
		for _, port := range r.Ports {
			hosts[port] = made
		}
	}
	h.network = network.New(c.Of("network"), hosts)
	h.weather = face.NewWeather(c.Of("store"), w.SlowStore, h.log)
	h.memory = memory.New(memory.Options{})
	if w.shared() {
		h.database = memory.NewDatabase(w.Lease)
	}
	for i := range max(1, w.Instances) {
		n := &node{number: i}
		if w.shared() {
			n.skew = w.Skews[i]
		}
		h.nodes = append(h.nodes, n)
	}
	h.told.Instances, h.told.Lease, h.told.SharedRates = len(h.nodes), w.Lease, true
	h.told.Hold, h.told.Steps, h.told.Calm, h.told.Slack = w.Hold, w.Steps || w.skewed(), w.Calm, slack(w)
	h.told.Memory, h.told.Lifetime = w.MaxMemory, w.ExpiresIn
}

// slack is by how much an answer may be late. A request has 30 s beside its wait.
func slack(w *World) time.Duration {
	if w.SlowStore > 0 || w.shared() && !w.Calm {
		return 75 * time.Second
	}
	return time.Second
}

// open opens the store for a run, as the start of the service does.
func (h *history) open(s *service) (queue.Store, error) {
	if h.database != nil {
		s.link = h.weather.Link(s.node.number, s.line.Gate())
		s.shared = h.database.Open(memory.Options{Before: s.link.Before, After: s.link.After, Lost: h.weather.Lost})
		f := face.NewShared(s.shared, s.link)
		s.face = f.Face
		return f, nil
	}
	store, err := h.reopen()
	if err != nil {
		return nil, err
	}
	s.face = face.New(store, h.weather)
	return s.face, nil
}

func (h *history) reopen() (queue.Store, error) {
	if h.database != nil {
		return h.database.Open(memory.Options{}), nil
	}
	if h.world.SQLite {
		return sqlite.Open(context.Background(), sqlite.Options{Path: h.path, MinFreeDisk: 1})
	}
	h.memory = h.memory.Reopen()
	return h.memory, nil
}

// act does what the action says.
func (h *history) act(a Action) {
	c := h.world.chance.Of("act").N(a.ID)
	switch a.Kind {
	case Submit:
		h.send(a.Instance, h.world.draft(a.ID, a.ID, false, h.began.Add(a.At)))
	case Repeat, Other:
		of := h.world.action(a.Of)
		h.send(a.Instance, h.world.draft(a.Of, a.ID, a.Kind == Other, h.began.Add(of.At)))
	case Cancel, Retry, Look:
		h.command(a)
	case RetryAll, CancelAll:
		h.all(a)
	case Resend:
		h.resend(a)
	case Move:
		h.move(a)
	case Pause:
		h.pause(a)
	case Drain:
		h.drain(a)
	case Stop:
		h.replace(a, func(s *service) { s.stop() })
	case Crash:
		h.replace(a, func(s *service) { s.crashes() })
	case Suspend:
		h.suspend(a)
	case CutOff, LoseBeats:
		h.cutOff(a)
	case Hang:
		h.hang(a)
	case DiskFull:
		h.log.Add("store", "disk full", "", 0)
		h.weather.Full(true)
		time.Sleep(a.For)
		h.weather.Full(false)
	case FailStore:
		h.weather.Fail(h.world.FailingStore)
		time.Sleep(a.For + c.Between(0, time.Microsecond))
		h.weather.Fail(0)
	case SetClock:
		h.log.Add("clock", "is set", "", int(a.For/time.Second))
		h.off.Add(int64(a.For))
	}
}

// action returns the action with the ID; a Submit that is taken out of the history by
// now has no time.
func (w *World) action(id int) Action {
	for _, a := range w.Actions {
		if a.ID == id {
			return a
		}
	}
	return Action{ID: id}
}

// replace ends the service, and starts it again after a while. It does nothing where it is
// down already.
func (h *history) replace(a Action, end func(*service)) {
	n := h.nodes[a.Instance]
	if !n.restart.TryLock() {
		return
	}
	defer n.restart.Unlock()
	h.log.Add("service", string(a.Kind), "", n.number)
	h.down(n, end)
	time.Sleep(a.For)
	h.up(n)
}

// down ends the service.
func (h *history) down(n *node, end func(*service)) {
	s := h.at(n)
	if s == nil {
		return
	}
	end(s)
	h.mu.Lock()
	n.service = nil
	h.told.Lives[s.life].Ended = time.Now()
	h.mu.Unlock()
	h.bury(s)
}

// bury waits for the end of a run. SQLite's file must be closed before it is opened
// again; a run on the store in memory may do what it likes meanwhile.
func (h *history) bury(s *service) {
	h.graves.Go(func() {
		s.buried()
		if err := s.face.Close(); err != nil {
			h.fail("left", "the store could not be closed: %v", err)
		}
	})
	if h.world.SQLite {
		h.graves.Wait()
	}
}

// crashes is the end of the process.
func (s *service) crashes() {
	s.history.crashed(s)
	s.die()
}

// crashed notes that the run ends without having stored all.
func (h *history) crashed(s *service) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told.Lives[s.life].Crashed = true
}

// stopping notes that the run is told to stop.
func (h *history) stopping(s *service) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told.Lives[s.life].Stopping = time.Now()
}

// lifeOf is what is noted of the run.
func (h *history) lifeOf(s *service) model.Life {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.told.Lives[s.life]
}

// up starts the service, again and again as a supervisor does.
func (h *history) up(n *node) {
	for tries := 0; ; tries++ {
		s, err := h.start(n)
		if err == nil && h.started(s) {
			return
		}
		if err != nil {
			h.fail("start", "%v", err)
			return
		}
		if tries > 10_000 {
			h.fail("start", "the service does not start")
			return
		}
		time.Sleep(time.Second)
	}
}

// started waits until the service serves, and watches over it. It says whether it came
// so far.
func (h *history) started(s *service) bool {
	h.mu.Lock()
	s.node.service = s
	s.life = len(h.told.Lives)
	h.told.Lives = append(h.told.Lives, model.Life{Begun: time.Now(), Instance: s.node.number})
	h.mu.Unlock()
	h.log.Add("service", "starts", "", s.node.number)
	for poll := time.Millisecond; ; {
		if h.database != nil {
			poll = min(2*poll, time.Second) // it may be away for long
		}
		select {
		case <-s.done:
			h.log.Add("service", "does not start", "", 0)
			s.crashes()
			h.down(s.node, func(*service) {})
			return false
		case <-time.After(poll + h.world.chance.Of("poll").Between(0, time.Microsecond)):
		}
		if err := s.queue.Ready(s.ctx); err == nil || errors.Is(err, queue.ErrDiskFull) || s.dead.Load() {
			return true
		}
	}
}
