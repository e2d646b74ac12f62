package mailer

import "time"

// LoginError is the cause of a [Failure] at [StageAuth], or by a reply to mail that wants a
// login though there was one, that says when the next login
// at the relay's account makes sense. Relays and providers lock accounts after
// repeated logins that they refuse, so the next one has to wait.
type LoginError struct {
	// Next is when to try again; zero means that the next login need not wait.
	Next time.Time
	// Tried reports whether the relay was asked just now. Otherwise the failure is
	// that of an earlier login, and the relay was not asked.
	Tried bool
	Err   error // the cause of the failure itself; may be nil
}

func (e *LoginError) Error() string {
	if e.Next.IsZero() {
		return "the login failed"
	}
	return "the next login is not before " + e.Next.UTC().Format(time.RFC3339)
}

func (e *LoginError) Unwrap() error { return e.Err }
