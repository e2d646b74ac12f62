package mailer

import "time"

// Rate is a number of messages in a period of time. Zero means no limit.
type Rate struct {
	Messages int
	Per      time.Duration
}

// RateError is the cause of a [Failure] of class [ClassRelay] where no turn within
// the relay's rate came in time, or the service stops. It says nothing about the
// relay's health: the relay was not asked.
type RateError struct {
	At time.Time // when this message's turn would have come
}

func (e *RateError) Error() string {
	return "no message may set out before " + e.At.UTC().Format(time.RFC3339)
}
