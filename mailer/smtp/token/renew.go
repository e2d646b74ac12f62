package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"mailsidecar/credentials"
)

const (
	// renewalTimeout limits one renewal: the wait for the lock and two requests.
	renewalTimeout = LockTimeout + 2*RequestTimeout + 10*time.Second
	// LockTimeout is how long to wait for the lock of a login. A server has it while it
	// renews a token, with two requests at most.
	LockTimeout = 2*RequestTimeout + 10*time.Second

	// After a fault that may pass the next request comes after firstPause, twice that,
	// and so on up to longestPause, so that mail goes on soon after it.
	firstPause   = 5 * time.Second
	longestPause = 30 * time.Second
	// After a refusal it comes after refusalPause, twice that, up to
	// longestRefusalPause. A new login, and a token that another process fetches, are
	// taken at once.
	refusalPause        = time.Minute
	longestRefusalPause = 15 * time.Minute
	// tellAgain is how often a failure that lasts is told.
	tellAgain = time.Hour
)

// LockedError says that another process held the lock of the login all the time: it
// renews the token, it hangs, or it cannot write a new refresh token to the disk.
type LockedError struct {
	Path string // of the lock; empty where it is no file
	Err  error  // the end of the caller's context; nil after 70 s, the longest wait
}

func (e *LockedError) Error() string {
	text := "another mailsidecar process holds the login of this relay"
	if e.Path != "" {
		text += ": lock " + e.Path
	}
	return text
}

func (e *LockedError) Unwrap() error { return e.Err }

// lockedFor is that error.
func (s *Source) lockedFor(err error) error {
	e := &LockedError{Err: err}
	if store, ok := s.opts.Store.(interface{ lockPath(relay int) string }); ok {
		e.Path = store.lockPath(s.opts.Relay)
	}
	return e
}

// pauseAfter returns how long no request is made after count failures in a row, the
// last of them err.
func pauseAfter(err error, count int) time.Duration {
	first, longest := firstPause, longestPause
	e, refused := errors.AsType[*Error](err)
	if refused && e.Kind() != KindPassing {
		first, longest = refusalPause, longestRefusalPause
	}
	pause := min(first<<min(count-1, 10), longest)
	if refused {
		pause = max(pause, e.RetryAfter)
	}
	return pause
}

// renew gets a token and then ends r.
func (s *Source) renew(r *renewal, refused string) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	ctx, cancel := context.WithTimeout(s.ctx, renewalTimeout)
	defer cancel()
	r.err = s.fetch(ctx, refused)
	s.endRenewal(r, time.Now())
}

// endRenewal records what became of a renewal and tells of it.
func (s *Source) endRenewal(r *renewal, now time.Time) {
	s.mu.Lock()
	before := s.failure
	s.failure = failure{}
	var events []Event
	switch {
	case r.err != nil:
		s.failure = failure{err: r.err, count: before.count + 1, told: before.told}
		s.failure.retry = now.Add(pauseAfter(r.err, s.failure.count))
		if before.err == nil || reason(before.err) != reason(r.err) || now.Sub(before.told) >= tellAgain {
			s.failure.told = now
			events = append(events, Event{Kind: EventFailed, Err: r.err, Retry: s.failure.retry})
		}
	case before.err != nil:
		events = append(events, Event{Kind: EventRecovered})
	}
	if r.err == nil {
		r.token = s.access.token
	}
	s.renewal = nil
	s.mu.Unlock()
	close(r.done)
	for _, e := range events {
		s.opts.Notify(e)
	}
	s.tellWarnings(now)
}

// reason is what of a failure stays the same while its cause does. Descriptions hold
// numbers of requests, and errors of the network hold ports, one of several addresses,
// and the time.
func reason(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return fmt.Sprint(e.Status, e.Code, e.Subtype, e.Numbers)
	}
	text := err.Error()
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		text = dns.Name + dns.Err
	} else if op, ok := errors.AsType[*net.OpError](err); ok {
		for inner := op; ok; inner, ok = errors.AsType[*net.OpError](inner.Err) {
			op = inner // that of a proxy holds another one
		}
		text = op.Op + op.Err.Error()
	}
	return strings.Map(withoutDigits, text)
}

