package units

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // some machines have none
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// TestParseWhen: on a Sunday, 29 November 2026 at 15:04:05 in Berlin.
func TestParseWhen(t *testing.T) {
	now := time.Date(2026, 11, 29, 15, 4, 5, 0, zone(t, "Europe/Berlin"))
	for text, want := range map[string]string{
		"2026-11-28T12:00:00Z": "2026-11-28T12:00:00Z", "2026-11-28t12:00:00.5+02:00": "2026-11-28T12:00:00.5+02:00",
		"2026-11-28": "2026-11-28T00:00:00+01:00", "2026-07-28": "2026-07-28T00:00:00+02:00", " 2026-11-28  14:30 ": "2026-11-28T14:30:00+01:00",
		"2026-11-28 14:30:05": "2026-11-28T14:30:05+01:00", "2026-11-28 00:00": "2026-11-28T00:00:00+01:00",
		"now": "2026-11-29T15:04:05+01:00", "2h": "2026-11-29T13:04:05+01:00", "2h ago": "2026-11-29T13:04:05+01:00", "1d12h": "2026-11-28T03:04:05+01:00", "90s AGO": "2026-11-29T15:02:35+01:00",
		"today": "2026-11-29T00:00:00+01:00", "Today 14:00": "2026-11-29T14:00:00+01:00", "today 16:00": "2026-11-29T16:00:00+01:00",
		"yesterday": "2026-11-28T00:00:00+01:00", "yesterday 14:00": "2026-11-28T14:00:00+01:00",
		"sunday": "2026-11-29T00:00:00+01:00", "Monday": "2026-11-23T00:00:00+01:00", "sat 9:00": "", "SAT 09:00": "2026-11-28T09:00:00+01:00", "tues": "",
		"29 Nov": "2026-11-29T00:00:00+01:00", "30 nov": "2025-11-30T00:00:00+01:00", "November 1": "2026-11-01T00:00:00+01:00", "nov 1 08:00": "2026-11-01T08:00:00+01:00",
		"1 November 2025": "2025-11-01T00:00:00+01:00", "Nov 1 2025 23:59": "2025-11-01T23:59:00+01:00", "31 Dec": "2025-12-31T00:00:00+01:00", "29 Feb": "2024-02-29T00:00:00+01:00",
		"29 Feb 2025": "", "31 Nov": "", "32 Jan": "", "0 Jan": "",
		"": "", "soon": "", "tomorrow": "", "03/04/2026": "", "3.4.2026": "", "03-04-2026": "", "2026/04/03": "", "29 Nov 26": "", "2026": "", "20261129": "", "1764428645": "",
		"14:00": "", "2026-11-28 25:00": "", "2026-11-28 24:00": "", "2026-11-28 2pm": "", "2026-11-28 14:30 CET": "", "2026-11-28T14:30": "2026-11-28T14:30:00+01:00", "2026-11-28T14:30:05": "2026-11-28T14:30:05+01:00", "2026-11-28T": "", "2026-11-28T2h": "",
		"Nov 28, 2026": "2026-11-28T00:00:00+01:00", "november 28, 2026 14:30": "2026-11-28T14:30:00+01:00", "Nov, 28 2026": "", "2,h": "",
		"2 hours ago": "2026-11-29T13:04:05+01:00", "1 hour": "2026-11-29T14:04:05+01:00", "90 Minutes ago": "2026-11-29T13:34:05+01:00", "1 day ago": "2026-11-28T15:04:05+01:00", "7 days": "2026-11-22T15:04:05+01:00", "2 weeks ago": "2026-11-15T15:04:05+01:00",
		"hours ago": "", "-2 hours ago": "", "two hours ago": "", "2 months ago": "", "99999999999999 weeks": "", "1.5 hours ago": "",
		"2026-13-01":  "",
		"last monday": "", "2h ago ago": "", "ago": "", "-2h": "", "2 h": "", "2h30": "", "yesterday today": "", "today 2h": "", "now 14:00": "", "1960-01-01": "", "1e9h": "", "106751d": "",
	} {
		got, err := ParseWhen(text, now, false)
		switch {
		case want == "" && err == nil:
			t.Errorf("ParseWhen(%q) = %v, want an error", text, got)
		case want == "" && !strings.Contains(err.Error(), `"2026-11-29 14:30"`):
			t.Errorf("ParseWhen(%q) = %v, want the forms that are taken", text, err)
		case want != "" && (err != nil || got.Format(time.RFC3339Nano) != want):
			t.Errorf("ParseWhen(%q) = %v, %v, want %s", text, got, err, want)
		}
	}
	if _, err := ParseWhen("03/04/2026", now, false); err == nil || !strings.Contains(err.Error(), "which is which") {
		t.Errorf("ParseWhen(03/04/2026) = %v, want why it is refused", err)
	}
	for text, want := range map[string]string{
		"today": "2026-11-30T00:00:00+01:00", "yesterday": "2026-11-29T00:00:00+01:00", "2026-12-31": "2027-01-01T00:00:00+01:00", "monday": "2026-11-24T00:00:00+01:00",
		"yesterday 14:00": "2026-11-28T14:00:00+01:00", "2h": "2026-11-29T13:04:05+01:00", "now": "2026-11-29T15:04:05+01:00", "2026-11-28T12:00:00Z": "2026-11-28T12:00:00Z",
	} {
		if got, err := ParseWhen(text, now, true); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("ParseWhen(%q) as an end = %v, %v, want %s", text, got, err, want)
		}
	}
}

