// Package service makes a running process of the configuration: it wires relays,
// queue and HTTP server, starts them in order, and stops them in order within a time
// limit: see [Start] and [Service.Run].
//
// No other package knows both the configuration and the parts: config knows none
// of them, and they get their options as values.
package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"mailsidecar/config"
	"mailsidecar/handler"
	"mailsidecar/mailer"
	"mailsidecar/mailer/dkim"
	"mailsidecar/metrics"
	"mailsidecar/processor"
	"mailsidecar/queue"
)

// Options are for [Start]. Where an optional field is zero, the configuration decides.
type Options struct {
	Config  config.Config
	Version string // of the product, for HTTP answers
	Logger  *slog.Logger
	// Observe, if not nil, is called after every attempt, also by many goroutines
	// at once.
	Observe func(mailer.Attempt)
	// Relays, if not nil, are used in place of those that Config describes: one
	// for each, in the same order. The service closes them.
	Relays []Relay
	// LookupTXT, if not nil, is asked in place of the system's DNS.
	LookupTXT dkim.LookupTXT
	// Store, if not nil, is used in place of the one that Config names, if that names
	// any. The queue closes it; it stays open if no queue is started.
	Store queue.Store

	lookEvery time.Duration // in tests; zero means the usual interval of alerts
}

// ConfigError is a setting that only its use shows to be wrong. The service does
// not start with it.
type ConfigError struct {
	Setting string // the variable, or another thing to change
	Err     error
}

func (e *ConfigError) Error() string { return e.Setting + ": " + e.Err.Error() }

func (e *ConfigError) Unwrap() error { return e.Err }

// Service is the whole of it, wired and listening.
type Service struct {
	log         *slog.Logger
	events      *keptEvents
	stopTimeout time.Duration // for an orderly stop
	relays      []Relay
	logins      *SharedLogins // of the relays; nil where instances share none
	processor   *processor.Turns
	monitor     *relayMonitor
	submitter   handler.Submitter
	operator    operator      // nil before it begins
	cutAttempts func()        // for the requests that wait for a verdict; nil where a queue has the mail
	queue       *runningQueue // nil when nothing is stored
	endTokens   func()        // ends what keeps tokens fresh; nil before that began
	tokens      sync.WaitGroup
	dkim        recordCheck
	alarm       alarm
	agreements  agreements
	bound       listeners
	http        *handler.Server
	metrics     *metrics.Metrics // nil where nobody may read them
	scrapes     *metrics.Server  // nil unless they have an address of their own
	addr        net.Addr         // nil until it serves
	tlsAddr     net.Addr         // nil unless HTTPS is served
	stopping    atomic.Bool
}

// Start binds the addresses, makes the relays, opens the store and starts the queue,
// and serves HTTP, in this order: so no message is accepted before it can be handled,
// and nothing else begins when an address is taken. After an error nothing is left
// running; a setting that is wrong is a [*ConfigError], an address that cannot be
// listened on a [*ListenError].
func Start(ctx context.Context, o Options) (_ *Service, err error) {
	c := o.Config
	var events *keptEvents
	o.Logger, events = keepEvents(o.Logger)
	if c.Service.Queue.Shared() {
		o.Logger = logSeldom(o.Logger)
	}
	s := &Service{log: o.Logger, events: events, stopTimeout: time.Duration(c.Service.ShutdownTimeout), relays: o.Relays, processor: processor.New()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop(ctx))
		}
	}()
	if s.bound, err = bind(ctx, c.Service); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(c, o.Version)
	if err = s.startQueue(ctx, o); err != nil {
		return nil, err
	}
	if s.http, err = s.newHandler(c, o.Version); err != nil {
		return nil, err
	}
	s.readMetrics(c.Service)
	if err = s.serve(); err != nil {
		return nil, err
	}
	s.log.Info("listening", "addr", s.addr.String(), "queue", c.Service.Queue.String(), "relays", len(s.relays))
	s.dkim.begin(ctx, c.Service.DKIMKeys, o.LookupTXT, s.log)
	s.beginAlarm(ctx, o)
	s.agreements.begin(ctx, s.queue, c, s.log)
	return s, nil
}

// startQueue starts the queue, and the relays that it hands mail to.
func (s *Service) startQueue(ctx context.Context, o Options) (err error) {
	c := o.Config
	if s.relays == nil {
		if s.logins, err = OpenLogins(c.Service); err != nil {
			return err
		}
		if s.relays, err = NewRelays(c.Relays, RelayOptions{Meter: s.relayMeter(), Logger: s.log, DataDir: c.Service.DataDir, Logins: s.logins, DKIM: c.Service.DKIMKeys, Processor: s.processor}); err != nil {
			return err
		}
	}
	s.monitor = newRelayMonitor(c.Relays, s.relays, o.Observe, s.log)
	s.monitor.from = DefaultSender(c.Service)
	s.monitor.out = newOutgoing(len(s.relays))
	routes := s.monitor.routes()
	if c.Service.Queue.Store == "none" {
		direct := queue.NewDirect(routes, s.log)
		if s.metrics != nil {
			direct.Count(s.metrics)
		}
		s.submitter, s.cutAttempts, s.operator = direct, direct.Stop, direct
		s.monitor.pauses, s.monitor.resume = direct.Pauses, direct.Resume
		s.monitor.manual = direct.ManualPauses
		s.runTokens(ctx)
		return nil
	}
	if s.queue, err = startQueue(ctx, c.Service, o.Store, s.processor, queue.Options{
		Meter:  s.queueMeter(),
		Routes: routes, KnowsKey: c.Service.KnowsKey, Workers: workers(c.Relays), StopTimeout: deliveryTime(s.stopTimeout), Logger: s.log,
	}); err != nil {
		return err
	}
	s.submitter, s.operator = s.queue, s.queue
	s.monitor.pauses, s.monitor.manual, s.monitor.resume = s.queue.Pauses, s.queue.ManualPauses, s.queue.Resume
	s.runTokens(ctx)
	return nil
}

