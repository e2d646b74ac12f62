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
	t       *testing.T
	world   *World
	log     *events.Log
	began   time.Time
	network *network.Network
	relays  []*relay.Relay
	weather *face.Weather
	path    string // of the file of SQLite
	memory  *memory.Store
	off     atomic.Int64 // by how much the clock is off
	spreads atomic.Int64
	usage   queue.Usage // as the queue had it in the end

	clients sync.WaitGroup
	restart sync.Mutex // is held while the service is down on purpose
	graves  sync.WaitGroup

	mu      sync.Mutex
	service *service // nil: it does not run
	ids     map[string]string
	paused  map[string]bool // relays that an action pauses just now
	told    model.History
	found   []string
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

func (h *history) running() *service {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.service
}

// run plays the history.
func (h *history) run() {
	h.prepare()
	h.up()
	for _, a := range h.world.Actions {
		time.Sleep(time.Until(h.began.Add(a.At)))
		h.clients.Go(func() { h.act(a) })
	}
	time.Sleep(time.Until(h.began.Add(h.world.Length)))
	h.clients.Wait()
	h.settle()
	h.down(func(s *service) { s.stop() })
	h.graves.Wait()
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
	h.told.Hold, h.told.Steps, h.told.Calm, h.told.Slack = w.Hold, w.Steps, w.Calm, slack(w)
	h.told.Memory, h.told.Lifetime = w.MaxMemory, w.ExpiresIn
}

// slack is by how much an answer may be late. A request has 30 s beside its wait.
func slack(w *World) time.Duration {
	if w.SlowStore > 0 {
		return 75 * time.Second
	}
	return time.Second
}

// open opens the store, as the start of the service does.
func (h *history) open() (queue.Store, error) {
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
		h.submit(h.world.draft(a.ID, a.ID, false, h.began.Add(a.At)))
	case Repeat, Other:
		of := h.world.action(a.Of)
		h.submit(h.world.draft(a.Of, a.ID, a.Kind == Other, h.began.Add(of.At)))
	case Cancel, Retry, Look:
		h.command(a)
	case RetryAll:
		h.retryAll(a)
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
	if !h.restart.TryLock() {
		return
	}
	defer h.restart.Unlock()
	h.log.Add("service", string(a.Kind), "", 0)
	h.down(end)
	time.Sleep(a.For)
	h.up()
}

// down ends the service.
func (h *history) down(end func(*service)) {
	s := h.running()
	if s == nil {
		return
	}
	end(s)
	h.mu.Lock()
	h.service = nil
	life := &h.told.Lives[len(h.told.Lives)-1]
	life.Ended = time.Now()
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
	s.history.crashed()
	s.die()
}

// crashed notes that the run ends without having stored all.
func (h *history) crashed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told.Lives[len(h.told.Lives)-1].Crashed = true
}

// stopping notes that the run is told to stop.
func (h *history) stopping() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told.Lives[len(h.told.Lives)-1].Stopping = time.Now()
}

// up starts the service, again and again as a supervisor does.
func (h *history) up() {
	for n := 0; ; n++ {
		store, err := h.open()
		if err == nil {
			var s *service
			if s, err = h.start(store); err == nil && h.started(s) {
				return
			}
		}
		if err != nil {
			h.fail("start", "%v", err)
			return
		}
		if n > 10_000 {
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
	h.service = s
	h.told.Lives = append(h.told.Lives, model.Life{Begun: time.Now()})
	h.mu.Unlock()
	h.log.Add("service", "starts", "", 0)
	for {
		select {
		case <-s.done:
			h.log.Add("service", "does not start", "", 0)
			s.crashes()
			h.down(func(*service) {})
			return false
		case <-time.After(time.Millisecond + h.world.chance.Of("poll").Between(0, time.Microsecond)):
		}
		if err := s.queue.Ready(s.ctx); err == nil || errors.Is(err, queue.ErrDiskFull) || s.dead.Load() {
			return true
		}
	}
}
