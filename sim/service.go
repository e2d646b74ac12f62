package sim

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"mailsidecar/handler"
	"mailsidecar/handler/compat/all"
	"mailsidecar/handler/keys"
	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/sim/face"
	"mailsidecar/sim/network"
	"mailsidecar/units"
)

// stopTimeout is MAILSIDECAR_SHUTDOWN_TIMEOUT.
const stopTimeout = 8 * time.Second

// farewells is how long it takes at most to say QUIT to relays that answer at once.
const farewells = time.Second

// service is one run of the product, wired as package service does it.
type service struct {
	history *history
	node    *node
	life    int // its place among the lives
	queue   *queue.Durable
	http    *handler.Server
	relays  []*smtp.Relay
	line    *network.Line
	face    *face.Face
	shared  *memory.Shared // where others share the store; else nil
	link    *face.Link

	ctx      context.Context //nolint:containedctx // it spans the requests of this run
	crash    context.CancelFunc
	endQueue context.CancelFunc
	done     chan struct{} // closed when the queue has ended; then err is set
	err      error
	dead     atomic.Bool
	requests sync.WaitGroup
	refuses  atomic.Bool // it accepts no request any more
}

// start begins a run of the node on the store.
func (h *history) start(n *node) (*service, error) {
	s := &service{history: h, node: n, line: h.network.Line(n.number), done: make(chan struct{})}
	store, err := h.open(s)
	if err != nil {
		return nil, err
	}
	s.ctx, s.crash = context.WithCancel(context.Background())
	var routes queue.Routes
	for _, r := range h.world.Relays {
		made, err := smtp.New(s.relayOptions(r))
		if err != nil {
			return nil, err
		}
		s.relays = append(s.relays, made)
		var d mailer.Deliverer = made
		if h.world.Steps || h.world.shared() {
			d = stepped{made, s}
		}
		routes = append(routes, queue.Route{Relay: d, Senders: r.Senders, Weight: r.Weight, Keys: r.Keys})
	}
	o := queue.Options{
		Store: store, Routes: routes, Workers: h.world.Workers, ExpiresIn: h.world.ExpiresIn, HoldUncertain: h.world.Hold,
		MaxMessages: h.world.MaxMessages, MaxMemory: h.world.MaxMemory, Now: s.now, Random: h.spread,
	}
	if s.queue, err = queue.New(o); err != nil {
		return nil, err
	}
	if err := s.serve(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.endQueue = cancel
	go func() {
		defer close(s.done)
		for {
			// So does package service where the queue is in a database.
			s.err = s.queue.Run(ctx)
			if !errors.Is(s.err, queue.ErrUnavailable) || !h.world.shared() || ctx.Err() != nil || s.dead.Load() {
				return
			}
			time.Sleep(databaseRetry)
		}
	}()
	return s, nil
}

// databaseRetry is the pause before the queue runs again whose database was not there.
const databaseRetry = 500 * time.Millisecond

// skew is by how much the clock of this run is off.
func (s *service) skew() time.Duration { return s.history.skew() + s.node.skew }

func (s *service) now() time.Time { return time.Now().Add(s.skew()) }

func (s *service) relayOptions(r Relay) smtp.Options {
	o := smtp.Options{
		Name: r.Name, Host: "127.0.0.1", Cleartext: !r.TLS, Helo: "app.example", Dial: s.line.Dial,
		MaxConnections: r.UseConnections, MessagesPerConnection: r.MessagesPerConnection,
		MaxRecipients: r.RecipientsPerTransaction, IdleTimeout: r.IdleTimeout, Rate: units.Rate(r.Rate),
	}
	for _, port := range r.Ports {
		o.Ladder = append(o.Ladder, mailer.Rung{Port: port})
	}
	if r.Login {
		o.Username, o.Password, o.Mechanism = "user-"+r.Name, "secret", "PLAIN"
	}
	if r.TLS {
		o.RootCAs = relaytest.RootCAs()
	}
	return o
}

func (s *service) serve() error {
	apis, err := all.Choose(nil)
	if err != nil {
		return err
	}
	o := handler.Options{Submitter: s.queue, Ledger: s.queue, Compat: apis}
	for _, k := range s.history.world.Keys {
		o.Keys = append(o.Keys, keys.Entry{Name: k.Name, Secret: k.Secret(), Senders: []string{k.Domain}, Rate: units.Rate(k.Rate)})
	}
	s.http, err = handler.New(o)
	return err
}

// stop ends the run in order.
func (s *service) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	s.refuses.Store(true)
	s.history.stopping(s)
	s.endQueue()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		s.requests.Wait()
	}()
	select {
	case <-answered:
	case <-ctx.Done():
		s.history.log.Add("service", "cuts requests", "", 0)
	}
	select {
	case <-s.done:
		if s.err != nil {
			s.history.crashed(s) // the store gave no outcome a place in time: the next run takes it for lost
		}
		s.closeRelays(ctx)
	case <-ctx.Done():
		s.history.log.Add("service", "cuts the queue", "", 0)
		s.history.crashed(s)
	}
	s.die()
}

