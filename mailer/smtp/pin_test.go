package smtp_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// TestPins: the relay's own key is enough, whoever has signed the certificate; that of an
// authority counts where the certificate verifies by it, for this name. No login is tried
// at a relay with another key.
func TestPins(t *testing.T) {
	other := smtp.PinOf(relaytest.Client().Leaf)
	authority := smtp.PinOf(relaytest.Authority())
	for _, tt := range []struct {
		name        string
		certificate relaytest.Certificate
		pins        []smtp.Pin
		taken       bool
	}{
		{"own key", relaytest.Good, []smtp.Pin{smtp.PinOf(relaytest.Good.Leaf())}, true},
		{"the second pin", relaytest.Good, []smtp.Pin{other, smtp.PinOf(relaytest.Good.Leaf())}, true},
		{"authority", relaytest.Good, []smtp.Pin{authority}, true},
		{"another key", relaytest.Good, []smtp.Pin{other}, false},
		{"the certificate's fingerprint", relaytest.Good, []smtp.Pin{other, sha256.Sum256(relaytest.Good.Leaf().Raw)}, false},
		{"signed by itself", relaytest.SelfSigned, []smtp.Pin{smtp.PinOf(relaytest.SelfSigned.Leaf())}, true},
		{"signed by itself, another key", relaytest.SelfSigned, []smtp.Pin{other}, false},
		{"unknown authority", relaytest.UnknownCA, []smtp.Pin{smtp.PinOf(relaytest.UnknownCA.Leaf())}, true},
		{"expired", relaytest.Expired, []smtp.Pin{smtp.PinOf(relaytest.Expired.Leaf())}, true},
		{"wrong name", relaytest.WrongName, []smtp.Pin{smtp.PinOf(relaytest.WrongName.Leaf())}, true},
		{"wrong name, by the authority", relaytest.WrongName, []smtp.Pin{authority}, false},
		{"expired, by the authority", relaytest.Expired, []smtp.Pin{authority}, false},
		{"an authority that is only sent", relaytest.IssuedByOwner, pinsOf(relaytest.IssuedByOwner.Pair().Certificate[1:]), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPoolTest(t, relaytest.Options{Certificate: tt.certificate}, nil, func(o *smtp.Options) { o.Pins = tt.pins })
				a := p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
				f := a.Results[0].Failure
				if got := outcomes(a); tt.taken != (got == "accepted 250") {
					t.Errorf("Deliver() = %s: %v", got, f)
				}
				if tt.taken {
					return
				}
				pin, ok := errors.AsType[*smtp.PinError](f.Err)
				if !ok || pin.Seen != smtp.PinOf(tt.certificate.Leaf()) || smtp.ProblemOf(f) != smtp.ProblemPin || p.scripted.Said("AUTH") > 0 {
					t.Errorf("the failure is %v (%v), the relay got %v", f, f.Err, p.scripted.Commands())
				}
				if told := strings.Contains(f.Error(), "SMTP_TLS_PIN names the fingerprint of the relay's certificate"); told != (tt.name == "the certificate's fingerprint") {
					t.Errorf("%s: the failure is %v", tt.name, f)
				}
			})
		})
	}
}

func pinsOf(chain [][]byte) []smtp.Pin {
	var pins []smtp.Pin
	for _, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			panic(err)
		}
		pins = append(pins, smtp.PinOf(cert))
	}
	return pins
}

// TestClientCertificate: a relay that asks for our certificate gets it, anew in each
// handshake; without one the failure says that it is wanted.
func TestClientCertificate(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, pair := range []*tls.Certificate{nil, new(relaytest.Client()), new(relaytest.UnknownCA.Pair())} {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				p := newPoolTest(t, relaytest.Options{ClientCAs: relaytest.RootCAs(), MaxTLS: version}, nil, func(o *smtp.Options) {
					if pair != nil {
						o.ClientCertificate = func() (*tls.Certificate, error) { calls++; return pair, nil }
					}
				})
				for range 2 {
					a := p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
					f := a.Results[0].Failure
					good := pair != nil && slices.Equal(pair.Certificate[0], relaytest.Client().Certificate[0])
					if good != (f == nil) || f != nil && smtp.ProblemOf(f) != smtp.ProblemClientCert {
						t.Errorf("%s: Deliver() = %s (%v), good %v", tls.VersionName(version), outcomes(a), f, good)
					}
				}
				if pair != nil && calls == 0 {
					t.Error("the certificate was not asked for")
				}
			})
		}
	}
}

// slowWriter is a connection whose writes take a second to set out.
type slowWriter struct{ net.Conn }

func (c slowWriter) Write(data []byte) (int, error) {
	time.Sleep(time.Second)
	return c.Conn.Write(data)
}

// TestClientCertificateWantedEarly: the reason is known also where the relay has closed the
// connection before our first command after the handshake.
func TestClientCertificateWantedEarly(t *testing.T) {
	for _, implicit := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newPoolTest(t, relaytest.Options{ClientCAs: relaytest.RootCAs(), Implicit: implicit}, nil, func(o *smtp.Options) {
				o.Ladder = []mailer.Rung{{Port: 587, Implicit: implicit}}
				dial := o.Dial
				o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := dial(ctx, network, addr)
					return slowWriter{c}, err
				}
			})
			f := p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText)).Results[0].Failure
			if f == nil || smtp.ProblemOf(f) != smtp.ProblemClientCert {
				t.Errorf("implicit TLS %v: the failure is %v (%v), want that a certificate is wanted", implicit, f, f.Err)
			}
		})
	}
}