func withoutDigits(r rune) rune {
	if '0' <= r && r <= '9' {
		return -1
	}
	return r
}

// fetch gets a token in the way of the grant.
func (s *Source) fetch(ctx context.Context, refused string) error {
	endpoint := &s.opts.Endpoint
	var answer Answer
	var err error
	switch s.opts.Grant {
	case GrantLogin:
		return s.fetchByLogin(ctx, refused)
	case GrantClient:
		answer, err = endpoint.ClientCredentials(ctx, s.opts.Scopes)
	case GrantServiceAccount:
		var account credentials.ServiceAccount
		if account, err = credentials.ReadServiceAccount(s.opts.ServiceAccountFile); err == nil {
			answer, err = endpoint.ActFor(ctx, account, s.opts.Subject, s.opts.Scopes)
		}
	}
	s.noteSkew(answer, err)
	if err == nil {
		s.use(accessOf(answer, time.Now()))
	}
	return err
}

// accessOf is the access token of an answer that came just now.
func accessOf(a Answer, now time.Time) access {
	return access{a.AccessToken, now, now.Add(cmp.Or(a.Life, unknownLife))}
}

func (s *Source) use(a access) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.access = a
	s.status.CertificateExpires = certificateEnd(s.opts.Endpoint.Client)
}

// noteSkew keeps how far the endpoint's clock is ahead, where it answered.
func (s *Source) noteSkew(a Answer, err error) {
	skew := a.Skew
	if err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return
		}
		skew = e.Skew
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Skew = skew
}

// fetchByLogin spends the refresh token, under the lock of the store from before it is
// read until its successor is saved.
func (s *Source) fetchByLogin(ctx context.Context, refused string) error {
	unlock, err := s.lockStore(ctx)
	if err != nil {
		return err
	}
	defer func() { s.keeper.release(s, unlock) }()
	login, err := s.keeper.current(ctx, s)
	if err != nil {
		return err
	}
	if s.useStored(login, refused) {
		return nil
	}
	if err := s.mustSpare(refused); err != nil {
		return err
	}
	answer, err := s.refresh(ctx, login)
	if KindOf(err) == KindLogin {
		s.keeper.refused = s.keeper.refused || login.RefreshToken == s.opts.RefreshToken
		// Somebody may have logged in, or spent the token, without the lock.
		again, loadErr := s.keeper.current(ctx, s)
		if loadErr == nil && again.RefreshToken != login.RefreshToken {
			if login = again; s.useStored(login, refused) {
				return nil
			}
			answer, err = s.refresh(ctx, login)
		}
	}
	now := time.Now()
	if err == nil || answer.RefreshToken != "" {
		s.keeper.replace(ctx, s, login.renewed(answer, s.opts, now))
	}
	if err == nil {
		s.use(accessOf(answer, now))
	}
	if KindOf(err) == KindLogin && !s.opts.Store.Lasting() {
		return &MemoryError{err}
	}
	return err
}

// prober is a store that tells beforehand whether it can save.
type prober interface {
	probe(relay int) error
	careful() bool
}

// mustSpare reports, as an [*UnwritableError], that the refresh token must not be spent
// now, because its successor could not be saved: in a diagnosis never, and else not
// before the access token in use has 2 minutes left. Mail must go on then. Google does
// not replace refresh tokens.
func (s *Source) mustSpare(refused string) error {
	store, ok := s.opts.Store.(prober)
	if !ok || s.opts.Issuer == "google" || !store.careful() && !s.canWait(refused, time.Now()) {
		return nil
	}
	if err := store.probe(s.opts.Relay); err != nil {
		return &UnwritableError{err}
	}
	return nil
}

// canWait reports whether the access token in use, other than the one that was refused,
// is good for some time.
func (s *Source) canWait(refused string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.access
	return a.token != "" && a.token != refused && a.life()-a.age(now) > min(2*leastLeft, a.ahead())
}

