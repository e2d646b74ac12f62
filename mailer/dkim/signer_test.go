package dkim_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/dkim"
	"mailsidecar/mailer/dkim/dkimtest"
)

const header = "From: Shop <shop@example.com>\r\nTo: ana@example.org\r\nSubject: Hello\r\nDate: Sat, 01 Jan 2000 00:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n"

// messages are what canonicalization may stumble over.
var messages = map[string]string{
	"plain":                "" + header + "\r\nHi\r\n",
	"empty body":           header + "\r\n",
	"empty lines":          header + "\r\n\r\n\r\n\r\n",
	"trailing empty lines": header + "\r\nHi\r\n\r\n \r\n\t\r\n\r\n",
	"blanks at line ends":  header + "\r\nHi \r\nHo\t \r\n  \r\n x  y\t\tz\r\n",
	"blanks alone":         header + "\r\n  \t \r\n",
	"dots":                 header + "\r\n.\r\n..\r\n.a\r\n",
	"long lines":           header + "\r\n" + strings.Repeat(strings.Repeat("a b", 332)+"\r\n", 100),
	"many lines":           header + "\r\n" + strings.Repeat("line of text\r\n\r\n", 10_000),
	"folded":               "From:\r\n Shop\r\n\t<shop@example.com>\r\nSubject: a\r\n  b\r\n\tc  d \r\nTo:  ana@example.org\r\nReferences:" + strings.Repeat("\r\n <1234567890@example.com>", 300) + "\r\n\r\nHi\r\n",
	"repeated":             header + strings.Repeat("List-Unsubscribe: <https://example.com/>\r\nList-Post: NO\r\nX-A: b\r\n", 3) + "\r\nHi\r\n",
	"too many":             header + strings.Repeat("List-Unsubscribe: <https://example.com/>\r\n", 300) + "\r\nHi\r\n",
	"colon":                "From: a:b@example.com\r\nFrom : shop@example.com\r\nSubject:\r\nX\r\n: y\r\n\r\nHi\r\n",
	"utf-8":                "From: Größe <größe@example.com>\r\nTo: ana@example.org\r\nSubject: ÄÖÜ  \u00a0x\r\n\r\nHi ü\r\n",
	"mime":                 header + "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nSubject: inner\r\n\r\nHi\r\n--b--\r\n",
}

func TestSign(t *testing.T) {
	entries := dkimtest.Entries(t, "example.com")
	s := dkim.NewSigner(entries)
	for name, message := range messages {
		data := signed(t, s, message)
		domains, err := dkimtest.Verify(data, entries)
		if err != nil || !slices.Equal(domains, []string{"example.com", "example.com"}) {
			t.Errorf("%s: the verifier says %q, %v\n%.600s", name, domains, err, data)
		}
		if n := len(data) - len(message); n > s.Room("shop@example.com") || n < s.Room("shop@example.com")/3 {
			t.Errorf("%s: the signatures have %d octets, and Room says %d", name, n, s.Room("shop@example.com"))
		}
		for line := range bytes.Lines(data[:len(data)-len(message)]) {
			if len(line) > 78 || !bytes.HasSuffix(line, []byte("\r\n")) || len(bytes.TrimSpace(line)) == 0 {
				t.Errorf("%s: the field has the line %q", name, line)
			}
		}
	}
}

// signer is what Signer and Resigner have in common.
type signer interface {
	Sign(ctx context.Context, c mailer.Content) ([]byte, error)
}

// signed returns the message with its signatures.
func signed(t *testing.T, s signer, message string) []byte {
	t.Helper()
	fields, err := s.Sign(t.Context(), mailer.Content{Data: []byte(message)})
	if err != nil {
		t.Fatal(err)
	}
	return append(fields, message...)
}

