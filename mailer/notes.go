package mailer

import (
	"context"
	"time"
)

// ChangeNote replaces a note, a small value that several instances share, by what change makes
// of it, given the time of the place where notes are kept. The value is empty where there is
// no note. Of one note no two changes overlap. After an error it may have happened; change may be
// called on after ctx has ended, so that what it writes must not be touched then.
type ChangeNote func(ctx context.Context, kind, name string, change func(value []byte, now time.Time) []byte) error

// Elapsed is how long ago a time was, at most: the clock that runs evenly may stand still while
// the machine sleeps, and the other one may be set.
func Elapsed(since, now time.Time) time.Duration {
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}
