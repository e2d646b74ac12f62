package compose_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"mailsidecar/mailer"
	"mailsidecar/mailer/compose"
	"mailsidecar/mailer/dkim"
	"mailsidecar/mailer/dkim/dkimtest"
)

// checkSigned checks that all of the domain's keys have signed the message.
func checkSigned(t *testing.T, name string, c mailer.Content, entries []dkim.Entry) {
	t.Helper()
	domains, err := dkimtest.Verify(c.Data, entries)
	if want := []string{"example.com", "example.com"}; err != nil || !slices.Equal(domains, want) {
		t.Errorf("%s: the verifier says %q, %v\n%.1500s", name, domains, err, c.Data)
	}
	header, _, _ := bytes.Cut(c.Data, []byte("\r\n\r\n"))
	if bytes.Contains(bytes.ToLower(header), []byte("\nbcc:")) {
		t.Errorf("%s: Bcc stands in it", name)
	}
}

func TestComposeSigned(t *testing.T) {
	entries := dkimtest.Entries(t, "example.com")
	signed := compose.Options{Signer: dkim.NewSigner(entries)}
	m := mailer.Message{
		From: mailer.Address{Name: "Größe", Email: "shop@example.com"}, To: []mailer.Address{{Email: "ana@example.org"}}, Bcc: []mailer.Address{{Email: "bob@example.org"}},
		Subject: strings.Repeat("Größe ", 60), Text: "Hi ü \r\n.\r\n\r\n\r\n", HTML: "<p>Hi", Header: []mailer.Field{{Name: "List-Unsubscribe", Value: "<https://example.com/u>"}},
		Attachments: []mailer.Attachment{{Filename: "a.bin", Content: bytes.Repeat([]byte{0, 200}, 5000)}},
	}
	c, err := compose.Compose(t.Context(), m, signed)
	if err != nil {
		t.Fatal(err)
	}
	checkSigned(t, "composed", c.Content, entries)
	m.From.Email = "größe@mail.example.com"
	if c, err = compose.Compose(t.Context(), m, signed); err != nil || !c.Content.UTF8Header {
		t.Fatalf("Compose = %v, %v", c.Content.UTF8Header, err)
	}
	checkSigned(t, "international", c.Content, entries)
	m.ForceFrom = mailer.Address{Email: "relay@example.net"}
	if c, err = compose.Compose(t.Context(), m, signed); err != nil || bytes.Contains(c.Content.Data, []byte("DKIM")) {
		t.Errorf("with a forced From of another domain Compose = %.300q, %v", c.Content.Data, err)
	}
	m.From.Email, m.ForceFrom.Email = "a@example.net", "relay@example.com"
	if c, err = compose.Compose(t.Context(), m, signed); err != nil {
		t.Fatal(err)
	}
	checkSigned(t, "forced", c.Content, entries)
}

// Every golden message that may be signed is, and is as it was otherwise, but in 7 bits.
func TestFinishSigned(t *testing.T) {
	entries := dkimtest.Entries(t, "example.com")
	files, err := filepath.Glob("../../testdata/messages/finish-*.in.eml")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		o := compose.FinishOptions{To: []mailer.Address{{Email: "ana@example.org"}}}
		plain, err := compose.Finish(t.Context(), raw, o)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		o.Signer = dkim.NewSigner(entries)
		signed, err := compose.Finish(t.Context(), raw, o)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if bytes.Contains(raw, []byte("DKIM-Signature:")) || !strings.HasSuffix(plain.Sender, "example.com") {
			if !bytes.Equal(plain.Content.Data, signed.Content.Data) {
				t.Errorf("%s: a message that is not to be signed changes", file)
			}
			continue
		}
		checkSigned(t, file, signed.Content, entries)
		if seven, err := compose.SevenBit(t.Context(), plain.Content, nil); err == nil && !bytes.HasSuffix(signed.Content.Data, seven.Data) {
			t.Errorf("%s: signed, the message is\n%s\nwant behind the signature\n%s", file, signed.Content.Data, seven.Data)
		}
		if signed.Content.EightBit {
			t.Errorf("%s: it is signed in 8 bits", file)
		}
	}
}

// What cannot be made 7-bit is signed as it is.
func TestFinishSignedEightBit(t *testing.T) {
	entries := dkimtest.Entries(t, "example.com")
	const sealed = "From: shop@example.com\r\nTo: ana@example.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b; protocol=\"application/pgp-signature\"\r\n\r\n" +
		"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGröße\r\n--b\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--b--\r\n"
	o := compose.FinishOptions{Options: compose.Options{Signer: dkim.NewSigner(entries)}}
	c, err := compose.Finish(t.Context(), []byte(sealed), o)
	if err != nil {
		t.Fatal(err)
	}
	checkSigned(t, "sealed", c.Content, entries)
	if !c.Content.EightBit || !bytes.Contains(c.Content.Data, []byte("Größe")) {
		t.Error("the sealed part has changed")
	}
}