// TestParseWhenClockChange: days have 23 and 25 hours, some begin after midnight, and some times are
// shown twice or never.
func TestParseWhenClockChange(t *testing.T) {
	for _, tc := range []struct {
		zone, now, text string
		begin, end      string // empty: an error
	}{
		{"Europe/Berlin", "2026-03-29T12:00:00+02:00", "today", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"},
		{"Europe/Berlin", "2026-03-29T12:00:00+02:00", "yesterday", "2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00"},
		{"Europe/Berlin", "2026-03-29T12:00:00+02:00", "today 02:30", "", ""},
		{"Europe/Berlin", "2026-03-29T12:00:00+02:00", "today 03:00", "2026-03-29T03:00:00+02:00", "2026-03-29T03:00:00+02:00"},
		{"Europe/Berlin", "2026-10-25T12:00:00+01:00", "today", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"},
		{"Europe/Berlin", "2026-10-25T12:00:00+01:00", "today 02:30", "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"},
		{"Europe/Berlin", "2026-10-25T12:00:00+01:00", "24h ago", "2026-10-24T13:00:00+02:00", "2026-10-24T13:00:00+02:00"},
		{"America/Santiago", "2026-09-06T12:00:00-03:00", "today", "2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00"},
		{"America/Santiago", "2026-09-06T12:00:00-03:00", "yesterday", "2026-09-05T00:00:00-04:00", "2026-09-06T01:00:00-03:00"},
		{"America/Santiago", "2026-09-06T12:00:00-03:00", "today 00:30", "", ""},
		{"America/Santiago", "2026-04-05T12:00:00-04:00", "2026-04-05", "2026-04-05T00:00:00-04:00", "2026-04-06T00:00:00-04:00"},
		{"America/Santiago", "2026-04-05T12:00:00-04:00", "2026-04-04", "2026-04-04T00:00:00-03:00", "2026-04-05T00:00:00-04:00"},
		{"Pacific/Kiritimati", "2026-11-29T00:30:00+14:00", "today", "2026-11-29T00:00:00+14:00", "2026-11-30T00:00:00+14:00"},
	} {
		now, err := time.Parse(time.RFC3339, tc.now)
		if err != nil {
			t.Fatal(err)
		}
		now = now.In(zone(t, tc.zone))
		for end, want := range map[bool]string{false: tc.begin, true: tc.end} {
			got, err := ParseWhen(tc.text, now, end)
			if want == "" && err == nil || want != "" && (err != nil || got.Format(time.RFC3339) != want) {
				t.Errorf("ParseWhen(%q) in %s, end %t = %v, %v, want %q", tc.text, tc.zone, end, got, err, want)
			}
		}
	}
}

// FuzzParseWhen: nothing crashes it, what it takes means the same in UTC, and a range from a
// text to itself is never upside down.
func FuzzParseWhen(f *testing.F) {
	for _, text := range []string{"2026-11-29", "2026-11-29 14:30", "today", "yesterday 14:00", "2h ago", "monday", "29 Nov", "Nov 29 2026 10:00:00", "03/04/2026", "2026-11-28T12:00:00.123456789+23:59", "29 feb", "0000-01-01", "9999-12-31", "106751d"} {
		f.Add(text, int64(1795961045))
	}
	berlin := zone(f, "Europe/Berlin")
	f.Fuzz(func(t *testing.T, text string, seconds int64) {
		if seconds < 0 || seconds > 1<<36 {
			return
		}
		now := time.Unix(seconds, 0).In(berlin)
		begin, err := ParseWhen(text, now, false)
		end, endErr := ParseWhen(text, now, true)
		if (err == nil) != (endErr == nil) {
			t.Fatalf("ParseWhen(%q) = %v, %v, as an end %v, %v", text, begin, err, end, endErr)
		}
		if err != nil {
			return
		}
		if d := end.Sub(begin); d < 0 || d > 25*time.Hour {
			t.Fatalf("ParseWhen(%q) = %v to %v", text, begin, end)
		}
		again, err := ParseWhen(begin.UTC().Format(time.RFC3339Nano), now, false)
		if begin.Year() <= 9998 && begin.Year() > 0 && (err != nil || !again.Equal(begin)) {
			t.Fatalf("ParseWhen(%q) = %v, and its RFC 3339 %v, %v", text, begin, again, err)
		}
	})
}
