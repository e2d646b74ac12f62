package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// testStats: whatever is done, the numbers are those that a count of all messages finds,
// after a restart too.
func testStats(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	now := Start
	for seed := range uint64(6) {
		now = Churn(t, s, seed, now)
		CheckStats(t, s, now)
		s = reopen(s)
		if stats, err := s.Stats(t.Context(), queue.AnyKey, now); err != nil || stats.Counting {
			t.Errorf("Stats after an orderly end = %v, %v, want that nothing is being counted", stats.Counting, err)
		}
		CheckStats(t, s, now)
	}
	for _, later := range []time.Duration{12 * time.Hour, 25 * time.Hour, Retention + 48*time.Hour} {
		at := now.Add(later)
		CheckStats(t, s, at)
		for {
			n, err := s.Sweep(t.Context(), at, 100)
			if err != nil {
				t.Fatalf("Sweep = %v", err)
			}
			if n == 0 {
				break
			}
		}
		CheckStats(t, s, at)
	}
	for _, later := range []time.Duration{0, 30 * time.Hour} { // what is finished is gone
		stats, err := s.Stats(t.Context(), queue.AnyKey, now.Add(Retention+48*time.Hour+later))
		if err != nil || len(stats.Replies) > 0 || stats.Day.Counts != (queue.Counts{}) {
			t.Errorf("Stats after retention = %+v, %v, want no counts", stats, err)
		}
	}
}

// passedOn is the Why of an attempt after which another relay was asked at once.
const passedOn = "passed on"

// churner does one thing after another to a store.
type churner struct {
	t    *testing.T
	s    queue.Store
	rng  *rand.Rand
	now  time.Time
	done []queue.Outcome // some that were recorded
}

var churnKeys = []string{"app", "news", ""}

// Churn does many different things to a store, by the seed, and returns the time of the
// last one.
func Churn(t *testing.T, s queue.Store, seed uint64, now time.Time) time.Time {
	t.Helper()
	c := &churner{t: t, s: s, rng: rand.New(rand.NewPCG(seed, 1)), now: now} //nolint:gosec // the same again
	steps := []func(){c.insert, c.insert, c.insert, c.work, c.work, c.work, c.command, c.expire, c.release, c.recover, c.again}
	for range 120 {
		c.now = c.now.Add(time.Duration(c.rng.Int64N(int64(90 * time.Second))).Truncate(time.Microsecond))
		steps[c.rng.IntN(len(steps))]()
	}
	return c.now
}

func (c *churner) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *churner) insert() {
	var b queue.Batch
	for range 1 + c.rng.IntN(3) {
		paths := []string{"a@example.org", "b@example.org", "c@example.org"}[:1+c.rng.IntN(3)]
		e := entry(c.now.Sub(Start), paths...)
		e.Message.Key = churnKeys[c.rng.IntN(len(churnKeys))]
		e.Message.Expires = c.now.Add(time.Duration(1+c.rng.IntN(120)) * time.Minute)
		b.Entries = append(b.Entries, e)
	}
	_, err := c.s.Insert(c.t.Context(), b)
	c.must(err)
	if c.rng.IntN(4) == 0 { // as after a failed commit
		_, err := c.s.Insert(c.t.Context(), b)
		c.must(err)
	}
}

func (c *churner) claim(owner string) (works []queue.Work) {
	for _, key := range churnKeys {
		for _, route := range []string{"relay", queue.TakenRoute("one"), queue.TakenRoute("two"), queue.Unfiled} {
			more, err := c.s.Claim(c.t.Context(), owner, c.now, []queue.Want{{Route: route, Lane: queue.Lane{Key: key}, Limit: 1 + c.rng.IntN(3)}})
			c.must(err)
			works = append(works, more...)
		}
	}
	return works
}

var churnReplies = []struct {
	class mailer.Class
	code  int
	text  string
}{
	{mailer.ClassPermanent, 550, "<a@example.org> User unknown 4711"},
	{mailer.ClassPermanent, 552, "mailbox full"},
	{mailer.ClassTransient, 450, "try again, id 4f2Jx1"},
	{mailer.ClassRelay, 0, "no answer"},
	{mailer.ClassUncertain, 0, "the reply was lost"},
}

