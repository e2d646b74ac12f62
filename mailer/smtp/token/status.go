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
	// zero where that is not known, for the grants without a person, and while Err says
	// that the login is not valid.
	LoginIssued, LoginExpires time.Time
	// SecretExpires and CertificateExpires are those of the client; zero where that is
	// not known.
	SecretExpires, CertificateExpires time.Time
	// Skew is how far the endpoint's clock was ahead of ours at the last answer.
	Skew time.Duration
	// Err is why the last request for a token failed; nil when it succeeded, and
	// before the first.
	Err error
	// Retry is when the endpoint is asked again after Err; zero without one.
	Retry time.Time
	// StoreErr is why the login could not be stored; nil when it is stored.
	StoreErr error
	// Forgetful says that the endpoint has replaced the configured refresh token, and
	// that its successor ends with the process.
	Forgetful bool
	// Warnings are what needs a person's attention soon, and does not stop mail yet.
	Warnings []Warning
}

const (
	// loginWarning is how long before its end a login is warned of, credentialWarning
	// the same for a client's secret and certificate.
	loginWarning      = 14 * 24 * time.Hour
	credentialWarning = 30 * 24 * time.Hour
	// skewWarning is the difference of clocks that is warned of. Assertions are good
	// for 5 minutes and more.
	skewWarning = 5 * time.Minute
	// microsoftLife is how long Microsoft's refresh tokens live from their issue.
	microsoftLife = 90 * 24 * time.Hour
	// warnAgain is how often a warning is told.
	warnAgain = 24 * time.Hour
)

// Status returns what is known at this moment.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, now := s.status, time.Now()
	st.Expires, st.Err, st.Retry = s.access.expires, s.failure.err, s.failure.retry
	if KindOf(st.Err) == KindLogin {
		st.LoginIssued, st.LoginExpires = time.Time{}, time.Time{}
	}
	soon := func(kind WarningKind, at time.Time, ahead time.Duration) {
		if !at.IsZero() && now.After(at.Add(-ahead)) {
			st.Warnings = append(st.Warnings, Warning{Kind: kind, At: at})
		}
	}
	soon(WarningLogin, st.LoginExpires, loginWarning)
	soon(WarningSecret, st.SecretExpires, credentialWarning)
	soon(WarningCertificate, st.CertificateExpires, credentialWarning)
	if st.Skew.Abs() > skewWarning {
		st.Warnings = append(st.Warnings, Warning{Kind: WarningClock, Skew: st.Skew})
	}
	if st.StoreErr != nil || st.Forgetful {
		st.Warnings = append(st.Warnings, Warning{Kind: WarningNotStored})
	}
	return st
}

// showLogin puts a login into the status. storeErr is why it could not be stored.
func (s *Source) showLogin(login Record, storeErr error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Account, s.status.LoginIssued, s.status.LoginExpires = login.Account, login.Issued, login.end()
	s.status.StoreErr = storeErr
	s.status.Forgetful = !s.opts.Store.Lasting() && login.RefreshToken != s.opts.RefreshToken
}

// end is when the refresh token ends, as far as is known; else zero.
func (r Record) end() time.Time {
	if r.Expires.IsZero() && r.Issuer == "microsoft" {
		return r.Issued.Add(microsoftLife)
	}
	return r.Expires
}

// tellWarnings tells each warning once a day. The caller has the turn.
func (s *Source) tellWarnings(now time.Time) {
	for _, w := range s.Status().Warnings {
		if last, ok := s.keeper.told[w.Kind]; !ok || now.Sub(last) >= warnAgain {
			s.keeper.told[w.Kind] = now
			s.opts.Notify(Event{Kind: EventWarning, Warning: w})
		}
	}
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
		return "the OAuth2 login is not stored, so that the next start will not have it"
	}
}
