package units

import (
	"encoding"
	"math"
	"strconv"
	"strings"
	"time"
)

// Day has 24 hours, whatever the calendar says.
const Day = 24 * time.Hour

// Duration is a [time.Duration] that prints in days, too: "7d", "1d12h", "90s".
// Zero prints as "0".
type Duration time.Duration

// ParseDuration reads a duration of [time.ParseDuration], before which days may
// stand: "7d", "1d12h", "90s". A negative one is an [*Error], as is one of over
// 106751 days, the most that fit.
func ParseDuration(text string) (time.Duration, error) {
	if d, ok := parseDuration(text); ok {
		return d, nil
	}
	return 0, &Error{text, "duration", "a duration such as 30s, 15m, 12h or 7d"}
}

func parseDuration(text string) (time.Duration, bool) {
	var days time.Duration
	if count, rest, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(count, 10, 63)
		if err != nil || n > uint64(math.MaxInt64/Day) {
			return 0, false
		}
		days = time.Duration(n) * Day
		if rest == "" {
			return days, true
		}
		text = rest
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > math.MaxInt64-days {
		return 0, false
	}
	return days + d, true
}

var (
	_ encoding.TextUnmarshaler = (*Duration)(nil)
	_ encoding.TextUnmarshaler = (*Wait)(nil)
)

// UnmarshalText is [ParseDuration], but for blanks around the text.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(strings.TrimSpace(string(text)))
	if err == nil {
		*d = Duration(parsed)
	}
	return err
}

// String writes whole days as days, and leaves out units that are zero.
func (d Duration) String() string {
	if d == 0 {
		return "0"
	}
	var days string
	if n := time.Duration(d) / Day; n > 0 {
		days = strconv.FormatInt(int64(n), 10) + "d"
	}
	rest := time.Duration(d) % Day
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

// Wait is how long to wait for an answer. It is written as a [Duration], or as a
// bare number of seconds, as in HTTP's Prefer: wait=3.
type Wait time.Duration

// ParseWait reads a duration, or a whole number of seconds. Anything else is an
// [*Error].
func ParseWait(text string) (time.Duration, error) {
	withUnit := text
	if _, err := strconv.ParseUint(text, 10, 32); err == nil {
		withUnit += "s"
	}
	if d, ok := parseDuration(withUnit); ok {
		return d, nil
	}
	return 0, &Error{text, "duration", "seconds, such as 3, or a duration such as 3s or 1m"}
}

// UnmarshalText is [ParseWait], but for blanks around the text.
func (w *Wait) UnmarshalText(text []byte) error {
	parsed, err := ParseWait(strings.TrimSpace(string(text)))
	if err == nil {
		*w = Wait(parsed)
	}
	return err
}

// String is that of the [Duration].
func (w Wait) String() string { return Duration(w).String() }
