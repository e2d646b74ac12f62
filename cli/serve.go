package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/config"
	"mailsidecar/handler"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve: take mail over HTTP and hand it to the relay (the default)",
		Long: `Takes mail over HTTP and hands it to the relay until SIGTERM or SIGINT, then
stops in order: it accepts nothing more, answers the requests under way, ends or
gives back the deliveries in hand and closes the queue, all of that within
MAILSIDECAR_SHUTDOWN_TIMEOUT. A second signal ends it at once.

The log goes to standard error.

Exit status: 0 stopped in order; 1 it could not start, or not stop in time;
78 wrong configuration.`,
		Example: `  SMTP_HOST=smtp.example.com SMTP_USERNAME=me SMTP_PASSWORD=secret \
  MAILSIDECAR_ADDR=127.0.0.1:8587 mailsidecar serve`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), cmd.ErrOrStderr()) },
	}
	help := cmd.HelpFunc()
	cmd.SetHelpFunc(func(c *cobra.Command, args []string) {
		help(c, args)
		fmt.Fprintln(c.OutOrStdout(), "\nConfiguration, from the environment:")
		fmt.Fprintln(c.OutOrStdout())
		_ = config.WriteHelp(c.OutOrStdout()) // cobra ignores the errors of help, too
	})
	return cmd
}

func serve(ctx context.Context, logTo io.Writer) error {
	cfg, warnings, err := config.Load()
	if err != nil {
		return misconfigured(err, warnings)
	}
	log := newLogger(logTo, cfg.Service)
	log.Info("starting", "version", buildVersion().String(), "config", cfg)
	for _, w := range warnings {
		log.Warn("configuration", "warning", w)
	}
	boundMemory(cfg.Service)
	tuneCollector()
	s, err := newServer(ctx, cfg, log, nil)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// misconfigured is err with the warnings, for a misspelt name is often its
// cause.
func misconfigured(err error, warnings []string) error {
	for _, w := range warnings {
		err = fmt.Errorf("%w\nwarning: %s", err, w)
	}
	return &statusError{exitConfig, err}
}

func newLogger(w io.Writer, s config.Service) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.LogLevel, ReplaceAttr: inMillis}
	if s.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// inMillis writes a duration in milliseconds and says so in its key, as the HTTP
// interface does; slog's own nanoseconds are easily taken for something else.
func inMillis(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindDuration {
		return a
	}
	return slog.Int64(a.Key+"_ms", a.Value.Duration().Milliseconds())
}

// server is the whole of it, wired and listening.
type server struct {
	log      *slog.Logger
	timeout  time.Duration // for an orderly stop
	relays   []*smtp.Relay
	board    *relayBoard
	queue    *runningQueue
	bound    listeners
	http     *handler.Server
	addr     net.Addr // nil until it serves
	tlsAddr  net.Addr // nil unless HTTPS is served
	stopping atomic.Bool
}

// newServer wires the parts in the order that a message travels backwards,
// relays, queue, HTTP, so that nothing is accepted before it can be handled. The
// addresses are bound first of all: where they are taken, nothing begins.
// observe, if not nil, is told of every attempt.
func newServer(ctx context.Context, cfg config.Config, log *slog.Logger, observe func(mailer.Attempt)) (_ *server, err error) {
	s := &server{log: log, timeout: time.Duration(cfg.Service.ShutdownTimeout)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop(ctx))
		}
	}()
	if s.bound, err = bind(ctx, cfg.Service); err != nil {
		return nil, err
	}
	if s.relays, err = buildRelays(cfg.Relays, smtp.Timeouts{}, log); err != nil {
		return nil, err
	}
	s.board = newRelayBoard(cfg.Relays, s.relays, observe)
	s.board.log = log
	if s.queue, err = startQueue(ctx, cfg.Service, buildRoutes(cfg.Relays, s.board), workers(cfg.Relays), deliveryTime(s.timeout), log); err != nil {
		return nil, err
	}
	s.board.pauses, s.board.resume = s.queue.pauses, s.queue.resume
	if s.http, err = s.buildHandler(cfg.Service); err != nil {
		return nil, err
	}
	if err = s.serve(); err != nil {
		return nil, err
	}
	log.Info("listening", "addr", s.addr.String(), "queue", cfg.Service.Queue.String(), "relays", len(s.relays))
	return s, nil
}

// ready says whether requests should come here.
func (s *server) ready() bool { return !s.stopping.Load() && s.queue.ready(context.Background()) }

// url is where a client on this machine reaches the server.
func (s *server) url() string { return "http://" + s.addr.String() }

// run serves until ctx ends or a part fails, then stops in order.
func (s *server) run(ctx context.Context) error {
	var failed error
	select {
	case <-ctx.Done():
		s.log.Info("stopping", "timeout", s.timeout)
	case failed = <-s.http.Done():
		s.log.Error("serving failed", "error", failed)
	case <-s.queue.ended():
		s.log.Error("queue failed", "error", s.queue.err)
	}
	if err := errors.Join(failed, s.stop(ctx)); err != nil {
		s.log.Error("not stopped in order", "error", err)
		return exit(exitFailure, "%w", err)
	}
	s.log.Info("stopped")
	return nil
}

// deliveryTime is how much of the time for an orderly stop is for the deliveries
// in hand: nearly all, for a relay may take its time over the final dot, and what
// is cut off there is uncertain. The rest is for recording outcomes and closing.
func deliveryTime(timeout time.Duration) time.Duration {
	return timeout - min(time.Second, timeout/4)
}

// stop undoes newServer in reverse, within the time-out and though ctx has ended.
// It takes every step, whatever became of those before.
func (s *server) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
	defer cancel()
	s.stopping.Store(true) // not ready any more
	var errs []error
	if s.addr == nil {
		s.bound.close()
	}
	s.stopWaiting()
	if s.queue != nil {
		errs = append(errs, s.stopAccepting(ctx), s.queue.awaitStop(ctx))
	}
	s.closeRelays()
	if s.queue != nil {
		errs = append(errs, s.queue.closeStore())
	}
	return errors.Join(errs...)
}

// stopWaiting answers the requests that wait for a relay's rate, where there is
// no queue. One that is there gives back itself what waits, once it claims no more.
func (s *server) stopWaiting() {
	if s.queue == nil || s.queue.durable != nil {
		return
	}
	for _, r := range s.relays {
		r.StopWaiting()
	}
}

// closeRelays says farewell to all of them at a time: a silent one must not use
// up the others' share of the time-out.
func (s *server) closeRelays() {
	var farewells sync.WaitGroup
	for _, r := range s.relays {
		if r != nil {
			farewells.Go(r.Close)
		}
	}
	farewells.Wait()
}

// stopAccepting returns when no request is left. The queue begins to stop
// meanwhile: that is what gives those their answer who wait for an attempt.
func (s *server) stopAccepting(ctx context.Context) error {
	if s.addr == nil {
		s.queue.beginStop()
		return nil
	}
	// Requests that wait for a relay's verdict are cut off in time for the steps
	// that follow.
	ctx, cancel := context.WithTimeout(ctx, deliveryTime(s.timeout))
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- s.http.Shutdown(ctx) }()
	s.queue.beginStop()
	return <-closed
}
