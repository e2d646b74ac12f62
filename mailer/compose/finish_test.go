package compose

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

func wantConversionRefused(t *testing.T, what string, err error) {
	t.Helper()
	var f *mailer.Failure
	if !errors.As(err, &f) || f.Class != mailer.ClassPermanent || f.Stage != mailer.StageCompose || f.EnhancedCode() != "5.6.3" {
		t.Errorf("%s: err = %v, want a permanent Failure with 5.6.3", what, err)
	}
}

func TestFinishEnvelope(t *testing.T) {
	const fields = "From: Shop <shop@example.com>\nTo: Ana\n <ana@example.org>, \"B, b\"\n\t<bob@example.org>\nCc: ana@EXAMPLE.org, (c) <@relay:cy@bücher.example>,\n " +
		"list: d@example.org, e@example.org;\nBcc: hidden@example.net\nSubject: =?utf-8?q?Gr=C3=B6=C3=9Fe?=\n"
	tests := []struct {
		name, extra string
		opts        FinishOptions
		from, to    string
	}{
		{
			"own fields", "",
			FinishOptions{},
			"shop@example.com",
			"ana@example.org bob@example.org cy@xn--bcher-kva.example d@example.org e@example.org hidden@example.net",
		},
		{"sender", "Sender: Robot <robot@example.com>\n", FinishOptions{To: addresses(t, "x@y")}, "robot@example.com", "x@y"},
		{"given", "Sender: robot@example.com\n", FinishOptions{From: addresses(t, "B <b@c>")[0], To: addresses(t, "x@y, X <x@Y>,z@ü.example")}, "b@c", "x@y z@xn--tda.example"},
		{"null reverse-path", "", FinishOptions{NullFrom: true, To: addresses(t, "x@y")}, "", "x@y"},
		{
			"resent", "Resent-From: fwd@example.com\nResent-To: r@example.org\nResent-Bcc: s@example.org\n",
			FinishOptions{},
			"fwd@example.com", "r@example.org s@example.org",
		},
		{"resent sender only", "Resent-From: fwd@example.com\n", FinishOptions{To: addresses(t, "x@y")}, "shop@example.com", "x@y"},
	}
	for _, tt := range tests {
		c, err := Finish(t.Context(), []byte(fields+tt.extra+"\nbody\n"), tt.opts)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := strings.Join(c.Envelope.ForwardPaths, " "); c.Envelope.ReversePath != tt.from || got != tt.to {
			t.Errorf("%s: Envelope = %q, %q, want %q, %q", tt.name, c.Envelope.ReversePath, got, tt.from, tt.to)
		}
		if c.Sender != "shop@example.com" || c.Subject != "Größe" {
			t.Errorf("%s: Sender, Subject = %q, %q", tt.name, c.Sender, c.Subject)
		}
		if strings.Contains(string(c.Content.Data), "hidden@") || strings.Contains(string(c.Content.Data), "s@example.org") {
			t.Errorf("%s: Data names a Bcc recipient:\n%s", tt.name, c.Content.Data)
		}
	}
}

func TestFinishAuthors(t *testing.T) {
	c, err := Finish(t.Context(), []byte("From: a@b, C <c@d>\nTo: x@y\n\n"), FinishOptions{})
	if want := []string{"a@b", "c@d"}; err != nil || c.Sender != "a@b" || !slices.Equal(c.Authors, want) {
		t.Errorf("Sender, Authors = %q, %q, %v, want a@b, %q", c.Sender, c.Authors, err, want)
	}
}

func TestFinishAddsDateAndMessageID(t *testing.T) {
	for _, raw := range []string{"From: a@Example.com\nTo: x@y", "From: a@Example.com\nTo: x@y\nMessage-ID:\n", "From: a@Example.com\nTo: x@y\n\nbody"} {
		c, err := Finish(t.Context(), []byte(raw), FinishOptions{})
		if err != nil {
			t.Fatalf("Finish(t.Context(), %q): %v", raw, err)
		}
		checkContent(t, c.Content)
		want := `^From: a@Example.com\r\nTo: x@y\r\n(Message-ID: <[-0-9a-f]{36}@Example.com>\r\n)?Date: .{25,31}\r\n(Message-ID: <[-0-9a-f]{36}@Example.com>\r\n)?\r\n(body\r\n)?$`
		if !regexp.MustCompile(want).Match(c.Content.Data) {
			t.Errorf("Finish(t.Context(), %q) = %q, want it to match %s", raw, c.Content.Data, want)
		}
		if !strings.Contains(string(c.Content.Data), "Message-ID: "+c.Content.MessageID+"\r\n") {
			t.Errorf("Finish(t.Context(), %q): MessageID = %q, not in the message", raw, c.Content.MessageID)
		}
	}
}

