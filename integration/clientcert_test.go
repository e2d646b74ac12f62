package integration

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"mailsidecar/integration/machine"
	"mailsidecar/integration/postfix"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// pairFiles writes a certificate and its key in PEM form.
func pairFiles(t *testing.T, pair tls.Certificate) (cert, key string) {
	t.Helper()
	certPEM, keyPEM, err := relaytest.PairPEM(pair)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "cert.pem", string(certPEM)), writeFile(t, "key.pem", string(keyPEM))
}

// fingerprint is the key of a certificate as Postfix writes it, see postconf(5),
// relay_clientcerts.
func fingerprint(pin smtp.Pin) string {
	octets := make([]string, len(pin))
	for i, octet := range pin {
		octets[i] = strings.ToUpper(hex.EncodeToString([]byte{octet}))
	}
	return strings.Join(octets, ":")
}

// pinnedRelay is a real Postfix with a certificate that is signed by itself. Its first
// further door takes only clients whose certificate the authority has signed, and a login;
// the second takes a known key of the client in place of a login.
func pinnedRelay(t *testing.T) *postfix.Server {
	t.Helper()
	cert, key, err := relaytest.PairPEM(relaytest.SelfSigned.Pair())
	if err != nil {
		t.Fatal(err)
	}
	own := "smtpd_tls_chain_files=" + writeFile(t, "relay.pem", string(key)+string(cert))
	authority := " smtpd_tls_CAfile=" + writeFile(t, "ca.pem", string(relaytest.AuthorityPEM()))
	known := writeFile(t, "known", fingerprint(smtp.PinOf(relaytest.Client().Leaf))+" the app\n")
	const byKey = "permit_tls_clientcerts,reject"
	return postfix.Start(
		t,
		own+authority+" smtpd_tls_req_ccert=yes",
		own+" smtpd_tls_ask_ccert=yes smtpd_tls_fingerprint_digest=sha256 smtpd_sasl_auth_enable=no relay_clientcerts=texthash:"+known+
			" smtpd_relay_restrictions="+byKey+" smtpd_recipient_restrictions="+byKey,
	)
}

// TestPinnedPostfix: a real Postfix whose certificate is signed by itself, and that wants
// one of the client, gets mail as the check advises it. One with another key gets nothing.
func TestPinnedPostfix(t *testing.T) {
	t.Parallel()
	if _, err := binary(); err != nil {
		t.Fatal(err)
	}
	relay := pinnedRelay(t)
	cert, key := pairFiles(t, relaytest.Client())
	base := bridge(t, relay, relay.Doors[0])
	delete(base, "SMTP_TLS_CA_FILE")
	pin := pinOf(relaytest.SelfSigned)
	pinned := environment{"SMTP_TLS_PIN": pin}
	ours := environment{"SMTP_TLS_CERT_FILE": cert, "SMTP_TLS_KEY_FILE": key}
	for _, step := range []struct {
		name string
		env  environment
		code int
		says string
	}{
		{"not pinned", environment{}, 69, "The key seen from here is " + pin},
		{"without our certificate", pinned, 69, "the relay takes only clients with a certificate that it knows, and none is configured"},
		{"as advised", pinned.with(ours), 0, "takes the login on port"},
		{"another key", environment{"SMTP_TLS_PIN": pinOf(relaytest.Good)}.with(ours), 69, "It has the key " + pin},
	} {
		code, out := exitCode(t, command(t, base.with(step.env), "check"))
		if said := strings.Join(strings.Fields(out), " "); code != step.code || !strings.Contains(said, step.says) {
			t.Errorf("%s: check exits %d, want %d and %q\n%s", step.name, code, step.code, step.says, out)
		}
	}
	t.Run("delivered", func(t *testing.T) {
		to := relay.Recipient(t)
		wantStatus(t, serve(t, base.with(pinned).with(ours)).send(t, hello(to)), http.StatusOK)
		if got := relay.Await(t, to, 1)[0]; !strings.Contains(got.Received, "ESMTPSA") {
			t.Errorf("Received = %q, want ESMTPSA", got.Received)
		}
	})
	t.Run("without a login", func(t *testing.T) {
		to := relay.Recipient(t)
		env := bridge(t, relay, relay.Doors[1]).with(pinned).with(ours).with(environment{"SMTP_AUTH": "none"})
		for _, name := range []string{"SMTP_USERNAME", "SMTP_PASSWORD_FILE", "SMTP_TLS_CA_FILE"} {
			delete(env, name)
		}
		wantStatus(t, serve(t, env).send(t, hello(to)), http.StatusOK)
		relay.Await(t, to, 1)
	})
	t.Run("another key", func(t *testing.T) { testOtherKey(t, relay, base.with(ours)) })
}

