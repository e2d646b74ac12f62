package metrics

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailsidecar/queue"
)

// Sources are asked at each scrape. Those that are nil are left out.
type Sources struct {
	// Stats are the numbers of all keys.
	Stats func(ctx context.Context) (queue.Stats, error)
	// Usage is what waits, as the limits of the queue count it.
	Usage func() queue.Usage
	// MaxMessages and MaxBytes limit that; zero means no limit.
	MaxMessages, MaxBytes int64
	// FreeDisk is in octets, and MinFreeDisk what must be left of it for mail to be taken.
	FreeDisk    func() (int64, error)
	MinFreeDisk int64
	// Relays are in the order of the settings.
	Relays func() []Relay
	// InFlight is the memory that requests hold, in octets, and MaxInFlight its limit.
	InFlight    func() int64
	MaxInFlight int64
}

// Relay is how a relay is at one moment. Times that are not known are zero.
type Relay struct {
	Name string
	// Up says that it can be used as far as is known; a person's pause does not count.
	Up               bool
	PausedUntil      time.Time // by the queue
	PausedByOperator bool
	QuotaUsedUp      bool  // which is why the queue has paused it
	Ports            []int // of the ladder, in order
	Serving          int   // the port in use; zero where none is known
	// Certificates are when the certificate ends that was seen last at a port.
	Certificates map[int]time.Time

	Connections, MostNow, Most int // open; and how many there may be at this moment, and ever
	WaitingForConnection       int // messages
	WaitingForTurn             int // messages
	Rate                       float64
	RefusedLogins              int // in a row
	Token                      *Token
}

// Token is how the OAuth2 tokens of a relay fare.
type Token struct {
	Expires, LoginExpires, SecretExpires, CertificateExpires time.Time
	Failing                                                  bool // the last request for one failed
}

// gauges are read at each scrape.
type gauges struct {
	stores                                         bool
	messages, oldest, counting                     *prometheus.Desc
	waiting, waitingBytes, mostMessages, mostBytes *prometheus.Desc
	freeDisk, minFreeDisk                          *prometheus.Desc
	inFlight, mostInFlight                         *prometheus.Desc

	up, pausedUntil, pausedByOperator, quota *prometheus.Desc
	serving, certificate                     *prometheus.Desc
	connections, connectionsNow, connsLimit  *prometheus.Desc
	relayWaiting, rate, refusedLogins        *prometheus.Desc
	credentialEnd, tokenFailing              *prometheus.Desc
}

func (m *Metrics) newGauges(stores bool) gauges {
	g := gauges{
		stores:       stores,
		inFlight:     m.gauge("http_in_flight_bytes", "Memory that requests hold for bodies and messages."),
		mostInFlight: m.gauge("http_in_flight_limit_bytes", "MAILSIDECAR_MAX_IN_FLIGHT."),

		up:               m.gauge("relay_up", "0 while the relay is paused after failures, or the last attempt showed that it cannot be used and was less than 30 minutes ago; else 1, also before the first attempt. A successful check ends it, too.", "relay"),
		pausedUntil:      m.gauge("relay_paused_until_timestamp_seconds", "Until when the queue leaves the relay alone after a failure; 0 while it does not.", "relay"),
		pausedByOperator: m.gauge("relay_paused_by_operator", "1 while a person has paused the relay.", "relay"),
		quota:            m.gauge("relay_quota_used_up", "1 while the relay is paused because a quota is used up, which ends by itself.", "relay"),
		serving:          m.gauge("relay_rung_serving", "1 for the port in use. position is its place in SMTP_PORTS, from 1.", "relay", "port", "position"),
		certificate:      m.gauge("relay_certificate_expiry_timestamp_seconds", "When the certificate ends that the relay showed last at the port, within the last 12 hours.", "relay", "port"),
		connections:      m.gauge("relay_connections", "Open connections to the relay.", "relay"),
		connectionsNow:   m.gauge("relay_connections_allowed", "How many connections the relay may have at this moment, by how it answers.", "relay"),
		connsLimit:       m.gauge("relay_connections_limit", "SMTP_MAX_CONNECTIONS.", "relay"),
		relayWaiting:     m.gauge("relay_waiting_messages", "Messages in memory that wait for a connection, or for a turn within SMTP_RATE.", "relay", "for"),
		rate:             m.gauge("relay_rate_limit_messages_per_second", "SMTP_RATE, as messages in a second.", "relay"),
		refusedLogins:    m.gauge("relay_refused_logins", "Logins that the relay refused in a row; 0 once one is accepted.", "relay"),
		credentialEnd:    m.gauge("oauth2_expiry_timestamp_seconds", "When the access token, the login, the client's secret or its certificate ends, as far as that is known.", "relay", "of"),
		tokenFailing:     m.gauge("oauth2_failing", "1 while no new access token can be fetched.", "relay"),
	}
	if stores {
		g.messages = m.gauge("queue_messages", "Messages that are not final: queued (not tried yet), deferred (tried, and will be again) or held (a person must decide).", "key", "status")
		g.oldest = m.gauge("queue_oldest_due_timestamp_seconds", "Since when the recipient waits that has been due for the longest; 0 where none is due.", "key", "priority")
		g.counting = m.gauge("queue_counting", "1 while the numbers of the queue may be wrong by a little: they are counted anew after a crash.")
		g.waiting = m.gauge("queue_used_messages", "Messages that count towards MAILSIDECAR_QUEUE_MAX_MESSAGES.")
		g.waitingBytes = m.gauge("queue_used_bytes", "Size of the messages that count towards MAILSIDECAR_QUEUE_MAX_SIZE.")
		g.mostMessages = m.gauge("queue_limit_messages", "MAILSIDECAR_QUEUE_MAX_MESSAGES; absent without a limit.")
		g.mostBytes = m.gauge("queue_limit_bytes", "MAILSIDECAR_QUEUE_MAX_SIZE; absent without a limit.")
		g.freeDisk = m.gauge("disk_free_bytes", "Free space on the disk of the queue.")
		g.minFreeDisk = m.gauge("disk_min_free_bytes", "MAILSIDECAR_MIN_FREE_DISK: with less, new mail is refused.")
	}
	return g
}

