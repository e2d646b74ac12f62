package relays

import (
	"strconv"
	"strings"
	"time"
)

// timeNamed returns how long the text says to wait: "in 341 seconds", "within 2
// minutes", "after Sun, 05 Oct 2025 19:22:44 UTC", "until 2025-10-05T19:22Z". text is in
// lower case. A time in the past, such as one in an id, is none.
func timeNamed(text string, now time.Time) (wait time.Duration, ok bool) {
	tokens := strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" ,;()[]<>\"", c) })
	for i := range tokens {
		if !leadsToTime(tokens, i) {
			continue
		}
		if wait, ok = periodAt(tokens[i:]); ok && !isOfRule(tokens[i:]) {
			return wait, true
		}
		if at, ok := timeAt(tokens[i:], now); ok && at.After(now) {
			return at.Sub(now), true
		}
	}
	return 0, false
}

// leads are words before a time to wait; blocks are words after which it is that of a
// rule, such as "in the last 24 hours", and so are the counted ones before a lead, as in
// "500 messages in 24 hours", and those behind the time, as in "in a 24 hour period".
var (
	leads = map[string]bool{
		"in": true, "within": true, "after": true, "until": true, "till": true, "wait": true, "again": true, "for": true, "next": true,
		"another": true, "retry": true, "at": true, "on": true, "before": true, "about": true, "approximately": true, "least": true, "reset": true, "resets": true, "from": true,
		"seconds:": true, "retry-after": true, "nach": true, "bis": true, "dans": true, "en": true, "tra": true, "после": true, "через": true,
	}
	blocks = map[string]bool{"last": true, "past": true, "per": true, "every": true, "each": true, "previous": true}

	counted = map[string]bool{
		"messages": true, "emails": true, "e-mails": true, "mails": true, "recipients": true, "rcpts": true, "connections": true, "requests": true,
		"sent": true, "allowed": true, "failures": true, "attempts": true, "nachrichten": true, "mensajes": true, "messaggi": true,
	}
	behind = map[string]bool{"period": true, "window": true, "limit": true, "interval": true, "timeframe": true, "quota": true}
)

// leadsToTime reports whether one of the two tokens before i leads to a time.
func leadsToTime(tokens []string, i int) bool {
	for back := 1; back <= 2 && i-back >= 0; back++ {
		word := strings.TrimRight(tokens[i-back], ".:")
		if blocks[word] {
			return false
		}
		if leads[word] {
			return i == back || !counted[tokens[i-back-1]]
		}
	}
	return false
}

// isOfRule reports whether the period that tokens begin with is that of a rule.
func isOfRule(tokens []string) bool {
	for _, t := range tokens[1:min(3, len(tokens))] {
		if behind[strings.TrimRight(t, ".:")] {
			return true
		}
	}
	return false
}

// unitsOfTime has the first letters of the words for units, in the languages that were
// seen.
var unitsOfTime = []struct {
	word string
	unit time.Duration
}{
	{"ms", 0},
	{"month", 0},
	{"mon", 0},
	{"sec", time.Second},
	{"sek", time.Second},
	{"seg", time.Second},
	{"s", time.Second},
	{"сек", time.Second},
	{"min", time.Minute},
	{"m", time.Minute},
	{"мин", time.Minute},
	{"hour", time.Hour},
	{"hr", time.Hour},
	{"h", time.Hour},
	{"stund", time.Hour},
	{"heure", time.Hour},
	{"hora", time.Hour},
	{"час", time.Hour},
	{"day", 24 * time.Hour},
	{"d", 24 * time.Hour},
	{"tag", 24 * time.Hour},
	{"jour", 24 * time.Hour},
}

// periodAt reads "341 seconds", "an hour" or "15min" off the front.
func periodAt(tokens []string) (time.Duration, bool) {
	first := strings.TrimRight(tokens[0], ".:")
	digits := len(first) - len(strings.TrimLeft(first, "0123456789"))
	number, err := strconv.Atoi(first[:digits])
	word := first[digits:]
	switch {
	case (first == "a" || first == "an" || first == "one") && len(tokens) > 1:
		number, word = 1, tokens[1]
	case err != nil || digits > 7:
		return 0, false
	case word == "" && len(tokens) > 1:
		word = tokens[1]
	}
	unit := unitNamed(strings.TrimRight(word, ".:"))
	if unit <= 0 || number <= 0 {
		return 0, false
	}
	return time.Duration(min(number, int(longestPause/unit))) * unit, true
}

