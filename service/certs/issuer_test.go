package certs

import (
	"strings"
	"testing"
)

func TestIsDNSName(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, want := range map[string]bool{
		"a": true, "localhost": true, "mail.example.org": true, "_dmarc.example.org": true, "0-9.a_b": true, "a.-": false,
		long: true, long + "a": false, "b." + long: true, long + "a.b": false,
		strings.Repeat("a.", 126) + "a": true, strings.Repeat("a.", 127) + "a": false,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "-a": false, "a-": false, "-": false, "a.b-.c": false,
		"Mail.example": false, "bücher.example": false, "a b": false, "a\n": false, "a/b": false, "*.example": false,
	} {
		if got := isDNSName(name); got != want {
			t.Errorf("isDNSName(%q) = %v, want %v", name, got, want)
		}
	}
}
