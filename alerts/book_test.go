package alerts

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// told runs a book for that long, with a look every ten seconds, and returns what it tells:
// "minute state kind subject". present says what is wrong after some time.
func told(b *Book, length time.Duration, present func(at time.Duration) []Condition) []string {
	var all []string
	begin := time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)
	for at := time.Duration(0); at <= length; at += 10 * time.Second {
		now := begin.Add(at)
		b.Look(now, present(at))
		for {
			m, ok := b.Next(now)
			if !ok {
				break
			}
			all = append(all, fmt.Sprintf("%v %s %s", at, m.State, m.id()))
			b.Told(m, now)
		}
	}
	return all
}

var (
	down    = Condition{Kind: RelayUnusable, Subject: "a", Severity: Critical}
	refused = Condition{Kind: MailRefused, Severity: Critical}
	held    = Condition{Kind: MailHeld, Severity: Warning}
)

func between(c Condition, from, to time.Duration) func(time.Duration) []Condition {
	return func(at time.Duration) []Condition {
		if at >= from && at < to {
			return []Condition{c}
		}
		return nil
	}
}

func TestBook(t *testing.T) {
	late := down
	late.After = 20 * time.Second
	daily := down
	daily.Again = Daily
	for _, test := range []struct {
		name    string
		length  time.Duration
		present func(time.Duration) []Condition
		want    []string
	}{
		{"nothing", time.Hour, between(down, time.Minute, time.Minute), nil},
		{"once, hourly, resolved", 3 * time.Hour, between(down, time.Minute, 2*time.Hour+30*time.Minute), []string{
			"1m0s firing relay_unusable a", "1h1m0s lasting relay_unusable a", "2h1m0s lasting relay_unusable a", "2h32m0s resolved relay_unusable a",
		}},
		{"daily", 50 * time.Hour, between(daily, 0, 30*time.Hour), []string{
			"0s firing relay_unusable a", "24h0m0s lasting relay_unusable a", "30h2m0s resolved relay_unusable a",
		}},
		{"a blip before After", time.Hour, between(late, 0, 20*time.Second), nil},
		{"After", 10 * time.Minute, between(late, 0, 30*time.Second), []string{
			"20s firing relay_unusable a", "2m30s resolved relay_unusable a",
		}},
		{"two blips do not last", time.Hour, func(at time.Duration) []Condition {
			if at == 0 || at == 110*time.Second {
				return []Condition{late}
			}
			return nil
		}, nil},
		{"blips for ever do not last", 2 * time.Hour, func(at time.Duration) []Condition {
			if at%(110*time.Second) == 0 {
				return []Condition{late}
			}
			return nil
		}, nil},
		{"what is there half of the time lasts", 10 * time.Minute, func(at time.Duration) []Condition {
			if at < 5*time.Minute && at%(40*time.Second) < 20*time.Second {
				return []Condition{late}
			}
			return nil
		}, []string{"50s firing relay_unusable a", "7m0s resolved relay_unusable a"}},
		{"not while it is unknown", 10 * time.Minute, func(at time.Duration) []Condition {
			unknown := late
			unknown.Unknown = at%(5*time.Minute) != 0
			return []Condition{unknown}
		}, nil},
		{"back before it is over", time.Hour, func(at time.Duration) []Condition {
			if at < 5*time.Minute || at > 6*time.Minute && at < 10*time.Minute {
				return []Condition{down}
			}
			return nil
		}, []string{"0s firing relay_unusable a", "12m0s resolved relay_unusable a"}},
		{"unknown is neither told nor solved", 3 * time.Hour, func(at time.Duration) []Condition {
			unknown := down
			unknown.Unknown = true
			switch {
			case at < 10*time.Minute, at > 2*time.Hour+20*time.Minute:
				return []Condition{unknown}
			case at < 20*time.Minute:
				return []Condition{down}
			case at < 2*time.Hour:
				return []Condition{unknown}
			default:
				return nil
			}
		}, []string{"10m0s firing relay_unusable a", "2h2m0s resolved relay_unusable a"}},
		{"the worse first", 0, func(time.Duration) []Condition { return []Condition{held, refused, down} }, []string{
			"0s firing mail_refused ", "0s firing relay_unusable a", "0s firing mail_held ",
		}},
	} {
		if got := told(new(Book), test.length, test.present); !slices.Equal(got, test.want) {
			t.Errorf("%s: told %q, want %q", test.name, got, test.want)
		}
	}
}

