package config

import (
	"slices"
	"strings"
	"testing"
)

// TestWarnSenders: a sender that the relay is known not to take is told at the start, and
// nothing where it may be right.
func TestWarnSenders(t *testing.T) {
	for _, tt := range []struct{ settings, want string }{
		{"SMTP_PROVIDER=gmail SMTP_USERNAME=shop@gmail.com MAILSIDECAR_FROM=shop@example.com", "MAILSIDECAR_FROM is shop@example.com, and Gmail puts the account's own address in the place"},
		{"SMTP_PROVIDER=gmail SMTP_USERNAME=shop@gmail.com MAILSIDECAR_FROM=Shop+news@Gmail.com", ""},
		{"SMTP_PROVIDER=gmail SMTP_USERNAME=shop@gmail.com MAILSIDECAR_FROM=shop@example.com MAILSIDECAR_FORCE_FROM=shop@gmail.com", ""},
		{"SMTP_PROVIDER=gmail SMTP_USERNAME=shop@gmail.com MAILSIDECAR_FROM=shop@example.com SMTP_FORCE_FROM=shop@gmail.com", ""},
		{"SMTP_PROVIDER=gmail SMTP_USERNAME=shop@gmail.com SMTP_FORCE_FROM=shop@example.com", "SMTP_FORCE_FROM is shop@example.com"},
		{"SMTP_PROVIDER=yahoo SMTP_USERNAME=shop@yahoo.com SMTP_SENDERS=shop@example.com,example.org", "SMTP_SENDERS is shop@example.com, and Yahoo refuses another address"},
		{"SMTP_PROVIDER=ionos SMTP_USERNAME=shop@example.com MAILSIDECAR_FROM=news@example.com", ""},
		{"SMTP_PROVIDER=ionos SMTP_USERNAME=shop@example.com MAILSIDECAR_FROM=news@example.org", "IONOS takes addresses in the domain"},
		{"SMTP_PROVIDER=sendgrid MAILSIDECAR_FROM=shop@gmail.com", "(DMARC)"},
		{"SMTP_PROVIDER=sendgrid MAILSIDECAR_FROM=shop@example.com", ""},
		{"SMTP_PROVIDER=gmail SMTP_USERNAME=shop@gmail.com SMTP_RETURN_PATH=bounces@example.com", "SMTP_RETURN_PATH is bounces@example.com, and Gmail"},
		{"SMTP_PROVIDER=gmail SMTP_USERNAME=shop@gmail.com SMTP_RETURN_PATH=shop+bounces@gmail.com", ""},
		{"SMTP_PROVIDER=yahoo SMTP_USERNAME=shop@yahoo.com MAILSIDECAR_API_KEYS=shop:0123456789abcdef0123 MAILSIDECAR_KEY_SENDERS=shop:a@example.com|shop@yahoo.com", "MAILSIDECAR_KEY_SENDERS is a@example.com, and Yahoo"},
		{"SMTP_PROVIDER=yahoo SMTP_USERNAME=shop@yahoo.com MAILSIDECAR_API_KEYS=shop:0123456789abcdef0123 MAILSIDECAR_KEY_SENDERS=shop:a@example.com SMTP_FORCE_FROM=shop@yahoo.com", ""},
		{"SMTP_PROVIDER=yahoo SMTP_USERNAME=shop@yahoo.com SMTP2_HOST=smtp.example.net MAILSIDECAR_API_KEYS=shop:0123456789abcdef0123 MAILSIDECAR_KEY_SENDERS=shop:a@example.com MAILSIDECAR_KEY_RELAYS=shop:2", ""},
		{"SMTP_PROVIDER=sendgrid MAILSIDECAR_FROM=www-data@localhost", "MAILSIDECAR_FROM is www-data@localhost, and no relay on the Internet"},
		{"SMTP_PROVIDER=sendgrid MAILSIDECAR_FROM=root@web1.localdomain", "no relay on the Internet"},
		{"SMTP_PROVIDER=sendgrid SMTP_RETURN_PATH=root@web1", "SMTP_RETURN_PATH is root@web1"},
		{"SMTP_HOST=smtp.example.net SMTP_USERNAME=u MAILSIDECAR_FROM=www-data@localhost", ""},
		{"SMTP_HOST=smtp.example.net SMTP_USERNAME=a@example.net MAILSIDECAR_FROM=shop@example.com", ""},
	} {
		t.Run(tt.settings, func(t *testing.T) {
			for setting := range strings.FieldsSeq("MAILSIDECAR_ADDR=127.0.0.1:0 SMTP_PASSWORD=secret " + tt.settings) {
				name, value, _ := strings.Cut(setting, "=")
				t.Setenv(name, value)
			}
			_, warnings, err := Load()
			if err != nil {
				t.Fatal(err)
			}
			warnings = slices.DeleteFunc(warnings, func(w string) bool { return !strings.Contains(w, ", and ") })
			if got := strings.Join(warnings, "\n"); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("warnings are %q, want %q", got, tt.want)
			}
		})
	}
}
