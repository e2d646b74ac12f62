package smtp_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/compose"
	"mailsidecar/mailer/dkim"
	"mailsidecar/mailer/dkim/dkimtest"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// TestDKIM: whatever form a relay needs, what arrives there is signed for its From, with the
// same octets at each attempt.
func TestDKIM(t *testing.T) {
	entries := append(dkimtest.Entries(t, "web.test"), dkimtest.Entry(t, "relay.example", "s", dkimtest.Ed25519(t)))
	all := []string{"PIPELINING", "8BITMIME", "SMTPUTF8"}
	force := func(o *smtp.Options) { o.ForceFrom = relaysFrom }
	const (
		eightBit = "From: Jürgen <ana@web.test>\r\nTo: b@example.org\r\nSubject: Größe\r\n\r\n.grüße  \r\n\r\n..\r\n \r\n\r\n"
		utf8     = "From: Jürgen <ana@web.test>\r\nTo: ü@example.org\r\nSubject: Größe\r\n\r\ngrüße\r\n"
		folded   = "From: ana@web.test\r\nTo: b@example.org\r\nReferences: <1@a>\r\n\t<2@a>  \r\nList-Post: NO\r\nList-Post: NO\r\nX: \r\n y\r\n\r\n"
		others   = "From: ana@other.test\r\nTo: b@example.org\r\n\r\nx\r\n"
		foreign  = "DKIM-Signature: v=1; d=other.test; h=from; b=x\r\nFrom: ana@web.test\r\nTo: ü@example.org\r\nDate: Sat, 01 Jan 2000 00:00:00 +0000\r\nMessage-ID: <1@web.test>\r\n\r\nx\r\n"
	)
	tests := []struct {
		name       string
		edit       func(*smtp.Options)
		extensions []string
		message    string
		want       []string // the signing domains; none where it arrives as it is stored
		same       bool     // it arrives as it is stored
		outcome    string
	}{
		{"all extensions", nil, all, eightBit, []string{"web.test", "web.test"}, true, "accepted 250"},
		{"no 8BITMIME", nil, nil, eightBit, []string{"web.test", "web.test"}, true, "accepted 250"},
		{"SMTPUTF8", nil, all, utf8, []string{"web.test", "web.test"}, true, "accepted 250"},
		{"no SMTPUTF8", nil, nil, utf8, []string{"web.test", "web.test"}, false, "accepted 250"},
		{"folded", nil, nil, folded, []string{"web.test", "web.test"}, true, "accepted 250"},
		{"another From", force, all, utf8, []string{"relay.example"}, false, "accepted 250"},
		{"another From, no extension", force, nil, utf8, []string{"relay.example"}, false, "accepted 250"},
		{"unsigned before", force, nil, others, []string{"relay.example"}, false, "accepted 250"},
		{"unsigned", nil, nil, others, nil, true, "accepted 250"},
		{"signed by others", nil, nil, foreign, nil, true, "permanent mail"},
		{"signed by others, another From", force, all, foreign, nil, true, "permanent mail"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := dkim.NewSigner(entries)
				c, err := compose.Finish(t.Context(), []byte(tt.message), compose.FinishOptions{
					Options: compose.Options{Signer: s}, From: mailer.Address{Email: "ana@web.test"}, To: []mailer.Address{{Email: "b@example.org"}},
				})
				if err != nil {
					t.Fatal(err)
				}
				stored := bytes.Clone(c.Content.Data)
				p := newPoolTest(t, relaytest.Options{TLSExtensions: append([]string{"AUTH PLAIN"}, tt.extensions...)}, relaytest.Script{".": "451 later then default"}, func(o *smtp.Options) {
					if o.Signer = s.Resigner(); tt.edit != nil {
						tt.edit(o)
					}
				})
				p.relay.Deliver(t.Context(), c.Envelope, c.Content)
				time.Sleep(24 * time.Hour)
				a := p.relay.Deliver(t.Context(), c.Envelope, c.Content)
				if got := outcomes(a); got != tt.outcome || !bytes.Equal(c.Content.Data, stored) {
					t.Fatalf("Deliver() = %s, want %s: %v; or the stored octets became others", got, tt.outcome, a.Results[0].Failure)
				}
				if !strings.HasPrefix(tt.outcome, "accepted") {
					return
				}
				m := p.scripted.Messages()
				if len(m) != 2 || !bytes.Equal(m[0].Data, m[1].Data) || bytes.Equal(m[1].Data, stored) != tt.same {
					t.Fatalf("the relay got %v", m)
				}
				domains, err := dkimtest.Verify(m[1].Data, entries)
				if err != nil || !slices.Equal(domains, tt.want) {
					t.Errorf("the verifier says %q, %v, want %q of\n%s", domains, err, tt.want, m[1].Data)
				}
			})
		})
	}
}

// noSigner cannot sign.
type noSigner struct{ smtp.Signer }

func (noSigner) Unsigned(_ context.Context, c mailer.Content) (mailer.Content, error) { return c, nil }

func (noSigner) Sign(context.Context, mailer.Content) ([]byte, error) {
	return nil, errors.New("no key")
}

// TestUnsignedBlamesNoConnection: that a message cannot be signed is about the message. It
// waits, and no connection or relay is to blame, however many messages meet it.
func TestUnsignedBlamesNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPoolTest(t, relaytest.Options{}, nil, func(o *smtp.Options) { o.Signer, o.ForceFrom = noSigner{}, relaysFrom })
		for range 5 {
			f := p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText)).Results[0].Failure
			if f == nil || f.Class != mailer.ClassTransient || f.Scope() != mailer.ScopeMessage || f.EnhancedCode() != "4.7.5" {
				t.Fatalf("the failure is %+v, want a transient one about the message", f)
			}
		}
	})
}
