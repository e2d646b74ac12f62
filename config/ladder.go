package config

import (
	"strconv"
	"strings"

	"github.com/kelseyhightower/envconfig"

	"mailsidecar/relays"
	"mailsidecar/units"
)

// Rung is one port of a relay's ladder.
type Rung struct {
	Port     int
	Implicit bool // TLS from the first octet (RFC 8314 §3.3), else STARTTLS
}

// String is the rung as one would write it: the mode is left out where the port
// says it.
func (g Rung) String() string {
	port := strconv.Itoa(g.Port)
	switch {
	case g.Implicit == relays.ImplicitTLS(g.Port):
		return port
	case g.Implicit:
		return port + "/tls"
	default:
		return port + "/starttls"
	}
}

// Ladder is a relay's rungs, in order of preference.
type Ladder []Rung

// maxRungs keeps a typing error from becoming a port scan.
const maxRungs = 16

var _ envconfig.Decoder = (*Ladder)(nil)

// Decode reads a ladder such as "587,2525,8465/tls".
func (l *Ladder) Decode(value string) error {
	var ladder Ladder
	var bad []string
	for part := range strings.SplitSeq(value, ",") {
		rung, ok := parseRung(strings.TrimSpace(part))
		if !ok {
			bad = append(bad, units.Quote(part))
			continue
		}
		for _, other := range ladder {
			if other.Port == rung.Port {
				return &invalid{"names port " + strconv.Itoa(rung.Port) + " twice", "name each port once"}
			}
		}
		ladder = append(ladder, rung)
	}
	const remedy = "write ports such as 587,2525 or 465/tls,587/starttls"
	switch {
	case len(bad) == 1:
		return &invalid{"has " + bad[0] + ", which is no port", remedy}
	case len(bad) > 1:
		return &invalid{"has " + strings.Join(bad[:min(len(bad), maxRungs)], " and ") + ", which are no ports", remedy}
	}
	if len(ladder) > maxRungs {
		return &invalid{"names too many ports", "name " + strconv.Itoa(maxRungs) + " at most"}
	}
	*l = ladder
	return nil
}

func parseRung(s string) (Rung, bool) {
	port, mode, explicit := strings.Cut(s, "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Rung{}, false
	}
	rung := Rung{Port: int(n), Implicit: relays.ImplicitTLS(int(n))}
	switch {
	case !explicit:
	case strings.EqualFold(mode, "tls"):
		rung.Implicit = true
	case strings.EqualFold(mode, "starttls"):
		rung.Implicit = false
	default:
		return Rung{}, false
	}
	return rung, true
}

// numbers returns the ports without their TLS mode.
func (l Ladder) numbers() []int {
	ports := make([]int, len(l))
	for i, rung := range l {
		ports[i] = rung.Port
	}
	return ports
}

func (l Ladder) String() string {
	parts := make([]string, len(l))
	for i, rung := range l {
		parts[i] = rung.String()
	}
	return strings.Join(parts, ",")
}
