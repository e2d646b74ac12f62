package compat

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
)

func TestParseTime(t *testing.T) {
	now := time.Date(2030, 1, 31, 8, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"":                         {},
		"2030-02-01T08:00:00Z":     now.Add(24 * time.Hour),
		"2030-02-01T08:00:00.000Z": now.Add(24 * time.Hour),
		"in 1 min":                 now.Add(time.Minute),
		"in 10 minutes":            now.Add(10 * time.Minute),
		"In an hour":               now.Add(time.Hour),
		"in 2 days":                now.Add(48 * time.Hour),
	} {
		if got, err := ParseTime(in, now); err != nil || !got.Equal(want) {
			t.Errorf("ParseTime(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"tomorrow", "in minutes", "in -1 min", "2030-02-01", "in 1 min or so"} {
		if got, err := ParseTime(in, now); err == nil {
			t.Errorf("ParseTime(%q) = %v, want an error", in, got)
		}
	}
}

// TestTag: names and values are made fit, and there are never too many.
func TestTag(t *testing.T) {
	var o Message
	for i := range 30 {
		o.Tag(fmt.Sprint(i), strings.Repeat("ä", 300)+"\r\n")
	}
	if len(o.Tags) != api.MaxTags || len(o.Tags["0"]) != api.MaxTagValue {
		t.Errorf("%d tags with %d octets, want %d with %d", len(o.Tags), len(o.Tags["0"]), api.MaxTags, api.MaxTagValue)
	}
}
