package tally

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"mailsidecar/queue"
)

// Due is since when a recipient of a lane waits.
type Due struct {
	Lane queue.Lane
	At   time.Time
}

// Stats returns the numbers of one key, or of all with [queue.AnyKey].
func (t *Tally) Stats(key string, now time.Time, due []Due) queue.Stats {
	r := newReport(key, now)
	for k, n := range t.Statuses {
		if r.shows(k.Key) {
			r.Statuses[k.Status] += n
			r.key(k.Key).Statuses[k.Status] += n
		}
	}
	for k, c := range t.Counts {
		if i := (k.At - r.begin) / bucket; k.At >= r.begin && i < queue.DayBuckets && r.shows(k.Key) {
			r.count(k, int(i), *c)
		}
	}
	for k, n := range t.Replies {
		if r.shows(k.Key) {
			r.reply(k, n)
		}
	}
	for _, d := range due {
		if r.shows(d.Lane.Key) && !d.At.After(now) {
			r.OldestDue = earlier(r.OldestDue, d.At)
			k := r.key(d.Lane.Key)
			k.OldestDue = earlier(k.OldestDue, d.At)
			r.lanes[d.Lane] = earlier(r.lanes[d.Lane], d.At)
		}
	}
	return r.finish()
}

// Week returns what happened in the seven days before now and in the hour that is not over, of one key, or of all
// with [queue.AnyKey].
func (t *Tally) Week(key string, now time.Time) []queue.Bucket {
	begin := WeekBegin(now)
	hours := make([]queue.Bucket, queue.WeekHours)
	for i := range hours {
		hours[i].At = time.UnixMicro(begin + int64(i)*hour).UTC()
	}
	for k, c := range t.AllCounts() {
		if i := (k.At - begin) / hour; k.At >= begin && i < queue.WeekHours && (key == queue.AnyKey || key == k.Key) {
			hours[i].Add(*c)
		}
	}
	return hours
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// report is made of a tally.
type report struct {
	queue.Stats
	of      string
	begin   int64
	end     int64
	keys    map[string]*queue.KeyStats
	relays  map[string]*queue.RelayStats
	lanes   map[queue.Lane]time.Time
	replies map[ReplyKey]*queue.ReplyStats
}

func newReport(key string, now time.Time) *report {
	r := &report{of: key, begin: Begin(now), end: now.UnixMicro(), keys: map[string]*queue.KeyStats{}, relays: map[string]*queue.RelayStats{}, lanes: map[queue.Lane]time.Time{}, replies: map[ReplyKey]*queue.ReplyStats{}}
	r.Statuses = map[queue.Status]int64{}
	r.Buckets = make([]queue.Bucket, queue.DayBuckets)
	for i := range r.Buckets {
		r.Buckets[i].At = time.UnixMicro(r.begin + int64(i)*bucket).UTC()
	}
	r.Day.Since = r.Buckets[0].At
	r.Hour.Since = r.Buckets[queue.DayBuckets-queue.HourBuckets].At
	return r
}

func (r *report) shows(key string) bool { return r.of == queue.AnyKey || r.of == key }

func (r *report) key(name string) *queue.KeyStats {
	k := r.keys[name]
	if k == nil {
		k = &queue.KeyStats{Name: name, Statuses: map[queue.Status]int64{}}
		r.keys[name] = k
	}
	return k
}

func (r *report) relay(name string) *queue.RelayStats {
	s := r.relays[name]
	if s == nil {
		s = &queue.RelayStats{Name: name}
		r.relays[name] = s
	}
	return s
}

func (r *report) count(k CountKey, i int, c queue.Counts) {
	inHour := i >= queue.DayBuckets-queue.HourBuckets
	r.Buckets[i].Add(c)
	r.Day.Add(c)
	add := func(hour, day *queue.Counts) {
		day.Add(c)
		if inHour {
			hour.Add(c)
		}
	}
	if inHour {
		r.Hour.Add(c)
	}
	key := r.key(k.Key)
	add(&key.Hour, &key.Day)
	if k.Relay != "" {
		relay := r.relay(k.Relay)
		add(&relay.Hour, &relay.Day)
	}
}

func (r *report) reply(k ReplyKey, n *Reply) {
	if k.At < r.begin || k.At > r.end {
		return
	}
	k.At, k.Key = 0, ""
	first, last := time.UnixMicro(n.First).UTC(), time.UnixMicro(n.Last).UTC()
	s := r.replies[k]
	if s == nil {
		s = &queue.ReplyStats{Relay: k.Relay, Class: k.Class, Code: k.Code, Enhanced: k.Enhanced, Text: k.Text, First: first, Last: last}
		r.replies[k] = s
	}
	s.Count += n.N
	s.First = earlier(s.First, first)
	if last.After(s.Last) {
		s.Last = last
	}
}

// finish puts everything in order.
func (r *report) finish() queue.Stats {
	for _, k := range r.keys {
		r.Keys = append(r.Keys, *k)
	}
	slices.SortFunc(r.Keys, func(a, b queue.KeyStats) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range r.relays {
		r.Relays = append(r.Relays, *s)
	}
	slices.SortFunc(r.Relays, func(a, b queue.RelayStats) int { return strings.Compare(a.Name, b.Name) })
	for lane, at := range r.lanes {
		r.Lanes = append(r.Lanes, queue.LaneStats{Lane: lane, OldestDue: at})
	}
	slices.SortFunc(r.Lanes, func(a, b queue.LaneStats) int {
		return cmp.Or(strings.Compare(a.Lane.Key, b.Lane.Key), cmp.Compare(a.Lane.Priority, b.Lane.Priority))
	})
	for _, s := range r.replies {
		r.Replies = append(r.Replies, *s)
	}
	slices.SortFunc(r.Replies, func(a, b queue.ReplyStats) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), b.Last.Compare(a.Last), strings.Compare(a.Relay, b.Relay), cmp.Compare(a.Code, b.Code),
			strings.Compare(a.Enhanced, b.Enhanced), strings.Compare(a.Text, b.Text), cmp.Compare(a.Class, b.Class))
	})
	r.Replies = r.Replies[:min(len(r.Replies), queue.MaxReplies)]
	return r.Stats
}
