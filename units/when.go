package units

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WhenForms are the forms of [ParseWhen] for people.
const WhenForms = `"2026-11-29", "2026-11-29 14:30", "29 Nov", "today", "yesterday 14:00", "monday", "2h ago", or RFC 3339`

// ParseWhen reads a point in time as people write it, in the time zone of now:
//
//   - RFC 3339, with its own zone
//   - a date, 2026-11-29, 29 Nov 2026, Nov 29 2026 or Nov 29, 2026; without a year, the last
//     such date up to today; also with a time behind it, 14:30 or 14:30:05
//   - RFC 3339 without a zone, 2026-11-29T14:30 or 2026-11-29T14:30:05
//   - today, yesterday, or a day of the week, which is the last one up to today; also with a time
//   - now, or how long before it: 2h, 2h ago, 2 hours or 2 hours ago
//
// A date without a time is where the day begins, or with end where it ends: where the next one
// begins. A time that the clocks show twice is the first of the two, or with end the
// second; one that they never show is an error. Case does not count. An error is an
// [*Error].
func ParseWhen(text string, now time.Time, end bool) (time.Time, error) {
	text = strings.TrimSpace(text)
	if at, err := time.Parse(time.RFC3339, strings.ToUpper(text)); err == nil {
		return at, nil
	}
	words := strings.Fields(strings.ToLower(text))
	if at, ok := ago(words, now); ok {
		return at, nil
	}
	words, clock, timed := cutClock(dateWords(words))
	day, ok := parseDay(words, now)
	if !ok || day.Year() < 1970 {
		return time.Time{}, &Error{text, "time", whenAdvice(text)}
	}
	if !timed {
		return beginOf(day, end, now.Location()), nil
	}
	at, ok := wall(day.Add(clock), end, now.Location())
	if !ok {
		return time.Time{}, &Error{text, "time", "another time: the clocks were set forward then"}
	}
	return at, nil
}

// whenAdvice says what to write in the place of text.
func whenAdvice(text string) string {
	if strings.ContainsAny(text, "/.") {
		return "a time such as " + WhenForms + ": where day and month are two numbers, it would not be clear which is which"
	}
	return "a time such as " + WhenForms
}

// ago reads now, and how long before it.
func ago(words []string, now time.Time) (time.Time, bool) {
	if last := len(words) - 1; last > 0 && words[last] == "ago" {
		words = words[:last]
	}
	var d time.Duration
	ok := false
	switch len(words) {
	case 1:
		d, ok = parseDuration(words[0])
	case 2:
		d, ok = countOf(words[0], words[1])
	}
	return now.Add(-d), ok && now.Add(-d).Year() >= 1970 || len(words) == 1 && words[0] == "now"
}

// countOf reads a number of units: 2 hours.
func countOf(number, unit string) (time.Duration, bool) {
	one, ok := map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": Day, "week": 7 * Day}[strings.TrimSuffix(unit, "s")]
	n, err := strconv.ParseUint(number, 10, 63)
	if !ok || err != nil || n > uint64(math.MaxInt64/one) {
		return 0, false
	}
	return time.Duration(n) * one, true
}

// dateWords returns the words of a date as the layouts here have them: without the T before a
// time, as in 2026-11-29T14:30, and without the comma before a year, as in Nov 29, 2026.
func dateWords(words []string) []string {
	if len(words) == 1 {
		if date, clock, ok := strings.Cut(words[0], "t"); ok && len(date) == len(time.DateOnly) {
			return []string{date, clock}
		}
	}
	if len(words) >= 3 && strings.HasSuffix(words[1], ",") {
		words = slices.Clone(words)
		words[1] = strings.TrimSuffix(words[1], ",")
	}
	return words
}

// cutClock takes the time of day from the end of the words.
func cutClock(words []string) (rest []string, clock time.Duration, ok bool) {
	if len(words) < 2 {
		return words, 0, false
	}
	last := words[len(words)-1]
	for _, layout := range []string{"15:04", "15:04:05"} {
		if at, err := time.Parse(layout, last); err == nil && len(last) == len(layout) {
			return words[:len(words)-1], at.Sub(at.Truncate(Day)), true
		}
	}
	return words, 0, false
}

// parseDay reads a day, and returns where it begins in UTC.
func parseDay(words []string, now time.Time) (time.Time, bool) {
	year, month, number := now.Date()
	today := time.Date(year, month, number, 0, 0, 0, 0, time.UTC)
	text := strings.Join(words, " ")
	switch text {
	case "today":
		return today, true
	case "yesterday":
		return today.AddDate(0, 0, -1), true
	}
	for n := range 7 {
		day := today.AddDate(0, 0, -n)
		if name := strings.ToLower(day.Weekday().String()); text == name || text == name[:3] {
			return day, true
		}
	}
	for _, layout := range []string{"2006-01-02", "2 Jan 2006", "2 January 2006", "Jan 2 2006", "January 2 2006"} {
		if day, err := time.Parse(layout, text); err == nil {
			return day, true
		}
	}
	for _, layout := range []string{"2 Jan 2006", "2 January 2006", "Jan 2 2006", "January 2 2006"} {
		// The year may be one of the last eight: 29 Feb was not in seven of them at most.
		for n := range 9 {
			day, err := time.Parse(layout, text+today.AddDate(-n, 1-int(month), 1-number).Format(" 2006"))
			if err == nil && !day.After(today) {
				return day, true
			}
		}
	}
	return time.Time{}, false
}

// beginOf returns where a day, which is in UTC, begins or ends in the time zone.
func beginOf(day time.Time, end bool, zone *time.Location) time.Time {
	if end {
		day = day.AddDate(0, 0, 1)
	}
	if at, ok := wall(day, false, zone); ok {
		return at
	}
	// The clocks were set forward at midnight: the day begins right then.
	_, change := time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, zone).Add(-12 * time.Hour).ZoneBounds()
	return change
}

// wall returns when clocks in the time zone show what day has in UTC, the first or the last
// time that they do; false where they never do.
func wall(day time.Time, last bool, zone *time.Location) (found time.Time, ok bool) {
	// The offset is that of half a day before, or of half a day later.
	for _, by := range []time.Duration{-12 * time.Hour, 12 * time.Hour} {
		_, offset := day.Add(by).In(zone).Zone()
		at := day.Add(-time.Duration(offset) * time.Second).In(zone)
		if at.Format(time.DateTime) != day.Format(time.DateTime) || ok && at.Before(found) == last {
			continue
		}
		found, ok = at, true
	}
	return found, ok
}
