package mailer

// Priority orders messages that wait for the same relay: a higher priority goes first,
// but lower ones get their turn, too. The zero value is normal.
type Priority int8

const (
	PriorityBulk   Priority = -1 // newsletters: may wait for everything else
	PriorityNormal Priority = 0
	PriorityHigh   Priority = 1 // a person is waiting for the mail
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
