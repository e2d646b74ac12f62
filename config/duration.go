package config

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a [time.Duration] that can be written in days.
type Duration time.Duration

const day = 24 * time.Hour

// Decode implements envconfig's Decoder: "7d", "1d12h", "90s".
func (d *Duration) Decode(value string) error {
	parsed, ok := parseDuration(strings.TrimSpace(value))
	if !ok {
		return &invalid{"is " + quote(value) + ", which is no duration", "write a duration such as 30s, 15m, 12h or 7d"}
	}
	*d = Duration(parsed)
	return nil
}

// ParseDuration reads a duration as the environment's variables take it.
func ParseDuration(s string) (time.Duration, error) {
	var d Duration
	err := d.Decode(s)
	return time.Duration(d), err
}

// Wait is how long to wait for an answer. It can be written as a bare number of
// seconds, too, as HTTP's Prefer: wait=3 is.
type Wait time.Duration

// Decode implements envconfig's Decoder: "3", "3s", "1m".
func (w *Wait) Decode(value string) error {
	value = strings.TrimSpace(value)
	if _, err := strconv.ParseUint(value, 10, 32); err == nil {
		value += "s"
	}
	d, ok := parseDuration(value)
	if !ok {
		return &invalid{"is " + quote(value) + ", which is no duration", "write seconds, such as 3, or a duration such as 3s or 1m"}
	}
	*w = Wait(d)
	return nil
}

func (w Wait) String() string { return Duration(w).String() }

// ParseWait reads a duration as MAILSIDECAR_WAIT takes it.
func ParseWait(s string) (time.Duration, error) {
	var w Wait
	err := w.Decode(s)
	return time.Duration(w), err
}

func parseDuration(s string) (time.Duration, bool) {
	var days time.Duration
	if count, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(count, 10, 63)
		if err != nil || n > uint64(math.MaxInt64/day) {
			return 0, false
		}
		days = time.Duration(n) * day
		if rest == "" {
			return days, true
		}
		s = rest
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > math.MaxInt64-days {
		return 0, false
	}
	return days + d, true
}

// String writes whole days as days, and leaves out units that are zero.
func (d Duration) String() string {
	if d == 0 {
		return "0"
	}
	var days string
	if n := time.Duration(d) / day; n > 0 {
		days = strconv.FormatInt(int64(n), 10) + "d"
	}
	rest := time.Duration(d) % day
	if rest == 0 {
		return days
	}
	s := rest.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return days + s
}
