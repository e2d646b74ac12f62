package service

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	"mailsidecar/alerts"
	"mailsidecar/config"
)

// lookInterval is how often alerts look for what is wrong.
const lookInterval = 10 * time.Second

// alarm tells people and a monitor what is wrong. The zero value tells nobody.
type alarm struct {
	cancel context.CancelFunc // nil before it began
	tasks  sync.WaitGroup
}

// wanted reports whether somebody is to be told.
func wanted(c config.Service) bool { return len(c.AlertTargets) > 0 || c.Heartbeat.Set() }

// beginAlarm begins to tell what is wrong, where somebody is to be told.
func (s *Service) beginAlarm(ctx context.Context, o Options) {
	if !wanted(o.Config.Service) {
		return
	}
	l := newLookout(o.Config, s.monitor, s.queue)
	l.interval = cmp.Or(o.lookEvery, lookInterval)
	s.alarm.begin(ctx, o.Config.Service, l, s.http.Flows, o.Version, s.log)
}

// begin begins, and waits for nothing. flows is [handler.Server.Flows].
func (a *alarm) begin(ctx context.Context, c config.Service, l *lookout, flows func(context.Context, time.Duration) bool, version string, log *slog.Logger) {
	ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	client := alerts.NewClient(alerts.ClientOptions{AllowPrivate: c.AlertsAllowPrivate, UserAgent: "mailsidecar/" + version})
	if len(c.AlertTargets) > 0 {
		n := alerts.NewNotifier(alerts.NotifierOptions{Targets: c.AlertTargets, Client: client, Instance: Instance(), Logger: log})
		a.tasks.Go(func() { n.Run(ctx) })
		a.tasks.Go(func() { watch(ctx, l, n) })
	}
	if c.Heartbeat.Set() {
		p := alerts.Pulse{Heartbeat: c.Heartbeat, Client: client, Logger: log, Trouble: func(ctx context.Context) string {
			if flows(ctx, time.Duration(c.AlertsMaxAge)) {
				return ""
			}
			return sentence(l.conditions(ctx), c)
		}}
		a.tasks.Go(func() { p.Run(ctx) })
	}
}

// watch looks again and again for what is wrong.
func watch(ctx context.Context, l *lookout, n *alerts.Notifier) {
	tick := time.NewTicker(l.interval)
	defer tick.Stop()
	for {
		present := l.conditions(ctx)
		if ctx.Err() != nil {
			return
		}
		n.Look(present)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// end ends it, and breaks off what is under way: a server that stops is no news.
func (a *alarm) end() {
	if a.cancel != nil {
		a.cancel()
	}
}

// wait waits, until ctx ends, for what was under way at the end: the store may have to
// answer it.
func (a *alarm) wait(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.tasks.Wait()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// sentence says why mail does not flow.
func sentence(present []alerts.Condition, c config.Service) string {
	text := "Mail has waited for longer than " + c.AlertsMaxAge.String() + ", or the queue does not answer."
	for _, p := range present {
		if p.Severity == alerts.Critical && !p.Unknown && p.Kind != alerts.MailWaits {
			text += " "
			if p.Subject != "" {
				text += p.Subject + ": "
			}
			text += p.Found
		}
	}
	return text
}

// Instance is how messages to people name this server: the host's name.
func Instance() string {
	name, _ := os.Hostname() // without one there is none to show
	return cmp.Or(name, "unknown host")
}
