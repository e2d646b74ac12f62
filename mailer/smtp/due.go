package smtp

import (
	"time"

	"mailsidecar/mailer"
)

// A delivery of a lower priority waits as if it had arrived later by this much: it
// is overtaken by higher priorities that arrive within that time, and not by later
// ones.
const (
	normalLag = time.Minute
	bulkLag   = 3 * time.Minute
)

// due returns the time that orders deliveries in line: the earliest goes first.
func due(p mailer.Priority, arrived time.Time) time.Time {
	switch {
	case p > mailer.PriorityNormal:
		return arrived
	case p == mailer.PriorityNormal:
		return arrived.Add(normalLag)
	default:
		return arrived.Add(bulkLag)
	}
}