// The parts that a scrape reads. Each may fail for itself.
const (
	partQueue  = "queue"
	partDisk   = "disk"
	partRelays = "relays"
)

// Read makes scrapes ask the sources. It is called once, before the first scrape.
func (m *Metrics) Read(s Sources) {
	m.sources = s
	for _, name := range []string{partQueue, partDisk, partRelays} {
		m.parts[name] = newPart()
		m.scrapeErrors.WithLabelValues(name)
	}
	m.registry.MustRegister(collector{m})
}

// collector is how the library asks for what is read at a scrape.
type collector struct{ *Metrics }

// Describe says that what Collect sends is not known before. Which relays have a
// certificate or a rate is known only then.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the parts at the same time: the slowest decides how long it takes.
func (c collector) Collect(to chan<- prometheus.Metric) {
	s := c.sources
	read := map[string]func(context.Context) ([]prometheus.Metric, error){}
	if c.stores && s.Stats != nil {
		read[partQueue] = c.readQueue
	}
	if c.stores && s.FreeDisk != nil {
		read[partDisk] = c.readDisk
	}
	if s.Relays != nil {
		read[partRelays] = c.readRelays
	}
	waits := map[string]func() ([]prometheus.Metric, error){}
	for name, f := range read {
		waits[name] = c.parts[name].begin(f)
	}
	for name, wait := range waits {
		metrics, err := wait()
		if err != nil {
			c.scrapeErrors.WithLabelValues(name).Inc()
		}
		for _, m := range metrics {
			to <- m
		}
	}
	if c.stores && s.Usage != nil { // from memory, so that it is there while the store is slow
		c.sendUsage(to)
	}
	if s.InFlight != nil {
		to <- value(c.inFlight, float64(s.InFlight()))
		to <- value(c.mostInFlight, float64(s.MaxInFlight))
	}
}

func (c collector) sendUsage(to chan<- prometheus.Metric) {
	s := c.sources
	used := s.Usage()
	to <- value(c.waiting, float64(used.Messages))
	to <- value(c.waitingBytes, float64(used.Bytes))
	// Without a limit there is no number for it: a division by it must not fire an alert.
	if s.MaxMessages > 0 {
		to <- value(c.mostMessages, float64(s.MaxMessages))
	}
	if s.MaxBytes > 0 {
		to <- value(c.mostBytes, float64(s.MaxBytes))
	}
}

