package token

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// storeLook is how often the store is looked at for a new login.
	storeLook = 3 * time.Second
	// saveAgain is how often it is tried to save what could not be saved.
	saveAgain = 10 * time.Second
)

// keeper is the login in use, and what of it is in the store. Whoever has the turn of
// the source uses it.
type keeper struct {
	login Record // zero before the first
	// seen is the record that was last loaded or saved; zero where none was. A stored
	// one that differs comes from another process.
	seen     Record
	unsaved  bool      // login is newer than seen, which could not be replaced
	saveNext time.Time // for unsaved
	// held is the lock of a login whose stored refresh token is spent and cannot be
	// replaced: no other process must use it. Else it is nil.
	held     func()
	unlocked bool // EventUnlocked was told
	looked   bool // a first time for the login in the store
	// refused says that the endpoint refuses the configured refresh token.
	refused bool
	// amended says that login lacks nothing but the mark, in the store, that it came
	// after the configured refresh token.
	amended bool
	// aside says that the store has a later login, which the settings do not fit. It
	// stays there, and login ends with the process.
	aside bool
	told  map[WarningKind]time.Time
}

// current returns the login to use: the stored one; the configured one where another
// is configured than before, and where none is stored; the one in memory where the
// store has failed since.
func (k *keeper) current(ctx context.Context, s *Source) (Record, error) {
	stored, err := s.opts.Store.Load(ctx, s.opts.Relay)
	defer func() { k.looked = true }()
	switch {
	case err != nil && k.login.RefreshToken != "":
		// The configured one is stored when it has proved good.
		k.unsaved = k.unsaved || k.login.RefreshToken != s.opts.RefreshToken
		return k.login, nil
	case errors.Is(err, ErrNotStored), errors.As(err, new(*DamagedError)):
		if s.opts.RefreshToken == "" {
			return Record{}, err
		}
		if !errors.Is(err, ErrNotStored) {
			s.opts.Notify(Event{Kind: EventReplaced, Err: err})
		}
		return k.takeConfigured(s, stored), nil
	case err != nil:
		return Record{}, fmt.Errorf("the stored login cannot be read: %w", err)
	case k.login.RefreshToken != "" && stored.same(k.seen) && !k.mustYield(s, stored):
		return k.login, nil
	}
	return k.take(s, stored)
}

// take begins to use a record that was loaded. A configured refresh token wins over
// the login that was stored before it was configured.
func (k *keeper) take(s *Source, stored Record) (Record, error) {
	err, configured := s.opts.fits(stored), Digest(s.opts.RefreshToken)
	isNew := k.looked && k.isNew(stored, configured)
	yields := err == nil && k.mustYield(s, stored)
	switch {
	case configured != "" && err != nil && isNew && k.login.RefreshToken != "":
		s.opts.Notify(Event{Kind: EventForeign, Err: err})
		k.seen, k.unsaved, k.aside = stored, false, true
		return k.login, nil
	case configured != "" && (err != nil || !isNew && !yields && !stored.Outlives(configured)):
		return k.keepSetting(s, stored), nil
	case err != nil:
		return Record{}, err
	}
	k.amended = !stored.Outlives(configured) && Digest(stored.RefreshToken) != stored.Digest
	k.seen, k.unsaved, k.aside = stored, false, false
	k.login = stored.at(s.opts.Endpoint.TokenURL)
	if k.amended {
		k.login = k.login.Outliving(configured)
	}
	s.showLogin(k.login, nil)
	switch {
	case isNew:
		s.forget()
		s.opts.Notify(Event{Kind: EventLogin})
	case yields:
		s.opts.Notify(Event{Kind: EventYielded})
	}
	return k.login, nil
}

// keepSetting goes on with the configured refresh token, or what it was replaced by,
// though another login is stored.
func (k *keeper) keepSetting(s *Source, stored Record) Record {
	if k.login.RefreshToken == "" {
		s.opts.Notify(Event{Kind: EventReplaced})
		return k.takeConfigured(s, stored)
	}
	k.seen = stored
	k.unsaved = k.unsaved || k.login.RefreshToken != s.opts.RefreshToken || k.login.AccessToken != ""
	return k.login
}

// mustYield reports whether the configured refresh token gives way to a stored login
// that was made where none is configured: the endpoint refuses it.
func (k *keeper) mustYield(s *Source, stored Record) bool {
	return k.refused && stored.Digest == "" && k.login.RefreshToken == s.opts.RefreshToken && !stored.Outlives(Digest(s.opts.RefreshToken))
}

// isNew reports whether a person has logged in since the login in the store was last
// seen. Before one was seen there is no time to compare: another process may have saved
// the configured one.
func (k *keeper) isNew(stored Record, configured string) bool {
	switch {
	case k.seen.RefreshToken != "":
		return !stored.loginTime().Equal(k.seen.loginTime())
	case configured == "" || stored.Digest != configured:
		return true
	default:
		return stored.loginTime().Equal(stored.Issued) && Digest(stored.RefreshToken) != configured
	}
}