func (c *churner) result(path string) mailer.Result {
	r := mailer.Result{ForwardPath: path}
	if c.rng.IntN(2) == 0 {
		r.Reply = mailer.Reply{Code: 250, Text: "queued"}
		return r
	}
	reply := churnReplies[c.rng.IntN(len(churnReplies))]
	r.Failure = &mailer.Failure{Class: reply.class, Stage: mailer.StageRcpt, Text: reply.text}
	if reply.code > 0 {
		r.Failure.Text = ""
		r.Failure.Reply = mailer.Reply{Code: reply.code, Text: reply.text, Enhanced: "4.2.1"}
	}
	return r
}

// work tries something: at one relay, and sometimes at once at another one.
func (c *churner) work() {
	for _, w := range c.claim("me") {
		o := queue.Outcome{ID: w.ID, Owner: "me", Route: "relay", At: c.now, Lease: w.Lease}
		both := c.rng.IntN(3) == 0
		for n, relay := range []string{"one", "two"} {
			if n == 0 && !both {
				continue
			}
			a := mailer.Attempt{Relay: relay, Started: c.now.Add(-time.Minute), Duration: time.Duration(c.rng.IntN(60_000_000)) * time.Microsecond}
			if n == 0 {
				a.Why = passedOn
			}
			for _, path := range w.Envelope.ForwardPaths {
				a.Results = append(a.Results, c.result(path))
			}
			o.Attempts = append(o.Attempts, a)
		}
		for _, r := range o.Attempts[len(o.Attempts)-1].Results {
			o.Changes = append(o.Changes, c.change(r))
		}
		_, err := c.s.Record(c.t.Context(), []queue.Outcome{o})
		c.must(err)
		c.done = append(c.done, o)
	}
}

func (c *churner) change(r mailer.Result) queue.Change {
	change := queue.Change{ForwardPath: r.ForwardPath, State: queue.Delivered}
	switch {
	case r.Failure == nil:
	case r.Failure.Class == mailer.ClassPermanent:
		change.State = queue.Bounced
	case r.Failure.Class == mailer.ClassUncertain && c.rng.IntN(2) == 0:
		change.State = queue.Held
	default:
		change.State, change.Next, change.Tries = queue.Deferred, c.now.Add(time.Duration(c.rng.IntN(600))*time.Second), 1
	}
	return change
}

// again records what was recorded, as after a failed commit.
func (c *churner) again() {
	if len(c.done) > 0 {
		_, err := c.s.Record(c.t.Context(), []queue.Outcome{c.done[c.rng.IntN(len(c.done))]})
		c.must(err)
	}
}

func (c *churner) command() {
	all := allMessages(c.t, c.s)
	if len(all) == 0 {
		return
	}
	id := all[c.rng.IntN(len(all))].ID
	if c.rng.IntN(2) == 0 {
		_, err := c.s.Retry(c.t.Context(), queue.AnyKey, []string{id}, c.now)
		c.must(err)
		return
	}
	_, err := c.s.Cancel(c.t.Context(), queue.AnyKey, "me", []queue.Withdrawal{{ID: id}}, c.now)
	c.must(err)
}

func (c *churner) expire() {
	_, err := c.s.Expire(c.t.Context(), c.now, 5)
	c.must(err)
}

func (c *churner) release() {
	for _, w := range c.claim("me") {
		l := queue.Lease{ID: w.ID, Route: w.Route, ForwardPaths: w.Envelope.ForwardPaths, Number: w.Lease}
		c.must(c.s.Release(c.t.Context(), "me", c.now, []queue.Lease{l}))
	}
}

// recover lets another run take over what this one had marked.
func (c *churner) recover() {
	owner := fmt.Sprintf("gone%d", c.rng.Int())
	live(c.t, c.s, owner)
	for _, w := range c.claim(owner) {
		l := queue.Lease{ID: w.ID, Route: queue.TakenRoute("one"), ForwardPaths: w.Envelope.ForwardPaths, Number: w.Lease}
		if c.rng.IntN(2) == 0 {
			c.must(c.s.Mark(c.t.Context(), owner, l, nil))
		}
		if c.rng.IntN(8) == 0 {
			c.must(c.s.MarkAlone(c.t.Context(), owner, w.ID, true))
		}
	}
	leave(c.t, c.s, owner)
	recoverAll(c.t, c.s, "me"+fmt.Sprint(c.rng.Int()), c.now, c.rng.IntN(2) == 0)
}

func allMessages(t *testing.T, s queue.Store) (all []queue.Message) {
	t.Helper()
	for cursor := ""; ; {
		page, err := s.List(t.Context(), queue.Filter{Key: queue.AnyKey}, 200, cursor)
		if err != nil {
			t.Fatalf("List = %v", err)
		}
		all = append(all, page.Messages...)
		if cursor = page.Next; cursor == "" {
			return all
		}
	}
}

