package relays

import "slices"

// implicitPorts speak TLS from the first octet, by their registration or by habit.
var implicitPorts = []int{465, 2465, 8465, 443}

// ImplicitTLS reports whether a port speaks TLS from the first octet unless its
// operator says otherwise. All others speak STARTTLS.
func ImplicitTLS(port int) bool { return slices.Contains(implicitPorts, port) }

// submissionPorts are those on which relays listen in general, best first.
var submissionPorts = []int{587, 465, 2525, 25}

// OtherPorts returns the ports on which the relay at host may listen beside those
// given: the well-known ones, and those that its preset has. Best first.
func OtherPorts(host string, known []int) []int {
	preset, _ := PresetFor(host)
	var others []int
	for _, port := range slices.Concat(preset.Ports.Value, submissionPorts) {
		if !slices.Contains(known, port) && !slices.Contains(others, port) {
			others = append(others, port)
		}
	}
	return others
}
