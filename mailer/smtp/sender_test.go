package smtp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

var relaysFrom = mailer.Address{Name: "Shop", Email: "shop@relay.example"}

// TestForceFrom: a relay with a From of its own gets each message in its form, the same
// octets at each attempt, and its address as reverse-path.
func TestForceFrom(t *testing.T) {
	const eightBit = "From: =?utf-8?q?J=C3=BCrgen?= <ana@web.test>\r\nTo: ü@example.org\r\nMessage-ID: <1@example.com>\r\n\r\ngrüße\r\n"
	all := []string{"PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8"}
	tests := []struct {
		name       string
		path       string
		edit       func(*smtp.Options)
		extensions []string
		message    string
		want       string // outcome
		mail       string // the reverse-path, or the enhanced code of the failure
		header     string
	}{
		{"all", "ana@web.test", nil, all, eightBit, "accepted 250", "shop@relay.example", "From: =?utf-8?q?J=C3=BCrgen?= <shop@relay.example>\r\nReply-To: =?utf-8?q?J=C3=BCrgen?= <ana@web.test>\r\nTo: ü@"},
		{"no extension", "ana@web.test", nil, nil, eightBit, "accepted 250", "shop@relay.example", "From: =?utf-8?q?J=C3=BCrgen?= <shop@relay.example>\r\nReply-To: =?utf-8?q?J=C3=BCrgen?= <ana@web.test>\r\nTo: =?utf-8?"},
		{"null reverse-path", "", nil, all, eightBit, "accepted 250", "", "From: =?utf-8?q?J=C3=BCrgen?= <shop@relay.example>\r\n"},
		{"return path too", "ana@web.test", func(o *smtp.Options) { o.ReturnPath = "bounces@relay.example" }, all, eightBit, "accepted 250", "bounces@relay.example", "From: =?utf-8?q?J=C3=BCrgen?= <shop@relay.example>\r\n"},
		{"return path alone", "ana@web.test", func(o *smtp.Options) { o.ReturnPath, o.ForceFrom = "bounces@relay.example", mailer.Address{} }, all, eightBit, "accepted 250", "bounces@relay.example", "From: =?utf-8?q?J=C3=BCrgen?= <ana@web.test>\r\n"},
		{"null, return path", "", func(o *smtp.Options) { o.ReturnPath = "bounces@relay.example" }, all, eightBit, "accepted 250", "", ""},
		{"the same", "ana@web.test", nil, all, "From: Ana <SHOP@relay.example>\r\n\r\nx\r\n", "accepted 250", "shop@relay.example", "From: Ana <SHOP@relay.example>\r\n\r\n"},
		{"international reverse-path", "ü@web.test", nil, nil, "From: ana@web.test\r\n\r\nx\r\n", "accepted 250", "shop@relay.example", "From: Shop <shop@relay.example>\r\n"},
		{"signed", "ana@web.test", nil, all, "DKIM-Signature: v=1\r\nFrom: ana@web.test\r\n\r\nx\r\n", "permanent mail", "5.6.2", ""},
		{"too large then", "ana@web.test", nil, []string{"SIZE 60"}, "From: ana@web.test\r\n\r\n12345678901234567890\r\n", "permanent mail", "5.3.4", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				extensions := append([]string{"AUTH PLAIN"}, tt.extensions...)
				p := newPoolTest(t, relaytest.Options{TLSExtensions: extensions}, relaytest.Script{".": "451 later then default"}, func(o *smtp.Options) {
					if o.ForceFrom = relaysFrom; tt.edit != nil {
						tt.edit(o)
					}
				})
				header, body, _ := strings.Cut(tt.message, "\r\n\r\n")
				c := mailer.Content{Data: []byte(tt.message), MessageID: "<1@example.com>", EightBit: !mailer.IsASCII(body), UTF8Header: !mailer.IsASCII(header)}
				env := mailer.Envelope{ReversePath: tt.path, ForwardPaths: []string{"b@example.org"}}
				p.relay.Deliver(t.Context(), env, c)
				a := p.relay.Deliver(t.Context(), env, c)
				if got := outcomes(a); got != tt.want {
					t.Errorf("Deliver() = %s, want %s: %v", got, tt.want, a.Results[0].Failure)
				}
				if want := othersPath(tt.mail, tt.path); tt.want == "accepted 250" && a.ReversePath != want {
					t.Errorf("the attempt has the reverse-path %q, want %q", a.ReversePath, want)
				}
				if string(c.Data) != tt.message {
					t.Errorf("the stored octets became %q", c.Data)
				}
				if f := a.Results[0].Failure; f != nil {
					if f.Reply.Enhanced != tt.mail || !errors.Is(f.Err, mailer.ErrCannotTake) || len(p.scripted.Messages()) > 0 {
						t.Errorf("the failure %v is not about this relay, or the relay got %v", f, p.scripted.Messages())
					}
					return
				}
				m := p.scripted.Messages()
				if len(m) != 2 || !bytes.Equal(m[0].Data, m[1].Data) || !strings.HasPrefix(string(m[1].Data), tt.header) || m[1].ReversePath != tt.mail {
					t.Errorf("the relay got %v, want twice %q from %s", m, tt.header, tt.mail)
				}
			})
		})
	}
}

