package queue

import (
	"context"
	"time"

	"mailsidecar/mailer"
)

// Stats are the numbers of a store: what is in it, and what became of mail lately.
type Stats struct {
	// Counting says that the numbers may be wrong by a little: they are being counted in the
	// background, after a crash or an upgrade.
	Counting bool
	// Statuses are the numbers of messages by status, as far as retention keeps them. A status
	// that no message has is missing.
	Statuses map[Status]int64
	// OldestDue is since when the recipient waits that has been due for the longest; zero
	// where none is due. One that is being tried counts, too.
	OldestDue time.Time
	// Hour and Day are the last hour and the last 24 hours, each with what has gone by of the
	// bucket that is not full yet.
	Hour, Day Window
	Buckets   []Bucket // of Day, in order; BucketLength each
	// Keys and Relays are by name. The messages of a server without keys have the empty
	// name.
	Keys   []KeyStats
	Relays []RelayStats
	// Lanes are those in which something is due, in the order of their names.
	Lanes []LaneStats
	// Replies are why mail failed within Day, the most frequent first: MaxReplies at most.
	Replies []ReplyStats
}

// Waits says that mail waits which is due, or was tried before. Scheduled mail does not count.
func (s Stats) Waits() bool { return !s.OldestDue.IsZero() || s.Statuses[StatusDeferred] > 0 }

// Lengths of time, and numbers, of [Stats].
const (
	BucketLength = 10 * time.Minute
	HourBuckets  = 7   // an hour and what has gone by of a bucket
	DayBuckets   = 145 // likewise
	WeekHours    = 169 // seven days and what has gone by of an hour
	MaxReplies   = 50
)

// Counts are what happened within some time.
type Counts struct {
	Messages int64 // that were accepted
	Accepted int64 // their recipients
	// These count what relays said of recipients, try by try: a recipient that was deferred
	// twice and then delivered counts three times.
	Delivered int64
	Deferred  int64 // not taken for now; or by this relay, and another one was asked at once
	Bounced   int64 // refused for good
	Uncertain int64 // the reply was lost
}

// Add adds other counts.
func (c *Counts) Add(o Counts) {
	c.Messages += o.Messages
	c.Accepted += o.Accepted
	c.Delivered += o.Delivered
	c.Deferred += o.Deferred
	c.Bounced += o.Bounced
	c.Uncertain += o.Uncertain
}

// Window is what happened since a time.
type Window struct {
	Since time.Time
	Counts
}

// Bucket is what happened within a time, such as BucketLength, from At on.
type Bucket struct {
	At time.Time
	Counts
}

// KeyStats are the numbers of one API key.
type KeyStats struct {
	Name      string
	Statuses  map[Status]int64
	OldestDue time.Time
	Hour, Day Counts
}

// LaneStats says since when the recipient of a lane waits that has been due for the longest.
type LaneStats struct {
	Lane      Lane
	OldestDue time.Time
}

// RelayStats are the numbers of one relay. It accepts no messages: Messages and Accepted are
// zero.
type RelayStats struct {
	Name      string
	Hour, Day Counts
}

// ReplyStats is a reason for which recipients were not delivered.
type ReplyStats struct {
	Relay    string
	Class    mailer.Class
	Code     int    // of the reply; zero where there was none, and for several codes
	Enhanced string // enhanced status code; empty where the relay gave none
	// Text is the reply's text, or ours where there was none, with a * for each part that
	// differs from mail to mail. It is a pattern for Filter.Text.
	Text  string
	Count int64 // tries of a recipient
	First time.Time
	Last  time.Time
}

// AllStats returns the numbers of all keys.
func (d *Durable) AllStats(ctx context.Context) (Stats, error) { return d.Stats(ctx, AnyKey) }

// Week returns what happened in the last seven days, hour by hour in order: to the key's messages, or to all with
// [AnyKey]. Of the hours before the store had such numbers there are none.
func (d *Durable) Week(ctx context.Context, key string) ([]Bucket, error) {
	return d.store.Week(ctx, key, d.now())
}

// Stats returns the numbers of the key's messages, or of all with [AnyKey]. What waits for a
// paused relay is due.
func (d *Durable) Stats(ctx context.Context, key string) (Stats, error) {
	return d.store.Stats(ctx, key, d.now())
}
