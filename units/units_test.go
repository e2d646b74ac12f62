package units

import (
	"encoding"
	"errors"
	"math"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	tests := []struct {
		in   string
		want Size
		text string // empty: refused
	}{
		{"0", 0, "0"},
		{"26214400", 25 << 20, "25MiB"},
		{"25MiB", 25 << 20, "25MiB"},
		{"25 mib ", 25 << 20, "25MiB"},
		{" 25MiB", 0, ""},
		{"500KB", 500000, "500KB"},
		{"2048", 2048, "2KiB"},
		{"1001B", 1001, "1001B"},
		{"3GB", 3e9, "3GB"},
		{"9223372036854775807", math.MaxInt64, "9223372036854775807B"},
		{"", 0, ""},
		{"-1", 0, ""},
		{"+1", 0, ""},
		{"1.5MiB", 0, ""},
		{"25M", 0, ""},
		{"25 M iB", 0, ""},
		{"MiB", 0, ""},
		{"8589934592GiB", 0, ""},
		{"0x10", 0, ""},
	}
	for _, test := range tests {
		got, err := ParseSize(test.in)
		if (err != nil) != (test.text == "") || got != test.want || err == nil && got.String() != test.text {
			t.Errorf("ParseSize(%q) = %d (%s), %v, want %d (%s)", test.in, got, got, err, test.want, test.text)
		}
	}
}

func TestDuration(t *testing.T) {
	tests := []struct {
		in   string
		want time.Duration
		text string // empty: refused
	}{
		{"0", 0, "0"},
		{"0d", 0, "0"},
		{"7d", 7 * Day, "7d"},
		{"1d12h", 36 * time.Hour, "1d12h"},
		{"168h", 7 * Day, "7d"},
		{"90s", 90 * time.Second, "1m30s"},
		{"60m", time.Hour, "1h"},
		{"20m", 20 * time.Minute, "20m"},
		{"10s", 10 * time.Second, "10s"},
		{"1h0m10s", 3610 * time.Second, "1h0m10s"},
		{"1d0.5s", Day + time.Second/2, "1d500ms"},
		{"", 0, ""},
		{"7", 0, ""},
		{" 7d", 0, ""},
		{"1w", 0, ""},
		{"-7d", 0, ""},
		{"-1s", 0, ""},
		{"1d-1h", 0, ""},
		{"1h1d", 0, ""},
		{"d", 0, ""},
		{"1dd", 0, ""},
		{"1.5d", 0, ""},
		{"106751d", 106751 * Day, "106751d"},
		{"106752d", 0, ""},
		{"106751d24h", 0, ""},
	}
	for _, test := range tests {
		got, err := ParseDuration(test.in)
		text := Duration(got).String()
		if (err != nil) != (test.text == "") || got != test.want || err == nil && text != test.text {
			t.Errorf("ParseDuration(%q) = %d (%s), %v, want %d (%s)", test.in, got, text, err, test.want, test.text)
		}
	}
}

func TestWait(t *testing.T) {
	tests := []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"3", 3 * time.Second, true},
		{"0", 0, true},
		{" 3", 0, false},
		{"1m", time.Minute, true},
		{"1d", Day, true},
		{"-3", 0, false},
		{"3.5", 0, false},
		{"", 0, false},
		{"4294967296", 0, false},
	}
	for _, test := range tests {
		if got, err := ParseWait(test.in); got != test.want || (err == nil) != test.ok {
			t.Errorf("ParseWait(%q) = %s, %v, want %s", test.in, got, err, test.want)
		}
	}
}

// What a setting holds may have blanks around it.
func TestUnmarshalText(t *testing.T) {
	var got struct {
		d Duration
		w Wait
		s Size
		r Rate
	}
	for text, value := range map[string]encoding.TextUnmarshaler{" 1d ": &got.d, " 3 ": &got.w, " 1KB ": &got.s, " 2/s ": &got.r} {
		if err := value.UnmarshalText([]byte(text)); err != nil {
			t.Errorf("UnmarshalText(%q) of %T = %v", text, value, err)
		}
	}
	if got.d != Duration(Day) || got.w != Wait(3*time.Second) || got.s != 1000 || got.r != (Rate{2, time.Second}) {
		t.Errorf("UnmarshalText gives %+v", got)
	}
	err := got.d.UnmarshalText([]byte(" x "))
	if bad, ok := errors.AsType[*Error](err); !ok || bad.Kind != "duration" || got.d != Duration(Day) {
		t.Errorf("UnmarshalText = %v and %s, want an Error and the old value", err, got.d)
	}
}

func TestError(t *testing.T) {
	_, err := ParseSize("a password that was pasted here by mistake")
	if want := `is "a password that was past"…, which is no size; write a size such as 25MiB, 500KB or 26214400`; err.Error() != want {
		t.Errorf("Error() = %s, want %s", err, want)
	}
}

// FuzzValues: what a value prints as is read back as the same value.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"25MiB", "0", "1d12h", "1h0m0.000000001s", "30/m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if size, err := ParseSize(s); err == nil {
			if again, err := ParseSize(size.String()); err != nil || again != size || size < 0 {
				t.Errorf("ParseSize(%q) = %s, which reads as %d", s, size, again)
			}
		}
		if d, err := ParseDuration(s); err == nil {
			if again, err := ParseDuration(Duration(d).String()); err != nil || again != d || d < 0 {
				t.Errorf("ParseDuration(%q) = %s, which reads as %d", s, Duration(d), again)
			}
		}
		if r, err := ParseRate(s); err == nil {
			if again, err := ParseRate(r.String()); err != nil || again != r {
				t.Errorf("ParseRate(%q) = %s, which reads as %s", s, r, again)
			}
		}
	})
}
