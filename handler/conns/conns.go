// Package conns bounds the connections of a server, over all its listeners together:
// how many are open, how many of them have sent only a part of a request's header, and
// how much memory these parts take. Over a limit it closes the connection that matters
// least, so that a new client always gets in.
//
// It hands net/http each connection in clear text, also that of HTTPS: only so can it
// count the fields of a header before the header is complete. A field of four octets
// takes thirty times as much memory once it is read.
package conns

import (
	"cmp"
	"container/list"
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of a [Set]. Zero values become the defaults.
type Limits struct {
	// Open is the number of connections; default 2000.
	Open int
	// Unfinished is the number of connections with an unfinished header, those that
	// have sent nothing yet and unfinished TLS handshakes included; default 500.
	Unfinished int
	// Header is the number of octets that one header may have, and Fields how many of
	// its fields; default 256 KiB and 1100.
	Header, Fields int
}

const (
	defaultOpen       = 2000
	defaultUnfinished = 500
	defaultHeader     = 256 << 10
	defaultFields     = 1100
	// leastWeight is the memory, in octets, for all unfinished headers together.
	leastWeight = 8 << 20
	// fresh is how long a connection may keep its place before it sends something: of
	// many clients that come at once, those that have sent their request already wait
	// for a processor, not for the network.
	fresh = 50 * time.Millisecond
	// rested is how long after a request a client that sends one after the other has
	// surely sent the next.
	rested = time.Second
	// unproven is how long a request has to show its key: on a busy machine it may wait for a
	// processor between its header and that.
	unproven = 500 * time.Millisecond
	// look is how often the listener looks again whether there is room.
	look = 5 * time.Millisecond
)

// Weight is the memory, in octets, that a header with so many octets and fields takes at
// most while net/http reads it.
func Weight(octets, fields int) int64 { return 3*int64(octets) + 128*int64(fields) }

// Set holds the open connections of a server.
type Set struct {
	limits    Limits
	maxHeader int64 // weight of one unfinished header
	maxWeight int64 // of all of them
	log       *slog.Logger

	mu         sync.Mutex
	unfinished list.List // oldest first, as the others are
	idle       list.List // without a request under way, none of whose requests had a key
	idleKeys   list.List // the same, after a request that had one
	strangers  list.List // with a request under way that has no key yet
	lingering  list.List // answered for the last time
	turns      time.Time // until when lingering connections have used up what they may read
	keys       map[string]int
	keyed      int   // connections in keys
	weight     int64 // of the unfinished headers
	closed     bool
	draining   bool
	complained time.Time
	foreign    map[*foreign]tally
	closing    []net.Conn // unlock closes them
}

// New returns an empty set.
func New(l Limits, log *slog.Logger) *Set {
	l.Open = cmp.Or(l.Open, defaultOpen)
	l.Unfinished = min(cmp.Or(l.Unfinished, defaultUnfinished), l.Open)
	l.Header, l.Fields = cmp.Or(l.Header, defaultHeader), cmp.Or(l.Fields, defaultFields)
	one := Weight(l.Header+(8<<10), l.Fields) // net/http allows 4 KiB more, and reads 4 KiB ahead
	return &Set{limits: l, maxHeader: one, maxWeight: max(leastWeight, one), log: log, keys: map[string]int{}, foreign: map[*foreign]tally{}}
}

// open is the number of connections.
func (s *Set) open() int {
	return s.unfinished.Len() + s.idle.Len() + s.idleKeys.Len() + s.strangers.Len() + s.lingering.Len() + s.keyed
}

// Context returns a context for the requests over a connection of the set, for
// http.Server.ConnContext.
func Context(ctx context.Context, nc net.Conn) context.Context {
	if h, ok := nc.(holder); ok {
		return context.WithValue(ctx, contextKey{}, h.held())
	}
	return ctx
}

type contextKey struct{}

// Prove says that the request of this context has the key. It returns false if the key
// has its share of the connections: as many requests under way as the keys leave places
// free, which is half of the connections while no other key has any. So it does where the connection was closed
// to make room: the client does not get the answer, and asks again. The request must
// then be refused. Where a server has no keys, all its requests are of one key.
func Prove(ctx context.Context, key string) bool {
	c, ok := ctx.Value(contextKey{}).(*conn)
	return !ok || c.set.prove(c, key)
}

// AfterRequest calls f when the request of this context is over and its answer is sent, or
// sending it has failed; at once where there is no connection. Only the goroutine that serves
// the request may call it, and once.
func AfterRequest(ctx context.Context, f func()) {
	if c, ok := ctx.Value(contextKey{}).(*conn); ok {
		c.after = f
	} else {
		f()
	}
}

func (s *Set) prove(c *conn, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.phase() == keyed:
		return true
	case c.phase() == gone:
		return false
	case s.keys[key]+1 > s.limits.Open-s.keyed-1:
		return false
	}
	c.key, c.known = key, true
	s.move(c, keyed)
	return true
}

// Track follows the states of the connections, for http.Server.ConnState.
func (s *Set) Track(nc net.Conn, state http.ConnState) {
	h, ok := nc.(holder)
	if !ok {
		return
	}
	c := h.held()
	if after := c.after; after != nil && state != http.StateActive {
		c.after = nil
		defer after()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew: // counted since it was accepted
	case http.StateActive:
		s.move(c, strange)
	case http.StateIdle:
		c.scan.next() // the connection's own goroutine calls, which is the reader
		c.wrote.Store(false)
		s.move(c, idle)
	case http.StateHijacked, http.StateClosed:
		if c.phase() != lingering {
			s.move(c, gone)
		}
	}
}

