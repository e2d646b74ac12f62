package cli

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"mailsidecar/config"
)

// TestHintsAreShown: check prints what is known of a relay, and a server logs it, once.
func TestHintsAreShown(t *testing.T) {
	t.Setenv("SMTP_HOST", "smtp.sendgrid.net")
	t.Setenv("SMTP_USERNAME", "shop")
	t.Setenv("SMTP_PASSWORD", "hidden-secret")
	relays, warnings, err := config.LoadRelays()
	if err != nil {
		t.Fatal(err)
	}
	var printed, logged bytes.Buffer
	printNotes(&printed, warnings, relays)
	logNotes(slog.New(slog.NewTextHandler(&logged, nil)), warnings, relays)
	for name, out := range map[string]string{"check": printed.String(), "the log": logged.String()} {
		for _, want := range []string{"SMTP_PROVIDER=sendgrid in place of SMTP_HOST", "SMTP_USERNAME is not apikey"} {
			if strings.Count(out, want) != 1 || strings.Contains(out, "hidden-secret") {
				t.Errorf("%s says %q, want %q in it once", name, out, want)
			}
		}
	}
}
