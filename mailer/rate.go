package mailer

import "time"

// RateError is the cause of a [Failure] of class [ClassRelay] where no turn within
// the relay's rate came in time, or the service stops. It says nothing about the
// relay's health: the relay was not asked.
type RateError struct {
	At time.Time // when this message's turn would have come
}

func (e *RateError) Error() string {
	return "no message may set out before " + e.At.UTC().Format(time.RFC3339)
}
