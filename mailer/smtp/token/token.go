// Package token gets OAuth2 access tokens for SMTP, and keeps them fresh. It knows the
// grants with a person, whose login a [Store] keeps, and those without one.
//
// A [Source] renews a token ahead of its end, with one request at a time. A refresh
// token that the endpoint replaces is saved before the new access token is used, under
// a lock that other processes respect, so that it is never spent twice and never lost
// with a process. No error of this package holds a secret.
package token

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mailsidecar/credentials"
)

// Grant is the way in which access tokens are had from an endpoint.
type Grant int

const (
	// GrantLogin spends the refresh token of a person's login, which is configured, or
	// stored by the command login (RFC 6749 §6).
	GrantLogin Grant = iota
	// GrantClient uses the client's own proof (RFC 6749 §4.4).
	GrantClient
	// GrantServiceAccount uses a key of a Google service account (RFC 7523 §2.1).
	GrantServiceAccount
)

// Options says where access tokens come from: the first of AccessToken,
// AccessTokenFile and Endpoint that is set.
type Options struct {
	AccessToken string
	// AccessTokenFile is read again for each login at the relay.
	AccessTokenFile string

	Endpoint Endpoint
	Grant    Grant
	// Scopes are asked for each time; may be empty.
	Scopes []string

	// The others up to Store are for GrantLogin. RefreshToken is the configured one;
	// empty where only a stored login is used.
	RefreshToken string
	Issuer       string // see Record
	Tenant       string
	// Store keeps the login; nil means until the process ends. Relay is the key there.
	Store Store
	Relay int

	// ServiceAccountFile is Google's JSON key, and Subject the mailbox to act for.
	ServiceAccountFile string
	Subject            string

	// SecretExpires is when the client's secret ends, for the warning; zero where that
	// is not known.
	SecretExpires time.Time

	// Notify, if not nil, is told what happens. It is called by one goroutine at a time.
	Notify func(Event)
}

// EventKind is the kind of an [Event].
type EventKind int

const (
	// EventFailed is a token that could not be had. It is told when it begins, when the
	// reason changes, and once an hour.
	EventFailed EventKind = iota
	// EventRecovered is the first token after EventFailed.
	EventRecovered
	// EventLogin is a new login that was taken from the store.
	EventLogin
	// EventReplaced is a stored login that was set aside for the configured refresh
	// token: because another one is configured than before, or because it is damaged.
	EventReplaced
	// EventYielded is a configured refresh token that the endpoint refuses: the login
	// that is stored is used in its place.
	EventYielded
	// EventForeign is a login that another process has stored, and that the settings of
	// this one do not fit. It is not touched.
	EventForeign
	// EventNotSaved is a refresh token that could not be saved. It is used all the same,
	// and saving it is tried again. EventSaved is when that succeeded.
	EventNotSaved
	EventSaved
	// EventUnwritable is a store to which nothing can be written, found at the start.
	EventUnwritable
	// EventUnlocked is a store in which no lock can be had, such as one on a file system
	// without locks. It is used without one.
	EventUnlocked
	// EventWarning is a warning of [Status], told once a day.
	EventWarning
)

// Event is something that happens to a source.
type Event struct {
	Kind    EventKind
	Err     error     // of EventFailed, EventForeign, EventNotSaved, EventUnwritable and EventUnlocked; of EventReplaced where it is damaged
	Retry   time.Time // of EventFailed
	Warning Warning   // of EventWarning
}

// Source gives the access tokens for one relay. It is safe for concurrent use.
type Source struct {
	opts   Options
	fixed  func() (string, error) // nil where tokens are fetched
	ctx    context.Context        // of the renewals
	cancel context.CancelFunc
	work   sync.WaitGroup // renewals
	// turn holds one value while the login is renewed, looked at in the store or saved
	// there. Its holder alone calls Notify and uses the fields of keeper.
	turn    chan struct{}
	keeper  keeper
	locking atomic.Bool // the lock of the store is waited for

	mu      sync.Mutex
	closed  bool
	access  access
	renewal *renewal // under way; nil if none is
	failure failure
	status  Status // without what the fields above say
}

// access is an access token in use; zero if there is none.
type access struct {
	token   string
	fetched time.Time
	expires time.Time
}

// renewal is one attempt to get a token. The other fields are set when done is closed.
type renewal struct {
	done  chan struct{}
	token string
	err   error
}

// failure is that of the last renewal; zero after one that succeeded.
type failure struct {
	err   error
	count int       // in a row
	retry time.Time // no earlier renewal
	told  time.Time // when EventFailed was last told
}

const (
	// renewAhead is how long before its end a token is renewed: High Volume Email of
	// Microsoft refuses one with less than 10 minutes left. For a token that lives
	// less than renewShare times that, it is that share of its life.
	renewAhead = 12 * time.Minute
	renewShare = 4
	// leastLeft is how much of its time a token has to have left to be used, or half of
	// what it is renewed ahead if that is less.
	leastLeft = time.Minute
	// minAge is the age from which a token is replaced when the relay refuses it:
	// for a younger one another would be refused, too.
	minAge = time.Minute
	// unknownLife is how long a token is kept that names no end.
	unknownLife = 5 * time.Minute
)