// runTokens keeps the tokens of relays fresh, until the relays are closed.
func (s *Service) runTokens(ctx context.Context) {
	ctx, s.endTokens = context.WithCancel(context.WithoutCancel(ctx))
	for _, r := range s.relays {
		if t, ok := r.(*tokenRelay); ok {
			t.resume.Store(&s.monitor.resume)
			s.tokens.Go(func() { t.source.Run(ctx) })
		}
	}
}

// ready returns why requests should not come here; nil when they should.
func (s *Service) ready() error {
	if s.stopping.Load() {
		return queue.ErrShuttingDown
	}
	return s.operator.Ready(context.Background())
}

// operator is what a person may ask of a queue, with or without a store.
type operator interface {
	handler.Operator
	ManualPauses() []queue.ManualPause
	// Ready returns why messages cannot be accepted just now; nil when they can.
	Ready(ctx context.Context) error
}

// URL is where a client on this machine reaches the service over HTTP.
func (s *Service) URL() string { return "http://" + s.addr.String() }

// Run serves until ctx ends or a part fails. Then it stops HTTP, the queue and the
// relays, and closes the store, in this order. The error names the part that failed,
// or that could not be stopped in time.
func (s *Service) Run(ctx context.Context) error {
	var failed error
	var ended chan struct{} // of the queue; nil without one
	if s.queue != nil {
		ended = s.queue.done
	}
	select {
	case <-ctx.Done():
		s.log.Info("stopping", "timeout", s.stopTimeout)
	case failed = <-s.http.Done():
		s.log.Error("serving failed", "error", failed)
	case <-ended:
		s.log.Error("queue failed", "error", s.queue.err)
	}
	if err := errors.Join(failed, s.stop(ctx)); err != nil {
		s.log.Error("not stopped in order", "error", err)
		return err
	}
	s.log.Info("stopped")
	return nil
}

// deliveryTime is how much of the time for an orderly stop is for the deliveries in
// flight: nearly all, because a relay may be slow to answer the final dot, and a
// delivery that is cut off there is uncertain. The rest is for recording outcomes and
// closing.
func deliveryTime(timeout time.Duration) time.Duration {
	return timeout - min(time.Second, timeout/4)
}

// stop stops what Start has started, see [Service.Run], within the time limit and
// though ctx has ended. It takes every step, even when one before it failed.
func (s *Service) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.stopTimeout)
	defer cancel()
	s.stopping.Store(true) // not ready any more
	s.dkim.stop()
	s.alarm.end()
	s.agreements.end()
	if s.endTokens != nil {
		// A refresh token that is replaced in the last moment might be lost.
		s.endTokens()
	}
	var errs []error
	if s.addr == nil {
		s.bound.close()
	}
	s.stopWaiting()
	if s.submitter != nil {
		errs = append(errs, s.stopAccepting(ctx))
	}
	if s.queue != nil {
		errs = append(errs, s.queue.awaitStop(ctx))
	}
	s.closeRelays(ctx)
	if s.scrapes != nil {
		s.scrapes.Close()
	}
	s.alarm.wait(ctx)
	if s.queue != nil {
		errs = append(errs, s.queue.closeStore(ctx))
	}
	return errors.Join(errs...)
}

// stopWaiting answers the requests that wait for a relay's rate, where there is
// no store. A durable queue gives its waiting messages back itself, once it
// claims no more.
func (s *Service) stopWaiting() {
	if s.submitter == nil || s.queue != nil {
		return
	}
	for _, r := range s.relays {
		r.StopWaiting()
	}
}

// closeRelays says QUIT to all of them at a time: a silent one must not use up
// the others' share of the time. A refresh token that is being replaced is waited for
// until ctx ends: if it is lost, so is the login.
func (s *Service) closeRelays(ctx context.Context) {
	if s.endTokens != nil {
		s.endTokens()
		s.tokens.Wait()
	}
	var closing sync.WaitGroup
	for _, r := range s.relays {
		closing.Go(func() {
			if t, ok := r.(*tokenRelay); ok {
				t.closeWithin(ctx)
				return
			}
			r.Close()
		})
	}
	closing.Wait()
	s.logins.Close()
}

// stopAccepting returns when no request is left. The queue begins to stop at the
// same time: that answers the clients which wait for an attempt (Prefer: wait).
func (s *Service) stopAccepting(ctx context.Context) error {
	if s.addr == nil {
		s.beginStop()
		return nil
	}
	limit := deliveryTime(s.stopTimeout)
	if s.cutAttempts != nil {
		// First the attempts are cut off, then those who wait for them are answered:
		// half of the rest is for that, and half for the steps that follow.
		defer time.AfterFunc(limit, s.cutAttempts).Stop()
		limit += (s.stopTimeout - limit) / 2
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- s.http.Shutdown(ctx) }()
	s.beginStop()
	return <-closed
}

func (s *Service) beginStop() {
	if s.queue != nil {
		s.queue.beginStop()
	}
}