// CheckStats compares the numbers of every key, and of all, with a count of all messages.
func CheckStats(t *testing.T, s queue.Store, now time.Time) {
	t.Helper()
	all := allMessages(t, s)
	for i, m := range all {
		all[i] = get(t, s, m.ID)
	}
	for _, key := range append([]string{queue.AnyKey, "nobody"}, churnKeys...) {
		got, err := s.Stats(t.Context(), key, now)
		if err != nil {
			t.Fatalf("Stats = %v", err)
		}
		of := slices.DeleteFunc(slices.Clone(all), func(m queue.Message) bool { return key != queue.AnyKey && m.Key != key })
		wantDiff(t, "numbers of "+key, recite(got), countAll(of, got, now))
	}
}

// recite is the numbers in the form in which they are compared.
func recite(s queue.Stats) map[string]int64 {
	n := map[string]int64{}
	add := func(name string, v int64) {
		if v != 0 {
			n[name] = v
		}
	}
	counts := func(name string, c queue.Counts) {
		add(name+" messages", c.Messages)
		add(name+" accepted", c.Accepted)
		add(name+" delivered", c.Delivered)
		add(name+" deferred", c.Deferred)
		add(name+" bounced", c.Bounced)
		add(name+" uncertain", c.Uncertain)
	}
	for status, v := range s.Statuses {
		add("status "+string(status), v)
	}
	counts("hour", s.Hour.Counts)
	counts("day", s.Day.Counts)
	for i, b := range s.Buckets {
		counts(fmt.Sprintf("bucket %d", i), b.Counts)
	}
	for _, k := range s.Keys {
		for status, v := range k.Statuses {
			add("key "+k.Name+" status "+string(status), v)
		}
		counts("key "+k.Name+" hour", k.Hour)
		counts("key "+k.Name+" day", k.Day)
	}
	for _, r := range s.Relays {
		counts("relay "+r.Name+" hour", r.Hour)
		counts("relay "+r.Name+" day", r.Day)
	}
	for _, r := range s.Replies {
		name := replyName(r.Relay, r.Class, r.Code, r.Text)
		add(name, r.Count)
		add(name+" first", r.First.UnixMicro())
		add(name+" last", r.Last.UnixMicro())
	}
	if !s.OldestDue.IsZero() {
		add("oldest due", s.OldestDue.UnixMicro())
	}
	for _, l := range s.Lanes {
		add(oldestIn(l.Lane), l.OldestDue.UnixMicro())
	}
	return n
}

func oldestIn(lane queue.Lane) string {
	return fmt.Sprintf("oldest due of %s %s", lane.Key, lane.Priority)
}

func replyName(relay string, class mailer.Class, code int, text string) string {
	return fmt.Sprintf("reply of %s %v %d %s", relay, class, code, text)
}

// recount counts messages one by one.
type recount struct {
	n         map[string]int64
	day, hour time.Time
	now       time.Time
}

func countAll(all []queue.Message, got queue.Stats, now time.Time) map[string]int64 {
	c := recount{map[string]int64{}, got.Day.Since, got.Hour.Since, now}
	for _, m := range all {
		c.n["status "+string(m.Status())]++
		c.n["key "+m.Key+" status "+string(m.Status())]++
		for range m.Recipients {
			c.event(m.Created, "accepted", "key "+m.Key)
		}
		c.event(m.Created, "messages", "key "+m.Key)
		for _, r := range m.Recipients {
			// What is leased shows no time to a look-up, but is due all the same: the suite
			// leaves nothing leased.
			for _, name := range []string{"oldest due", oldestIn(m.Lane())} {
				if at := r.NextAttempt; !at.IsZero() && !at.After(now) && (c.n[name] == 0 || at.UnixMicro() < c.n[name]) {
					c.n[name] = at.UnixMicro()
				}
			}
		}
		for _, a := range m.Attempts {
			for _, r := range a.Results {
				c.result(m.Key, a, r)
			}
		}
	}
	return c.n
}

// event counts something for each of the names.
func (c *recount) event(at time.Time, what string, of ...string) {
	if at.Before(c.day) || at.After(c.now.Add(queue.BucketLength)) {
		return
	}
	names := []string{"day", fmt.Sprintf("bucket %d", at.Sub(c.day)/queue.BucketLength)}
	for _, name := range of {
		names = append(names, name+" day")
	}
	if !at.Before(c.hour) {
		for _, name := range slices.Clone(names) {
			if head, found := strings.CutSuffix(name, "day"); found {
				names = append(names, head+"hour")
			}
		}
	}
	for _, name := range names {
		c.n[name+" "+what]++
	}
}

