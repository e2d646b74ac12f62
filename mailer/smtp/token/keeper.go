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
	told     map[WarningKind]time.Time
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
	case k.login.RefreshToken != "" && stored.same(k.seen):
		return k.login, nil
	}
	return k.take(s, stored)
}

// take begins to use a record that was loaded. A configured refresh token wins over
// the login that was stored before it was configured.
func (k *keeper) take(s *Source, stored Record) (Record, error) {
	err := s.opts.fits(stored)
	configured := Digest(s.opts.RefreshToken)
	switch {
	case configured != "" && (err != nil || stored.Digest != configured):
		s.opts.Notify(Event{Kind: EventReplaced})
		if k.login.RefreshToken != "" { // and has been spent by now
			k.seen, k.unsaved = stored, true
			return k.login, nil
		}
		return k.takeConfigured(s, stored), nil
	case err != nil:
		return Record{}, err
	}
	isNew := k.looked && k.isNew(stored, configured)
	k.seen, k.unsaved = stored, false
	k.login = stored.at(s.opts.Endpoint.TokenURL)
	s.showLogin(k.login, nil)
	if isNew {
		s.forget()
		s.opts.Notify(Event{Kind: EventLogin})
	}
	return k.login, nil
}

// isNew reports whether a person has logged in since the login in use. Before that is
// saved there is no time to compare: another process may have saved the configured one.
func (k *keeper) isNew(stored Record, configured string) bool {
	switch {
	case k.seen.RefreshToken != "":
		return !stored.loginTime().Equal(k.login.loginTime())
	case configured == "":
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
	err := s.opts.Store.Save(ctx, s.opts.Relay, k.login)
	wasUnsaved := k.unsaved
	k.unsaved = err != nil
	if err == nil {
		k.seen = k.login
	} else {
		k.saveNext = time.Now().Add(saveAgain)
	}
	s.showLogin(k.login, err)
	switch {
	case err != nil && worthTelling:
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
	stored, err := s.opts.Store.Load(ctx, s.opts.Relay)
	if err == nil && !stored.same(k.seen) {
		if _, err := k.take(s, stored); err == nil && s.useStored(k.login, "") {
			s.endPause()
		}
		k.free(s)
		k.looked = true
		return
	}
	k.looked = true
	if !k.unsaved || time.Now().Before(k.saveNext) {
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
		k.save(ctx, s, false)
	}
}
