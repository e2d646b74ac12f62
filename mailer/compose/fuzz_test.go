package compose

import (
	"bytes"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"mailsidecar/mailer"

	"github.com/emersion/go-message"
)

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"a@example.com", `"Doe, John" <j@example.org>`, `John "Joe" Doe <j@example.org>`, `"a> RCPT"@example.org`,
		"用户@例子.公司", "a@[IPv6:2001:db8::1]", "G: a@b;", "a@b\r\nRCPT TO:<c@d>", `"a\"b"@c`, "=?utf-8?q?a?= <a@b>", "(c) a@b",
		"a..b@docomo.test", "T <a.@docomo.test>", `".a"@docomo.test`, strings.Repeat("l", 242) + "@example.org", "a\u202eb@c", "a@ex\u200bample.org", "a@b_c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := mailer.ParseAddress(s)
		if err != nil {
			return
		}
		checkPath(t, a.Email)
		again, err := mailer.ParseAddress(a.Email)
		if err != nil || again.Email != a.Email || again.Name != "" {
			t.Errorf("ParseAddress(%q) = %+v, %v, want the same", a.Email, again, err)
		}
		field := string(appendHeaderField(nil, "To", mailboxWords("To", []mailer.Address{a})))
		checkHeaderLines(t, field, 1)
		value := strings.NewReplacer("\r\n", "", "To: ", "").Replace(field)
		if strings.Contains(a.Email, "@[IPv6:") || strings.Contains(a.Name, "=?") {
			return // net/mail does not know such literals, nor every charset
		}
		read, err := mail.ParseAddress(value)
		if err != nil {
			t.Fatalf("net/mail refuses %q: %v", value, err)
		}
		at := strings.LastIndexByte(a.Email, '@')
		if read.Address != mailer.Unquote(a.Email[:at])+a.Email[at:] || read.Name != a.Name {
			t.Errorf("net/mail reads %q as %+v, want %+v", value, read, a)
		}
	})
}

// checkPath checks that an addr-spec is safe between angle brackets in an SMTP
// command (RFC 5321 §4.1.2).
func checkPath(t *testing.T, addrSpec string) {
	t.Helper()
	rest := addrSpec
	if _, domain, ok := mailer.CutQuotedString(rest); ok {
		rest = domain
	}
	if strings.ContainsAny(rest, " <>\"(),:;\\") && !strings.Contains(rest, "@[IPv6:") {
		t.Errorf("%q is not safe in an SMTP command", addrSpec)
	}
	for _, r := range addrSpec {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			t.Errorf("%q holds a control character", addrSpec)
		}
	}
	if len(addrSpec) > 254 {
		t.Errorf("%q is %d octets long", addrSpec, len(addrSpec))
	}
}

// checkHeaderLines checks that a header section has so many fields, and no line
// that is too long or empty.
func checkHeaderLines(t *testing.T, header string, fields int) {
	t.Helper()
	if err := checkLines([]byte(header)); err != nil {
		t.Errorf("%q: %v", header, err)
	}
	got := 0
	for line := range strings.SplitSeq(strings.TrimSuffix(header, "\r\n"), "\r\n") {
		if line == "" || strings.Trim(line, " \t") == "" {
			t.Errorf("%q has an empty line", header)
		} else if line[0] != ' ' && line[0] != '\t' {
			got++
		}
	}
	if got != fields {
		t.Errorf("%q has %d fields, want %d", header, got, fields)
	}
}

// FuzzComposeHeader: whatever stands in the fields that reach the header
// section, it reaches the reader unchanged and makes no field of its own.
func FuzzComposeHeader(f *testing.F) {
	f.Add("Subject", "Name", "X-Order", "1042", "file.pdf", "text")
	f.Add("Größe\u2028 – 😀", `John "Joe" Doe`, "List-Id", "Größe <a.b>", "Übung \"x\".csv", "\r\n.\r\n")
	f.Add("a\r\nBcc: x@y", "\x00", "X:Y", "\n", "a\nb", "\x00")
	f.Add(strings.Repeat("x", 2000), strings.Repeat("y ", 900), "References", strings.Repeat("<a@b> ", 300), strings.Repeat("ü", 500), " ")
	f.Add("=?utf-8?q?a?= b", "=?utf-8?q?a?=", "X-A", " a  b ", "=?utf-8?q?a?=", "")
	f.Fuzz(func(t *testing.T, subject, name, fieldName, value, filename, text string) {
		m := mailer.Message{
			From: mailer.Address{Name: name, Email: "shop@example.com"}, To: []mailer.Address{{Name: name, Email: "ana@example.org"}, {Name: "", Email: "bob@example.org"}},
			Subject: subject, Text: text, Header: []mailer.Field{{Name: fieldName, Value: value}},
			Attachments: []mailer.Attachment{{Filename: filename, Content: []byte(text)}},
		}
		c, err := composeAny(m)
		if err != nil {
			return
		}
		checkContent(t, c.Content)
		header, _ := splitContent(c.Content.Data)
		// Date, From, To, Message-ID, the caller's, MIME-Version, Content-*.
		fields := 6 + strings.Count("\n"+string(header), "\nContent-")
		if subject != "" {
			fields++
		}
		if key := strings.ToLower(fieldName); key == "date" || key == "message-id" {
			fields--
		}
		checkHeaderLines(t, string(header), fields)
		e, err := message.Read(bytes.NewReader(c.Content.Data))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := e.Header.Text("Subject"); !strings.Contains(subject, "=?") && (err != nil || got != subject) {
			t.Errorf("Subject = %q, %v, want %q", got, err, subject)
		}
		for _, p := range parsedParts(t, e) {
			if p.Disposition == "attachment" && !strings.Contains(filename, "=?") && (p.Filename != filename || p.Body != text) {
				t.Errorf("attachment %q with %q, want %q with %q", p.Filename, p.Body, filename, text)
			}
		}
	})
}

