package relays

import (
	"slices"
	"strings"
)

// PresetAt returns the preset of the relay at host: one of its hosts, one that its
// pattern allows, or that of the same issuer in another cloud.
func PresetAt(host string) (Preset, bool) {
	host = normalHost(host)
	p, ok := find(func(p *Preset) bool { return p.hasHost(host) })
	if ok {
		return p, true
	}
	if i, ok := CloudOf(host); ok {
		world, _ := IssuerNamed(i.Name, "")
		return find(func(p *Preset) bool { return p.Host == world.SMTPHost })
	}
	return Preset{}, false
}

// PresetFor returns the preset of the relay that host belongs to: that of [PresetAt],
// or else the first in the same domain, which is the last two labels of the name, if
// the name looks like one of a mail server. It is for advice: an unknown host in a
// known domain may differ.
func PresetFor(host string) (Preset, bool) {
	host = normalHost(host)
	if p, ok := PresetAt(host); ok {
		return p, true
	}
	first, _, _ := strings.Cut(host, ".")
	if !strings.Contains(first, "smtp") && !strings.Contains(first, "mail") {
		return Preset{}, false // a server that the provider hosts, as in ec2-192-0-2-1.compute-1.amazonaws.com
	}
	return find(func(p *Preset) bool { return domain(p.Pattern) == domain(host) || domain(p.Host) == domain(host) })
}

// normalHost returns the name in lower case and without the final dot.
func normalHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// hasHost reports whether host, which is in lower case, is one of the relay's. Each
// refusal asks for that, so nothing is copied.
func (p *Preset) hasHost(host string) bool { return p.lists(host) || p.regionIn(host) != "" }

// lists reports whether host is one of those that the table names.
func (p *Preset) lists(host string) bool {
	return host != "" && p.Host == host || slices.Contains(p.OtherHosts.Value, host) ||
		slices.ContainsFunc(p.Regions, func(r Region) bool { return r.Host == host })
}

// regionIn returns the label of host that stands for REGION in the pattern; empty where
// the host does not follow it.
func (p *Preset) regionIn(host string) string {
	before, after, ok := strings.Cut(p.Pattern, "REGION")
	if !ok {
		return ""
	}
	rest, ok := strings.CutPrefix(host, before)
	region, ok2 := strings.CutSuffix(rest, after)
	if !ok || !ok2 || strings.Contains(region, ".") {
		return ""
	}
	return region
}

// KnowsHost reports whether the table has a host of exactly that name: such a name is not
// misspelt. A host that only follows a pattern is not in the table.
func KnowsHost(host string) bool {
	host = normalHost(host)
	_, ok := find(func(p *Preset) bool { return p.lists(host) })
	return ok
}

// domain returns the last two labels of host.
func domain(host string) string {
	return host[strings.LastIndexByte(host[:max(0, strings.LastIndexByte(host, '.'))], '.')+1:]
}