func (s *Source) refresh(ctx context.Context, login Record) (Answer, error) {
	endpoint := s.opts.Endpoint
	endpoint.TokenURL = login.TokenURL
	answer, err := endpoint.Refresh(ctx, login.RefreshToken, s.opts.Scopes)
	s.noteSkew(answer, err)
	return answer, err
}

// useStored uses the access token that another process has stored, if it is fresh and
// is not the one that was refused.
func (s *Source) useStored(login Record, refused string) bool {
	now := time.Now()
	// Stored times lack what the monotonic clock adds, see access.age.
	since := func(t time.Time) time.Time { return now.Add(t.Sub(now)) }
	a := access{login.AccessToken, since(login.AccessFetched), since(login.AccessExpires)}
	if !a.fresh(now) || a.token == refused || a.fetched.After(now.Add(minAge)) || !slices.Equal(login.Scopes, s.opts.Scopes) {
		return false
	}
	s.use(a)
	return true
}

// lockStore takes the lock of the login. A store that has no locks is used without.
func (s *Source) lockStore(ctx context.Context) (unlock func(), err error) {
	if held := s.keeper.held; held != nil {
		s.keeper.held = nil
		if store, ok := s.opts.Store.(interface{ holds(relay int) bool }); !ok || store.holds(s.opts.Relay) {
			return held, nil
		}
		held() // the store has given the lock up
	}
	waiting, cancel := context.WithTimeout(ctx, LockTimeout)
	defer cancel()
	s.locking.Store(true)
	unlock, err = s.opts.Store.Lock(waiting, s.opts.Relay)
	s.locking.Store(false)
	switch {
	case err == nil:
		return unlock, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case waiting.Err() != nil:
		return nil, s.lockedFor(nil)
	}
	if !s.keeper.unlocked {
		s.keeper.unlocked = true
		s.opts.Notify(Event{Kind: EventUnlocked, Err: err})
	}
	return func() {}, nil
}

// renewed is the login after an answer of the endpoint.
func (r Record) renewed(a Answer, o Options, now time.Time) Record {
	if a.RefreshToken != "" && a.RefreshToken != r.RefreshToken {
		r.LoggedIn = r.loginTime()
		r.RefreshToken, r.Issued, r.Expires = a.RefreshToken, now, time.Time{}
	}
	if a.RefreshLife > 0 {
		r.Expires = now.Add(a.RefreshLife)
	}
	fresh := accessOf(a, now)
	r.AccessToken, r.AccessFetched, r.AccessExpires = fresh.token, fresh.fetched, fresh.expires
	r.Account = cmp.Or(r.Account, a.ID.Account())
	r.Scopes = o.Scopes
	return r
}

// configuredLogin is the login that the settings name.
func (o Options) configuredLogin(now time.Time) Record {
	return Record{
		RefreshToken: o.RefreshToken, TokenURL: o.Endpoint.TokenURL, Issuer: o.Issuer, Tenant: o.Tenant, ClientID: o.Endpoint.Client.ID,
		Scopes: o.Scopes, Issued: now, Digest: Digest(o.RefreshToken),
	}
}

// fits reports whether a stored login can be used with the settings. The error is a
// [*ForeignError].
func (o Options) fits(r Record) error {
	if r.ClientID != o.Endpoint.Client.ID {
		return &ForeignError{"client", r.ClientID, o.Endpoint.Client.ID}
	}
	stored, configured := hostOf(r.TokenURL), hostOf(o.Endpoint.TokenURL)
	if stored != configured {
		return &ForeignError{"token endpoint", stored, configured}
	}
	return nil
}

// hostOf returns scheme and host, in lower case.
func hostOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Scheme + "://" + u.Host)
}

// at returns the login with the endpoint to ask: the configured one, but where that is
// Microsoft's for every directory, the one that issued the token.
func (r Record) at(configured string) Record {
	if !strings.Contains(configured, "/common/") {
		r.TokenURL = configured
	}
	return r
}