// othersPath is the reverse-path of an attempt: empty where it is that of the envelope.
func othersPath(given, path string) string {
	if given == path {
		return ""
	}
	return given
}

// TestForceFromBehind: the envelope of a message that gets another From goes out behind the
// content of the one before it, as that of any other does.
func TestForceFromBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{cutSent: -1, cutGot: -1}
		p := newWireTest(t, relaytest.Script{"DATA": slowDATA}, w, func(o *smtp.Options) { o.ForceFrom = relaysFrom })
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				a := p.relay.Deliver(t.Context(), envelope("b@example.org"), content("From: ana@web.test\r\n\r\nx\r\n"))
				if got := outcomes(a); got != "accepted 250" {
					t.Errorf("Deliver() = %s: %v", got, a.Results[0].Failure)
				}
			})
			synctest.Wait()
		}
		all.Wait()
		behind := 0
		for _, write := range w.writes {
			if _, next, found := strings.Cut(write, "\r\n.\r\n"); found && strings.HasPrefix(next, "MAIL FROM:<shop@relay.example>") {
				behind++
			}
		}
		if behind != 2 {
			t.Errorf("%d envelopes went behind a content, want 2: %q", behind, w.writes)
		}
		for _, m := range p.scripted.Messages() {
			if m.ReversePath != "shop@relay.example" || !bytes.HasPrefix(m.Data, []byte("From: Shop <shop@relay.example>\r\n")) {
				t.Errorf("the relay got %q from %s", m.Data, m.ReversePath)
			}
		}
	})
}

// signer puts a signature in front of what it signs, which names the length of that.
type signer struct{ err error }

const ourSignature = "DKIM-Signature: ours; l="

func (s signer) Unsigned(_ context.Context, c mailer.Content) (mailer.Content, error) {
	if bytes.HasPrefix(c.Data, []byte(ourSignature)) {
		c.Data = c.Data[bytes.IndexByte(c.Data, '\n')+1:]
	}
	return c, nil
}

func (s signer) Sign(_ context.Context, c mailer.Content) ([]byte, error) {
	return fmt.Appendf(nil, "%s%d\r\n", ourSignature, len(c.Data)), s.err
}

// TestSigner: our own signature goes as it is stored where the message does, and is made
// anew, instead of it, where the message is changed.
func TestSigner(t *testing.T) {
	const message = ourSignature + "0\r\nFrom: shop@relay.example\r\nTo: ü@example.org\r\n\r\nx\r\n"
	const ascii = "From: shop@relay.example\r\nTo: =?utf-8?q?=C3=BC=40example=2Eorg?= :;\r\n\r\nx\r\n"
	for name, tt := range map[string]struct {
		from       string
		extensions []string
		signer     signer
		want, data string
	}{
		"as stored": {"", []string{"SMTPUTF8", "8BITMIME"}, signer{}, "accepted 250", message},
		"same From": {"shop@relay.example", []string{"SMTPUTF8", "8BITMIME"}, signer{}, "accepted 250", message},
		"ASCII":     {"", nil, signer{}, "accepted 250", ourSignature + strconv.Itoa(len(ascii)) + "\r\n" + ascii},
		"From":      {"b@relay.example", nil, signer{}, "accepted 250", ourSignature + "101\r\nFrom: b@relay.example\r\nReply-To: shop@relay.example\r\n" + strings.TrimPrefix(ascii, "From: shop@relay.example\r\n")},
		"no key":    {"", nil, signer{errors.New("no key")}, "transient compose", ""},
		"too large": {"", []string{"SIZE " + strconv.Itoa(len(ascii))}, signer{}, "permanent mail", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPoolTest(t, relaytest.Options{TLSExtensions: append([]string{"AUTH PLAIN"}, tt.extensions...)}, nil, func(o *smtp.Options) {
					o.Signer, o.ForceFrom.Email = tt.signer, tt.from
				})
				a := p.relay.Deliver(t.Context(), envelope("b@example.org"), mailer.Content{Data: []byte(message), UTF8Header: true})
				var data string
				for _, m := range p.scripted.Messages() {
					data += string(m.Data)
				}
				if got := outcomes(a); got != tt.want || data != tt.data {
					t.Errorf("Deliver() = %s (%v), the relay got\n%s\nwant %s\n%s", got, a.Results[0].Failure, data, tt.want, tt.data)
				}
			})
		})
	}
}
