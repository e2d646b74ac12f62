// Package config is the environment, read once and judged as a whole.
//
// Every problem is reported in one go, each with the variable's name, what is
// wrong and what to set. A variable set to nothing counts as unset, because
// that is what Compose files make of an optional one. A secret never leaves its
// [Secret]: not by an error, not by a log line, not by %v; each can come from
// the file that its _FILE twin names.
//
// The tags of the structs [Relay], [Service] and [Client] are the one source of
// names, defaults, limits and documentation: [WriteHelp] prints them, and README.md
// has them as tables. Package service hands the values to the other packages, which
// import nothing from here.
package config

import (
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
)

// maxRelays is the highest number in SMTP2_… SMTP9_….
const maxRelays = 9

// Config is everything that the server reads from its environment.
type Config struct {
	// Relays are in order of preference: SMTP_…, SMTP2_… and so on. Load never
	// leaves it empty.
	Relays  []Relay
	Service Service

	sources map[string]Source
}

// Load reads what the server needs. The warnings are for the log: names that
// look like ours but are not, and settings that are allowed but seldom meant.
// They are returned beside an error, too, because a misspelt name is often its
// cause. The error is an [*Error].
func Load() (Config, []string, error) {
	r := newReader(os.Getenv, os.Environ())
	c := Config{Relays: r.relays(), Service: r.service(), sources: r.sources}
	r.requireKey(c.Service)
	r.checkKeyRelays(&c.Service, c.Relays)
	r.requireRelayFor(c.Service, c.Relays)
	r.requireLoginStore(c.Relays, c.Service)
	r.warnSharedTokens(c.Relays)
	r.warnSenders(c.Relays, c.Service)
	r.warnUnsigned(c.Relays, c.Service)
	r.warnUnknown()
	return c, r.warnings, r.err()
}

// LoadRelays reads the relays alone, for commands that need no server. Warnings
// and error are as in [Load].
func LoadRelays() ([]Relay, []string, error) {
	r := newReader(os.Getenv, os.Environ())
	relays := r.relays()
	r.warnSharedTokens(relays)
	r.warnSenders(relays, Service{From: r.getenv(serviceName("FROM")), ForceFrom: r.getenv(serviceName("FORCE_FROM"))})
	r.warnUnknown()
	return relays, r.warnings, r.err()
}

// LoadCheck reads what a check of the relays needs: the relays, the keys that sign, and where
// the queue is. What is wrong with other settings of the service is the server's. Warnings and
// error are as in [Load].
func LoadCheck() ([]Relay, []string, error) {
	r := newReader(os.Getenv, os.Environ())
	relays := r.relays()
	s := r.signing()
	r.problems = append(r.problems, queueProblems()...)
	r.warnSharedTokens(relays)
	r.warnSenders(relays, s)
	r.warnUnsigned(relays, s)
	r.warnUnknown()
	return relays, r.warnings, r.err()
}

// signing reads the service's settings, and takes over what is wrong with the keys that
// sign.
func (r *reader) signing() Service {
	var s Service
	all := newReader(r.getenv, r.environ)
	all.read(servicePrefix, &s)
	all.problems = slices.DeleteFunc(all.problems, func(p Problem) bool { return p.Name != serviceName("DKIM") })
	all.warnings = nil
	all.checkDKIM(&s)
	r.problems, r.warnings = append(r.problems, all.problems...), append(r.warnings, all.warnings...)
	r.failed[serviceName("DKIM")] = all.failed[serviceName("DKIM")]
	return s
}

// CheckQueue says what is wrong with the settings of the queue, for a check without relays.
func CheckQueue() error {
	if problems := queueProblems(); len(problems) > 0 {
		return &Error{problems}
	}
	return nil
}

// queueProblems are those of the settings that say where the queue is, and how it is shared.
func queueProblems() []Problem {
	r := newReader(os.Getenv, os.Environ())
	r.service()
	names := []string{serviceName("QUEUE"), serviceName("QUEUE_LISTEN"), serviceName("LEASE"), serviceName("STORE_KEY")}
	return slices.DeleteFunc(r.problems, func(p Problem) bool {
		return !slices.Contains(names, strings.TrimSuffix(p.Name, "_FILE"))
	})
}

