package config

import (
	"strings"
	"testing"
)

// TestKeyRelays: keys name relays by number, host or provider, best first; what is wrong is
// told all at once.
func TestKeyRelays(t *testing.T) {
	base := []string{
		"SMTP_HOST=smtp.a.example", "SMTP_USERNAME=u", "SMTP_PASSWORD=p", "SMTP_WEIGHT=3",
		"SMTP2_HOST=smtp.b.example", "SMTP2_USERNAME=u", "SMTP2_PASSWORD=p", "SMTP2_SENDERS=b.example",
		"MAILSIDECAR_API_KEYS=shop:0123456789abcdef0123,news:abcdef0123456789abcd",
	}
	load := func(more ...string) (Config, error) {
		for _, v := range append(base[:len(base):len(base)], more...) {
			name, value, _ := strings.Cut(v, "=")
			t.Setenv(name, value)
		}
		c, _, err := Load()
		return c, err
	}
	c, err := load("MAILSIDECAR_KEY_RELAYS=news: 2 | SMTP.A.example ,shop:1")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Relays[1].Keys["news"]*100 + c.Relays[0].Keys["news"]*10 + c.Relays[0].Keys["shop"]; got != 121 || c.Relays[0].Weight != 3 || c.Relays[1].Weight != 0 {
		t.Errorf("places %v, %v, weights %d, %d", c.Relays[0].Keys, c.Relays[1].Keys, c.Relays[0].Weight, c.Relays[1].Weight)
	}
	// What a key may send from does not matter when another sender takes its place.
	if _, err := load("MAILSIDECAR_KEY_RELAYS=shop:2", "MAILSIDECAR_KEY_SENDERS=shop:a.example", "MAILSIDECAR_FORCE_FROM=x@b.example"); err != nil {
		t.Error(err)
	}
	t.Setenv("MAILSIDECAR_KEY_SENDERS", "")
	t.Setenv("MAILSIDECAR_FORCE_FROM", "")
	for settings, want := range map[string]string{
		"MAILSIDECAR_KEY_RELAYS=shop:3,blog:1,news:1|1 SMTP_WEIGHT=0 SMTP2_WEIGHT=-1": "MAILSIDECAR_KEY_RELAYS entry 1 gives key shop a relay \"3\" that is not configured, entry 2 names no key of MAILSIDECAR_API_KEYS (shop, news), entry 3 gives key news the relay 1 twice|SMTP_WEIGHT is 0, which is too low; set 1 or more|SMTP2_WEIGHT is -1, which is too low; set 1 or more",
		"SMTP_WEIGHT=1001": "SMTP_WEIGHT is 1001, which is too high; set 1000 or less",
		"MAILSIDECAR_KEY_RELAYS=shop:2 MAILSIDECAR_KEY_SENDERS=shop:a.example":    `MAILSIDECAR_KEY_RELAYS gives key "shop" no relay that takes its senders`,
		"MAILSIDECAR_KEY_RELAYS=shop:1,news:2 MAILSIDECAR_FORCE_FROM=x@a.example": `MAILSIDECAR_FORCE_FROM is "x@a.example", which no relay takes that MAILSIDECAR_KEY_RELAYS gives key "news": SMTP2_SENDERS names others; add it there, or give the key a relay that takes it`,
		"SMTP2_HOST=smtp.a.example MAILSIDECAR_KEY_RELAYS=shop:smtp.a.example":    "entry 1 gives key shop a relay \"smtp.a.example\" that is the host or provider of several: write its number",
	} {
		t.Run(settings, func(t *testing.T) {
			for _, v := range append(base[:len(base):len(base)], strings.Fields(settings)...) {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			if !strings.Contains(settings, "KEY_RELAYS") {
				t.Setenv("MAILSIDECAR_KEY_RELAYS", "")
			}
			_, _, err := Load()
			if err == nil {
				t.Fatal("Load accepts it")
			}
			for part := range strings.SplitSeq(want, "|SMTP") {
				if !strings.Contains(err.Error(), strings.TrimPrefix(part, "SMTP")) {
					t.Errorf("Load = %v, want %s", err, part)
				}
			}
		})
	}
}
