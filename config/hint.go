package config

import (
	"strings"

	"mailsidecar/relays"
)

// hints returns what is known of the relay at the host and does not fit its settings.
func (r *reader) hints(relay *Relay) []string {
	p, ok := relays.PresetAt(relay.Host)
	if !ok {
		return nil
	}
	s := relays.Setup{
		Provider: relay.Provider, Host: relay.Host, Username: relay.Username,
		Ports: relay.Ports.numbers(), PortsSet: relay.sets(r, "PORTS"),
	}
	if relay.Provider == "" {
		s.Missing = r.missing(relay, presetValues(p, relay))
	}
	return relays.Hints(s, relay.Variable)
}

// missing lists the values of a preset that the settings do not have, and that no
// variable sets: what the preset would change.
func (r *reader) missing(relay *Relay, values map[string]string) []string {
	var list []string
	for v := range variables(relay.prefix(), relay) {
		suffix := strings.TrimPrefix(v.name, relay.prefix()+"_")
		if value := values[suffix]; value != "" && value != v.text() && r.sources[v.name] == FromDefault {
			list = append(list, v.name+"="+value)
		}
	}
	return list
}