// HasRelays reports whether any variable of a relay is set.
func HasRelays() bool {
	r := newReader(os.Getenv, os.Environ())
	for n := 1; n <= maxRelays; n++ {
		relay := Relay{Number: n}
		if r.anySet(relay.prefix(), &relay) {
			return true
		}
	}
	return false
}

// LoadService reads the service's settings alone, for commands that work on the
// store. It does not insist on an API key. Warnings and error are as in [Load].
func LoadService() (Service, []string, error) {
	r := newReader(os.Getenv, os.Environ())
	s := r.service()
	r.warnUnknown()
	return s, r.warnings, r.err()
}

// Default returns the defaults, without the environment: one relay that
// has no host yet, and a queue that has no path yet.
func Default() Config {
	r := newReader(func(string) string { return "" }, nil)
	relay := Relay{Number: 1}
	r.read(relay.prefix(), &relay)
	return Config{Relays: []Relay{relay}, Service: r.service(), sources: r.sources}
}

// relays reads SMTP_… and every SMTP2_… to SMTP9_… of which some variable is set.
func (r *reader) relays() []Relay {
	var relays []Relay
	for n := 1; n <= maxRelays; n++ {
		relay := Relay{Number: n}
		if n > 1 && !r.anySet(relay.prefix(), &relay) {
			continue
		}
		r.read(relay.prefix(), &relay)
		r.applyPreset(&relay)
		r.checkRelay(&relay)
		relay.Hints = r.hints(&relay)
		relays = append(relays, relay)
	}
	for i := range relays {
		relays[i].Others = len(relays) > 1
	}
	return relays
}

func (r *reader) service() Service {
	var s Service
	r.read(servicePrefix, &s)
	r.checkService(&s)
	return s
}

// Setting is one variable of the effective configuration.
type Setting struct {
	Name   string
	Value  string // a secret's is [redacted]
	Source Source
	About  string // what it is, in a sentence or two
}

// Source says where a setting comes from.
type Source string

const (
	FromDefault  Source = "default"
	FromVariable Source = "variable"
	FromFile     Source = "file"     // named by the _FILE twin
	FromPreset   Source = "provider" // the preset that SMTP_PROVIDER names
)

// Effective lists the variables that have a value, in the order of the
// documentation, with secrets redacted: for the log at start, and for an operator who asks.
func (c Config) Effective() []Setting {
	var settings []Setting
	for i := range c.Relays {
		settings = append(settings, c.settings(c.Relays[i].prefix(), &c.Relays[i])...)
	}
	return append(settings, c.settings(servicePrefix, &c.Service)...)
}

func (c Config) settings(prefix string, spec any) []Setting {
	var settings []Setting
	secrets, names := map[string]bool{}, lists()
	for v := range variables(prefix, spec) {
		if v.secret() {
			secrets[v.value.Interface().(Secret).Reveal()] = true
		}
	}
	for v := range variables(prefix, spec) {
		text := v.text()
		if text == "" {
			continue
		}
		if secrets[text] { // Postmark's token is user name and password alike
			text = redacted
		}
		settings = append(settings, Setting{Name: v.name, Value: text, Source: c.sources[v.name], About: names.Replace(v.tag("desc"))})
	}
	return settings
}

// LogValue is the effective configuration as one group: name=value, with the
// source beside it where it is not the default.
func (c Config) LogValue() slog.Value {
	var attrs []slog.Attr
	for _, s := range c.Effective() {
		value := s.Value
		if s.Source != FromDefault && s.Source != "" {
			value += " (" + string(s.Source) + ")"
		}
		attrs = append(attrs, slog.String(s.Name, value))
	}
	return slog.GroupValue(attrs...)
}

// Variable is the full name of one of the relay's variables, such as SMTP2_HOST
// for the suffix HOST; for no suffix it is what all their names begin with.
func (relay Relay) Variable(suffix string) string { return relay.prefix() + "_" + suffix }

// prefix is "SMTP" for the first relay and "SMTP2" for the second.
func (relay Relay) prefix() string {
	if relay.Number <= 1 {
		return "SMTP"
	}
	return "SMTP" + strconv.Itoa(relay.Number)
}