// unsigned returns the message without the signer's own signatures.
func unsigned(t *testing.T, s *dkim.Signer, data []byte) string {
	t.Helper()
	c, err := s.Resigner().Unsigned(t.Context(), mailer.Content{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return string(c.Data)
}

// What is added or changed on the way is found out.
func TestSignedFields(t *testing.T) {
	entries := dkimtest.Entries(t, "example.com")[1:]
	data := signed(t, dkim.NewSigner(entries), messages["mime"])
	for _, add := range []string{"From: eve@example.net", "Subject: x", "To: x@example.net", "Cc: x@example.net", "Reply-To: x@example.net", "Date: x", "Content-Type: text/html", "In-Reply-To: <x@y>"} {
		for _, changed := range []string{add + "\r\n" + string(data), strings.Replace(string(data), "Message-ID:", add+"\r\nMessage-ID:", 1)} {
			if _, err := dkimtest.Verify([]byte(changed), entries); err == nil {
				t.Errorf("the signature is valid after %s was added", add)
			}
		}
	}
	for _, add := range []string{"Received: from a by b", "Sender: x@example.net", "Return-Path: <x@example.net>", "X-Spam: no", "Authentication-Results: x"} {
		if _, err := dkimtest.Verify([]byte(add+"\r\n"+string(data)), entries); err != nil {
			t.Errorf("%s ends the signature: %v", add, err)
		}
	}
	if _, err := dkimtest.Verify(bytes.Replace(data, []byte("Hi"), []byte("Ho"), 1), entries); err == nil {
		t.Error("the signature is valid for another body")
	}
}

func TestSignsFor(t *testing.T) {
	shop := dkimtest.Entry(t, "example.com", "s", dkimtest.Ed25519(t))
	news := dkimtest.Entry(t, "news.example.com", "s", dkimtest.Ed25519(t))
	idn := dkimtest.Entry(t, "xn--bcher-kva.example", "s", dkimtest.Ed25519(t))
	entries := []dkim.Entry{shop, news, idn}
	s := dkim.NewSigner(entries)
	for from, want := range map[string]string{
		"shop@example.com":                "example.com",
		"Shop <shop@EXAMPLE.com>":         "example.com",
		"a@mail.example.com":              "example.com",
		"a@a.b.example.com":               "example.com",
		"a@news.example.com":              "news.example.com",
		"a@x.news.example.com":            "news.example.com",
		"a@bücher.example":                "xn--bcher-kva.example",
		"a@example.net":                   "",
		"a@badexample.com":                "",
		"a@com":                           "",
		"a@[127.0.0.1]":                   "",
		"a@example.net, a@example.com":    "",
		"a@example.com, a@example.net":    "example.com",
		`"a@example.net" <a@example.com>`: "example.com",
		"":                                "",
		"nobody":                          "",
	} {
		message := "From: " + from + "\r\nTo: ana@example.org\r\n\r\nHi\r\n"
		domains, err := dkimtest.Verify(signed(t, s, message), entries)
		if got := strings.Join(domains, " "); err != nil || got != want {
			t.Errorf("Sign(From: %s) is by %q, %v, want %q", from, got, err, want)
		}
	}
}

// A message that has a signature keeps it alone.
func TestSignForeign(t *testing.T) {
	s := dkim.NewSigner(dkimtest.Entries(t, "example.com"))
	message := strings.Replace(messages["plain"], "Subject", "dkim-signature : v=1; d=example.net\r\nSubject", 1)
	if got := signed(t, s, message); string(got) != message {
		t.Errorf("Sign = %q, want none", got)
	}
}

// What is signed again has the same octets on each attempt, at any time.
func TestResign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entries := dkimtest.Entries(t, "example.com")
		s := dkim.NewSigner(entries)
		for name, message := range messages {
			stored := signed(t, s, message)
			bare := unsigned(t, s, stored)
			if bare != message {
				t.Errorf("%s: Unsigned = %.300q", name, bare)
			}
			form := "X-Form: other\r\n" + bare
			first := signed(t, s.Resigner(), form)
			time.Sleep(48 * time.Hour)
			if again := signed(t, dkim.NewSigner(entries).Resigner(), form); !bytes.Equal(first, again) {
				t.Errorf("%s: the second attempt has other octets", name)
			}
			if bytes.Equal(signed(t, s, message), stored) {
				t.Errorf("%s: the first signature does not tell its time", name)
			}
			if domains, err := dkimtest.Verify(first, entries); err != nil || len(domains) != 2 || bytes.Count(first, []byte("DKIM-Signature:")) != 2 {
				t.Errorf("%s: the verifier says %q, %v", name, domains, err)
			}
			if again := unsigned(t, s, first); again != form {
				t.Errorf("%s: Unsigned = %.300q after the second signature", name, again)
			}
		}
	})
}

