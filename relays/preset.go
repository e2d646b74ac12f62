// Package relays holds what is known of public relays beyond the protocol: how
// each is reached and what it limits.
//
// It connects to nothing and decides nothing. The folder table has a file for each
// relay, which changes when the relay changes its habits. Each fact there names its
// source: the relay's own documentation, or a public report of what it does.
package relays

import (
	"iter"
	"slices"
	"strings"

	"mailsidecar/units"
)

// Preset is one relay in the table, and what SMTP_PROVIDER stands for. Vendors change
// their limits without notice: a limit here is a default that the configuration may
// raise. A fact without a source is unknown, so that the general default holds.
type Preset struct {
	Name    string   `json:"name"`  // in lower case, as the file's
	Title   string   `json:"title"` // the provider's own spelling
	Aliases []string `json:"aliases,omitzero"`
	Docs    string   `json:"docs"` // address of the provider's page about SMTP
	// Host is the relay's DNS name; empty where each region has its own, see
	// [Preset.InRegion].
	Host       string            `json:"host,omitzero"`
	OtherHosts Fact[[]string]    `json:"other_hosts,omitzero"` // other names of the same relay
	Pattern    string            `json:"pattern,omitzero"`     // host of a region, which REGION stands for
	Regions    []Region          `json:"regions,omitzero"`
	Sources    map[string]Source `json:"sources"`

	// Ports are those to try, best first: STARTTLS before implicit TLS. Each uses TLS
	// as its number implies.
	Ports      Fact[[]int]    `json:"ports"`
	MorePorts  Fact[[]int]    `json:"more_ports,omitzero"` // that it listens on, too
	Auth       Fact[[]string] `json:"auth,omitzero"`       // mechanisms, as SMTP_AUTH names them
	User       User           `json:"user,omitzero"`
	Password   Fact[string]   `json:"password,omitzero"`    // what the password is, in words
	OAuth2     Fact[string]   `json:"oauth2,omitzero"`      // name of its authorization server: "google" or "microsoft"
	TokensOnly Fact[bool]     `json:"tokens_only,omitzero"` // it refuses passwords

	Size                  Fact[units.Size]     `json:"size,omitzero"`        // of a message
	Recipients            Fact[int]            `json:"recipients,omitzero"`  // in one transaction
	Connections           Fact[int]            `json:"connections,omitzero"` // at a time
	MessagesPerConnection Fact[int]            `json:"messages_per_connection,omitzero"`
	Rate                  Fact[units.Rate]     `json:"rate,omitzero"`
	Quota                 Fact[string]         `json:"quota,omitzero"` // how much mail an account may send, in words
	Idle                  Fact[units.Duration] `json:"idle,omitzero"`  // after which the relay closes a connection

	From      Fact[From]   `json:"from,omitzero"`
	SignsDKIM Fact[bool]   `json:"signs_dkim,omitzero"`
	Login     Fact[string] `json:"login,omitzero"` // what to do when it refuses the login: a sentence
	// Advice is what its users most often get wrong: one sentence without a full stop.
	Advice Fact[string]   `json:"advice"`
	Traps  []Fact[string] `json:"traps,omitzero"` // other things to know, a sentence each
	// Marks are parts of its replies, in lower case, by which they show whose they are.
	Marks   []string `json:"marks,omitzero"`
	Replies Replies  `json:"replies,omitzero"`
}

// Presets returns every preset, in the order of their names.
func Presets() []Preset { return slices.Clone(knowledge()) }

// PresetNamed returns the preset of that name, which is in lower case. Aliases and
// regions are for [ProviderNamed].
func PresetNamed(name string) (Preset, bool) {
	return find(func(p *Preset) bool { return p.Name == name })
}

func find(matches func(*Preset) bool) (Preset, bool) {
	all := knowledge()
	for i := range all {
		if matches(&all[i]) {
			return all[i], true
		}
	}
	return Preset{}, false
}

// Regional reports whether the relay has one host in each region, so that Host is
// empty.
func (p Preset) Regional() bool { return p.Pattern != "" }

// InRegion returns the preset with the host of that region, such as "eu-west-1".
// The region of a relay that is not regional is ignored.
func (p Preset) InRegion(region string) Preset {
	if p.Regional() {
		p.Host = strings.Replace(p.Pattern, "REGION", region, 1)
	}
	return p
}

// names yields the relay's name and its aliases, those of its regions too.
func (p Preset) names() iter.Seq[string] {
	return func(yield func(string) bool) {
		all := append([]string{p.Name}, p.Aliases...)
		for _, r := range p.Regions {
			all = append(all, r.Aliases...)
		}
		for _, name := range all {
			if !yield(name) {
				return
			}
		}
	}
}

// hosts yields the relay's hosts, but for those of a pattern that no region is known
// for. One may come twice.
func (p Preset) hosts() iter.Seq[string] {
	return func(yield func(string) bool) {
		if p.Host != "" && !yield(p.Host) {
			return
		}
		for _, host := range p.OtherHosts.Value {
			if !yield(host) {
				return
			}
		}
		for _, r := range p.Regions {
			if !yield(r.Host) {
				return
			}
		}
	}
}
