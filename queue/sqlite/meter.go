package sqlite

import "time"

// Meter counts commits. Its methods return at once.
type Meter interface {
	// Committed counts a commit that has happened: how long it took, the fsync included, and
	// how many writes it had.
	Committed(took time.Duration, writes int)
	// CommitFailed counts one that has not, or of which that is not known.
	CommitFailed()
}

// countCommit counts a commit of so many writes that began then.
func (w *writer) countCommit(began time.Time, writes int, err error) {
	switch m := w.store.opts.Meter; {
	case m == nil:
	case err != nil:
		m.CommitFailed()
	default:
		m.Committed(time.Since(began), writes)
	}
}