func (c *recount) result(key string, a mailer.Attempt, r mailer.Result) {
	at, what := a.Started.Add(a.Duration), "delivered"
	if f := r.Failure; f != nil {
		switch {
		case f.Class == mailer.ClassUncertain:
			what = "uncertain"
		case f.Class == mailer.ClassPermanent && a.Why != passedOn:
			what = "bounced"
		default:
			what = "deferred"
		}
		c.reply(a.Relay, f, at)
	}
	of := []string{"key " + key}
	if a.Relay != "" {
		of = append(of, "relay "+a.Relay)
	}
	c.event(at, what, of...)
}

func (c *recount) reply(relay string, f *mailer.Failure, at time.Time) {
	if at.Truncate(time.Hour).Before(c.day) || at.Truncate(time.Hour).After(c.now) {
		return
	}
	text := map[string]string{"<a@example.org> User unknown 4711": "<*> User unknown *", "try again, id 4f2Jx1": "try again, id *"}[f.Reply.Text]
	if text == "" {
		text = f.Reply.Text + f.Text
	}
	name := replyName(relay, f.Class, f.Reply.Code, text)
	if c.n[name]++; c.n[name] == 1 || at.UnixMicro() < c.n[name+" first"] {
		c.n[name+" first"] = at.UnixMicro()
	}
	c.n[name+" last"] = max(c.n[name+" last"], at.UnixMicro())
}

// testListByReply: messages are found by why they were not delivered.
func testListByReply(t *testing.T, s queue.Store) {
	ids := map[string]string{}
	for i, f := range []*mailer.Failure{
		{Class: mailer.ClassPermanent, Relay: "one", Reply: mailer.Reply{Code: 550, Enhanced: "5.1.1", Text: "<ana@example.org>: User unknown, 100%_\\"}},
		{Class: mailer.ClassTransient, Relay: "two", Reply: mailer.Reply{Code: 450, Text: "User unknown"}},
		{Class: mailer.ClassRelay, Relay: "two", Text: "no answer"},
		nil,
		{Class: mailer.ClassPermanent, Relay: "three", Reply: mailer.Reply{Code: 550, Enhanced: "5.7.1"}, Text: "550"},
	} {
		e := entry(time.Duration(i)*time.Minute, "ana@example.org")
		insert(t, s, e)
		claim(t, s, Start.Add(time.Hour), 10)
		r := mailer.Result{ForwardPath: "ana@example.org", Failure: f}
		record(t, s, queue.Outcome{
			ID: e.Message.ID, At: Start, Attempts: []mailer.Attempt{{Relay: "one", Results: []mailer.Result{r}}},
			Changes: []queue.Change{{ForwardPath: "ana@example.org", State: queue.Bounced}},
		})
		ids[e.Message.ID] = fmt.Sprint(i)
	}
	for _, tc := range []struct {
		f    queue.Filter
		want string
	}{
		{queue.Filter{Relay: "two"}, "21"},
		{queue.Filter{Relay: "o"}, ""},
		{queue.Filter{ReplyCode: 550}, "40"},
		{queue.Filter{NoText: true}, "4"},
		{queue.Filter{NoText: true, ReplyCode: 450}, ""},
		{queue.Filter{EnhancedCode: "5.1.1"}, "0"},
		{queue.Filter{Text: "<*>: user UNKNOWN*"}, "0"},
		{queue.Filter{Text: "*unknown"}, "1"},
		{queue.Filter{Text: "*unknown*", Relay: "two"}, "1"},
		{queue.Filter{Text: "no answer"}, "2"},
		{queue.Filter{Text: "*100%_\\"}, "0"},
		{queue.Filter{Text: "%"}, ""},
		{queue.Filter{Text: "*"}, "4210"},
		{queue.Filter{Text: "User_unknown"}, ""},
	} {
		tc.f.Key = queue.AnyKey
		page, err := s.List(t.Context(), tc.f, 10, "")
		got := ""
		for _, m := range page.Messages {
			got += ids[m.ID]
		}
		if err != nil || got != tc.want {
			t.Errorf("List(%+v) = %s, %v, want %s", tc.f, got, err, tc.want)
		}
	}
}
