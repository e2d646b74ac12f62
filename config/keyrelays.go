package config

import (
	"slices"
	"strconv"
	"strings"

	"mailsidecar/units"
)

// checkKeyRelays gives each relay the keys whose mail it may take.
func (r *reader) checkKeyRelays(s *Service, relays []Relay) {
	const remedy = "write name:relay|relay, such as shop:1 or news:2|1; 1 is the relay of SMTP_…, 2 that of SMTP2_…"
	before := len(r.problems)
	r.forKeys(s, "KEY_RELAYS", s.KeyRelays, remedy, func(k *APIKey, value string) string {
		place := 0
		for name := range strings.SplitSeq(value, "|") {
			i, bad := relayNamed(relays, strings.TrimSpace(name))
			if bad != "" {
				return "gives key " + k.Name + " a relay" + shownWord(s, name) + " " + bad
			}
			if relays[i].Keys[k.Name] > 0 {
				return "gives key " + k.Name + " the relay " + strconv.Itoa(relays[i].Number) + " twice"
			}
			if relays[i].Keys == nil {
				relays[i].Keys = map[string]int{}
			}
			place++
			relays[i].Keys[k.Name] = place
		}
		return ""
	})
	if len(r.problems) > before || s.ForceFrom != "" { // then no mail has a sender of KEY_SENDERS, see requireRelayFor
		return
	}
	for _, k := range s.Keys {
		r.requireRelayForKey(k, ofKey(relays, k.Name))
	}
}

// relayNamed returns the relay of that number, host or provider, or what is wrong.
func relayNamed(relays []Relay, name string) (int, string) {
	var found []int
	for i, relay := range relays {
		if name == strconv.Itoa(relay.Number) {
			return i, ""
		}
		if name != "" && (strings.EqualFold(name, relay.Host) || strings.EqualFold(name, relay.Provider)) {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 0:
		return 0, "that is not configured"
	case 1:
		return found[0], ""
	default:
		return 0, "that is the host or provider of several: write its number"
	}
}

// ofKey returns the relays that a key names.
func ofKey(relays []Relay, key string) []Relay {
	var named []Relay
	for _, relay := range relays {
		if relay.Keys[key] > 0 {
			named = append(named, relay)
		}
	}
	return named
}

// requireRelayForKey refuses a key that may send from nothing that one of its relays takes.
func (r *reader) requireRelayForKey(k APIKey, named []Relay) {
	if len(named) == 0 || len(k.Senders) == 0 || slices.ContainsFunc(k.Senders, func(s string) bool { return r.takenByOne(named, s) }) {
		return
	}
	r.problem(serviceName("KEY_RELAYS"), "gives key "+units.Quote(k.Name)+" no relay that takes its senders in "+serviceName("KEY_SENDERS"),
		"name a relay whose SENDERS has them, or one without SENDERS")
}

// takes reports whether SENDERS names an address, its domain, or an address of the domain.
func (relay Relay) takes(sender string) bool {
	domain := sender[strings.LastIndexByte(sender, '@')+1:]
	return slices.ContainsFunc(relay.Senders, func(named string) bool {
		return named == sender || named == domain || sender == domain && strings.HasSuffix(named, "@"+domain)
	})
}
