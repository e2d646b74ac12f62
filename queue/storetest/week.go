package storetest

import (
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// WeekOf is what happened hour by hour, by key.
type WeekOf map[string]map[time.Time]queue.Counts

// FillWeek has mail accepted, and tried, on nine days, and sweeps. It returns what happened, and the time.
func FillWeek(t *testing.T, s queue.Store) (WeekOf, time.Time) {
	t.Helper()
	all, now := WeekOf{"app": {}, "other": {}}, Start
	for i := range 9 * 24 * 60 / 97 { // so that they are in other parts of each hour
		now = Start.Add(time.Duration(i) * 97 * time.Minute)
		e := entry(now.Sub(Start), "a@example.org", "b@example.org")
		e.Owner, e.Message.Key = "me", []string{"app", "app", "other"}[i%3]
		insert(t, s, e)
		failed := &mailer.Failure{Class: mailer.ClassPermanent, Relay: "one", Reply: mailer.Reply{Code: 550}}
		record(t, s, queue.Outcome{
			ID: e.Message.ID, At: now,
			Attempts: []mailer.Attempt{{Relay: []string{"one", "two"}[i%2], Started: now, Results: []mailer.Result{{ForwardPath: "a@example.org"}, {ForwardPath: "b@example.org", Failure: failed}}}},
			Changes:  []queue.Change{{ForwardPath: "a@example.org", State: queue.Delivered}, {ForwardPath: "b@example.org", State: queue.Bounced}},
		})
		c := all[e.Message.Key][now.Truncate(time.Hour)]
		c.Add(queue.Counts{Messages: 1, Accepted: 2, Delivered: 1, Bounced: 1})
		all[e.Message.Key][now.Truncate(time.Hour)] = c
		if i%7 == 0 {
			sweepAll(t, s, now)
		}
	}
	return all, now
}

func sweepAll(t *testing.T, s queue.Store, now time.Time) {
	t.Helper()
	for n := 1; n > 0; {
		var err error
		if n, err = s.Sweep(t.Context(), now, 10); err != nil {
			t.Fatalf("Sweep = %v", err)
		}
	}
}

// CheckWeek compares what the store says of the last seven days.
func CheckWeek(t *testing.T, s queue.Store, all WeekOf, now time.Time) {
	t.Helper()
	for _, key := range []string{"app", "other", "none", queue.AnyKey} {
		hours, err := s.Week(t.Context(), key, now)
		if err != nil || len(hours) != queue.WeekHours || !hours[len(hours)-1].At.Equal(now.Truncate(time.Hour)) {
			t.Fatalf("Week(%s) = %d hours, %v, want %d up to the present one", key, len(hours), err, queue.WeekHours)
		}
		for i, hour := range hours {
			want := all[key][hour.At]
			if key == queue.AnyKey {
				want = all["app"][hour.At]
				want.Add(all["other"][hour.At])
			}
			if hour.Counts != want || i > 0 && hour.At.Sub(hours[i-1].At) != time.Hour {
				t.Errorf("Week(%s) at %v = %+v, want %+v", key, hour.At, hour.Counts, want)
			}
		}
	}
}

// testWeek: what happened within seven days is known by the hour, though the messages are gone, and after a restart.
func testWeek(t *testing.T, s queue.Store, reopen func(queue.Store) queue.Store) {
	all, now := FillWeek(t, s)
	CheckWeek(t, s, all, now)
	s = reopen(s)
	CheckWeek(t, s, all, now)
	CheckWeek(t, s, all, now.Add(50*time.Hour))
	sweepAll(t, s, now.Add(50*time.Hour))
	s = reopen(s)
	CheckWeek(t, s, all, now.Add(50*time.Hour))
	sweepAll(t, s, now.Add(9*24*time.Hour))
	CheckWeek(t, s, WeekOf{}, now.Add(9*24*time.Hour))
}
