package smtp

import (
	"slices"
	"testing"
)

func TestParseServers(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"# nameserver 192.0.2.1\nsearch example.com\n", nil},
		{"nameserver 192.0.2.1\nnameserver 2001:db8::1 # two\noptions ndots:5", []string{"192.0.2.1:53", "[2001:db8::1]:53"}},
		{"nameserver 192.0.2.1\nnameserver\nnameserver 192.0.2.2\n\tnameserver 192.0.2.3\nnameserver 192.0.2.4", []string{"192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"}},
	} {
		if got := parseServers(tt.text); !slices.Equal(got, tt.want) {
			t.Errorf("parseServers(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
	if got := withoutPort53("[2001:db8::1]:53") + " " + withoutPort53("192.0.2.1:5353"); got != "2001:db8::1 192.0.2.1:5353" {
		t.Errorf("withoutPort53 = %q", got)
	}
}