// TestFlapping: what comes and goes for a day is told some times, and not hundreds of times,
// whatever its rhythm.
func TestFlapping(t *testing.T) {
	for _, period := range []time.Duration{20 * time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour} {
		got := told(new(Book), 24*time.Hour, func(at time.Duration) []Condition {
			if at%period < period/2 {
				return []Condition{down}
			}
			return nil
		})
		if len(got) < 8 || len(got) > 40 {
			t.Errorf("a relay that comes and goes every %v was told %d times in a day: %q", period, len(got), got)
		}
	}
}

// TestLimit: at most 30 messages an hour. What lasts is told late, and what was over by then
// is counted.
func TestLimit(t *testing.T) {
	var b Book
	all := make([]Condition, 100)
	for i := range all {
		all[i] = Condition{Kind: RelayUnusable, Subject: fmt.Sprintf("%03d", i), Severity: Critical}
	}
	const passing = 10 // are over before their turn comes
	got := told(&b, 5*time.Hour, func(at time.Duration) []Condition {
		if at >= 30*time.Minute {
			return all[:len(all)-passing]
		}
		return all
	})
	sent := map[string]int{}
	perHour := map[time.Duration]int{}
	for _, line := range got {
		var at, state, kind, subject string
		_, _ = fmt.Sscan(line, &at, &state, &kind, &subject)
		when, err := time.ParseDuration(at)
		if err != nil {
			t.Fatal(err)
		}
		perHour[when/time.Hour]++
		if state == "firing" {
			sent[subject]++
		}
	}
	for hour, n := range perHour {
		if n > maxHourly {
			t.Errorf("%d messages in hour %d, want %d at most", n, hour, maxHourly)
		}
	}
	for i := range len(all) - passing {
		if sent[fmt.Sprintf("%03d", i)] != 1 {
			t.Errorf("condition %d was told %d times, want once", i, sent[fmt.Sprintf("%03d", i)])
		}
	}
	if !slices.Contains(got, "1h0m0s left_out  ") {
		t.Errorf("nothing was said of those left out: %q", got)
	}
	if n := b.leftOut; n != 0 {
		t.Errorf("%d still left out", n)
	}
}

// TestOverWhileTold: a condition that comes back while its end is being sent is new.
func TestOverWhileTold(t *testing.T) {
	var b Book
	now := time.Unix(0, 0)
	step := func(present ...Condition) (Message, bool) {
		now = now.Add(3 * time.Minute)
		b.Look(now, present)
		return b.Next(now)
	}
	m, _ := step(down)
	b.Told(m, now)
	step()
	end, ok := step()
	if !ok || end.State != Resolved {
		t.Fatalf("Next = %+v, %t, want the end", end, ok)
	}
	step(down)
	b.Told(end, now)
	if m, ok := step(down); !ok || m.State != Firing {
		t.Errorf("Next after its end was told = %+v, %t, want it anew", m, ok)
	}
}

// TestNeverTold: the end of what nobody was told is not told, also where the last look was a
// while ago.
func TestNeverTold(t *testing.T) {
	var b Book
	late := down
	late.After = time.Minute
	now := time.Unix(0, 0)
	b.Look(now, []Condition{late})
	b.Look(now.Add(10*time.Second), nil)
	if m, ok := b.Next(now.Add(10 * time.Minute)); ok {
		t.Errorf("Next = %+v, want nothing", m)
	}
}

// TestForgets: nothing is kept of what is long over.
func TestForgets(t *testing.T) {
	var b Book
	got := told(&b, 24*time.Hour, between(down, 0, time.Hour))
	if len(b.entries) != 0 || len(b.sent) != 0 || len(got) != 2 {
		t.Errorf("after a day: %d entries, %d times, told %q", len(b.entries), len(b.sent), got)
	}
	many := make([]Condition, 2*maxConditions)
	for i := range many {
		many[i] = Condition{Kind: RelayUnusable, Subject: fmt.Sprint(i)}
	}
	if b.Look(time.Now(), many); len(b.entries) > maxConditions {
		t.Errorf("%d entries, want %d at most", len(b.entries), maxConditions)
	}
}
