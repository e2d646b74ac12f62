package diagnosis

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"mailsidecar/mailer/smtp"
	"mailsidecar/relays"
)

// nameText is for a host whose addresses are not known.
func (f finding) nameText(text adviceText) adviceText {
	servers := f.report.NameServers
	switch f.problem() {
	case smtp.ProblemName:
		return f.unknownName(text)
	case smtp.ProblemNameFailed:
		if len(servers) > 0 {
			text.found = "the name $HOST could not be looked up: " + nameServers(servers, "answers with an error, or refuses", "answer with an error, or refuse") + "."
		}
	default:
		if len(servers) > 0 {
			text.found = "the name $HOST could not be looked up: " + silentServers(servers)
		}
	}
	return text
}

// unknownName is for a host that DNS does not know.
func (f finding) unknownName(text adviceText) adviceText {
	host, provider := f.report.Host, f.settings.Provider
	similar, isLike := relays.SimilarHost(host)
	switch {
	case relays.KnowsHost(host):
		text.found = "the name $HOST is right, but this machine's DNS does not know it."
		text.do = "Look at the name servers of this machine or its container (/etc/resolv.conf): they must answer for names on the internet."
	case f.known && f.preset.Regional() && f.preset.Name == provider:
		text.do = "Check the region in SMTP_PROVIDER, or the spelling of SMTP_HOST: \"mailsidecar presets " + provider + "\" lists the regions that are known."
	case isLike:
		text.do = "Did you mean " + similar + "? Check the spelling of SMTP_HOST."
	case strings.Contains(strings.TrimSuffix(host, "."), "."):
		text.do = "Check the spelling of SMTP_HOST."
	}
	return text
}

// silentServers says which name servers do not answer.
func silentServers(servers []smtp.NameServer) string {
	silent := slices.DeleteFunc(slices.Clone(servers), func(s smtp.NameServer) bool { return s.Answers })
	answering := slices.DeleteFunc(slices.Clone(servers), func(s smtp.NameServer) bool { return !s.Answers })
	switch {
	case len(silent) == 0:
		return nameServers(servers, "answers too late", "answer too late") + "."
	case len(answering) == 0:
		return nameServers(silent, "does not answer", "do not answer") + "."
	case len(answering) == 1:
		return nameServers(silent, "does not answer", "do not answer") + ", and " + listServers(answering) + " is asked too late."
	default:
		return nameServers(silent, "does not answer", "do not answer") + ", and " + listServers(answering) + " are asked too late."
	}
}

// nameServers says what one name server does, or what several do.
func nameServers(servers []smtp.NameServer, does, do string) string {
	if len(servers) == 1 {
		return "the name server " + listServers(servers) + " " + does
	}
	return "the name servers " + listServers(servers) + " " + do
}

func listServers(servers []smtp.NameServer) string {
	var list []string
	for _, s := range servers {
		list = append(list, s.Address)
	}
	return joined(list)
}

// joined lists words as a sentence does.
func joined(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	last := len(list) - 1
	return strings.Join(list[:last], ", ") + " and " + list[last]
}

// routeText is for a machine without a route to the relay.
func (f finding) routeText(text adviceText) adviceText {
	if addresses := f.report.Addresses; len(addresses) > 0 && !slices.ContainsFunc(addresses, isIPv4) {
		return adviceText{
			"the relay has IPv6 addresses only, and this machine has no route there.",
			"Give this machine or its container IPv6, or use a relay that has an IPv4 address.",
		}
	}
	return text
}

func isIPv4(address string) bool {
	ip, err := netip.ParseAddr(address)
	return err == nil && ip.Unmap().Is4()
}

// fates say in a few words what became of a connection to a port.
var fates = map[smtp.Problem]string{
	smtp.ProblemNoAnswer:    "gives no answer",
	smtp.ProblemRefused:     "is refused",
	smtp.ProblemRejected:    "is rejected by a router or firewall",
	smtp.ProblemUnreachable: "has no route",
	smtp.ProblemBarred:      "is forbidden by this system",
}

// unreached is for a relay of which no port takes a connection: all its rungs are one
// fault.
func (f finding) unreached(groups []finding) Advice {
	a := f.advice()
	if len(groups) > 1 {
		a.Ports = nil
		a.Found = "no port of $HOST takes a connection: " + listFates(groups) + "."
	}
	if families := f.otherFamily(); families != "" {
		a.Found += families
	}
	if slices.ContainsFunc(groups, func(g finding) bool { return g.problem() == smtp.ProblemNoAnswer }) {
		a.Do = f.wayOut()
	}
	return a
}

// listFates says what became of each port.
func listFates(groups []finding) string {
	var list []string
	for _, g := range groups {
		fate, ok := fates[g.problem()]
		if !ok {
			fate = "has another fault"
		}
		list = append(list, joined(strings.Split(withMode(g.ports, ""), ","))+" "+fate)
	}
	return joined(list)
}

// familyFates say the same of one family of addresses.
var familyFates = map[smtp.Problem]string{
	smtp.ProblemNoAnswer:    "there is no answer",
	smtp.ProblemRefused:     "the connection is refused",
	smtp.ProblemRejected:    "a router or firewall rejects the connection",
	smtp.ProblemUnreachable: "this machine has no route there",
	smtp.ProblemBarred:      "this system forbids the connection",
}

// otherFamily says what became of the family of addresses that the fault is not about,
// where IPv4 and IPv6 differ.
func (f finding) otherFamily() string {
	for _, family := range f.rungs[0].Families {
		if fate, ok := familyFates[family.Problem]; ok && family.Problem != f.problem() {
			return " That is so over " + otherThan(family.Family) + "; over " + family.Family + " " + fate + "."
		}
	}
	return ""
}

func otherThan(family string) string {
	if family == "IPv4" {
		return "IPv6"
	}
	return "IPv4"
}

// brokenFamily says which family of addresses does not work while the other one does. A
// machine without IPv6 is no fault.
func brokenFamily(rung smtp.RungCheck) (found string, ok bool) {
	if rung.TCP != "open" {
		return "", false
	}
	for _, family := range rung.Families {
		if fate, ok := familyFates[family.Problem]; ok && (family.Problem != smtp.ProblemUnreachable || family.Family == "IPv4") {
			return fmt.Sprintf("%s does not work: %s. %s does.", family.Family, fate, otherThan(family.Family)), true
		}
	}
	return "", false
}

// wayOut is for a machine from which no port of the relay answers: another place for
// mailsidecar, or another relay.
func (f finding) wayOut() string {
	do := "Waiting longer does not help. Ask the hosting provider to open one of them. If it does not: run mailsidecar on another machine, whose ports are open, and let the app" +
		" call it there over HTTPS; or choose a relay that listens on 443, such as SMTP2GO with SMTP_PORTS=443."
	if others := f.report.Others; len(others) > 0 {
		var ports []int
		for _, o := range others {
			ports = append(ports, o.Port)
		}
		slices.Sort(ports)
		do = "Other ports were tried, too (" + joined(strings.Split(withMode(ports, ""), ",")) + "), and do not help. " + do
	}
	return do
}

// serveOthers names the other ports that answer as they should.
func serveOthers(r smtp.Report) string {
	var ports []int
	for _, other := range r.Others {
		if usable(other) {
			ports = append(ports, other.Port)
		}
	}
	setting := "SMTP_PORTS=" + withMode(ports, "") + "."
	switch len(ports) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("Port %d answers as it should: set %s", ports[0], setting)
	default:
		return "Ports " + joined(strings.Split(withMode(ports, ""), ",")) + " answer as they should: set " + setting
	}
}
