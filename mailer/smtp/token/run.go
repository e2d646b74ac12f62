package token

import (
	"context"
	"time"
)

const (
	// longestLook is how long Run waits at most before it looks at the clock again,
	// which may have been set.
	longestLook = time.Minute
	// leastGap is how long after one token Run renews it at the earliest, however
	// short it lives.
	leastGap = 10 * time.Second
)

// Run renews the token ahead of its end, takes a login that another process stores
// within 5 seconds, and saves again what could not be saved. It returns when ctx ends;
// a renewal under way then goes on, see [Source.Close].
func (s *Source) Run(ctx context.Context) {
	if s.fixed != nil {
		return
	}
	for ctx.Err() == nil {
		s.look(ctx)
		s.renewIfDue(time.Now())
		select {
		case <-time.After(s.untilLook(time.Now())):
		case <-ctx.Done():
		}
	}
}

// look looks at the store, where there is a login in it.
func (s *Source) look(ctx context.Context) {
	if s.opts.Grant != GrantLogin {
		return
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
		s.keeper.look(ctx, s)
		s.tellWarnings(time.Now())
	case <-ctx.Done():
	}
}

func (s *Source) renewIfDue(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && s.renewal == nil && !now.Before(s.due(now)) {
		s.beginRenewal("")
	}
}

// due is when the next renewal begins; zero means now. The caller holds the lock.
func (s *Source) due(now time.Time) time.Time {
	if s.failure.err != nil {
		return s.failure.retry
	}
	if s.access.token == "" {
		return time.Time{}
	}
	a := s.access
	return now.Add(max(a.life()-a.ahead(), leastGap) - a.age(now))
}

// untilLook is how long Run has to wait.
func (s *Source) untilLook(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest := longestLook
	if s.opts.Grant == GrantLogin {
		longest = storeLook
	}
	wait := s.due(now).Sub(now)
	if s.renewal != nil {
		wait = time.Second
	}
	return min(max(wait, 0), longest)
}
