package mailer

import (
	"strings"
	"testing"
	"time"
)

// TestRedated: a date that we wrote is written anew, and no other octet changes.
func TestRedated(t *testing.T) {
	old, date := time.Date(2026, 2, 2, 15, 4, 5, 999, time.UTC), time.Date(2026, 12, 31, 23, 59, 59, 0, time.FixedZone("", 3600))
	const was, want = "Date: Mon, 02 Feb 2026 15:04:05 +0000\r\n", "Date: Thu, 31 Dec 2026 22:59:59 +0000\r\n"
	for _, tt := range []struct {
		in      string
		changed bool
	}{
		{was + "Subject: x\r\n\r\nx\r\n", true},
		{"From: a@b\r\n" + was + "\r\n" + was, true},
		{"DATE : Mon, 02 Feb 2026 16:04:05 +0100\r\n\r\nx\r\n", true},
		{"X-Date: x\r\nSubject: a\r\n Date: x\r\n" + was, true},
		{"Subject: x\r\n\r\n" + was, false},
		{"Date: Mon, 02 Feb 2026 15:04:06 +0000\r\n\r\n", false},
		{"Date: x\r\n\r\n", false},
		{"Date: Mon, 02 Feb\r\n 2026 15:04:05 +0000\r\n\r\n", false},
		{"dkim-signature: v=1\r\n" + was + "\r\n", false},
		{was + "Content-Type: Multipart/Signed; boundary=x\r\n\r\n", false},
		{was + "Content-Type: application/pkcs7-mime\r\n\r\n", false},
		{was + "Content-Type:\r\n multipart/signed;\r\n\tboundary=x\r\n\r\n", false},
		{was + "Content-Type: multipart/signed (PGP); boundary=x\r\n\r\n", false},
		{"", false},
		{"x", false},
	} {
		got, changed := Content{Data: []byte(tt.in), MessageID: "<a@b>", EightBit: true}.Redated(old, date)
		wanted := tt.in
		if tt.changed {
			wanted = strings.Replace(strings.Replace(tt.in, "DATE : Mon, 02 Feb 2026 16:04:05 +0100\r\n", "DATE :"+strings.TrimPrefix(want, "Date:"), 1), was, want, 1)
		}
		if changed != tt.changed || string(got.Data) != wanted || got.MessageID != "<a@b>" || !got.EightBit {
			t.Errorf("Redated(%q) = %q, %v, want %q, %v", tt.in, got.Data, changed, wanted, tt.changed)
		}
	}
}