// Only what our keys made is removed.
func TestUnsignedForeign(t *testing.T) {
	s := dkim.NewSigner(dkimtest.Entries(t, "example.com"))
	other := signed(t, dkim.NewSigner([]dkim.Entry{dkimtest.Entry(t, "example.com", "other", dkimtest.Ed25519(t))}), messages["plain"])
	text := string(signed(t, s, messages["plain"]))
	for name, message := range map[string]string{
		"none":              messages["plain"],
		"another body":      strings.Replace(text, "Hi", "Ho", 1),
		"another subject":   strings.Replace(text, "Hello", "Hullo", 1),
		"another selector":  string(other),
		"another beside":    strings.Replace(text, "Subject", "DKIM-Signature: v=1; d=example.net; b=x\r\nSubject", 1),
		"behind a field":    "Received: from a by b\r\n" + text,
		"one that is empty": "DKIM-Signature:\r\n" + messages["plain"],
		"not a signature":   strings.Replace(text, "v=1", "v=2", 1),
		"limited":           strings.Replace(text, "v=1;", "v=1; l=2;", 1),
	} {
		if got := unsigned(t, s, []byte(message)); got != message {
			t.Errorf("%s: Unsigned = %q, want it as it was", name, got)
		}
	}
}

// A signature that is repeated was repeated by others: of ours there is one of each key. To
// check each of many would take time in proportion to their number and to what they cover.
func TestUnsignedRepeated(t *testing.T) {
	s := dkim.NewSigner(dkimtest.Entries(t, "example.com"))
	text := string(signed(t, s, messages["plain"]))
	fields := strings.TrimSuffix(text, messages["plain"])
	for _, n := range []int{1, 1000} {
		message := strings.Repeat(fields, n) + text
		if got := unsigned(t, s, []byte(message)); got != message {
			t.Errorf("with %d copies Unsigned = %.300q, want it as it was", n, got)
		}
	}
}

func TestSignEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := dkim.NewSigner(dkimtest.Entries(t, "example.com"))
	if _, err := s.Sign(ctx, mailer.Content{Data: []byte(messages["many lines"])}); !errors.Is(err, context.Canceled) {
		t.Errorf("Sign = %v, want the context's error", err)
	}
}

// FuzzSign: whatever stands in a message that is fit for SMTP, its signatures verify, and
// are known again.
func FuzzSign(f *testing.F) {
	for _, message := range messages {
		f.Add([]byte(message))
	}
	entries := dkimtest.Entries(f, "example.com")[1:]
	s := dkim.NewSigner(entries)
	f.Fuzz(func(t *testing.T, text []byte) {
		text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r"), nil), []byte("\x00"), nil)
		data := append([]byte("From: a@example.com\r\n"), bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))...)
		if !bytes.HasSuffix(data, []byte("\r\n")) {
			data = append(data, "\r\n"...)
		}
		whole := signed(t, s, string(data))
		if bytes.Equal(whole, data) {
			return // it has a signature
		}
		if len(whole)-len(data) > s.Room("a@example.com") {
			t.Errorf("the signatures have %d octets", len(whole)-len(data))
		}
		if got := unsigned(t, s, whole); got != string(data) {
			t.Errorf("our signature of %.300q is not known again", data)
		}
		if !wellFormed(data) {
			return // the library reads it in another way
		}
		if domains, err := dkimtest.Verify(whole, entries); err != nil || len(domains) != 1 {
			t.Errorf("the verifier says %q, %v of %.600q", domains, err, whole)
		}
	})
}

// wellFormed reports whether each line before the first empty one is a field, or goes on
// with one.
func wellFormed(data []byte) bool {
	header, _, _ := bytes.Cut(data, []byte("\r\n\r\n"))
	for line := range bytes.Lines(append(header, "\r\n"...)) {
		name, _, found := bytes.Cut(line, []byte(":"))
		switch {
		case line[0] == ' ' || line[0] == '\t':
			if len(bytes.Trim(line, " \t\r\n")) == 0 {
				return false
			}
		case !found || len(name) == 0 || bytes.ContainsFunc(bytes.TrimRight(name, " \t"), func(c rune) bool { return c <= ' ' || c > '~' }):
			return false
		}
	}
	return true
}

func BenchmarkSign(b *testing.B) {
	for _, size := range []int{2 << 10, 1 << 20} {
		for i, e := range dkimtest.Entries(b, "example.com") {
			b.Run(fmt.Sprintf("%s/%dKiB", []string{"rsa", "ed25519"}[i], size>>10), func(b *testing.B) {
				s := dkim.NewSigner([]dkim.Entry{e})
				data := []byte(header + "\r\n" + strings.Repeat(strings.Repeat("abcd", 19)+"\r\n", size/78))
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.Sign(b.Context(), mailer.Content{Data: data}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
