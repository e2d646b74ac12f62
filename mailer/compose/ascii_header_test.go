package compose

import (
	"bytes"
	"errors"
	"testing"

	"mailsidecar/mailer"
)

// TestASCIIHeaderRefuses: what would lose its author, its identity or its signature
// is left to a relay that offers SMTPUTF8.
func TestASCIIHeaderRefuses(t *testing.T) {
	const rest = "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n\r\nbody\r\n"
	tests := []struct {
		name, header string
		refused      bool
	}{
		{"author", "From: ü@example.com\r\nMessage-ID: <1@example.com>\r\n", true},
		{"author in a group", "From: A: ü@example.com;\r\nMessage-ID: <1@example.com>\r\n", true},
		{"sender", "From: a@example.com\r\nSender: ü@example.com\r\nMessage-ID: <1@example.com>\r\n", true},
		{"who sent it again", "From: a@example.com\r\nResent-From: ü@example.com\r\nMessage-ID: <1@example.com>\r\n", true},
		{"author's domain", "From: a@bücher.example\r\nMessage-ID: <1@example.com>\r\n", false},
		{"recipient", "From: a@example.com\r\nTo: ü@example.com\r\nMessage-ID: <1@example.com>\r\n", false},
		{"address with blanks", "From: a@example.com\r\nTo: ü @ example.com, b@example.com\r\nMessage-ID: <1@example.com>\r\n", false},
		{"identity", "From: a@example.com\r\nMessage-ID: <ü@example.com>\r\n", true},
		{"boundary", "From: a@example.com\r\nMessage-ID: <1@example.com>\r\nContent-Type: multipart/mixed; boundary=ü\r\n", true},
		{"signed", "DKIM-Signature: v=1; h=From; b=x\r\nFrom: a@example.com\r\nTo: ü@example.com\r\nMessage-ID: <1@example.com>\r\n", true},
		{"signed, without UTF-8", "DKIM-Signature: v=1; h=From; b=x\r\nFrom: a@example.com\r\nMessage-ID: <1@example.com>\r\n", false},
	}
	for _, tt := range tests {
		c, err := checkedContent([]byte(tt.header+rest), "<1@example.com>")
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		ascii, err := ASCIIHeader(t.Context(), c, nil)
		if tt.refused {
			wantNeedsSMTPUTF8(t, tt.name, err)
			continue
		}
		if err != nil {
			t.Errorf("%s: ASCIIHeader = %v, want it converted", tt.name, err)
			continue
		}
		checkContent(t, ascii)
		checkASCIIHeaderAgain(t, c, ascii)
	}
}

// checkASCIIHeaderAgain checks that each retry gets the same octets.
func checkASCIIHeaderAgain(t *testing.T, c, ascii mailer.Content) {
	t.Helper()
	if ascii.UTF8Header {
		t.Errorf("ASCIIHeader left raw UTF-8 in %q", ascii.Data)
	}
	for _, from := range []mailer.Content{c, ascii} {
		if again, err := ASCIIHeader(t.Context(), from, nil); err != nil || !bytes.Equal(again.Data, ascii.Data) {
			t.Errorf("ASCIIHeader(%q) again = %q, %v, want %q", from.Data, again.Data, err, ascii.Data)
		}
	}
}

func wantNeedsSMTPUTF8(t *testing.T, name string, err error) {
	t.Helper()
	f, ok := errors.AsType[*mailer.Failure](err)
	if !ok || f.Class != mailer.ClassPermanent || f.EnhancedCode() != "5.6.7" {
		t.Errorf("%s: ASCIIHeader = %v, want a permanent failure with 5.6.7", name, err)
	}
}
