package dispatch

import "mailsidecar/mailer"

// Lane names the messages of one API key and one priority. On each route they wait in
// one line, and the lines take turns.
type Lane struct {
	Priority mailer.Priority
	Key      string // name of the API key
}

// levels counts the priorities, the highest being level 0.
const levels = int(mailer.PriorityHigh-mailer.PriorityBulk) + 1

func level(p mailer.Priority) int { return int(mailer.PriorityHigh - p) }

func priorityAt(level int) mailer.Priority { return mailer.PriorityHigh - mailer.Priority(level) }

// line is the part of a [Lane] that a group has in memory.
type line struct {
	Lane
	// fresh came with its content, claimed came from the store without. Workers
	// take from both in turn, so that neither a backlog nor a stream of new mail
	// starves the other.
	fresh, claimed []*Job
	claimedNext    bool
	storing        int // jobs that are being stored, and will be fresh
	inFlight       int
	// share is how many claimed jobs the line may have, as of the last look at the
	// store. backlog says that more was due in the store.
	share   int
	backlog bool
}

func (l *line) waiting() int { return len(l.fresh) + len(l.claimed) }

// low says that it is time to claim more.
func (l *line) low() bool { return len(l.claimed) <= l.share/2 }
