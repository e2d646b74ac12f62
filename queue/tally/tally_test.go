package tally

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

func TestPattern(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "",
		"mailbox full":                       "mailbox full",
		"<ana@example.org>: User unknown":    "<*>: User unknown",
		"5.7.1 blocked, see https://a.b/c?d": "5.7.1 blocked, see *",
		"queued as 4f2Jx1 at [192.0.2.7]":    "queued as * at [*]",
		"try again in 300 s":                 "try again in 300 s",
		"size 10485760 over":                 "size * over",
		"a  b":                               "a  b",
		"bad \xff octet":                     "bad * octet",
		strings.Repeat("ü", 100):             strings.Repeat("ü", 79) + "*",
		strings.Repeat("x ", 5000):           strings.Repeat("x ", 79) + "x*",
	} {
		got := Pattern(text)
		if got != want {
			t.Errorf("Pattern(%.60q) = %q, want %q", text, got, want)
		}
		if !Matches(got, strings.ToValidUTF8(text, "*")) {
			t.Errorf("Pattern(%.60q) = %q, which does not match it", text, got)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		pattern, text string
		want          bool
	}{
		{"*quota*", "over Quota now", true},
		{"quota", "over quota", false},
		{"a*b*c", "axbxc", true},
		{"a*b", "ab", true},
		{"a*a", "a", false},
		{"*", "", true},
		{"a*b*c", "acb", false},
		{"over*", "OVER 9000", true},
		{"ü*", "Ü", false},
	} {
		if got := Matches(tc.pattern, tc.text); got != tc.want {
			t.Errorf("Matches(%q, %q) = %v, want %v", tc.pattern, tc.text, got, tc.want)
		}
	}
}

// TestAdd: changes that are counted in parts, and added, come to the same numbers.
func TestAdd(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		whole, sum, part := New(), New(), New()
		for i := range 200 {
			key, when := fmt.Sprint("k", random.IntN(3)), at.Add(time.Duration(random.IntN(20))*time.Minute)
			c := Change{Key: key, From: queue.Status(""), To: queue.StatusQueued, Accepted: 1 + random.IntN(3), At: when}
			if i%2 == 1 {
				f := &mailer.Failure{Class: mailer.ClassTransient, Reply: mailer.Reply{Code: 450 + random.IntN(3), Text: "later"}}
				results := []mailer.Result{{ForwardPath: "a@example.org", Failure: f}, {ForwardPath: "b@example.org"}}
				c = Change{Key: key, From: queue.StatusQueued, To: queue.StatusDeferred, Attempts: []mailer.Attempt{{Relay: "r", Started: when, Results: results}}}
			}
			whole.Apply(c)
			if part.Apply(c); random.IntN(20) == 0 {
				sum.Add(part)
				part = New()
			}
		}
		sum.Add(part)
		if !reflect.DeepEqual(whole.Statuses, sum.Statuses) || !reflect.DeepEqual(whole.Counts, sum.Counts) || !reflect.DeepEqual(whole.Replies, sum.Replies) {
			t.Fatalf("seed %d: in parts %+v, want %+v", seed, sum, whole)
		}
		if !reflect.DeepEqual(whole.Changed(), sum.Changed()) {
			t.Fatalf("seed %d: other numbers have changed", seed)
		}
	}
}

// TestBounds: however many different replies there are, few are kept, and none is lost.
func TestBounds(t *testing.T) {
	tl := New()
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	const n = 3000
	for i := range n {
		f := &mailer.Failure{Class: mailer.ClassPermanent, Reply: mailer.Reply{Code: 550, Text: "no " + strings.Repeat("x", i%140) + " " + string(rune(97+i%7))}}
		tl.Apply(Change{Key: fmt.Sprint("k", i%5), Attempts: []mailer.Attempt{{
			Relay: "r", Started: now.Add(-time.Duration(i) * time.Second), Results: []mailer.Result{{ForwardPath: "a@example.org", Failure: f}},
		}}})
	}
	if most := 2 * (maxReplies + 5*4); len(tl.Replies) > most {
		t.Errorf("%d replies are kept, want %d at most", len(tl.Replies), most)
	}
	total := int64(0)
	for _, r := range tl.Replies {
		total += r.N
	}
	if s := tl.Stats(queue.AnyKey, now, nil); total != n || s.Day.Bounced != n || len(s.Replies) != queue.MaxReplies {
		t.Errorf("%d of %d replies are counted, %d bounced, %d shown", total, n, s.Day.Bounced, len(s.Replies))
	}
	tl.Prune(now.Add(26 * time.Hour))
	if len(tl.Replies)+len(tl.Counts)+len(tl.slots) > 0 {
		t.Errorf("after a day there are %d replies, %d counts, %d slots", len(tl.Replies), len(tl.Counts), len(tl.slots))
	}
}

// TestPrune: counts that are put together by the hour come to the same, in whatever order they come, and the day is
// as it is without that.
func TestPrune(t *testing.T) {
	begin := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 2))
		whole, pruned := New(), New()
		now := begin
		for range 300 {
			now = now.Add(time.Duration(random.IntN(90)) * time.Minute)
			when := now.Add(-time.Duration(random.IntN(1+random.IntN(40*60))) * time.Minute) // some are late
			key := fmt.Sprint("k", random.IntN(3))
			c := Change{Key: key, To: queue.StatusQueued, Accepted: 1, At: when}
			if random.IntN(2) == 0 {
				c = Change{Key: key, Attempts: []mailer.Attempt{{Relay: fmt.Sprint("r", random.IntN(2)), Started: when, Results: []mailer.Result{{ForwardPath: "a@example.org"}}}}}
			}
			whole.Apply(c)
			pruned.Apply(c)
			if random.IntN(5) == 0 {
				pruned.Prune(now)
			}
			if random.IntN(20) == 0 {
				sum := New()
				sum.Add(pruned)
				pruned = sum
			}
		}
		for _, key := range []string{queue.AnyKey, "k1"} {
			if !reflect.DeepEqual(whole.Week(key, now), pruned.Week(key, now)) {
				t.Fatalf("seed %d: the week of %s is %+v, want %+v", seed, key, pruned.Week(key, now), whole.Week(key, now))
			}
			if !reflect.DeepEqual(whole.Stats(key, now, nil).Day, pruned.Stats(key, now, nil).Day) {
				t.Fatalf("seed %d: the day of %s is %+v, want %+v", seed, key, pruned.Stats(key, now, nil).Day, whole.Stats(key, now, nil).Day)
			}
		}
		pruned.Prune(now)
		if most := 3 * queue.WeekHours; len(pruned.Hours) > most || len(pruned.Counts) > 3*3*queue.DayBuckets {
			t.Errorf("seed %d: %d hours and %d counts are kept", seed, len(pruned.Hours), len(pruned.Counts))
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("<ana@example.org>: User unknown")
	f.Add(strings.Repeat("ü ", 200))
	f.Add("a*b 4711")
	f.Fuzz(func(t *testing.T, text string) {
		p := Pattern(text)
		if len(p) > maxPattern || !Matches(p, strings.ToValidUTF8(text, "*")) {
			t.Errorf("Pattern(%q) = %q", text, p)
		}
	})
}