func unitNamed(word string) time.Duration {
	if strings.ContainsAny(word, "@.-_") { // a name
		return 0
	}
	for _, u := range unitsOfTime {
		if word == u.word || len(u.word) > 2 && strings.HasPrefix(word, u.word) {
			return u.unit
		}
	}
	return 0
}

// timeForms are how replies write a time, by the number of tokens. Letters are in title
// case as [time.Parse] wants names of months.
var timeForms = []struct {
	tokens int
	layout string
}{
	{6, "Mon 2 Jan 2006 15:04:05 MST"},
	{5, "2 Jan 2006 15:04:05 MST"},
	{6, "Mon Jan 2 15:04:05 MST 2006"},
	{5, "Mon Jan 2 15:04:05 2006"},
	{4, "2 Jan 2006 15:04:05"},
	{5, "Mon 2 Jan 2006 15:04:05"},
	{3, "2006-01-02 15:04:05 MST"},
	{2, "2006-01-02 15:04:05"},
	{2, "2006-01-02 15:04"},
	{3, "2006-01-02 15:04 MST"},
	{1, "2006-01-02T15:04:05Z07:00"},
	{1, "2006-01-02T15:04Z07:00"},
	{1, "2006-01-02T15:04:05"},
	{1, "2006-01-02T15:04:05Z0700"},
}

// zones are those that [time.Parse] gives no offset to.
var zones = map[string]time.Duration{
	"EST": -5, "EDT": -4, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7,
	"CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2, "BST": 1, "EET": 2, "EEST": 3, "MSK": 3, "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11,
}

// timeAt reads a date or a time of day off the front. Without a zone it is in UTC.
func timeAt(tokens []string, now time.Time) (time.Time, bool) {
	if len(tokens[0]) == 0 || !strings.ContainsAny(tokens[0][:1], "0123456789smtwfj") {
		return time.Time{}, false
	}
	for _, f := range timeForms {
		if len(tokens) < f.tokens {
			continue
		}
		text := named(tokens[:f.tokens])
		if at, err := time.Parse(f.layout, text); err == nil {
			return zoned(at), true
		}
		if numeric := strings.Replace(f.layout, "MST", "-0700", 1); numeric != f.layout {
			if at, err := time.Parse(numeric, text); err == nil {
				return at, true
			}
		}
	}
	return timeOfDay(tokens, now)
}

// named returns the tokens as [time.Parse] wants them: names of days and months in
// title case, zones in upper case.
func named(tokens []string) string {
	list := make([]string, len(tokens))
	for i, t := range tokens {
		t = strings.TrimRight(t, ".")
		_, zone := zones[strings.ToUpper(t)]
		switch {
		case zone, t == "utc", t == "gmt", strings.Contains(t, ":"), strings.Contains(t, "-"):
			t = strings.ToUpper(t)
		case t != "" && t[0] >= 'a' && t[0] <= 'z':
			t = strings.ToUpper(t[:1]) + t[1:min(3, len(t))]
		}
		list[i] = t
	}
	return strings.Join(list, " ")
}

func zoned(at time.Time) time.Time {
	name, offset := at.Zone()
	if hours, ok := zones[name]; ok && offset == 0 {
		return at.Add(-hours * time.Hour)
	}
	return at
}

// timeOfDay reads "19:22 utc" or "19:22:44 utc": the next time that the clock shows it.
// Without a zone it may mean anything.
func timeOfDay(tokens []string, now time.Time) (time.Time, bool) {
	if len(tokens) < 2 {
		return time.Time{}, false
	}
	zone := strings.ToUpper(strings.TrimRight(tokens[1], "."))
	hours, known := zones[zone]
	if !known && zone != "UTC" && zone != "GMT" {
		return time.Time{}, false
	}
	clock, err := time.Parse("15:04:05", tokens[0])
	if err != nil {
		clock, err = time.Parse("15:04", tokens[0])
	}
	if err != nil {
		return time.Time{}, false
	}
	y, m, d := now.UTC().Date()
	at := time.Date(y, m, d, clock.Hour(), clock.Minute(), clock.Second(), 0, time.UTC).Add(-hours * time.Hour)
	for !at.After(now) {
		at = at.AddDate(0, 0, 1)
	}
	return at, true
}
