package config

import (
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
		{" 25 mib ", 25 << 20, "25MiB"},
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
		var got Size
		err := got.Decode(test.in)
		if (err != nil) != (test.text == "") || got != test.want || err == nil && got.String() != test.text {
			t.Errorf("Size.Decode(%q) = %d (%s), %v, want %d (%s)", test.in, got, got, err, test.want, test.text)
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
		{"7d", 7 * day, "7d"},
		{" 1d12h ", 36 * time.Hour, "1d12h"},
		{"168h", 7 * day, "7d"},
		{"90s", 90 * time.Second, "1m30s"},
		{"60m", time.Hour, "1h"},
		{"20m", 20 * time.Minute, "20m"},
		{"10s", 10 * time.Second, "10s"},
		{"1h0m10s", 3610 * time.Second, "1h0m10s"},
		{"1d0.5s", day + time.Second/2, "1d500ms"},
		{"", 0, ""},
		{"7", 0, ""},
		{"-7d", 0, ""},
		{"-1s", 0, ""},
		{"1d-1h", 0, ""},
		{"1h1d", 0, ""},
		{"d", 0, ""},
		{"1dd", 0, ""},
		{"1.5d", 0, ""},
		{"106751d", 106751 * day, "106751d"},
		{"106752d", 0, ""},
		{"106751d24h", 0, ""},
	}
	for _, test := range tests {
		var got Duration
		err := got.Decode(test.in)
		if (err != nil) != (test.text == "") || time.Duration(got) != test.want || err == nil && got.String() != test.text {
			t.Errorf("Duration.Decode(%q) = %d (%s), %v, want %d (%s)", test.in, got, got, err, test.want, test.text)
		}
	}
}

func TestLadder(t *testing.T) {
	tests := []struct{ in, want string }{
		{"587,2525", "587,2525"},
		{" 465 , 2465,8465, 443", "465,2465,8465,443"},
		{"587/TLS", "587/tls"},
		{"465/starttls", "465/starttls"},
		{"465/tls", "465"},
		{"25/starttls", "25"},
		{"65535", "65535"},
		{"", ""},
		{"65536", ""},
		{"-1", ""},
		{"587,", ""},
		{"587/", ""},
		{"587/tls/tls", ""},
		{"587 465", ""},
	}
	for _, test := range tests {
		var got Ladder
		if err := got.Decode(test.in); (err != nil) != (test.want == "") || got.String() != test.want {
			t.Errorf("Ladder.Decode(%q) = %s, %v, want %s", test.in, got, err, test.want)
		}
	}
}

func TestIsDomain(t *testing.T) {
	for in, want := range map[string]bool{
		"localhost": true, "relay.example.com": true, "relay.example.com.": true, "my_relay": true, "xn--bcher-kva.example": true, "10.0.0.1": true,
		"": false, ".": false, "a..b": false, ".a": false, "-a": false, "a b": false, "a:1": false, "a/b": false, "u@a": false, "bücher.example": false, "[::1]": false,
	} {
		if got := isDomain(in); got != want {
			t.Errorf("isDomain(%q) = %v, want %v", in, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	tests := []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"HOST", "HOST", 0}, {"HOSTT", "HOST", 1}, {"PROT", "PORT", 2}, {"kitten", "sitting", 3}}
	for _, test := range tests {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
