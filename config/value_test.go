package config

import "testing"

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
