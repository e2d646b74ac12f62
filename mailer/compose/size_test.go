package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

// randomText has line ends of each kind, blanks, NULs and octets over 127 where they are
// hard.
func randomText(rng *rand.Rand, n int) []byte {
	pieces := []string{"a", "=", "=3D", " ", "\t", "\r\n", "\r", "\n", "\x00", "é", "\xff", strings.Repeat("x", 74), strings.Repeat("y", 1000), "==", "AAAA"}
	var b []byte
	for len(b) < n {
		b = append(b, pieces[rng.IntN(len(pieces))]...)
	}
	return b
}

// sizes checks what a conversion asked for against what it made: the same, or a few
// spare octets.
func sizes(t *testing.T, what string, spare int, make func(Reserve) ([]byte, error)) {
	t.Helper()
	asked, calls := 0, 0
	data, err := make(func(octets int) error {
		asked = octets
		calls++
		return nil
	})
	if err == nil && (calls != 1 || asked < len(data) || asked > len(data)+spare) {
		t.Errorf("%s: asked %d times for %d octets, made %d", what, calls, asked, len(data))
	}
	if err == nil && cap(data) > asked+asked/8+64 {
		t.Errorf("%s: %d octets have a buffer of %d", what, len(data), cap(data))
	}
	full := errors.New("full")
	if _, err2 := make(func(int) error { return full }); err == nil && !errors.Is(err2, full) {
		t.Errorf("%s without room = %v, want the error of reserve", what, err2)
	}
}

// TestAskedSize: each conversion asks for as many octets as it makes, before it does.
func TestAskedSize(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	encodings := []string{"", "7bit", "8bit", "binary", "base64", "quoted-printable"}
	types := []string{"", "text/plain", "text/html; charset=utf-16", "image/png", "message/delivery-status"}
	for i := range 600 {
		var raw []byte
		field := func(name, value string) {
			if value != "" {
				raw = fmt.Appendf(raw, "%s: %s%s", name, value, []string{"\r\n", "\n", "\r"}[rng.IntN(3)])
			}
		}
		field("From", "a@b.example")
		field("To", "é <r@b.example>")
		if rng.IntN(2) == 0 {
			field("Bcc", "s@b.example")
		}
		entity := func() {
			field("Content-Type", types[rng.IntN(len(types))])
			field("Content-Transfer-Encoding", encodings[rng.IntN(len(encodings))])
			raw = append(append(raw, "\r\n"...), randomText(rng, rng.IntN(20_000))...)
		}
		if rng.IntN(3) == 0 {
			field("Content-Type", "multipart/mixed; boundary=b")
			raw = append(raw, "\r\npreamble\n"...)
			for range rng.IntN(4) {
				raw = append(raw, "\n--b\n"...)
				entity()
			}
			raw = append(raw, "\r\n--b--\nepilogue"...)
		} else {
			entity()
		}
		sizes(t, fmt.Sprintf("Finish(%d)", i), 2, func(r Reserve) ([]byte, error) {
			c, err := Finish(t.Context(), raw, FinishOptions{Options: Options{Reserve: r}})
			return c.Content.Data, err
		})
		if finished, err := Finish(t.Context(), raw, FinishOptions{}); err == nil && finished.Content.EightBit {
			sizes(t, fmt.Sprintf("SevenBit(%d)", i), 2, func(r Reserve) ([]byte, error) {
				c, err := SevenBit(t.Context(), finished.Content, r)
				return c.Data, err
			})
		}
		text := strings.ToValidUTF8(strings.ReplaceAll(string(randomText(rng, rng.IntN(60_000)+1)), "\x00", ""), "")
		m := mailer.Message{From: mailer.Address{Email: "a@b.example"}, To: []mailer.Address{{Email: "r@b.example"}}, Text: text}
		if rng.IntN(2) == 0 {
			m.HTML = text + "x"
			m.Attachments = []mailer.Attachment{{Filename: "é", Content: []byte(text)}}
		}
		sizes(t, fmt.Sprintf("Compose(%d)", i), 0, func(r Reserve) ([]byte, error) {
			c, err := Compose(t.Context(), m, Options{Reserve: r})
			if err != nil {
				return nil, err
			}
			return c.Content.Data, nil
		})
	}
}

// TestBase64Lines: text is encoded as if its line ends were CRLF already.
func TestBase64Lines(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for n := range 3000 {
		text := randomText(rng, n*3)
		want := appendBase64([]byte("x"), appendCRLF(nil, text))
		if got := appendBase64Lines([]byte("x"), text); !bytes.Equal(got, want) {
			t.Fatalf("appendBase64Lines(%.200q) = %.200q, want %.200q", text, got, want)
		}
		if got := len(appendCRLF(nil, text)); got != crlfSize(text) {
			t.Fatalf("crlfSize(%.200q) = %d, want %d", text, crlfSize(text), got)
		}
	}
}

// endsAfter is a context that ends when it was asked so many times.
type endsAfter struct {
	context.Context
	left int
}

func (e *endsAfter) Err() error {
	if e.left--; e.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestComposeEnds: composing ends with its context, wherever that is.
func TestComposeEnds(t *testing.T) {
	m := sampleMessage()
	m.Text, m.HTML = strings.Repeat("é", 30_000), strings.Repeat("ü", 30_000)
	for range 20 {
		m.Header = append(m.Header, mailer.Field{Name: "X-A", Value: "b"})
		m.Attachments = append(m.Attachments, mailer.Attachment{Filename: "a", Content: []byte("x")})
	}
	asked := 0
	for ; ; asked++ {
		c, err := Compose(&endsAfter{t.Context(), asked}, m, Options{})
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) || c.Content.Data != nil {
			t.Fatalf("Compose with a context that ends after %d questions = %d octets, %v, want %v", asked, len(c.Content.Data), err, context.Canceled)
		}
	}
	if least := len(m.Header) + 2*len(m.Attachments); asked < least {
		t.Errorf("the context was asked %d times, want at least %d", asked, least)
	}
}
