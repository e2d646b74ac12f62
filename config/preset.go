package config

import (
	"strconv"
	"strings"

	"mailsidecar/relays"
	"mailsidecar/units"
)

// The authorization servers that OAUTH2_PROVIDER may name.
const (
	google    = "google"
	microsoft = "microsoft"
)

func presetNames() string {
	var names []string
	for _, p := range relays.Presets() {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

// applyPreset fills in what SMTP_PROVIDER stands for and nothing else set.
func (r *reader) applyPreset(relay *Relay) {
	if relay.Provider == "" {
		return
	}
	name, region, _ := strings.Cut(strings.ToLower(relay.Provider), ":")
	p, ok := relays.PresetNamed(name)
	if !ok || region != "" && (!p.Regional() || !isDomain(region)) {
		r.problem(relay.Variable("PROVIDER"), "is "+units.Quote(relay.Provider)+", which is no provider we know",
			"set one of "+presetNames()+" (ses:REGION), or leave it out and set "+relay.Variable("HOST"))
		return
	}
	if region != "" {
		p = p.InRegion(region)
	}
	relay.Provider, relay.Advice = p.Name, p.Advice
	r.fill(relay, presetValues(p, relay))
	if p.TokensOnly && relay.Password.IsSet() && !relay.OAuth2.Configured() {
		r.warn("%s is set, but %s", relay.nameSet(r, "PASSWORD"), p.Advice)
	}
}

// presetValues are the preset's values by the name after SMTP_, as the
// environment would give them; empty where the general default holds.
func presetValues(p relays.Preset, relay *Relay) map[string]string {
	values := map[string]string{
		"HOST": p.Host, "PORTS": portsText(p.Ports), "RATE": p.Rate.String(),
		"MAX_RECIPIENTS": limitText(p.Recipients), "MAX_CONNECTIONS": limitText(p.Connections),
		"MESSAGES_PER_CONNECTION": limitText(p.MessagesPerConnection),
	}
	if relay.Auth != "none" {
		values["USERNAME"] = p.Username
	}
	if relay.OAuth2.Fetched() && relay.OAuth2.TokenURL == "" {
		values["OAUTH2_PROVIDER"] = p.OAuth2
	}
	return values
}

func limitText(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// portsText is the ladder of these ports as SMTP_PORTS has it.
func portsText(ports []int) string {
	texts := make([]string, len(ports))
	for i, port := range ports {
		texts[i] = strconv.Itoa(port)
	}
	return strings.Join(texts, ",")
}

// fill gives values to variables that are not set. A value must be valid: a test
// reads every preset.
func (r *reader) fill(relay *Relay, values map[string]string) {
	for v := range variables(relay.prefix(), relay) {
		value := values[strings.TrimPrefix(v.name, relay.prefix()+"_")]
		if value == "" || r.sources[v.name] != FromDefault {
			continue
		}
		if err := v.decode(nowhere, value); err != nil {
			panic(v.name + ": the preset: " + err.Error())
		}
		r.sources[v.name] = FromPreset
	}
}