func value(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// waitingStatuses are those of messages that are not final.
var waitingStatuses = []queue.Status{queue.StatusQueued, queue.StatusDeferred, queue.StatusHeld}

// priorities are all of them.
var priorities = []string{"bulk", "normal", "high"}

type laneName struct{ key, priority string }

func (c collector) readQueue(ctx context.Context) (all []prometheus.Metric, err error) {
	stats, err := c.sources.Stats(ctx)
	if err != nil {
		return nil, err
	}
	number := map[string]map[queue.Status]int64{}
	oldest := map[laneName]time.Time{}
	names := make([]string, 0, len(c.keys))
	for key := range c.keys {
		names = append(names, key)
	}
	if len(names) == 0 {
		names = append(names, none)
	}
	for _, key := range names {
		number[key] = map[queue.Status]int64{}
		for _, p := range priorities {
			oldest[laneName{key, p}] = time.Time{}
		}
	}
	for _, k := range stats.Keys {
		key := c.owner(k.Name)
		if number[key] == nil {
			number[key] = map[queue.Status]int64{}
		}
		for _, status := range waitingStatuses {
			number[key][status] += k.Statuses[status]
		}
	}
	for _, l := range stats.Lanes {
		name := laneName{c.owner(l.Lane.Key), l.Lane.Priority.String()}
		if at := oldest[name]; at.IsZero() || l.OldestDue.Before(at) {
			oldest[name] = l.OldestDue
		}
	}
	for key, of := range number {
		for _, status := range waitingStatuses {
			all = append(all, value(c.messages, float64(of[status]), key, string(status)))
		}
	}
	for l, at := range oldest {
		all = append(all, value(c.oldest, seconds(at), l.key, l.priority))
	}
	all = append(all, value(c.counting, truth(stats.Counting)))
	return all, nil
}

// owner is the label of the key that stored mail has.
func (m *Metrics) owner(key string) string {
	switch {
	case m.keys[key]:
		return key
	case key == "":
		return none
	default:
		return removed
	}
}

func (c collector) readDisk(context.Context) ([]prometheus.Metric, error) {
	free, err := c.sources.FreeDisk()
	if err != nil {
		return nil, err
	}
	return []prometheus.Metric{value(c.freeDisk, float64(free)), value(c.minFreeDisk, float64(c.sources.MinFreeDisk))}, nil
}

func (c collector) readRelays(context.Context) (all []prometheus.Metric, err error) {
	seen := map[string]bool{}
	for _, r := range c.sources.Relays() {
		if seen[r.Name] {
			continue
		}
		seen[r.Name] = true
		all = append(all, c.relayMetrics(r)...)
	}
	return all, nil
}

func (c collector) relayMetrics(r Relay) []prometheus.Metric {
	all := []prometheus.Metric{
		value(c.up, truth(r.Up), r.Name), value(c.pausedUntil, seconds(r.PausedUntil), r.Name), value(c.pausedByOperator, truth(r.PausedByOperator), r.Name), value(c.quota, truth(r.QuotaUsedUp), r.Name),
		value(c.connections, float64(r.Connections), r.Name), value(c.connectionsNow, float64(r.MostNow), r.Name), value(c.connsLimit, float64(r.Most), r.Name),
		value(c.relayWaiting, float64(r.WaitingForConnection), r.Name, "connection"), value(c.relayWaiting, float64(r.WaitingForTurn), r.Name, "turn"),
		value(c.refusedLogins, float64(r.RefusedLogins), r.Name),
	}
	if r.Rate > 0 {
		all = append(all, value(c.rate, r.Rate, r.Name))
	}
	seen := map[int]bool{}
	for i, port := range r.Ports {
		if seen[port] { // with another TLS mode
			continue
		}
		seen[port] = true
		name := strconv.Itoa(port)
		all = append(all, value(c.serving, truth(port == r.Serving), r.Name, name, strconv.Itoa(i+1)))
		if ends := r.Certificates[port]; !ends.IsZero() {
			all = append(all, value(c.certificate, seconds(ends), r.Name, name))
		}
	}
	if t := r.Token; t != nil {
		all = append(all, value(c.tokenFailing, truth(t.Failing), r.Name))
		for _, end := range []struct {
			of string
			at time.Time
		}{{"token", t.Expires}, {"login", t.LoginExpires}, {"secret", t.SecretExpires}, {"certificate", t.CertificateExpires}} {
			if !end.at.IsZero() {
				all = append(all, value(c.credentialEnd, seconds(end.at), r.Name, end.of))
			}
		}
	}
	return all
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// seconds is a time as Prometheus has it; the zero time is 0.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}
