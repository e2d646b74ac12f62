package mailer

import "time"

// PauseError is the cause of a [Failure] of a relay that was not asked: its reply to an
// earlier message, which is that of the failure, said until when it takes no mail.
type PauseError struct {
	Until time.Time
	Err   error // the cause of that failure; may be nil
}

func (e *PauseError) Error() string {
	return "the relay is not asked before " + e.Until.UTC().Format(time.RFC3339)
}

func (e *PauseError) Unwrap() error { return e.Err }
