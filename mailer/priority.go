package mailer

import (
	"strings"
	"time"
)

// Priority orders messages that wait for the same relay: one of a higher
// priority goes first, though none waits for ever. The zero value is normal.
type Priority int8

const (
	PriorityBulk   Priority = -1 // newsletters: may wait for everything else
	PriorityNormal Priority = 0
	PriorityHigh   Priority = 1 // somebody sits in front of the screen
)

var priorityNames = map[Priority]string{PriorityBulk: "bulk", PriorityNormal: "normal", PriorityHigh: "high"}

// String returns "bulk", "normal" or "high", as [ParsePriority] reads it.
func (p Priority) String() string { return priorityNames[p] }

// ParsePriority reads the name of a priority; ok is false for any other text.
func ParsePriority(name string) (p Priority, ok bool) {
	for p, known := range priorityNames {
		if name == known {
			return p, true
		}
	}
	return PriorityNormal, false
}

// precedencePriority is the priority that a message's Precedence field asks for.
// The field is older than any RFC (RFC 2076 §3.9 discourages it), but mailing
// lists and newsletters have always set it, and sendmail has always queued by it.
func PrecedencePriority(value string) Priority {
	switch strings.ToLower(strings.Trim(value, " \t\r\n")) {
	case "bulk", "list", "junk":
		return PriorityBulk
	default:
		return PriorityNormal
	}
}

// A delivery of a lower priority stands in line as if it had come later by so
// much. So it is overtaken by what comes within that time, and by nothing else.
const (
	normalLag = time.Minute
	bulkLag   = 3 * time.Minute
)

// due is what deliveries are served in order of.
func (p Priority) Due(arrived time.Time) time.Time {
	switch {
	case p > PriorityNormal:
		return arrived
	case p == PriorityNormal:
		return arrived.Add(normalLag)
	default:
		return arrived.Add(bulkLag)
	}
}
