// Package metrics counts what the server does and shows it to Prometheus.
//
// It is the only package that knows a library for that. Whoever has something to count
// declares an interface with the few methods that it needs, and [Metrics] has them all:
// they are fast, never fail, and any number of goroutines may call them at once.
//
// It promises that the number of series is bounded by the configuration. Labels are names
// from the settings and words of ours. What comes from the network becomes a label only as
// far as a limit allows, and "other" beyond that; addresses, subjects, unknown keys and
// paths never do.
package metrics

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Options are what labels may be, and what is told of the program.
type Options struct {
	Version string
	// Relays are the names of the relays, and Keys those of the API keys.
	Relays, Keys []string
	// Stores says that there is a queue with a store.
	Stores bool
}

// Words that take the place of a name.
const (
	// none is the key of a request without one, and of a server without keys. No key can be
	// named so.
	none = "(none)"
	// removed is the key of mail whose own is not configured any more.
	removed = "(removed)"
	// other is what is over a limit.
	other = "other"
)

// Metrics are the numbers of one server.
type Metrics struct {
	registry    *prometheus.Registry
	definitions []Definition
	relays      map[string]bool
	keys        map[string]bool
	sources     Sources
	parts       map[string]*part
	gauges
	counts

	scrapeErrors *prometheus.CounterVec
}

// Definition is what is known of a metric.
type Definition struct {
	Name, Kind string // Kind is counter, gauge or histogram
	Labels     []string
	Help       string
}

// New returns metrics of which all are zero. Those that are read from elsewhere follow with
// [Metrics.Read].
func New(o Options) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), relays: setOf(o.Relays), keys: setOf(o.Keys), parts: map[string]*part{}}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.info(o.Version)
	m.gauges = m.newGauges(o.Stores)
	m.counts = m.newCounts(o)
	m.scrapeErrors = m.counter("scrape_errors_total", "Parts of the metrics that a scrape went without, because they could not be read within 2 seconds.", "part")
	return m
}

func setOf(names []string) map[string]bool {
	set := map[string]bool{}
	for _, name := range names {
		set[name] = true
	}
	return set
}

// Definitions lists all metrics but those of the library (go_… and process_…), by name.
func (m *Metrics) Definitions() []Definition {
	return slices.SortedFunc(slices.Values(m.definitions), func(a, b Definition) int { return cmp.Compare(a.Name, b.Name) })
}

// prefix is what every name begins with.
const prefix = "mailsidecar_"

func (m *Metrics) define(kind, name, help string, labels []string) string {
	m.definitions = append(m.definitions, Definition{Name: prefix + name, Kind: kind, Labels: labels, Help: help})
	return prefix + name
}

func (m *Metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.define("counter", name, help, labels), Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.define("histogram", name, help, labels), Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(h)
	return h
}

// setGauge is a gauge that is set where it changes.
func (m *Metrics) setGauge(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: m.define("gauge", name, help, labels), Help: help}, labels)
	m.registry.MustRegister(g)
	return g
}

// gauge describes a metric that is read at each scrape.
func (m *Metrics) gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(m.define("gauge", name, help, labels), help, labels, nil)
}

// info tells the version, as a label of a metric that is always 1.
func (m *Metrics) info(version string) {
	revision := ""
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, s := range build.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	m.setGauge("build_info", "Always 1; the labels say what runs.", "version", "revision", "goversion").WithLabelValues(version, revision, runtime.Version()).Set(1)
}

// relay is the label of a relay. Only a message that was tried in an earlier run, or by
// none, has another one than those that are configured.
func (m *Metrics) relay(name string) string {
	if m.relays[name] {
		return name
	}
	return none
}

// key is the label of an API key that a request has proven.
func (m *Metrics) key(name string) string {
	if m.keys[name] {
		return name
	}
	return none
}
