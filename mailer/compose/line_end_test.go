package compose

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

// TestFinishBareCR: in the header section a CR without LF is a blank and begins no field,
// and CR CR LF is one line end.
func TestFinishBareCR(t *testing.T) {
	const rest = "Date: Mon, 02 Feb 2026 15:04:05 +0100\r\nMessage-ID: <1@x.test>\r\n"
	for _, tt := range []struct{ header, want string }{
		{"From: a@x.test\nTo: b@x.test\nSubject: hi\rBcc: eve@example.net\n", "From: a@x.test\r\nTo: b@x.test\r\nSubject: hi Bcc: eve@example.net\r\n"},
		{"From: a@x.test\r\r\nTo: b@x.test\r\r\nSubject: hi\r\r\n there\r\r\n", "From: a@x.test\r\nTo: b@x.test\r\nSubject: hi\r\n there\r\n"},
		{"From: a@x.test\r\r\r\nTo: b@x.test\n\rBcc: eve@example.net\n", ""},
		{"Subject: hi\n\rBcc: eve@example.net\nFrom: a@x.test\nTo: b@x.test\n", "Subject: hi\r\n Bcc: eve@example.net\r\nFrom: a@x.test\r\nTo: b@x.test\r\n"},
		{"Subject: hi\n there\r\rBcc: eve@example.net\n again\nFrom: a@x.test\nTo: b@x.test\n", "Subject: hi\r\n there  Bcc: eve@example.net\r\n again\r\nFrom: a@x.test\r\nTo: b@x.test\r\n"},
		{"From: a@x.test\nTo: b@x.test\nSubject\r: hi\n", "From: a@x.test\r\nTo: b@x.test\r\nSubject: hi\r\n"},
		{"From: a@x.test\nTo: b@x.test\nX-A\rBcc: eve@example.net\n", ""},
		{"From: a@x.test\nTo: b@x.test\nSubject: gr\xfc\rBcc: eve@example.net\n", "From: a@x.test\r\nTo: b@x.test\r\nSubject: =?iso-8859-1?q?gr=FC_Bcc=3A_eve=40example=2Enet?=\r\n"},
		{"From: a@x.test\nTo: b@x.test\rBcc: eve@example.net\n", ""},
		{"From: a@x.test\nTo: b@x.test\rCc: eve@example.net;\n", ""},
		{"From: a@x.test\rBcc: eve@example.net\nTo: b@x.test\n", ""},
	} {
		c, err := Finish(t.Context(), []byte(tt.header+rest+"\r\r\none\rtwo\r\r\nthree\n"), FinishOptions{})
		if tt.want == "" {
			if !errors.As(err, new(*mailer.InvalidError)) {
				t.Errorf("Finish(%q) = %q, %v, want it refused", tt.header, c.Content.Data, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("Finish(%q) = %v", tt.header, err)
			continue
		}
		if !slices.Equal(c.Envelope.ForwardPaths, []string{"b@x.test"}) {
			t.Errorf("Finish(%q) reaches %q, want b@x.test alone", tt.header, c.Envelope.ForwardPaths)
		}
		if want := tt.want + rest + "\r\none\r\ntwo\r\nthree\r\n"; string(c.Content.Data) != want {
			t.Errorf("Finish(%q) = %q, want %q", tt.header, c.Content.Data, want)
		}
	}
}

// TestFinishLongBareCR: with CRs in it, a line of the header section may be long.
func TestFinishLongBareCR(t *testing.T) {
	c, err := Finish(t.Context(), []byte("From: a@x.test\nTo: b@x.test\nSubject: "+strings.Repeat("x\r", 600)+"\n\nx\n"), FinishOptions{})
	if err != nil || hasLongLine(c.Content.Data) || c.Subject != strings.TrimSpace(strings.Repeat("x ", 600)) {
		t.Errorf("Finish = %q, %v, want the subject in several lines", c.Subject, err)
	}
}

func TestFinishOnlyBareCR(t *testing.T) {
	_, err := Finish(t.Context(), []byte("From: a@x.test\rTo: b@x.test\r\rHi.\r"), FinishOptions{})
	var invalid *mailer.InvalidError
	if !errors.As(err, &invalid) || !invalid.Malformed || !strings.Contains(err.Error(), "its line ends are bare CR") {
		t.Errorf("Finish = %v, want the reason", err)
	}
}

// TestFinishParts: CR CR LF is one line end between and in parts, too. A part in the
// encoding binary keeps its octets, and what is signed is refused rather than changed.
func TestFinishParts(t *testing.T) {
	const head = "From: a@x.test\nTo: b@x.test\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=p\n\n"
	crcrlf := strings.ReplaceAll(head+"--p\nContent-Type: text/plain\n\none\ntwo\n\n--p\nContent-Type: text/html\n\n<p>\n--p--\n", "\n", "\r\r\n")
	c, err := Finish(t.Context(), []byte(crcrlf), FinishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []byte("\r\n\r\n--p\r\nContent-Type: text/plain\r\n\r\none\r\ntwo\r\n\r\n--p\r\nContent-Type: text/html\r\n\r\n<p>\r\n--p--\r\n"); !bytes.HasSuffix(c.Content.Data, want) {
		t.Errorf("Finish(%q) = %q, want CRLF for each CR CR LF", crcrlf, c.Content.Data)
	}

	for _, octets := range []string{"a\rb", "a\nb", "a\r\r\nb", "a\r\nb\rc\nd\r\r\n"} {
		for _, kind := range []string{"application/octet-stream", "text/plain", "image/png"} {
			message := strings.ReplaceAll(head, "\n", "\r\n") + "--p\r\nContent-Type: " + kind + "\r\nContent-Transfer-Encoding: binary\r\n\r\n" + octets + "\r\n--p--\r\n"
			c, err := Finish(t.Context(), []byte(message), FinishOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if encoded := base64.StdEncoding.EncodeToString([]byte(octets)); !bytes.Contains(c.Content.Data, []byte("\r\n\r\n"+encoded+"\r\n--p--")) {
				t.Errorf("%s part %q in binary became %q, want %s", kind, octets, c.Content.Data, encoded)
			}
		}
	}

	for _, signed := range []string{
		"From: a@x.test\nTo: b@x.test\nSubject: a\rb\nDKIM-Signature: h=subject\n\nx\n",
		"From: a@x.test\nTo: b@x.test\nSubject: a\nDKIM-Signature: h=subject\n\nx\r\r\n",
		"From: a@x.test\nTo: b@x.test\nContent-Type: multipart/signed; boundary=p\n\n--p\n\na\r\r\nb\n--p\n\nsig\n--p--\n",
	} {
		_, err := Finish(t.Context(), []byte(signed), FinishOptions{})
		wantConversionRefused(t, signed, err)
	}
}

// TestComposeLineEnds: a text of the JSON API has the same line ends.
func TestComposeLineEnds(t *testing.T) {
	m := mailer.Message{From: mailer.Address{Email: "a@x.test"}, To: []mailer.Address{{Email: "b@x.test"}}, Text: "one\rtwo\r\r\nthree\nfour\r\n\r\r\nfive"}
	c, err := Compose(t.Context(), m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []byte("one\r\ntwo\r\nthree\r\nfour\r\n\r\nfive"); !bytes.Contains(c.Content.Data, want) {
		t.Errorf("Compose = %q, want %q in it", c.Content.Data, want)
	}
}
