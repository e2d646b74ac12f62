package config

import (
	"errors"
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

// applyPreset fills in what SMTP_PROVIDER stands for and nothing else set.
func (r *reader) applyPreset(relay *Relay) {
	if relay.Provider == "" {
		return
	}
	p, err := relays.ProviderNamed(relay.Provider)
	if err != nil {
		r.refuseProvider(relay, err)
		return
	}
	if p.Guessed && !relay.sets(r, "HOST") {
		r.warn("%s names the region %s, which is not in our list: its host should be %s", relay.Variable("PROVIDER"), p.Region, p.Host)
	}
	relay.Provider, relay.Advice = p.Name, p.Advice.Value
	r.fill(relay, presetValues(p.Preset, relay))
	if p.TokensOnly.Value && relay.Password.IsSet() && !relay.OAuth2.Configured() {
		r.warn("%s is set, but %s", relay.nameSet(r, "PASSWORD"), p.Advice.Value)
	}
}

// refuseProvider reports a provider or a region that is unknown, with what was probably
// meant.
func (r *reader) refuseProvider(relay *Relay, err error) {
	what, remedy := "which is no provider we know", "set one that \"mailsidecar presets\" lists"
	if e, ok := errors.AsType[*relays.NameError](err); ok {
		if len(e.Near) > 0 {
			remedy = "set " + strings.Join(e.Near, " or ")
		}
		switch p := e.Preset; {
		case p.Name == "":
		case len(p.Regions) == 0 && !p.Regional():
			what, remedy = "and "+p.Title+" has no regions", "set "+p.Name
		default:
			what = "and " + p.Title + " has no such region"
		}
	}
	r.problem(relay.Variable("PROVIDER"), "is "+units.Quote(relay.Provider)+", "+what, remedy+", or leave it out and set "+relay.Variable("HOST"))
}

// presetValues are the preset's values by the name after SMTP_, as the
// environment would give them; empty where the general default holds.
func presetValues(p relays.Preset, relay *Relay) map[string]string {
	values := map[string]string{
		"HOST": p.Host, "PORTS": portsText(p.Ports.Value), "RATE": p.Rate.Value.String(),
		"MAX_RECIPIENTS": limitText(p.Recipients.Value), "MAX_CONNECTIONS": limitText(p.Connections.Value),
		"MESSAGES_PER_CONNECTION": limitText(p.MessagesPerConnection.Value),
	}
	if relay.Auth != "none" {
		values["USERNAME"] = p.User.Word
	}
	if relay.OAuth2.Fetched() && relay.OAuth2.TokenURL == "" {
		values["OAUTH2_PROVIDER"] = p.OAuth2.Value
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