// TestFinishKeeps: a message without a fault keeps every octet, whatever its
// structure. With LF as line end, only the line ends change.
func TestFinishKeeps(t *testing.T) {
	const head = "From: a@b\r\nTo: c@d\r\nDate: x\r\nMESSAGE-id:\t<a@b> \r\nX:\r\n  blanks \r\n"
	for _, body := range []string{
		"", "x\r\n", "\r\n\r\n", "Gr\xc3\xb6\xc3\x9fe \xff\r\n", strings.Repeat("x", 998) + "\r\n",
		"--b\r\n\r\nx\r\n--b--\r\n", "--b\r\nX: y\r\n--b--\r\n", "--b--\r\n", "--b\r\n--b\r\n\r\n--b\r\n\r\n\r\n--b-- \t\r\n \r\n",
		"pre\r\n--b\r\n\r\nnever closed\r\n", "--b \r\nContent-Type: multipart/mixed; boundary=bb\r\n\r\n--bb\r\n\r\nx\r\n--b--\r\n",
		"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n--b--\r\n",
		"--b\r\nContent-Type: message/rfc822\r\n\r\nBcc: kept\r\n\r\nx\r\n--b--\r\n", "--b\r\nContent-Type: message/rfc822\r\n\r\n\r\n--b--\r\n",
		"--b\r\nContent-Type: message/rfc822\r\n\r\nX: y\r\n--b--\r\n", "--b\r\nno header\r\n--b--\r\n", "--b\r\nX: y\r\nno field\r\n\r\n--b--\r\n",
		"--b\r\nContent-Transfer-Encoding: base64\r\n\r\nno! base64 \r\n--b--\r\n",
	} {
		for _, contentType := range []string{"", "Content-Type: multipart/mixed; boundary=b\r\n", "Content-Type: multipart/mixed; boundary=\"b\"; x=(\r\n", "Content-Type: message/rfc822\r\n"} {
			want := head + contentType + "\r\n" + body
			for _, raw := range []string{want, strings.ReplaceAll(want, "\r\n", "\n")} {
				c, err := Finish(t.Context(), []byte(raw), FinishOptions{})
				if err != nil || string(c.Content.Data) != want {
					t.Errorf("Finish(t.Context(), %q) = %q, %v, want %q", raw, c.Content.Data, err, want)
				}
			}
		}
	}
}

// TestFinishBounds: a structure that no real message has is passed on as it is or
// refused.
func TestFinishBounds(t *testing.T) {
	const head = "From: a@b\r\nTo: c@d\r\nDate: x\r\nMessage-ID: <a@b>\r\n"
	deep := ""
	for range 100 {
		deep += "Content-Type: message/rfc822\r\n\r\n"
	}
	for name, raw := range map[string]string{
		"parts":  head + "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n", 100_000),
		"fields": head + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + strings.Repeat("a:\r\n", 100_000) + "\r\n--b--\r\n",
		"depth":  head + deep,
	} {
		c, err := Finish(t.Context(), []byte(raw), FinishOptions{})
		if err != nil || string(c.Content.Data) != raw {
			t.Errorf("%s: Finish changed %d octets to %d, %v", name, len(raw), len(c.Content.Data), err)
		}
	}
	for name, raw := range map[string]string{
		"fields":    head + strings.Repeat("a:\r\n", 100_000) + "\r\n",
		"addresses": head + "Cc: " + strings.Repeat("a@b,\r\n ", 10_001) + "a@b\r\n\r\n",
	} {
		var invalid *mailer.InvalidError
		if _, err := Finish(t.Context(), []byte(raw), FinishOptions{}); !errors.As(err, &invalid) {
			t.Errorf("too many %s: err = %v, want an InvalidError", name, err)
		}
	}
}