// forget drops the access token of the login before, and lets a renewal begin at once.
func (s *Source) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.access, s.failure.retry, s.failure.count = access{}, time.Time{}, 0
}

// endPause lets a renewal begin at once, which ends a failure where there is a token.
func (s *Source) endPause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure.retry = time.Time{}
}

// takeConfigured begins to use the configured refresh token. It is saved with the
// first answer.
func (k *keeper) takeConfigured(s *Source, stored Record) Record {
	k.login, k.seen = s.opts.configuredLogin(time.Now()), stored
	s.showLogin(k.login, nil)
	return k.login
}

// replace takes the login after an answer, and saves it. Where that fails the login is
// used all the same, because mail must go on.
func (k *keeper) replace(ctx context.Context, s *Source, login Record) {
	rotated := login.RefreshToken != k.login.RefreshToken
	k.login = login
	// The request may have used up the time, and the token must not be lost now.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveAgain)
	defer cancel()
	k.save(ctx, s, rotated)
}

// release ends the lock, unless the refresh token in the store is spent.
func (k *keeper) release(s *Source, unlock func()) {
	spent := k.login.RefreshToken != k.seen.RefreshToken && k.login.RefreshToken != s.opts.RefreshToken
	if k.unsaved && spent {
		k.held = unlock
		return
	}
	unlock()
}

// free ends a lock that is held, if it need not be any more.
func (k *keeper) free(s *Source) {
	if unlock := k.held; unlock != nil {
		k.held = nil
		k.release(s, unlock)
	}
}

// save saves the login in use. worthTelling says that a failure loses more than an
// access token.
func (k *keeper) save(ctx context.Context, s *Source, worthTelling bool) {
	if k.aside {
		s.showLogin(k.login, nil)
		return
	}
	err := s.opts.Store.Save(ctx, s.opts.Relay, k.login)
	wasUnsaved := k.unsaved
	k.unsaved = err != nil
	if err == nil {
		k.seen, k.amended = k.login, false
	} else {
		k.saveNext = time.Now().Add(saveAgain)
	}
	s.showLogin(k.login, err)
	switch {
	case err != nil && worthTelling:
		k.told[WarningNotStored] = time.Now() // one word for one event
		s.opts.Notify(Event{Kind: EventNotSaved, Err: err})
	case err == nil && wasUnsaved:
		s.opts.Notify(Event{Kind: EventSaved})
	}
}

// same reports whether the two are one record.
func (r Record) same(other Record) bool {
	return r.RefreshToken == other.RefreshToken && r.AccessToken == other.AccessToken && r.Digest == other.Digest &&
		r.ClientID == other.ClientID && r.TokenURL == other.TokenURL && r.loginTime().Equal(other.loginTime())
}

// loginTime is when the person logged in.
func (r Record) loginTime() time.Time {
	if r.LoggedIn.IsZero() {
		return r.Issued
	}
	return r.LoggedIn
}

// look takes a login that another process has stored since, and saves what could not
// be saved before.
func (k *keeper) look(ctx context.Context, s *Source) {
	if !k.looked {
		k.tryStore(ctx, s)
	}
	stored, err := s.opts.Store.Load(ctx, s.opts.Relay)
	if err == nil && !stored.same(k.seen) {
		if _, err := k.take(s, stored); err == nil && s.useStored(k.login, "") {
			s.endPause()
		}
		k.free(s)
	}
	k.looked = true
	if !k.unsaved && !k.amended || time.Now().Before(k.saveNext) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, saveAgain)
	defer cancel()
	unlock, err := s.lockStore(ctx)
	if err != nil {
		return
	}
	defer func() { k.release(s, unlock) }()
	if stored, err := s.opts.Store.Load(ctx, s.opts.Relay); err != nil || stored.same(k.seen) {
		k.saveLate(ctx, s)
	}
}

// tryStore tells of a store to which nothing can be written. Where another process has
// the lock, that one looks after it.
func (k *keeper) tryStore(ctx context.Context, s *Source) {
	store, ok := s.opts.Store.(prober)
	if !ok || s.opts.Issuer == "google" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	unlock, err := s.opts.Store.Lock(ctx, s.opts.Relay)
	if err == nil {
		defer unlock() // also where it was granted too late
	}
	if ctx.Err() != nil {
		return
	}
	if err := store.probe(s.opts.Relay); err != nil {
		k.unlocked = true // that is told herewith
		s.opts.Notify(Event{Kind: EventUnwritable, Err: err})
	}
}

// saveLate saves what was left unsaved. The mark alone is worth no word.
func (k *keeper) saveLate(ctx context.Context, s *Source) {
	if k.unsaved {
		k.save(ctx, s, false)
		return
	}
	k.saveNext = time.Now().Add(saveAgain)
	if s.opts.Store.Save(ctx, s.opts.Relay, k.login) == nil {
		k.seen, k.amended = k.login, false
	}
}
