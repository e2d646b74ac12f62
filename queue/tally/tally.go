// Package tally counts messages and what became of them, for a store: in memory, change by
// change, within bounds. The store keeps the numbers, and counts anew where it must.
package tally

import (
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// Change is what a commit has done with one message.
type Change struct {
	ID  string // of the message, in any form
	Key string // name of the API key
	// From and To are the message's status before and after; empty where there is none.
	From, To queue.Status
	// Accepted is the number of recipients of a message that was stored at At.
	Accepted int
	At       time.Time
	// Attempts are those of one outcome, in order.
	Attempts []mailer.Attempt
}

// Tally holds the numbers. It has no lock.
type Tally struct {
	Statuses map[StatusKey]int64
	Counts   map[CountKey]*queue.Counts
	Replies  map[ReplyKey]*Reply
	// slots is how many replies an hour has, and how many of each key.
	slots   map[slot]int
	changed names
}

// StatusKey names a number of messages.
type StatusKey struct {
	Key    string
	Status queue.Status
}

// CountKey names counts: At is when the bucket begins, in microseconds since 1970. Relay is
// empty for what is accepted.
type CountKey struct {
	At         int64
	Key, Relay string
}

// ReplyKey names a reply: At is the hour's begin, in microseconds since 1970.
type ReplyKey struct {
	At             int64
	Key, Relay     string
	Class          mailer.Class
	Code           int
	Enhanced, Text string
}

// Reply is how often a reply came, and when, in microseconds since 1970.
type Reply struct{ N, First, Last int64 }

type slot struct {
	at  int64
	key string // empty and with all: of all keys
	all bool
}

// names are those of numbers that have changed since Clean.
type names struct {
	statuses map[StatusKey]bool
	counts   map[CountKey]bool
	replies  map[ReplyKey]bool
}

// Changed has numbers that have changed; a status that no message has any more is zero.
type Changed struct {
	Statuses map[StatusKey]int64
	Counts   map[CountKey]queue.Counts
	Replies  map[ReplyKey]Reply
}

// Limits of the replies in one hour. What goes beyond them counts as a reply with the text *.
const (
	maxReplies    = 200
	maxKeyReplies = 50
)

const (
	bucket = int64(queue.BucketLength / time.Microsecond)
	hour   = int64(time.Hour / time.Microsecond)
)

// New returns a tally without numbers.
func New() *Tally {
	t := &Tally{Statuses: map[StatusKey]int64{}, Counts: map[CountKey]*queue.Counts{}, Replies: map[ReplyKey]*Reply{}, slots: map[slot]int{}}
	t.Clean()
	return t
}

// Clean says that the store has all numbers.
func (t *Tally) Clean() {
	t.changed = names{map[StatusKey]bool{}, map[CountKey]bool{}, map[ReplyKey]bool{}}
}

// Touch says that the store has none of the numbers.
func (t *Tally) Touch() {
	for k := range t.Statuses {
		t.changed.statuses[k] = true
	}
	for k := range t.Counts {
		t.changed.counts[k] = true
	}
	for k := range t.Replies {
		t.changed.replies[k] = true
	}
}

// Changed returns the numbers that have changed since Clean.
func (t *Tally) Changed() Changed {
	c := Changed{map[StatusKey]int64{}, map[CountKey]queue.Counts{}, map[ReplyKey]Reply{}}
	for k := range t.changed.statuses {
		c.Statuses[k] = t.Statuses[k]
	}
	for k := range t.changed.counts {
		c.Counts[k] = *t.Counts[k]
	}
	for k := range t.changed.replies {
		c.Replies[k] = *t.Replies[k]
	}
	return c
}

// Apply counts a change.
func (t *Tally) Apply(c Change) {
	if c.From != c.To {
		t.status(StatusKey{c.Key, c.From}, -1)
		t.status(StatusKey{c.Key, c.To}, 1)
	}
	if c.Accepted > 0 {
		counts := t.counts(c.At.UnixMicro(), c.Key, "")
		counts.Messages++
		counts.Accepted += int64(c.Accepted)
	}
	for i := range c.Attempts {
		t.attempt(c.Key, c.Attempts, i)
	}
}

func (t *Tally) status(k StatusKey, n int64) {
	if k.Status == "" {
		return
	}
	if t.Statuses[k] += n; t.Statuses[k] == 0 {
		delete(t.Statuses, k)
	}
	t.changed.statuses[k] = true
}

// counts returns those of a time, to be changed.
func (t *Tally) counts(at int64, key, relay string) *queue.Counts {
	k := CountKey{floor(at, bucket), key, relay}
	c := t.Counts[k]
	if c == nil {
		c = &queue.Counts{}
		t.Counts[k] = c
	}
	t.changed.counts[k] = true
	return c
}

func (t *Tally) attempt(key string, all []mailer.Attempt, i int) {
	a := &all[i]
	at := a.Started.UnixMicro() + a.Duration.Microseconds()
	var c *queue.Counts
	for _, r := range a.Results {
		if c == nil {
			c = t.counts(at, key, a.Relay)
		}
		if r.Failure == nil {
			c.Delivered++
			continue
		}
		switch class := r.Failure.Class; {
		case class == mailer.ClassUncertain:
			c.Uncertain++
		case class == mailer.ClassPermanent && !triedAfter(all[i+1:], r.ForwardPath):
			c.Bounced++
		default:
			c.Deferred++
		}
		t.reply(key, a.Relay, r.Failure, at)
	}
}

// triedAfter says that a later attempt has a result for the recipient.
func triedAfter(later []mailer.Attempt, path string) bool {
	for i := range later {
		for j := range later[i].Results {
			if later[i].Results[j].ForwardPath == path {
				return true
			}
		}
	}
	return false
}

func (t *Tally) reply(key, relay string, f *mailer.Failure, at int64) {
	text := f.Reply.Text
	if f.Reply.Code == 0 {
		text = f.Text
	}
	r := t.replyAt(ReplyKey{floor(at, hour), key, relay, f.Class, f.Reply.Code, f.Reply.Enhanced, Pattern(text)}, at)
	r.N++
	r.First, r.Last = min(r.First, at), max(r.Last, at)
}

// replyAt returns the reply, to be changed: that for all others where there are too many. A
// new one came first at that time.
func (t *Tally) replyAt(k ReplyKey, at int64) *Reply {
	r := t.Replies[k]
	if r == nil && (t.slots[slot{at: k.At, all: true}] >= maxReplies || t.slots[slot{at: k.At, key: k.Key}] >= maxKeyReplies) {
		k.Code, k.Enhanced, k.Text = 0, "", "*"
		r = t.Replies[k]
	}
	if r == nil {
		r = &Reply{First: at, Last: at}
		t.AddReply(k, r)
	}
	t.changed.replies[k] = true
	return r
}

// Add adds the numbers of another tally.
func (t *Tally) Add(other *Tally) {
	for k, n := range other.Statuses {
		t.status(k, n)
	}
	for k, c := range other.Counts {
		sum := t.counts(k.At, k.Key, k.Relay)
		sum.Messages += c.Messages
		sum.Accepted += c.Accepted
		sum.Delivered += c.Delivered
		sum.Deferred += c.Deferred
		sum.Bounced += c.Bounced
		sum.Uncertain += c.Uncertain
	}
	for k, from := range other.Replies {
		r := t.replyAt(k, from.First)
		r.N += from.N
		r.First, r.Last = min(r.First, from.First), max(r.Last, from.Last)
	}
}

// AddReply adds what a store has kept.
func (t *Tally) AddReply(k ReplyKey, r *Reply) {
	t.Replies[k] = r
	t.slots[slot{at: k.At, all: true}]++
	t.slots[slot{at: k.At, key: k.Key}]++
}

// Begin is when the first bucket of a day that ends at now begins, in microseconds since
// 1970. Nothing before it is shown.
func Begin(now time.Time) int64 { return floor(now.UnixMicro(), bucket) - (queue.DayBuckets-1)*bucket }

// floor returns the multiple of step that is at or before n.
func floor(n, step int64) int64 {
	m := n % step
	if m < 0 {
		m += step
	}
	return n - m
}

// Prune forgets what is no longer shown at now, and what is said to come a day later: the
// clock was wrong then. Only what is at from or later, and not after to, is left; both are
// in microseconds since 1970.
func (t *Tally) Prune(now time.Time) (from, to int64) {
	from, to = Begin(now), now.Add(24*time.Hour).UnixMicro()
	for k := range t.Counts {
		if k.At < from || k.At > to {
			delete(t.Counts, k)
			delete(t.changed.counts, k)
		}
	}
	for k := range t.Replies {
		if k.At < from || k.At > to {
			delete(t.Replies, k)
			delete(t.changed.replies, k)
			delete(t.slots, slot{at: k.At, all: true})
			delete(t.slots, slot{at: k.At, key: k.Key})
		}
	}
	return from, to
}