func TestFinishRefuses(t *testing.T) {
	long := strings.Repeat("x", 999)
	tests := []struct {
		name, raw string
		opts      FinishOptions
		field     string
		malformed bool
	}{
		{"empty", "", FinishOptions{}, "message", true},
		{"only a body", "\r\nFrom: a@b\r\n\r\n", FinishOptions{}, "message", true},
		{"mbox", "From a@b Mon Feb  2\nFrom: a@b\nTo: c@d\n\n", FinishOptions{}, "message", true},
		{"first line folded", " x\nFrom: a@b\nTo: c@d\n\n", FinishOptions{}, "message", true},
		{"no field", "From: a@b\nTo: c@d\nno field\n\n", FinishOptions{}, "message", true},
		{"no From", "To: c@d\n\n", FinishOptions{}, "from", true},
		{"empty From", "From: \nTo: c@d\n\n", FinishOptions{}, "from", true},
		{"two From", "From: a@b\nTo: c@d\nfrom: e@f\n\n", FinishOptions{}, "from", false},
		{"NUL", "From: a@b\nTo: c@d\nX: \x00\n\n", FinishOptions{}, "headers.X", true},
		{"no recipient", "From: a@b\nTo: undisclosed-recipients:;\n\n", FinishOptions{}, "to", false},
		{"bad recipient", "From: a@b\nTo: c@d, e\n\n", FinishOptions{}, "to[1]", false},
		{"bad From", "From: a\nTo: c@d\n\n", FinishOptions{}, "from[0]", false},
		{"bad list", "From: a@b\nTo: \"c@d\n\n", FinishOptions{}, "to", false},
		{"long line", "From: a@b\nTo: c@d\nX-Long: " + long + "\n\n", FinishOptions{}, "headers.X-Long", false},
		{"address not UTF-8", "From: a@b\nTo: <\xff@d>\n\n", FinishOptions{To: addresses(t, "c@d")}, "headers", true},
		{"two types, long line", "From: a@b\nTo: c@d\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\nContent-Type: text/html\n\n" + long, FinishOptions{}, "message", false},
		{"unknown encoding, NUL", "From: a@b\nTo: c@d\nContent-Transfer-Encoding: x-uuencode\n\n\x00", FinishOptions{}, "message", false},
		{"partial, long line", "From: a@b\nTo: c@d\nContent-Type: message/partial\n\n" + long, FinishOptions{}, "message", false},
		{"NUL in a part's header", "From: a@b\nTo: c@d\nContent-Type: multipart/mixed; boundary=b\n\n--b\nX: \x00\n\n--b--\n", FinishOptions{}, "message", true},
	}
	for _, tt := range tests {
		c, err := Finish(t.Context(), []byte(tt.raw), tt.opts)
		var invalid *mailer.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%s: Finish = %q, %v, want an InvalidError", tt.name, c.Content.Data, err)
			continue
		}
		if got := invalid.Fields[0].Position.String(); got != tt.field || invalid.Malformed != tt.malformed {
			t.Errorf("%s: problem at %q, malformed %v (%v), want %q, %v", tt.name, got, invalid.Malformed, err, tt.field, tt.malformed)
		}
	}
}

const dkimHeader = "DKIM-Signature: v=1; h=From : to:Subject:Bcc; b=x\r\nFrom: a@b\r\nTo: c@d\r\nDate: Mon, 02 Feb 2026 15:04:05 +0100\r\nMessage-ID: <a@b>\r\n"