// The memory that is asked for covers the signatures, and nothing is made without it.
func TestSignedReserve(t *testing.T) {
	s := dkim.NewSigner(dkimtest.Entries(t, "example.com"))
	raw := []byte("From: shop@example.com\r\nTo: ana@example.org\r\n\r\n" + strings.Repeat("Größe\r\n", 1000))
	m := mailer.Message{From: mailer.Address{Email: "shop@example.com"}, To: []mailer.Address{{Email: "ana@example.org"}}, Text: string(raw)}
	for name, finish := range map[string]func(context.Context, compose.Options) (compose.Composed, error){
		"Compose": func(ctx context.Context, o compose.Options) (compose.Composed, error) {
			return compose.Compose(ctx, m, o)
		},
		"Finish": func(ctx context.Context, o compose.Options) (compose.Composed, error) {
			return compose.Finish(ctx, raw, compose.FinishOptions{Options: o})
		},
	} {
		asked := 0
		o := compose.Options{Signer: s, Reserve: func(octets int) error { asked += octets; return nil }}
		c, err := finish(t.Context(), o)
		if n := len(c.Content.Data); err != nil || n > asked || n < asked-s.Room("shop@example.com") || cap(c.Content.Data) > asked {
			t.Errorf("%s asks for %d octets, and makes %d of %d, %v", name, asked, n, cap(c.Content.Data), err)
		}
		refused := errors.New("no room")
		o.Reserve = func(int) error { return refused }
		if _, err := finish(t.Context(), o); !errors.Is(err, refused) {
			t.Errorf("%s = %v, want %v", name, err, refused)
		}
		o.Reserve, o.Signer = nil, endingSigner{s}
		if _, err := finish(t.Context(), o); !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want the context's error", name, err)
		}
	}
}

// endingSigner signs with a context that has ended.
type endingSigner struct{ *dkim.Signer }

func (s endingSigner) Sign(ctx context.Context, c mailer.Content) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return s.Signer.Sign(ctx, c)
}

// FuzzSigned: whatever Finish makes of a message, its signatures verify.
func FuzzSigned(f *testing.F) {
	files, _ := filepath.Glob("../../testdata/messages/*.eml")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte("From: a@example.com\nSubject: \xc3\xbc\n\n\n \t\n\nx  y \n\n"))
	entries := dkimtest.Entries(f, "example.com")[1:]
	o := compose.FinishOptions{
		Options:   compose.Options{Signer: dkim.NewSigner(entries)},
		ForceFrom: mailer.Address{Email: "shop@example.com"}, To: []mailer.Address{{Email: "ana@example.org"}},
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := compose.Finish(t.Context(), raw, o)
		if err != nil || bytes.Contains(bytes.ToLower(raw), []byte("dkim-signature")) {
			return
		}
		if domains, err := dkimtest.Verify(c.Content.Data, entries); err != nil || len(domains) != 1 {
			t.Errorf("the verifier says %q, %v of %.1500q", domains, err, c.Content.Data)
		}
	})
}

// However many signatures a domain may have, they cost no further copy of the message: the
// memory of a delivery is reckoned with one.
func TestConvertSignedOnce(t *testing.T) {
	const longest, size = 4 * 1800, 1 << 20 // octets of four signatures with RSA of 4096 bits
	c := mailer.Content{Data: []byte("From: shop@example.com\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", size/64))}
	signature := []byte(strings.Repeat("DKIM-Signature: "+strings.Repeat("x", 54)+"\r\n", longest/72))
	f := compose.Form{From: mailer.Address{Email: "a@example.net"}, Sign: func(context.Context, mailer.Content) ([]byte, error) { return signature, nil }}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	signed, err := compose.Convert(t.Context(), c, f, nil)
	runtime.ReadMemStats(&after)
	if err != nil || !bytes.HasPrefix(signed.Data, signature) {
		t.Fatalf("Convert = %.100q, %v", signed.Data, err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > size+size/2 {
		t.Errorf("Convert took %d octets for a message of %d", got, size)
	}
}

// TestConvertRefusesSignature: what cannot stand in a header section is no signature, and
// the error says why.
func TestConvertRefusesSignature(t *testing.T) {
	c := mailer.Content{Data: []byte("From: shop@example.com\r\n\r\nHi\r\n")}
	for _, signature := range []string{"DKIM-Signature: \xc3\xbc\r\n", "DKIM-Signature: " + strings.Repeat("x", 1000) + "\r\n"} {
		f := compose.Form{From: mailer.Address{Email: "a@example.net"}, Sign: func(context.Context, mailer.Content) ([]byte, error) { return []byte(signature), nil }}
		_, err := compose.Convert(t.Context(), c, f, nil)
		if _, ok := errors.AsType[*compose.SignError](err); !ok || strings.Contains(err.Error(), "%!") {
			t.Errorf("Convert signed with %.40q: %v", signature, err)
		}
	}
}
