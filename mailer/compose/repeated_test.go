package compose

import (
	"bytes"
	"errors"
	"net/mail"
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// TestFinishRepeated: a field that may stand once and stands twice is refused by its
// name, whatever its case; what is signed is passed on.
func TestFinishRepeated(t *testing.T) {
	fields := map[string]string{
		"From": "a@x.test", "Sender": "a@x.test", "Reply-To": "a@x.test", "To": "b@x.test", "Cc": "b@x.test", "Date": "Mon, 02 Feb 2026 15:04:05 +0100", "Message-ID": "<1@x.test>",
		"In-Reply-To": "<1@x.test>", "References": "<1@x.test>", "Subject": "x", "MIME-Version": "1.0", "Content-Type": "text/plain", "Content-Transfer-Encoding": "7bit",
	}
	for name, value := range fields {
		for _, second := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			twice := name + ": " + value + "\n" + second + ": " + value + "\n"
			for other, value := range map[string]string{"From": "a@x.test", "To": "b@x.test"} {
				if other != name {
					twice += other + ": " + value + "\n"
				}
			}
			_, err := Finish(t.Context(), []byte(twice+"\nx\n"), FinishOptions{})
			var invalid *mailer.InvalidError
			if !errors.As(err, &invalid) || invalid.Malformed || !strings.Contains(strings.ToLower(invalid.Fields[0].Position.String()), strings.ToLower(name)) {
				t.Errorf("%q: %v, want a problem of %s", twice, err, name)
			}
			if name == "From" {
				continue
			}
			for _, signature := range []string{"DKIM-Signature: v=1; h=from; b=x\n", "Content-Type: multipart/signed; boundary=s\n", "Content-Type: application/pkcs7-mime; smime-type=signed-data\n"} {
				if strings.HasPrefix(signature, name+":") {
					continue
				}
				c, err := Finish(t.Context(), []byte(twice+signature+"\nx\n"), FinishOptions{})
				if err != nil || bytes.Count(c.Content.Data, []byte(value)) < 2 {
					t.Errorf("%q with %q: %q, %v, want it passed on", twice, signature, c.Content.Data, err)
				}
			}
		}
	}
	c, err := Finish(t.Context(), []byte("From: a@x.test\nBcc: b@x.test\nBcc: c@x.test\nX-A: 1\nX-A: 1\nReceived: x\nReceived: x\nResent-To: b@x.test\nResent-To: c@x.test\n\nx\n"), FinishOptions{})
	if err != nil || len(c.Envelope.ForwardPaths) != 2 {
		t.Errorf("fields that may be repeated: %v, %v", c.Envelope, err)
	}
}

// TestFinishEmptyFields: a field that must not be empty is left out or filled in.
func TestFinishEmptyFields(t *testing.T) {
	for _, empty := range []string{"", " ", "\t", " \n ", " ,", " , , ", " (nobody)", " ;"} {
		for _, name := range []string{"To", "Cc", "Sender", "Reply-To", "Resent-To", "Resent-Cc", "In-Reply-To", "References", "Errors-To", "Disposition-Notification-To"} {
			for _, more := range []string{"", name + ": b@x.test\n"} {
				message := "From: a@x.test\n" + name + ":" + empty + "\n" + more + "Bcc: c@x.test\n\nx\n"
				c, err := Finish(t.Context(), []byte(message), FinishOptions{To: addresses(t, "c@x.test")})
				if err != nil {
					t.Errorf("%q: %v", message, err)
					continue
				}
				checkContent(t, c.Content)
				if got, want := strings.Count(string(c.Content.Data), "\r\n"+name+":"), min(len(more), 1); got != want {
					t.Errorf("%q has %d %s fields, want %d: %q", message, got, name, want, c.Content.Data)
				}
			}
		}
	}
	for _, name := range []string{"Date", "Message-ID"} {
		c, err := Finish(t.Context(), []byte("From: a@x.test\n"+name+":\nTo: b@x.test\n\nx\n"), FinishOptions{})
		if err != nil || fieldOf(t, c.Content.Data, name) == "" || bytes.Count(c.Content.Data, []byte(name+":")) != 1 {
			t.Errorf("empty %s: %q, %v", name, c.Content.Data, err)
		}
	}
	later := time.Now().Add(30 * time.Hour).Truncate(time.Second)
	for _, tt := range []struct {
		fields   string
		at, want time.Time
	}{
		{"", later, later},
		{"Date:\n", later, later},
		{"", later.Add(-60 * time.Hour), time.Now()},
		{"Date: Mon, 02 Feb 2026 15:04:05 +0000\n", later, time.Date(2026, 2, 2, 15, 4, 5, 0, time.UTC)},
	} {
		c, err := Finish(t.Context(), []byte("From: a@x.test\nTo: b@x.test\n"+tt.fields+"\nx\n"), FinishOptions{Date: tt.at})
		if err != nil {
			t.Fatal(err)
		}
		if date, err := mail.ParseDate(fieldOf(t, c.Content.Data, "Date")); err != nil || date.Sub(tt.want).Abs() > time.Minute {
			t.Errorf("%q for %v is dated %v, %v, want %v", tt.fields, tt.at, date, err, tt.want)
		}
	}
	for _, kept := range []string{"To: undisclosed-recipients:;\nSubject:\nComments:\nX-A:\n", "To:\nDKIM-Signature: v=1; h=from:to; b=x\n"} {
		c, err := Finish(t.Context(), []byte("From: a@x.test\n"+kept+"Bcc: b@x.test\n\nx\n"), FinishOptions{})
		if err != nil || !bytes.Contains(c.Content.Data, []byte(strings.ReplaceAll(kept, "\n", "\r\n"))) {
			t.Errorf("%q became %q, %v, want it passed on", kept, c.Content.Data, err)
		}
	}
}

