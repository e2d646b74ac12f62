package relays

import (
	"slices"
	"strings"
)

// Setup is what hints need to know of the settings of one relay.
type Setup struct {
	Provider string // the preset's name; empty without one
	Host     string
	Username string
	Ports    []int
	// PortsSet reports whether a person has set the ports.
	PortsSet bool
	// Missing are the values that the preset of the host would fill in, as
	// "SMTP_RATE=30/m", where the settings have another value and nobody has set it.
	Missing []string
}

// Hints returns what is known of the relay at the host and does not fit the settings, as
// sentences without a full stop. They may be wrong, and change nothing: a relay changes
// its ways, and a host name is no proof. variable returns the full name of a variable.
func Hints(s Setup, variable func(suffix string) string) []string {
	p, ok := PresetAt(s.Host)
	if !ok {
		return nil
	}
	var hints []string
	switch {
	case s.Provider != "" && s.Provider != p.Name:
		hints = append(hints, variable("HOST")+" is "+s.Host+", a host of "+p.Title+", and "+variable("PROVIDER")+" is "+s.Provider)
	case s.Provider == "" && len(s.Missing) > 0:
		hints = append(hints, s.Host+" is a host of "+p.Title+": "+variable("PROVIDER")+"="+p.nameAt(s.Host)+" in place of "+variable("HOST")+
			" stands for "+strings.Join(s.Missing, ", "))
	}
	if h := p.userHint(s.Username); h != "" {
		hints = append(hints, variable("USERNAME")+" "+h)
	}
	if s.PortsSet {
		hints = append(hints, p.portHints(s.Ports, variable("PORTS"))...)
	}
	return hints
}

// nameAt returns what SMTP_PROVIDER has to be for the relay's host.
func (p Preset) nameAt(host string) string {
	host = normalHost(host)
	if host == p.Host {
		return p.Name
	}
	for _, r := range p.Regions {
		if r.Host == host {
			return p.Name + ":" + r.Name
		}
	}
	if region := p.regionIn(host); region != "" {
		return p.Name + ":" + region
	}
	return p.Name
}

// userHint says what is wrong with a user name that is not of the relay's kind; empty
// where it may be right. The name itself is not shown: some relays take a secret there.
func (p Preset) userHint(username string) string {
	switch {
	case username == "":
	case p.User.Kind == UserWord && username != p.User.Word:
		return "is not " + p.User.Word + ", which is the user name of every account of " + p.Title
	case p.User.Kind == UserAddress && !strings.Contains(username, "@"):
		return "is no address, and " + p.Title + " takes " + p.User.Note
	}
	return ""
}

// portHints names the ports on which the relay is not known to listen.
func (p Preset) portHints(ports []int, variable string) []string {
	var hints []string
	known := slices.Concat(p.Ports.Value, p.MorePorts.Value)
	for _, port := range ports {
		if !slices.Contains(known, port) {
			hints = append(hints, variable+" has "+numbers([]int{port})+", on which "+p.Title+" is not known to listen: it listens on "+numbers(known))
		}
	}
	return hints
}
