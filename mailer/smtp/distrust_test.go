package smtp_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// TestDistrust: an extension that misbehaves costs one message a second try, and
// later messages none. An hour later it gets another chance.
func TestDistrust(t *testing.T) {
	tests := []struct {
		name   string
		script relaytest.Script
		want   string // of the first message
		off    []string
		tries  int // of the first message: MAIL commands
	}{
		{"replies out of step", relaytest.Script{"DATA": "250 what then default"}, "accepted 250", []string{"PIPELINING"}, 2},
		{"replies out of step, also one by one", relaytest.Script{"DATA": "250 what"}, "transient data", []string{"PIPELINING"}, 2},
		{"replies that come twice", relaytest.Script{"DATA": "inject 354 go then default"}, "accepted 250", []string{"PIPELINING"}, 2},
		{"RCPT lost", relaytest.Script{"RCPT": "silence then default"}, "transient rcpt", []string{"PIPELINING"}, 1},
		{"no parameters", relaytest.Script{"MAIL FROM:<a@example.com> ": "555 5.5.4 unsupported"}, "accepted 250", []string{"SIZE", "8BITMIME"}, 2},
		{"no parameters, without an enhanced code", relaytest.Script{"MAIL FROM:<a@example.com> ": "501 syntax error"}, "accepted 250", []string{"SIZE", "8BITMIME"}, 2},
		{"the address is bad", relaytest.Script{"MAIL": "501 5.1.7 bad sender"}, "transient mail 501", nil, 1},
		{"MAIL refused with and without", relaytest.Script{"MAIL": "501 5.5.4 no"}, "transient mail 501", nil, 2},
		{"354 though nobody is accepted", relaytest.Script{"RCPT": "550 5.1.1 unknown", "DATA": "354 go"}, "permanent rcpt 550", nil, 1},
		{"connection lost with nobody accepted", relaytest.Script{"RCPT": "550 5.1.1 unknown", "DATA": "drop"}, "permanent rcpt 550", nil, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				p := newPoolTest(t, relaytest.Options{}, tt.script, func(o *smtp.Options) {
					o.Logger = slog.New(slog.NewTextHandler(&log, nil))
					o.MaxConnections, o.MessagesPerConnection = 1, 1
				})
				c := content("Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" +
					"Content-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n")
				c.EightBit = true
				deliver := func() (got string, tries int) {
					before := p.scripted.Said("MAIL")
					got = outcomes(p.relay.Deliver(t.Context(), envelope("b@example.org"), c))
					return got, p.scripted.Said("MAIL") - before
				}
				if got, tries := deliver(); got != tt.want || tries != tt.tries {
					t.Errorf("Deliver() = %s in %d tries, want %s in %d", got, tries, tt.want, tt.tries)
				}
				if tt.want == "accepted 250" {
					if got, tries := deliver(); got != tt.want || tries != 1 {
						t.Errorf("the second Deliver() = %s in %d tries, want %s in 1", got, tries, tt.want)
					}
					time.Sleep(61 * time.Minute)
					deliver()
				} else {
					deliver() // the place of the connection is free again
				}
				for _, keyword := range []string{"PIPELINING", "SIZE", "8BITMIME"} {
					want := 0
					for _, off := range tt.off {
						if off == keyword {
							want = 1
						}
					}
					if got := strings.Count(log.String(), "extension="+keyword+" "); min(got, 1) != want {
						t.Errorf("%s was switched off %d times, want %d:\n%s", keyword, got, want, &log)
					}
				}
			})
		})
	}
}