// TestFinishLabels: 8-bit text in UTF-8 that names no charset is labelled, and other text
// is left alone.
func TestFinishLabels(t *testing.T) {
	const rest = "From: a@x.test\r\nTo: b@x.test\r\nDate: Mon, 02 Feb 2026 15:04:05 +0100\r\nMessage-ID: <1@x.test>\r\n"
	const mime, text, eight = "MIME-Version: 1.0\r\n", "Content-Type: text/plain; charset=utf-8\r\n", "Content-Transfer-Encoding: 8bit\r\n"
	for _, tt := range []struct{ fields, body, want string }{
		{"", "Grüße 日本", text + mime + eight},
		{mime, "Grüße", mime + text + eight},
		{eight, "Grüße", eight + text + mime},
		{mime + eight, "Grüße", mime + eight + text},
		{"Content-Type: text/html\r\n", "<p>ü", "Content-Type: text/html; charset=utf-8\r\n" + mime + eight},
		{"Content-Type: Text/HTML;\r\n", "<p>ü", "Content-Type: Text/HTML; charset=utf-8\r\n" + mime + eight},
		{"Content-Type: text/plain; format=flowed\r\n" + mime, "ü", "Content-Type: text/plain; format=flowed; charset=utf-8\r\n" + mime + eight},
		{"Content-Type: text/plain; name=\"open\r\n", "ü", "Content-Type: text/plain; name=\"open\r\n"},
		{"Content-Type: text/plain; charset=us-ascii\r\n", "ü", "Content-Type: text/plain; charset=us-ascii\r\n"},
		{"Content-Type: image/svg+xml\r\n", "ü", "Content-Type: image/svg+xml\r\n"},
		{"Content-Transfer-Encoding: base64\r\n", "w7w=", "Content-Transfer-Encoding: base64\r\n"},
		{"", "plain", ""},
		{"", "Gr\xfc\xdfe", ""},
		{"DKIM-Signature: v=1; h=from; b=x\r\n", "ü", "DKIM-Signature: v=1; h=from; b=x\r\n"},
		{"", strings.Repeat("ü", 600), mime + text + "Content-Transfer-Encoding: quoted-printable\r\n"},
		{
			mime + "Content-Type: multipart/mixed; boundary=b\r\n", "--b\r\n\r\nü\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>ü\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nü\r\n--b--",
			mime + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + text + "\r\nü\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>ü\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nü\r\n--b--",
		},
	} {
		c, err := Finish(t.Context(), []byte(rest+tt.fields+"\r\n"+tt.body+"\r\n"), FinishOptions{})
		if err != nil {
			t.Errorf("%q: %v", tt.fields, err)
			continue
		}
		checkContent(t, c.Content)
		if got := strings.TrimPrefix(string(c.Content.Data), rest); !strings.HasPrefix(got, tt.want+"\r\n") {
			t.Errorf("%q with %.40q became %q, want %q", tt.fields, tt.body, got, tt.want)
		}
		again, err := Finish(t.Context(), c.Content.Data, FinishOptions{})
		if err != nil || !bytes.Equal(again.Content.Data, c.Content.Data) {
			t.Errorf("%q: a second time it becomes %q, %v", tt.fields, again.Content.Data, err)
		}
	}
}
