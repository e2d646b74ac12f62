package token

import (
	"fmt"
	"time"
)

// Status is what is known of a source of tokens at one moment. It holds no secret.
type Status struct {
	// Account is the person who logged in; empty where no person did, or where it is
	// not known.
	Account string
	// Expires is when the access token in use ends; zero where there is none.
	Expires time.Time
	// LoginIssued is when the refresh token was issued, LoginExpires when it ends;
	// zero where that is not known, and for the grants without a person.
	LoginIssued, LoginExpires time.Time
	// SecretExpires and CertificateExpires are those of the client; zero where that is
	// not known.
	SecretExpires, CertificateExpires time.Time
	// Err is why the last request for a token failed; nil when it succeeded, and
	// before the first.
	Err error
	// Retry is when the endpoint is asked again after Err; zero without one.
	Retry time.Time
	// StoreErr is why the login could not be stored; nil when it is stored.
	StoreErr error
	// Warnings are what needs a person's attention soon, and does not stop mail yet.
	Warnings []Warning
}

// Warning is something that will stop mail unless a person acts.
type Warning struct {
	Kind WarningKind
	// At is when mail will stop; zero for WarningClock and WarningNotStored.
	At time.Time
	// Skew is how far the endpoint's clock is ahead of ours, for WarningClock.
	Skew time.Duration
}

// WarningKind is the kind of a warning. Its text is stable.
type WarningKind string

const (
	// WarningLogin is a login that ends soon.
	WarningLogin WarningKind = "login_expires"
	// WarningSecret is a client secret that ends soon.
	WarningSecret WarningKind = "secret_expires"
	// WarningCertificate is a client's certificate that ends soon.
	WarningCertificate WarningKind = "certificate_expires"
	// WarningClock is a clock that differs by more than 5 minutes from the endpoint's.
	WarningClock WarningKind = "clock_differs"
	// WarningNotStored is a login that the next start will not have.
	WarningNotStored WarningKind = "login_not_stored"
)

// String is the warning as a sentence without a remedy.
func (w Warning) String() string {
	ends := "ends on " + w.At.UTC().Format(time.DateOnly)
	if !w.At.After(time.Now()) {
		ends = "ended on " + w.At.UTC().Format(time.DateOnly)
	}
	switch w.Kind {
	case WarningLogin:
		return "the OAuth2 login " + ends
	case WarningSecret:
		return "the OAuth2 client secret " + ends
	case WarningCertificate:
		return "the OAuth2 client's certificate " + ends
	case WarningClock:
		direction := "behind"
		if w.Skew < 0 {
			direction = "ahead of"
		}
		return fmt.Sprintf("this machine's clock is %s %s the token endpoint's", w.Skew.Abs().Round(time.Second), direction)
	default:
		return "the OAuth2 login could not be stored, so that the next start will not have it"
	}
}
