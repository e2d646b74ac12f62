// Package events keeps what happened in a simulated history, in order.
package events

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Event is one thing that happened. Its texts are made before, never for it: most
// events are never shown.
type Event struct {
	At    time.Duration // since the history began
	Where string        // the part: "store", "client", the name of a relay
	What  string
	Text  string // such as the name of a message
	N     int    // such as a reply code; zero: none
}

// Log is the events of one history. Any number of goroutines may add to it.
type Log struct {
	began  time.Time
	mu     sync.Mutex
	events []Event
}

// New returns a log that begins now.
func New() *Log { return &Log{began: time.Now()} }

// Add adds an event that happens now.
func (l *Log) Add(where, what, text string, n int) {
	at := time.Since(l.began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, Event{at, where, what, text, n})
}

// Len is how many events there are.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// Events returns all of them. It must be called when all is over.
func (l *Log) Events() []Event { return l.events }

// Difference returns the place of the first event that is another in the other log; -1
// where they are the same.
func (l *Log) Difference(other *Log) int {
	for i := range max(len(l.events), len(other.events)) {
		if i >= len(l.events) || i >= len(other.events) || l.events[i] != other.events[i] {
			return i
		}
	}
	return -1
}

// Write writes the events as lines, up to limit of them around the place.
func (l *Log) Write(w io.Writer, place, limit int) {
	from := max(0, place-limit/2)
	for _, e := range l.events[min(from, len(l.events)):min(from+limit, len(l.events))] {
		fmt.Fprintf(w, "%18s  %-8s %-22s %s", e.At, e.Where, e.What, e.Text)
		if e.N != 0 {
			fmt.Fprintf(w, "  %d", e.N)
		}
		fmt.Fprintln(w)
	}
}
