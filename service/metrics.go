package service

import (
	"slices"
	"time"

	"mailsidecar/config"
	"mailsidecar/handler/keys"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/metrics"
	"mailsidecar/queue"
)

// newMetrics returns metrics, or nil where nobody may read them: then nothing is counted.
// They are read at an address of their own, or with a key that is an admin's. Without keys
// whoever is on this host is one.
func newMetrics(c config.Config, version string) *metrics.Metrics {
	s := c.Service
	admin := slices.ContainsFunc(s.Keys, func(k config.APIKey) bool {
		roles, err := keys.ParseRoles(k.Roles)
		return err == nil && roles&keys.Admin != 0
	})
	if s.MetricsAddr == "" && len(s.Keys) > 0 && !admin {
		return nil
	}
	o := metrics.Options{Version: version, Relays: relayNames(c.Relays), Stores: s.Queue.Store != "none"}
	for _, k := range s.Keys {
		o.Keys = append(o.Keys, k.Name)
	}
	return metrics.New(o)
}

// relayMeter counts connections and logins; nil where nobody may read that.
func (s *Service) relayMeter() smtp.Meter {
	if s.metrics == nil {
		return nil
	}
	return s.metrics
}

// queueMeter counts mail, and commits; nil where nobody may read that.
func (s *Service) queueMeter() queue.Meter {
	if s.metrics == nil {
		return nil
	}
	return s.metrics
}

// freeDisk is a store on a disk.
type freeDisk interface {
	FreeDisk() (octets int64, err error)
}

// readMetrics lets scrapes read what is known of queue, relays and requests.
func (s *Service) readMetrics(c config.Service) {
	if s.metrics == nil {
		return
	}
	from := metrics.Sources{
		Relays: s.monitor.numbers, MinFreeDisk: int64(c.MinFreeDisk),
		MaxMessages: int64(c.QueueMaxMessages), MaxBytes: int64(c.QueueMaxSize),
		InFlight: s.http.InFlight, MaxInFlight: int64(c.MaxInFlight),
	}
	if s.queue != nil {
		from.Stats, from.Usage = s.queue.AllStats, s.queue.Usage
		if disk, ok := s.queue.store.(freeDisk); ok {
			from.FreeDisk = disk.FreeDisk
		}
	}
	s.metrics.Read(from)
}

// numbers are how the relays are, without what is said of that in words.
func (m *relayMonitor) numbers() []metrics.Relay {
	paused := map[string]queue.Pause{}
	for _, p := range m.pauses() {
		paused[p.Relay] = p
	}
	byOperator := map[string]bool{}
	for _, p := range m.manual() {
		byOperator[p.Relay] = true
	}
	m.mu.Lock()
	seen := slices.Clone(m.seen)
	m.mu.Unlock()
	all, now := make([]metrics.Relay, len(m.relays)), time.Now()
	for i, r := range m.relays {
		name, connections, turns := r.Name(), r.Connections(), r.Turns()
		pause, failure := paused[name], seen[i].failure
		if pause.Reason != nil {
			failure = pause.Reason
		}
		n := metrics.Relay{
			Name: name, Up: m.judge(i, failure, pause.Until, now) != relayUnusable, PausedByOperator: byOperator[name],
			Serving: seen[i].serving.Port, Ports: portsOf(ladder(m.configs[i])), Certificates: r.Certificates(),
			Connections: connections.Open, MostNow: connections.Limit, Most: connections.Max,
			WaitingForConnection: connections.Waiting, WaitingForTurn: turns.Waiting, RefusedLogins: r.Logins().Refused,
		}
		if pause.Until.After(now) { // else a probe is due: the queue keeps the pause until then
			n.PausedUntil, n.QuotaUsedUp = pause.Until, pause.Reason != nil && pause.Reason.Passes
		}
		if turns.Messages > 0 {
			n.Rate = float64(turns.Messages) / turns.Per.Seconds()
		}
		if t, ok := TokenStatus(r); ok {
			n.Token = &metrics.Token{
				Expires: t.Expires, LoginExpires: t.LoginExpires, SecretExpires: t.SecretExpires, CertificateExpires: t.CertificateExpires, Failing: t.Err != nil,
			}
		}
		all[i] = n
	}
	return all
}

func portsOf(rungs []mailer.Rung) []int {
	ports := make([]int, len(rungs))
	for i, rung := range rungs {
		ports[i] = rung.Port
	}
	return ports
}