func TestFinishSigned(t *testing.T) {
	const signed = "From: a@b\nTo: c@d\nContent-Type: multipart/signed; boundary=s\n\n"
	long := strings.Repeat("x ", 500)
	tests := []struct {
		name, raw string
		refused   bool
	}{
		{"as it is", dkimHeader + "Subject: x\r\n\r\nbody \r\n", false},
		{"unsigned field changes", dkimHeader + "X-Ü: ü\r\n\r\nbody\r\n", true},
		{"8-bit body", dkimHeader + "\r\nGröße\r\n", false},
		{"LF", strings.ReplaceAll(dkimHeader, "\r\n", "\n") + "\nbody\n", false},
		{"return path removed", "Return-Path: <x@y>\r\n" + dkimHeader + "\r\n", false},
		{"unsigned 8-bit field", dkimHeader + "X-Text: ü\r\n\r\n", false},
		{"signed 8-bit field", dkimHeader + "Subject: ü\r\n\r\n", true},
		{"signed Bcc", dkimHeader + "Bcc: x@y\r\n\r\n", true},
		{"signed long field", dkimHeader + "Subject: " + long + "\r\n\r\n", true},
		{"long line in body", dkimHeader + "\r\n" + long + "\r\n", true},
		{"NUL in body", dkimHeader + "\r\n\x00\r\n", true},
		{"bare CR in body", dkimHeader + "\r\na\rb\r\n", true},
		{"signed Date missing", "DKIM-Signature: h=from:date\nFrom: a@b\nTo: c@d\nMessage-ID: <a@b>\n\n", true},
		{"unsigned Date missing", "DKIM-Signature: h=from\nFrom: a@b\nTo: c@d\n\n", false},
		{"multipart, as it is", signed + "pre\n--s\n\nGröße \n--s\nContent-Type: application/pgp-signature\n\nsig\n--s--\n", false},
		{"multipart, 8-bit part field", signed + "--s\nContent-Type: text/plain; name=ü\n\n\n--s\n\nsig\n--s--\n", false},
		{"multipart, long line", signed + "--s\n\n" + long + "\n--s\n\nsig\n--s--\n", true},
		{"multipart, long preamble", signed + long + "\n--s\n\n\n--s\n\nsig\n--s--\n", true},
		{"multipart, long field", signed + "--s\nX: " + long + "\n\n\n--s\n\nsig\n--s--\n", true},
		{"multipart, bare CR", signed + "--s\n\na\rb\n--s\n\nsig\n--s--\n", true},
		{"nested", "From: a@b\nTo: c@d\nContent-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: multipart/signed; boundary=s\n\n--s\n\n\x00\n--s--\n--m--\n", true},
		{"beside a nested one", "From: a@b\nTo: c@d\nContent-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: multipart/signed; boundary=s\n\n--s\n\nx\n--s--\n--m\n\n" + long + "\n--m--\n", false},
	}
	for _, tt := range tests {
		c, err := Finish(t.Context(), []byte(tt.raw), FinishOptions{})
		if strings.Contains(tt.raw, "X-Ü") {
			if err == nil {
				t.Errorf("%s: Finish accepted a field name that is not ASCII", tt.name)
			}
			continue
		}
		if tt.refused {
			wantConversionRefused(t, tt.name, err)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		checkContent(t, c.Content)
	}
}

func TestSevenBit(t *testing.T) {
	const head = "From: a@b\r\nTo: c@d\r\nDate: Mon, 02 Feb 2026 15:04:05 +0100\r\nMessage-ID: <a@b>\r\n"
	tests := []struct{ name, in, want string }{
		{"seven bits", "\r\nx\r\n", "\r\nx\r\n"},
		{
			"text without MIME", "\r\nü \r\n",
			"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC=20\r\n",
		},
		{
			"unknown charset", "MIME-Version: 1.0\r\n\r\n\xfc\r\n",
			"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=FC\r\n",
		},
		{
			"label", "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: text/html; charset=utf-8\r\n\r\nü\r\n",
			"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Type: text/html; charset=utf-8\r\n\r\n=C3=BC\r\n",
		},
		{
			"multipart",
			"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\nContent-Transfer-Encoding: 8bit\r\n\r\nprö\r\n--m\r\nContent-Type: application/x; name=\"ü\"\r\n\r\nü\r\n--m\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: Grüße\r\n\r\nü\r\n--m\r\n\r\nsame \r\n--m--\r\n",
			"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\nContent-Transfer-Encoding: 7bit\r\n\r\n--m\r\nContent-Type: application/x;\r\n name*=UTF-8''%C3%BC;\r\n name=\"_\"\r\nContent-Transfer-Encoding: base64\r\n\r\nw7w=\r\n--m\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC\r\n--m\r\n\r\nsame \r\n--m--\r\n",
		},
		{
			"broken quoted-printable", "Content-Transfer-Encoding: quoted-printable\r\n\r\nü=\r\n=C3=BC=ü =\r\n",
			"Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC=\r\n=C3=BC==C3=BC =\r\n",
		},
		{
			"UTF-16", "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-16\r\n\r\n\xfe\xff\r\n",
			"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-16\r\nContent-Transfer-Encoding: base64\r\n\r\n/v8NCg==\r\n",
		},
	}
	for _, tt := range tests {
		c, err := checkedContent([]byte(head+tt.in), "<a@b>")
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		got, err := SevenBit(t.Context(), c, nil)
		if err != nil || string(got.Data) != head+tt.want {
			t.Errorf("%s: SevenBit = %q, %v, want %q", tt.name, strings.TrimPrefix(string(got.Data), head), err, tt.want)
		}
		checkContent(t, got)
	}
}

func TestSevenBitRefuses(t *testing.T) {
	for name, raw := range map[string]string{
		"DKIM":             dkimHeader + "\r\nü\r\n",
		"multipart/signed": "From: a@b\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nü\r\n--s--\r\n",
		"two types":        "From: a@b\r\nContent-Type: text/plain\r\nContent-Type: text/html\r\n\r\nü\r\n",
		"unknown encoding": "From: a@b\r\nContent-Transfer-Encoding: x\r\n\r\nü\r\n",
		"inner address":    "From: a@b\r\nContent-Type: message/rfc822\r\n\r\nFrom: <ü@b>\r\n\r\n",
	} {
		c, err := checkedContent([]byte(raw), "<a@b>")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = SevenBit(t.Context(), c, nil)
		wantConversionRefused(t, name, err)
	}
}

func addresses(t *testing.T, list string) []mailer.Address {
	t.Helper()
	all, err := mailer.ParseAddressList(list)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestFinishIDN: an address with an international domain is the same in the fields of a
// finished message as in one in parts: in A-labels. No relay needs SMTPUTF8 for it.
func TestFinishIDN(t *testing.T) {
	for _, name := range []string{
		"From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Reply-To",
		"Disposition-Notification-To", "Return-Receipt-To", "Errors-To",
	} {
		for in, want := range map[string]string{
			"x@müller.test":                        "x@xn--mller-kva.test",
			"<x@MÜLLER.test>":                      "<x@xn--mller-kva.test>",
			"Ann <x@müller.test>":                  "Ann <x@xn--mller-kva.test>",
			`"Müller, A." <"x y"@müller.test>`:     `=?utf-8?q?M=C3=BCller=2C_A=2E?= <"x y"@xn--mller-kva.test>`,
			"x@müller.test (bei Müller), y@x.test": "x@xn--mller-kva.test (=?utf-8?q?bei_M=C3=BCller?=), y@x.test",
		} {
			raw := name + ": " + in + "\nSubject: x\n"
			if name != "From" {
				raw += "From: shop@example.com\n"
			}
			c, err := Finish(t.Context(), []byte(raw+"\nx\n"), FinishOptions{To: addresses(t, "ana@example.org")})
			if err != nil || c.Content.UTF8Header || !strings.Contains(strings.ReplaceAll(string(c.Content.Data), "\r\n ", " "), name+": "+want+"\r\n") {
				t.Errorf("Finish of %s: %s = %q, %v, want %s", name, in, c.Content.Data, err, want)
			}
		}
	}
}

// TestFinishSignedIDN: a field that a signature covers is passed on as it is, and goes
// where the relay offers SMTPUTF8. Its envelope is in A-labels all the same.
func TestFinishSignedIDN(t *testing.T) {
	const fields = "From: a@b.test\r\nTo: x@müller.test\r\nCc: y@müller.test\r\nDate: x\r\nMessage-ID: <1@x>\r\n"
	for signature, want := range map[string]string{
		"DKIM-Signature: v=1; h=From:To; b=x\r\n":                       "To: x@müller.test\r\nCc: y@xn--mller-kva.test\r\n",
		"Content-Type: multipart/signed; boundary=b\r\n":                "To: x@xn--mller-kva.test\r\nCc: y@xn--mller-kva.test\r\n",
		"DKIM-Signature: v=1; h=From; b=x\r\nX: \r\n":                   "To: x@xn--mller-kva.test\r\nCc: y@xn--mller-kva.test\r\n",
		"DKIM-Signature: v=1; h=From:To:Cc; b=x\r\nMIME-Version: 1\r\n": "To: x@müller.test\r\nCc: y@müller.test\r\n",
	} {
		c, err := Finish(t.Context(), []byte(fields+signature+"\r\nx\r\n"), FinishOptions{})
		if err != nil || !strings.Contains(string(c.Content.Data), want) || c.Content.UTF8Header != strings.Contains(want, "ü") {
			t.Errorf("Finish with %q = %q (UTF8Header %v), %v, want %q", signature, c.Content.Data, c.Content.UTF8Header, err, want)
		}
		if want := []string{"x@xn--mller-kva.test", "y@xn--mller-kva.test"}; !slices.Equal(c.Envelope.ForwardPaths, want) {
			t.Errorf("Finish with %q: ForwardPaths = %q, want %q", signature, c.Envelope.ForwardPaths, want)
		}
	}
	signedName := "DKIM-Signature: v=1; h=From:To; b=x\r\nFrom: a@b.test\r\nTo: Müller <x@müller.test>\r\nDate: x\r\nMessage-ID: <1@x>\r\n\r\nx\r\n"
	_, err := Finish(t.Context(), []byte(signedName), FinishOptions{})
	wantConversionRefused(t, "Finish of a signed field with a raw name", err)
}