func pinOf(c relaytest.Certificate) string { return smtp.PinOf(c.Leaf()).String() }

// disconnected is what Postfix logs at the end of a connection, with the commands that came.
var disconnected = regexp.MustCompile(`disconnect from \S+ (.*)`)

// testOtherKey: where the key is another one, TLS ends in the handshake. Neither a login nor
// mail is tried, whatever else the relay offers.
func testOtherKey(t *testing.T, relay *postfix.Server, env environment) {
	to, before := relay.Recipient(t), len(relay.Log())
	s := serve(t, env.with(environment{"SMTP_TLS_PIN": pinOf(relaytest.Good), "SMTP_USERNAME": "nobody-saw-this@example.com"}))
	a := s.send(t, hello(to))
	wantStatus(t, a, http.StatusServiceUnavailable)
	seen := "It has the key " + pinOf(relaytest.SelfSigned)
	machine.Await(t, "the key that was seen in the log", func() bool { return strings.Contains(s.log.String(), seen) })
	var ends [][]string
	machine.Await(t, "end of the connection", func() bool {
		ends = disconnected.FindAllStringSubmatch(relay.Log()[before:], -1)
		return len(ends) > 0
	})
	for _, end := range ends {
		if commands := strings.Join(strings.Fields(end[1]), " "); commands != "ehlo=1 starttls=0/1 commands=1/2" {
			t.Errorf("Postfix got %q, want EHLO and STARTTLS alone", commands)
		}
	}
	if strings.Contains(relay.Log()[before:], "nobody-saw-this") || len(relay.Mailbox(t, to)) > 0 {
		t.Error("Postfix saw the user name, or got mail")
	}
}

// TestPinByOpenssl: the command in docs/operating.md, for the operator of the relay, prints
// the pin that the check shows.
func TestPinByOpenssl(t *testing.T) {
	t.Parallel()
	machine.Needs(t, "scripts/install-test-deps", "openssl", "base64")
	doc, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```sh\n(openssl x509 -in relay.pem.*?)```").FindSubmatch(doc)
	if found == nil {
		t.Fatal("docs/operating.md has no command that prints the pin of relay.pem")
	}
	cert, _ := pairFiles(t, relaytest.SelfSigned.Pair())
	out, err := exec.Command("sh", "-c", strings.ReplaceAll(string(found[1]), "relay.pem", cert)).Output()
	if got, want := "sha256/"+string(bytes.TrimSpace(out)), pinOf(relaytest.SelfSigned); err != nil || got != want {
		t.Errorf("the command prints %s, %v, want %s", got, err, want)
	}
}

// TestMismatchedPair: a client certificate with another key is a wrong setting, of which the
// start and the check tell what to do.
func TestMismatchedPair(t *testing.T) {
	t.Parallel()
	cert, _ := pairFiles(t, relaytest.NewClient())
	_, key := pairFiles(t, relaytest.NewClient())
	env := environment{
		"SMTP_HOST": "localhost", "SMTP_AUTH": "none", "SMTP_TLS_CERT_FILE": cert, "SMTP_TLS_KEY_FILE": key,
		"MAILSIDECAR_ADDR": freeAddr(t), "MAILSIDECAR_DATA_DIR": t.TempDir(),
	}
	for _, name := range []string{"serve", "check"} {
		code, out := exitCode(t, command(t, env, name))
		for _, want := range []string{"SMTP_TLS_KEY_FILE names", "its key does not belong to the certificate", "name the private key that belongs to the certificate, in PEM form"} {
			if code != 78 || !strings.Contains(out, want) {
				t.Errorf("%s exits %d, want 78 and %q:\n%s", name, code, want, out)
			}
		}
	}
}
