package service

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/config"
	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
)

// pairFiles are a certificate and its key on disk.
type pairFiles struct {
	t         *testing.T
	cert, key string
}

func newPairFiles(t *testing.T) pairFiles {
	dir := t.TempDir()
	return pairFiles{t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

func (f pairFiles) write(path string, data []byte) {
	f.t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// clientPair is a new certificate of a client, also in PEM form. padding changes the size of
// the files, so that they count as changed however coarse the clock of the disk is.
func clientPair(t *testing.T, padding int) (leaf *x509.Certificate, cert, key []byte) {
	t.Helper()
	pair := relaytest.NewClient()
	cert, key, err := relaytest.PairPEM(pair)
	if err != nil {
		t.Fatal(err)
	}
	blanks := bytes.Repeat([]byte("\n"), padding)
	return pair.Leaf, append(cert, blanks...), append(key, blanks...)
}

// TestClientCertificateRenewed: a client certificate that is renewed on disk is shown on the
// next connection, without a restart. While the new pair is not there as a whole, the old
// one is shown, and the log says so once.
func TestClientCertificateRenewed(t *testing.T) {
	files := newPairFiles(t)
	first, firstCert, firstKey := clientPair(t, 0)
	second, secondCert, secondKey := clientPair(t, 100)
	files.write(files.cert, firstCert)
	files.write(files.key, firstKey)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		scripted := relaytest.New(t, relaytest.Options{ClientCAs: relaytest.RootCAs()}, nil)
		relay := clientCertRelay(t, files, scripted, &log)
		shows := func(when string, want *x509.Certificate) {
			t.Helper()
			time.Sleep(2 * time.Second) // the files are looked at once a second
			relay.Deliver(t.Context(), mailer.Envelope{ReversePath: "a@example.com", ForwardPaths: []string{"b@example.org"}}, mailer.Content{Data: []byte("Subject: x\r\n\r\n")})
			if messages := scripted.Messages(); len(messages) == 0 || !messages[len(messages)-1].Client.Equal(want) {
				t.Errorf("%s: %d messages, the last with another certificate than %v", when, len(messages), want.PublicKey)
			}
		}
		logged := func(when, text string, want int) {
			t.Helper()
			if got := strings.Count(log.String(), text); got != want {
				t.Errorf("%s: %q is logged %d times, want %d:\n%s", when, text, got, want, log.String())
			}
		}
		shows("at the start", first)
		files.write(files.cert, secondCert)
		shows("the certificate without its key", first)
		shows("still without its key", first)
		logged("without its key", `msg="new certificate not read" file=`+files.cert, 1)
		files.write(files.key, secondKey)
		shows("renewed", second)
		logged("renewed", `msg="new certificate" file=`+files.cert, 1)
		files.write(files.cert, firstCert[:len(firstCert)/2])
		shows("half written", second)
		logged("half written", `msg="new certificate not read"`, 2)
		if err := os.Remove(files.key); err != nil {
			t.Fatal(err)
		}
		shows("removed", second)
		files.write(files.cert, firstCert)
		files.write(files.key, firstKey)
		shows("renewed again", first)
		if got := len(scripted.Messages()); got != 7 {
			t.Errorf("%d messages, want 7", got)
		}
	})
}

// clientCertRelay is a relay of the service that shows the certificate in the files, and
// opens a connection for each message.
func clientCertRelay(t *testing.T, files pairFiles, scripted *relaytest.Relay, log *bytes.Buffer) Relay {
	t.Helper()
	c := config.Default().Relays[0]
	c.Host, c.Ports, c.Auth, c.RootCAs, c.MessagesPerConnection = relaytest.Host, config.Ladder{{Port: 587}}, "none", relaytest.RootCAs(), 1
	c.TLSCertFile, c.TLSKeyFile = files.cert, files.key
	o := relayOptions(c, "relay", slog.New(slog.NewTextHandler(log, nil)))
	o.Dial = (&relaytest.Network{Port: map[int]any{587: scripted}}).Dial
	relay, err := newRelay(c, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.Close)
	return relay
}

// TestClientCertificateUnfit: files that were changed after the settings were read name their
// variable, too.
func TestClientCertificateUnfit(t *testing.T) {
	files := newPairFiles(t)
	_, cert, _ := clientPair(t, 0)
	_, _, key := clientPair(t, 0)
	files.write(files.cert, cert)
	files.write(files.key, key)
	c := config.Relay{Number: 2, Host: relaytest.Host, Ports: config.Ladder{{Port: 587}}, TLSCertFile: files.cert, TLSKeyFile: files.key}
	_, err := NewRelays([]config.Relay{c}, RelayOptions{})
	if e, ok := errors.AsType[*ConfigError](err); !ok || e.Setting != "SMTP2_TLS_CERT_FILE" {
		t.Errorf("NewRelays with a key of another certificate = %v, want a ConfigError of SMTP2_TLS_CERT_FILE", err)
	}
}

// TestTLSOptions: what the settings say of TLS reaches the relay.
func TestTLSOptions(t *testing.T) {
	pins := config.Pins{{1}, {2}}
	for version, want := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		o := relayOptions(config.Relay{TLSMinVersion: version, TLSPin: pins}, "relay", nil)
		if o.MinTLS != want || len(o.Pins) != len(pins) || o.Pins[0] != pins[0] || o.Pins[1] != pins[1] {
			t.Errorf("relayOptions with %s has %x and the pins %v", version, o.MinTLS, o.Pins)
		}
	}
}