// checkForced checks that a message has the forced sender for its only author, or is
// refused because it is signed.
func checkForced(t *testing.T, raw []byte, opts FinishOptions) {
	opts.ForceFrom = mailer.Address{Name: "Relay", Email: "relay@example.net"}
	c, err := Finish(t.Context(), raw, opts)
	if err != nil {
		wantConversionRefused(t, "Finish with ForceFrom", err)
		return
	}
	checkContent(t, c.Content)
	checkGrowth(t, "Finish with ForceFrom", raw, c.Content)
	f := &finisher{root: parseMessage(t.Context(), c.Content.Data)}
	if from := f.mailboxes("from"); f.count("from") != 1 || !slices.Equal(from, []string{"relay@example.net"}) || c.Envelope.ReversePath != from[0] {
		t.Errorf("Finish(%q) with ForceFrom has authors %q and reverse-path %q", raw, from, c.Envelope.ReversePath)
	}
	given := &finisher{root: parseMessage(t.Context(), raw)}
	if replies := f.mailboxes("reply-to"); given.count("reply-to") == 0 && c.Authors[0] != "relay@example.net" && !slices.Equal(replies, c.Authors) {
		t.Errorf("Finish(%q) with ForceFrom has the Reply-To %q, want %q", raw, replies, c.Authors)
	}
}

func FuzzFinish(f *testing.F) {
	files, err := filepath.Glob(goldenDir + "/*.eml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no golden messages: %v", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(dkimHeader + "\r\nx"))
	f.Add([]byte("From: Bär <a..b@bär.example>\r\nTo: G: <\"x@ö\"@bär。example> (ö@bär.example);, .x@b_r.example,\u00a0y@bä\u200br.example\r\n\r\nx"))
	f.Add([]byte("From: a@x.test\nTo: b@x.test\nSubject: hi\rBcc: eve@x.test\r\r\n there\r\r\r\n\r\r\none\rtwo\r\r\n"))
	f.Add([]byte("From: a@b.example\r\nContent-Disposition: attachment; " + strings.Repeat("a", 400) + `="` + strings.Repeat("é", 200) + "\"\r\n\r\nx"))
	f.Add([]byte("From: a@b.example\r\nReply-To: \xe4" + strings.Repeat(`"\"<,:`, 200) + "\r\n\r\nx"))
	f.Add([]byte("From: a@b.example\r\nX-A: é" + strings.Repeat(" é\xe4", 300) + "\r\nContent-Type: a/b" + strings.Repeat(";a=é", 300) + "\r\n\r\nx"))
	for charset, text := range charsetTexts {
		octets, err := encodeIn(charset, text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte("From: \"" + octets + " =?utf-8?q?a?=\" <a@b.example>\r\nSubject: " + octets + "\r\nContent-Type: text/plain; charset=" + charset + "\r\n\r\n" + octets))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		opts := FinishOptions{To: []mailer.Address{{Email: "x@example.org"}}}
		c, err := Finish(t.Context(), raw, opts)
		if err != nil {
			return
		}
		checkContent(t, c.Content)
		checkGrowth(t, "Finish", raw, c.Content)
		checkPath(t, c.Envelope.ReversePath)
		checkForced(t, raw, opts)
		again, err := Finish(t.Context(), c.Content.Data, opts)
		if err != nil || !bytes.Equal(again.Content.Data, c.Content.Data) {
			t.Errorf("Finish(t.Context(), %q) = %q, %v, want it unchanged", c.Content.Data, again.Content.Data, err)
		}
		if ascii, err := ASCIIHeader(t.Context(), c.Content, nil); err != nil {
			wantNeedsSMTPUTF8(t, "ASCIIHeader", err)
		} else {
			checkContent(t, ascii)
			checkGrowth(t, "ASCIIHeader", c.Content.Data, ascii)
			checkASCIIHeaderAgain(t, c.Content, ascii)
		}
		checkInOrder(t, "fuzz", c.Content)
		seven, err := SevenBit(t.Context(), c.Content, nil)
		if err != nil {
			wantConversionRefused(t, "SevenBit", err)
			return
		}
		checkContent(t, seven)
		checkGrowth(t, "SevenBit", c.Content.Data, seven)
		if seven.EightBit {
			t.Errorf("SevenBit left 8-bit text in %q", seven.Data)
		}
	})
}

// checkGrowth checks that a conversion keeps the limit of what a message becomes.
func checkGrowth(t *testing.T, what string, raw []byte, c mailer.Content) {
	t.Helper()
	if limit := maxGrowth*len(raw) + growthRoom; len(c.Data) > limit {
		t.Errorf("%s made %d octets of %d, want %d at most", what, len(c.Data), len(raw), limit)
	}
}
