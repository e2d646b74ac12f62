// Package tally counts messages and what became of them, for a store: in memory, change by
// change, within bounds. The store keeps the numbers, and counts anew where it must.
package tally

import (
	"cmp"
	"iter"
	"maps"
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
	// Hours are counts that Prune has put together, hour by hour: of the days before the one that
	// Stats shows. Their Relay is empty. What is counted late may be in Counts, too, under another name.
	Hours   map[CountKey]*queue.Counts
	Replies map[ReplyKey]*Reply
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
	t := &Tally{Statuses: map[StatusKey]int64{}, Counts: map[CountKey]*queue.Counts{}, Hours: map[CountKey]*queue.Counts{}, Replies: map[ReplyKey]*Reply{}, slots: map[slot]int{}}
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
	for k := range t.AllCounts() {
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
		c.Counts[k] = *cmp.Or(t.Counts[k], t.Hours[k])
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
	c := cmp.Or(t.Counts[k], t.Hours[k])
	if c == nil {
		c = &queue.Counts{}
		t.Counts[k] = c
	}
	t.changed.counts[k] = true
	return c
}

// AllCounts are those of Counts and of Hours.
func (t *Tally) AllCounts() iter.Seq2[CountKey, *queue.Counts] {
	return func(yield func(CountKey, *queue.Counts) bool) {
		for _, part := range []map[CountKey]*queue.Counts{t.Counts, t.Hours} {
			for k, c := range part {
				if !yield(k, c) {
					return
				}
			}
		}
	}
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
	for k, c := range other.AllCounts() {
		t.counts(k.At, k.Key, k.Relay).Add(*c)
	}
	for k, from := range other.Replies {
		r := t.replyAt(k, from.First)
		r.N += from.N
		r.First, r.Last = min(r.First, from.First), max(r.Last, from.Last)
	}
}

// Take takes the counts before a time, when an hour begins, from another tally in place of those that it has. The time
// is in microseconds since 1970.
func (t *Tally) Take(other *Tally, before int64) {
	for _, part := range [][2]map[CountKey]*queue.Counts{{t.Counts, other.Counts}, {t.Hours, other.Hours}} {
		maps.DeleteFunc(part[0], func(k CountKey, _ *queue.Counts) bool {
			if k.At < before {
				delete(t.changed.counts, k)
			}
			return k.At < before
		})
		for k, c := range part[1] {
			if k.At < before {
				counts := *c
				part[0][k] = &counts
				t.changed.counts[k] = true
			}
		}
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

// Limits are those of what is kept at now, in microseconds since 1970: replies, and counts of ten minutes, from
// day on; counts put together by the hour from week on; nothing after to.
func Limits(now time.Time) (day, week, to int64) {
	return Begin(now), WeekBegin(now), now.Add(24 * time.Hour).UnixMicro()
}

// WeekBegin is when the first hour of the seven days that end at now begins, in microseconds since 1970.
func WeekBegin(now time.Time) int64 { return floor(now.UnixMicro(), hour) - (queue.WeekHours-1)*hour }

// HourOf is when the hour begins that a time is in, both in microseconds since 1970.
func HourOf(at int64) int64 { return floor(at, hour) }

// Prune forgets what is no longer shown at now, and what is said to come a day later: the
// clock was wrong then; see [Limits]. It says whether it has put counts together: then a store has
// to forget those of before day that are no hour's, and gets the sums with Changed.
func (t *Tally) Prune(now time.Time) (moved bool) {
	day, week, to := Limits(now)
	for k, c := range t.Counts {
		switch {
		case k.At < week || k.At > to:
			delete(t.Counts, k)
			delete(t.changed.counts, k)
		case k.At < day:
			delete(t.Counts, k)
			delete(t.changed.counts, k)
			t.hour(k, c)
			moved = true
		}
	}
	for k := range t.Hours {
		if k.At < week || k.At > to {
			delete(t.Hours, k)
			delete(t.changed.counts, k)
		}
	}
	for k := range t.Replies {
		if k.At < day || k.At > to {
			delete(t.Replies, k)
			delete(t.changed.replies, k)
			delete(t.slots, slot{at: k.At, all: true})
			delete(t.slots, slot{at: k.At, key: k.Key})
		}
	}
	return moved
}

// hour adds counts to those of their hour.
func (t *Tally) hour(k CountKey, c *queue.Counts) {
	k.At, k.Relay = floor(k.At, hour), ""
	sum := t.Hours[k]
	if sum == nil {
		sum = &queue.Counts{}
		t.Hours[k] = sum
	}
	sum.Add(*c)
	t.changed.counts[k] = true
}