// move takes the connection from one list to another.
func (s *Set) move(c *conn, to phase) {
	from := c.phase()
	if from == gone || from == to || from == lingering && to != gone {
		return
	}
	s.weight -= c.weight
	c.weight, c.octets, c.fields = 0, 0, 0
	if from == keyed {
		if s.keyed--; s.keys[c.key] > 1 {
			s.keys[c.key]--
		} else {
			delete(s.keys, c.key)
		}
	}
	if c.list != nil {
		c.list.Remove(c.place)
		c.list = nil
	}
	switch to {
	case unfinished:
		c.since = time.Now()
		c.enter(&s.unfinished)
	case idle:
		c.since = time.Now()
		c.enter(s.idleList(c))
	case strange:
		c.since = time.Now()
		c.enter(&s.strangers)
	case keyed:
		s.keyed++
		s.keys[c.key]++
	case lingering:
		c.enter(&s.lingering)
	case gone:
	}
	c.state.Store(int32(to))
}

func (s *Set) idleList(c *conn) *list.List {
	if c.known {
		return &s.idleKeys
	}
	return &s.idle
}

// add takes in a connection, and makes room for it before that. It waits while every
// connection that could be closed has only just come. Its error is [net.ErrClosed].
func (s *Set) add(c *conn, closed <-chan struct{}) error {
	for {
		if done, err := s.tryAdd(c); done || err != nil {
			return err
		}
		select {
		case <-closed:
			return net.ErrClosed
		case <-time.After(look):
		}
	}
}

func (s *Set) tryAdd(c *conn) (bool, error) {
	s.mu.Lock()
	defer s.unlock()
	if s.closed {
		return false, net.ErrClosed
	}
	for s.unfinished.Len() >= s.limits.Unfinished {
		if !s.closeUnfinished() {
			return false, nil
		}
	}
	for s.open() >= s.limits.Open {
		if !s.closeOne() {
			return false, nil
		}
	}
	c.since = time.Now()
	c.enter(&s.unfinished)
	return true, nil
}

// closeOne closes the connection that matters least: one that lingers is answered already.
// A connection over which a key was sent matters more than others, and a request under way more than none. But a client
// that is about to send its next request could not know that its connection is closed:
// rather than that, a new one waits until an unfinished header is no longer fresh, or a request
// has had the time to show its key.
func (s *Set) closeOne() bool {
	return s.closeFirst(&s.lingering) || s.closeFirst(&s.idle) || s.closeUnfinished() || s.closeOlder(&s.idleKeys, rested) || s.closeOlder(&s.strangers, unproven) ||
		s.unfinished.Len() == 0 && s.strangers.Len() == 0 && s.closeFirst(&s.idleKeys)
}

// closeOlder closes the first connection of the list, if it is there for so long.
func (s *Set) closeOlder(l *list.List, than time.Duration) bool {
	if e := l.Front(); e == nil || time.Since(e.Value.(*conn).since) < than {
		return false
	}
	return s.closeFirst(l)
}

func (s *Set) closeFirst(l *list.List) bool {
	if l.Len() == 0 {
		return false
	}
	s.close(l.Front().Value.(*conn))
	return true
}

// closeUnfinished closes the connection whose header is unfinished for the longest time,
// of those that wait for the client.
func (s *Set) closeUnfinished() bool {
	latest := time.Now().Add(-fresh)
	for e := s.unfinished.Front(); e != nil; e = e.Next() {
		c := e.Value.(*conn)
		if c.since.After(latest) {
			return false
		}
		if c.waits.Load() {
			s.close(c)
			return true
		}
	}
	return false
}

// close closes the connection, when the set is unlocked.
func (s *Set) close(c *conn) {
	s.move(c, gone)
	s.closing = append(s.closing, c.raw)
}

// unlock unlocks the set, and then closes connections: that takes the system a while, in which
// all others would wait.
func (s *Set) unlock() {
	closing := s.closing
	s.closing = nil
	s.mu.Unlock()
	for _, raw := range closing {
		_ = raw.Close()
	}
}

// count adds what was read of an unfinished header. It returns false if that makes the
// header too large.
func (s *Set) count(c *conn, octets, fields int) bool {
	s.mu.Lock()
	defer s.unlock()
	w := Weight(octets, fields)
	if c.phase() == idle {
		s.move(c, unfinished)
		// These may be the header's, and need memory then. They may as well be the end
		// of the last request's body, so that they are no reason to refuse the header.
		w += Weight(c.ahead.octets(), c.ahead.lines())
	}
	if c.phase() != unfinished {
		return true
	}
	c.weight += w
	c.octets += octets
	c.fields += fields
	if s.weight += w; c.octets > s.limits.Header || c.fields > s.limits.Fields+2 { // and two other lines
		return false
	}
	for e := s.unfinished.Front(); e != nil && s.weight > s.maxWeight; {
		oldest := e.Value.(*conn)
		if e = e.Next(); oldest.weight > 0 {
			s.close(oldest)
		}
	}
	return true
}

// finished ends what count counts: the TLS handshake is over.
func (s *Set) finished(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.weight -= c.weight
	c.weight, c.octets, c.fields = 0, 0, 0
}

// CloseUnused closes the connections over which no request has begun, now and from now
// on: clients open some in reserve, and http.Server.Shutdown takes each of them for busy
// until it is 5 s old (golang/go#22682).
func (s *Set) CloseUnused() {
	s.mu.Lock()
	defer s.unlock()
	s.closed = true
	for s.closeFirst(&s.unfinished) {
	}
}
