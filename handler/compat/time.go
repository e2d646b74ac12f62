package compat

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var delay = regexp.MustCompile(`^in (\d{1,4}|an?|one) ?(m|mins?|minutes?|h|hours?|d|days?|weeks?)$`)

// ParseTime reads a time of RFC 3339, perhaps with a blank in place of its T or a zone
// without colon, as databases write it, or one from now on: in 10 minutes.
func ParseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05.999999Z07", "2006-01-02T15:04:05.999Z0700"} {
		if at, err := time.Parse(layout, strings.ToUpper(text)); err == nil {
			return at, nil
		}
	}
	m := delay.FindStringSubmatch(strings.ToLower(strings.TrimSpace(text)))
	if m == nil {
		return time.Time{}, fmt.Errorf("must be a time of RFC 3339, such as 2030-01-31T08:00:00Z, or such as in 10 minutes")
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		n = 1
	}
	unit := map[byte]time.Duration{'m': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[m[2][0]]
	return now.Add(time.Duration(n) * unit), nil
}

// ParseRFC3339 reads a time of RFC 3339, whose T and Z may be in lower case (§5.6); zero
// where there is none.
func ParseRFC3339(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, strings.ToUpper(text))
	if err != nil {
		return time.Time{}, errors.New("must be a time of RFC 3339, such as 2030-01-31T08:00:00Z")
	}
	return at, nil
}

// Later checks a schedule. A time in the past becomes zero, which sends at once; a time
// further ahead than the provider allows is an error, whose text is for the field.
func Later(at time.Time, atMost time.Duration) (time.Time, error) {
	switch ahead := time.Until(at); {
	case at.IsZero() || ahead <= 0:
		return time.Time{}, nil
	case ahead > atMost:
		return time.Time{}, fmt.Errorf("is more than %d hours ahead", int(atMost.Hours()))
	default:
		return at, nil
	}
}
