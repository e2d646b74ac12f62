package smtp

import (
	"strings"
	"testing"
	"time"

	"mailsidecar/relays"
)

// TestWindow plays events to a window of eight: "+" is an accepted message while
// others wait, "." one while none waits, "r" a refused connection, "m" too many
// connections, "f" too fast, "s" a look at the line, "q" a second, "h" a minute.
func TestWindow(t *testing.T) {
	tests := []struct {
		name   string
		events string
		want   string // limit after each event but time
	}{
		{"starts with two", "....", "2222"},
		{"doubles in each round", "++ ++++ ++", "34567888"},
		{"is refused at the fourth", "+ ++ r", "3453"},
		{"is left alone for a minute", "++r + qq + h+ + +", "34333444"},
		{"grows by one in ten seconds", "++r h+ qqqqqqqqq+ q+ + qqqqqqqqqq+", "34344556"},
		{"is refused a connection in place of another", "++ qqqqqqr qqqqq+ qqqqq+ r qqqqqqqqqq+ h+", "34334334"},
		{"one too many", "++++ mmm", "3456543"},
		{"one too many of one", "m m m", "111"},
		{"half", "++++++ f", "3456784"},
		{"half of half later", "++++++ f qqqqqf qqqqqf qqqqqf", "3456784211"},
		{"half once for what was under way", "++++++ f f f qqqqf", "3456784444"},
		{"refused while half is on its way", "++++++ rf", "34567833"},
		{"comes back from one", "f h+ qqqqqqqqqq+ qqqqqqqqqq+", "1234"},
		{"comes back only for who waits", "f h. . . .", "11111"},
		{"grows where none was accepted for a second", "s qs qs", "345"},
		{"has messages that come back, slowly", "+s q.s q.s", "333333"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWindow(8)
			now := time.Unix(1e9, 0)
			var got strings.Builder
			for _, e := range tt.events {
				now = now.Add(time.Millisecond)
				switch e {
				case '+', '.':
					w.accepted(now, 10*time.Millisecond, e == '+')
				case 'r':
					w.refused(now, 3, "421")
				case 'm':
					w.pushedBack(now, w.limit, relays.TooManyConnections, "432")
				case 'f':
					w.pushedBack(now, w.limit, relays.TooFast, "421")
				case 's':
					w.stalled(now)
				case 'q':
					now = now.Add(time.Second)
					continue
				case 'h':
					now = now.Add(time.Minute)
					continue
				default:
					continue
				}
				got.WriteByte(byte('0' + w.limit))
			}
			if got.String() != tt.want {
				t.Errorf("limits after %q = %s, want %s", tt.events, &got, tt.want)
			}
		})
	}
}

// TestWindowInUse: a decrease starts from the connections in use, not from the
// limit.
func TestWindowInUse(t *testing.T) {
	tests := []struct {
		open int
		p    relays.Pushback
		want int
	}{
		{8, relays.TooFast, 4},
		{3, relays.TooFast, 1},
		{1, relays.TooFast, 1},
		{20, relays.TooFast, 4}, // some of them are on their way out
		{5, relays.TooManyConnections, 4},
		{1, relays.TooManyConnections, 1},
	}
	for _, tt := range tests {
		w := newWindow(8)
		w.limit = 8
		now := time.Unix(1e9, 0)
		w.pushedBack(now, tt.open, tt.p, "x")
		if w.limit != tt.want {
			t.Errorf("pushedBack(%d open, %v): limit %d, want %d", tt.open, tt.p, w.limit, tt.want)
		}
	}
}

// TestWindowLatency: a relay with some capacity, and one that is slow for other
// reasons.
func TestWindowLatency(t *testing.T) {
	tests := []struct {
		name     string
		wait     func(connections, message int) time.Duration
		min, max int // limit after many messages
	}{
		{"as fast with any number", func(int, int) time.Duration { return 20 * time.Millisecond }, 8, 8},
		{"a slow content filter", func(int, int) time.Duration { return 5 * time.Second }, 8, 8},
		{"a filter that is slow for some", func(_, i int) time.Duration { return time.Duration(1+i%4) * time.Second }, 8, 8},
		{"noise on loopback", func(_, i int) time.Duration { return time.Duration(1+i*7919%300) * time.Millisecond }, 8, 8},
		{"one at a time, fast", func(n, _ int) time.Duration { return time.Duration(n) * 50 * time.Millisecond }, 8, 8},
		{"one at a time", func(n, _ int) time.Duration { return time.Duration(n) * time.Second }, 2, 4},
		{"four at a time", func(n, _ int) time.Duration { return time.Duration(max(4, n)) * time.Second }, 4, 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWindow(8)
			now := time.Unix(1e9, 0)
			for i := range 500 {
				wait := tt.wait(w.limit, i)
				now = now.Add(wait / time.Duration(w.limit))
				w.accepted(now, wait, true)
			}
			if w.limit < tt.min || w.limit > tt.max {
				t.Errorf("limit %d (%s), want %d to %d", w.limit, w.reason, tt.min, tt.max)
			}
		})
	}
}

// TestWindowForgets: a relay that has become slow is slow, not crowded.
func TestWindowForgets(t *testing.T) {
	w := newWindow(8)
	now := time.Unix(1e9, 0)
	play := func(d, wait time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(wait / time.Duration(w.limit)) {
			w.accepted(now, wait, true)
		}
	}
	play(time.Minute, time.Second)
	if w.limit != 8 {
		t.Fatalf("limit %d, want 8", w.limit)
	}
	play(9*time.Minute, 10*time.Second)
	if w.limit != firstConnections {
		t.Errorf("limit %d, want %d: replies take ten times as long", w.limit, firstConnections)
	}
	play(20*time.Minute, 10*time.Second)
	if w.limit != 8 {
		t.Errorf("limit %d (%s), want 8: they have for half an hour", w.limit, w.reason)
	}
}

func TestWindowEndedNormally(t *testing.T) {
	tests := []struct {
		lasted []int // messages of each connection that was ended; negative: that time passes
		want   string
	}{
		{[]int{5, -1, 3, 5}, "yyn"},
		{[]int{0}, "n"},
		{[]int{5}, "y"},
		{[]int{5, 5, 5}, "yyy"},
		{[]int{5, 3, 4}, "ynn"},
		{[]int{0, 5, 0, 5}, "nyny"},
	}
	for _, tt := range tests {
		w := newWindow(8)
		now := time.Unix(1e9, 0)
		var got []byte
		for _, n := range tt.lasted {
			if n < 0 {
				now = now.Add(time.Minute)
				continue
			}
			answer := byte('n')
			if w.endedNormally(now, n) {
				answer = 'y'
			}
			got = append(got, answer)
		}
		if string(got) != tt.want {
			t.Errorf("endedNormally(%v) = %s, want %s", tt.lasted, got, tt.want)
		}
	}
}
