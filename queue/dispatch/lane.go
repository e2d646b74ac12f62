package dispatch

import "mailsidecar/mailer"

// Lane is the line that a message waits in: those of one API key and one
// priority, on one route, are served in turn.
type Lane struct {
	Priority mailer.Priority
	Key      string // name of the API key
}

// levels counts the priorities, the highest being level 0.
const levels = int(mailer.PriorityHigh-mailer.PriorityBulk) + 1

func level(p mailer.Priority) int { return int(mailer.PriorityHigh - p) }

func priorityAt(level int) mailer.Priority { return mailer.PriorityHigh - mailer.Priority(level) }

// line is what waits in memory in one lane of a group.
type line struct {
	Lane
	// fresh came with its content, claimed came from the store without. Workers
	// take from both in turn, so that neither a backlog nor a stream of new mail
	// starves the other.
	fresh, claimed []*Job
	claimedNext    bool
	storing        int // jobs that are being stored, and will be fresh
	inFlight       int
	// backlog says that more is due in the store than there was room for, and
	// room how many jobs that was.
	backlog bool
	room    int
}

func (l *line) waiting() int { return len(l.fresh) + len(l.claimed) }

// low says that it is time to claim more.
func (l *line) low() bool { return len(l.claimed) <= l.room/2 }