// New returns the source that the options name. The caller must call [Source.Close] in
// the end, and [Source.Run] where the source lasts long.
func New(o Options) (*Source, error) {
	s := &Source{opts: o, turn: make(chan struct{}, 1)}
	if o.Store == nil {
		s.opts.Store = new(MemoryStore)
	}
	if o.Notify == nil {
		s.opts.Notify = func(Event) {}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	switch {
	case o.AccessToken != "":
		if err := checkToken(o.AccessToken); err != nil {
			return nil, err
		}
		s.fixed = func() (string, error) { return o.AccessToken, nil }
	case o.AccessTokenFile != "":
		s.fixed = func() (string, error) { return readToken(o.AccessTokenFile) }
	case o.Endpoint.TokenURL == "" || o.Endpoint.Client.ID == "" && o.Grant != GrantServiceAccount:
		return nil, errors.New("no token, and no token URL with a client id to fetch one")
	}
	s.keeper.told = map[WarningKind]time.Time{}
	s.status.SecretExpires, s.status.CertificateExpires = o.SecretExpires, certificateEnd(o.Endpoint.Client)
	return s, nil
}

func readToken(path string) (string, error) {
	data, err := credentials.Read(path, credentials.KindAccessToken)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", &ClientError{File: path, Err: errors.New("it is empty, and should hold the access token"), Kind: credentials.KindAccessToken}
	}
	if err := checkToken(token); err != nil {
		return "", &ClientError{File: path, Err: errors.New("it does not hold one token: " + err.Error()), Kind: credentials.KindAccessToken}
	}
	return token, nil
}

// certificateEnd returns when the client's certificate ends; zero where there is none,
// or none that can be read.
func certificateEnd(c Client) time.Time {
	if c.CertFile == "" {
		return time.Time{}
	}
	cert, err := credentials.ReadCertificate(c.CertFile, c.KeyFile)
	if err != nil {
		return time.Time{}
	}
	return cert.NotAfter()
}

// ahead returns how long before its end the token is renewed.
func (a access) ahead() time.Duration { return min(renewAhead, a.life()/renewShare) }

func (a access) life() time.Duration { return a.expires.Sub(a.fetched) }

// age is the time since the token was fetched, by the clock that shows more of it: the
// monotonic one stands still while the machine is suspended, and the other one may be
// set back.
func (a access) age(now time.Time) time.Duration {
	return max(now.Sub(a.fetched), now.Round(0).Sub(a.fetched.Round(0)))
}

// fresh reports whether the token is there and need not be renewed.
func (a access) fresh(now time.Time) bool {
	return a.token != "" && a.age(now) < a.life()-a.ahead()
}

// usable reports whether the token may be used at all.
func (a access) usable(now time.Time) bool {
	return a.token != "" && a.age(now) < a.life()-min(leastLeft, a.ahead()/2)
}

// Token returns an access token. refused is the token that the relay refused, or
// empty; the source may return it again when it is new. Where the token has to be
// fetched first, that goes on when ctx ends: a refresh token that is spent must be
// replaced.
func (s *Source) Token(ctx context.Context, refused string) (string, error) {
	if s.fixed != nil {
		return s.fixed()
	}
	token, r, err := s.tokenOrRenewal(time.Now(), refused)
	if r == nil {
		return token, err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if s.locking.Load() {
			return "", s.lockedFor(ctx.Err())
		}
		return "", ctx.Err()
	}
	return r.token, r.err
}

// tokenOrRenewal returns a token, or the renewal to wait for. It begins a renewal that
// is due.
func (s *Source) tokenOrRenewal(now time.Time, refused string) (string, *renewal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	good := s.access.usable(now) && (s.access.token != refused || s.access.age(now) < minAge)
	if good && s.access.fresh(now) {
		return s.access.token, nil, nil
	}
	mustWait := s.failure.err != nil && now.Before(s.failure.retry)
	if mustWait && !good {
		return "", nil, s.failure.err
	}
	if !mustWait {
		if r := s.beginRenewal(refused); !good {
			return "", r, nil
		}
	}
	return s.access.token, nil, nil
}

// beginRenewal returns the renewal under way, and begins one if there is none. The
// caller holds the lock.
func (s *Source) beginRenewal(refused string) *renewal {
	switch {
	case s.closed:
		r := &renewal{done: make(chan struct{}), err: errors.New("the source of tokens is closed")}
		close(r.done)
		return r
	case s.renewal != nil:
		return s.renewal
	}
	r := &renewal{done: make(chan struct{})}
	s.renewal = r
	s.work.Go(func() { s.renew(r, refused) })
	return r
}

// Close waits for a renewal under way, so that a refresh token which the endpoint
// replaces is not lost. When ctx ends first, the renewal is cut off. Later calls of
// Token that need a new token fail.
func (s *Source) Close(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	defer context.AfterFunc(ctx, s.cancel)()
	s.work.Wait()
	s.cancel()
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if unlock := s.keeper.held; unlock != nil { // the token is lost now
		s.keeper.held = nil
		unlock()
	}
}