// closeRelays says QUIT. What is open then has been forgotten.
func (s *service) closeRelays(ctx context.Context) {
	closed, began := make(chan struct{}), time.Now()
	go func() {
		defer close(closed)
		for _, r := range s.relays {
			r.Close()
		}
	}()
	select {
	case <-closed:
		if n := s.line.Open(); n > 0 {
			s.history.fail("left", "%d connections are open after the end", n)
		}
		if took := time.Since(began); s.history.world.Calm && took > farewells {
			s.history.fail("left", "it took %v to end the connections that were kept, though no relay hangs", took)
		}
	case <-ctx.Done():
		if !s.history.told.Calmed.IsZero() {
			s.history.fail("left", "connections that hang delayed the stop, though no relay hangs")
		}
	}
}

// die ends the run at once: nothing that it does from then on has an effect.
func (s *service) die() {
	s.dead.Store(true)
	s.refuses.Store(true)
	s.face.Die()
	if s.shared != nil && s.history.lifeOf(s).Crashed {
		s.shared.Crash()
	}
	s.line.Cut()
	s.crash()
	s.endQueue()
}

// buried waits until nothing of a run that died goes on.
func (s *service) buried() {
	s.die()
	s.requests.Wait()
	<-s.done
	for _, r := range s.relays {
		r.Close()
	}
}

// stepped is a relay in a world where the clock is set: the mailer's own clock is not,
// so what it says and hears of times is translated.
type stepped struct {
	*smtp.Relay
	service *service
}

// Deliver makes an attempt.
func (s stepped) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	if !env.Expires.IsZero() {
		env.Expires = env.Expires.Add(-s.service.skew())
	}
	a := s.Relay.Deliver(ctx, env, c)
	by := s.service.skew()
	a.Started = a.Started.Add(by)
	for i := range a.Turns {
		a.Turns[i] = a.Turns[i].Add(by)
	}
	for i := range a.Results {
		a.Results[i].Failure = shifted(a.Results[i].Failure, by)
	}
	return a
}

func shifted(f *mailer.Failure, by time.Duration) *mailer.Failure {
	if f == nil {
		return nil
	}
	g := *f
	switch err := f.Err.(type) { //nolint:errorlint // these are not wrapped
	case *mailer.RateError:
		g.Err = &mailer.RateError{At: err.At.Add(by)}
	case *mailer.LoginError:
		login := *err
		if !login.Next.IsZero() {
			login.Next = login.Next.Add(by)
		}
		g.Err = &login
	}
	return &g
}

// Used tells the relay what an earlier run used of its rate.
func (s stepped) Used(times []time.Time) { s.Relay.Used(moved(times, -s.service.skew())) }

// NoteUsed passes on what the relay tells of a rate.
func (s stepped) NoteUsed(note func(context.Context, []time.Time) error) {
	s.Relay.NoteUsed(func(ctx context.Context, times []time.Time) error {
		return note(ctx, moved(times, s.service.skew()))
	})
}

func moved(times []time.Time, by time.Duration) []time.Time {
	m := make([]time.Time, len(times))
	for i, t := range times {
		m[i] = t.Add(by)
	}
	return m
}
