package service

import (
	"slices"
	"strings"
	"testing"

	"mailsidecar/config"
)

// A check tries at each relay a sender whose mail goes there.
func TestCheckSenders(t *testing.T) {
	for _, tt := range []struct {
		senders []string // of each relay
		from    string
		want    []string
		key     bool // one names the first relay
	}{
		{[]string{""}, "shop@example.com", []string{"shop@example.com"}, false},
		{[]string{""}, "", []string{""}, false},
		{[]string{"", ""}, "shop@example.com", []string{"shop@example.com", "shop@example.com"}, false},
		{[]string{"", "example.org,news@example.org"}, "shop@example.com", []string{"shop@example.com", "news@example.org"}, false},
		{[]string{"", "example.org"}, "Shop@Example.ORG", []string{"", "Shop@Example.ORG"}, false},
		{[]string{"a@example.org", "b@example.org"}, "", []string{"a@example.org", "b@example.org"}, false},
		{[]string{"", "example.com"}, "shop@example.com", []string{"", "shop@example.com"}, false},
		{[]string{"", "example.com"}, "shop@example.com", []string{"shop@example.com", "shop@example.com"}, true},
	} {
		var configs []config.Relay
		for i, senders := range tt.senders {
			c := config.Relay{Number: i + 1, Host: "127.0.0.1", Ports: config.Ladder{{Port: 587}}}
			if senders != "" {
				c.Senders = strings.Split(senders, ",")
			}
			configs = append(configs, c)
		}
		relays, err := NewRelays(configs, RelayOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if tt.key {
			configs[0].Keys = map[string]int{"shop": 1}
		}
		if got := checkSenders(configs, relays, tt.from); !slices.Equal(got, tt.want) {
			t.Errorf("checkSenders(%q, %q) = %q, want %q", tt.senders, tt.from, got, tt.want)
		}
		for _, r := range relays {
			r.Close()
		}
	}
	s := config.Service{From: "Shop <shop@example.com>"}
	forced := s
	forced.ForceFrom = "relay@example.com"
	if got := DefaultSender(s) + " " + DefaultSender(forced); got != "shop@example.com relay@example.com" {
		t.Errorf("DefaultSender = %q", got)
	}
	if got := SenderOf("Shop <shop@example.com>") + SenderOf("shop") + SenderOf(""); got != "shop@example.com" {
		t.Errorf("SenderOf = %q", got)
	}
}
