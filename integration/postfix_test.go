// Package integration runs the product, as a finished binary, against real
// servers.
//
// The tests skip what the machine lacks and say so; with CI=true they fail
// instead. "make test" installs what they need.
package integration

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/http"
	"net/mail"
	"strconv"
	"strings"
	"testing"

	"mailsidecar/integration/machine"
	"mailsidecar/integration/mta"
	"mailsidecar/integration/postfix"
	"mailsidecar/mailer/relaytest"
)

// TestPostfix hands mail to a real Postfix that requires TLS and AUTH, and
// reads it back from the mailboxes. One instance serves all: each test has its
// own recipients.
func TestPostfix(t *testing.T) {
	t.Parallel()
	if _, err := binary(); err != nil {
		t.Fatal(err)
	}
	relay := postfix.Start(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *postfix.Server)
	}{
		{"refused port", testRefusedPort},
		{"dropped port", testDroppedPort},
		{"implicit TLS", testImplicitTLS},
		{"composed", testComposed},
		{"finished", testFinished},
		{"seven bit", testSevenBit},
		{"mechanisms", testMechanisms},
		{"wrong password", testWrongPassword},
		{"unknown authority", testUnknownAuthority},
		{"recipients", testRecipients},
		{"odd addresses", testOddAddresses},
		{"too large", testTooLarge},
		{"many recipients", testManyRecipients},
		{"check", testCheck},
		{"send", testSend},
		{"queued", testQueued},
		{"queued and waited for", testQueuedWait},
		{"killed", testKilled},
		{"backlog", testBacklog},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, relay) })
	}
}

// realRelay is a mail server of package postfix or exim.
type realRelay interface {
	Account() (username, password, caFile string)
	Recipient(t *testing.T) string
	Await(t *testing.T, recipient string, n int) []mta.Delivered
	Mailbox(t *testing.T, recipient string) []mta.Delivered
	Log() string
}

// bridge is the configuration for one relay without a queue. A port is an int,
// or a string with a TLS mode.
func bridge(t *testing.T, relay realRelay, ports ...any) environment {
	t.Helper()
	username, password, caFile := relay.Account()
	ladder := make([]string, len(ports))
	for i, port := range ports {
		ladder[i] = fmt.Sprint(port)
	}
	return environment{
		"SMTP_HOST":          "localhost",
		"SMTP_PORTS":         strings.Join(ladder, ","),
		"SMTP_USERNAME":      username,
		"SMTP_PASSWORD_FILE": writeFile(t, "password", password+"\n"),
		"SMTP_TLS_CA_FILE":   caFile,
		"SMTP_HELO":          "app.example.com",
		"MAILSIDECAR_QUEUE":  "none",
	}
}

func hello(recipients ...string) map[string]any {
	return map[string]any{
		"from": "Shop <shop@example.com>", "to": recipients, "subject": "Hello", "text": "It works.\n",
	}
}

// testRefusedPort is the main job: the first port is dead, the next one serves.
func testRefusedPort(t *testing.T, relay *postfix.Server) {
	to := relay.Recipient(t)
	s := serve(t, bridge(t, relay, machine.FreePort(t), relay.Submission))
	a := s.send(t, hello(to))
	wantStatus(t, a, http.StatusOK)
	if r := a.Recipients[0]; r.State != "delivered" || r.Port != relay.Submission || r.ReplyCode != 250 {
		t.Errorf("recipient = %+v, want delivered with 250 by port %d", r, relay.Submission)
	}
	got := relay.Await(t, to, 1)[0]
	if got.ReturnPath != "shop@example.com" {
		t.Errorf("Return-Path = %q, want shop@example.com", got.ReturnPath)
	}
	// "ESMTPSA" is Postfix's word that TLS and AUTH were used (RFC 3848).
	if !strings.Contains(got.Received, "ESMTPSA") || !strings.Contains(got.Received, "app.example.com") {
		t.Errorf("Received = %q, want ESMTPSA from app.example.com", got.Received)
	}
	if id := message(t, got.Data).Header.Get("Message-Id"); id != a.MessageID || id == "" {
		t.Errorf("Message-ID = %q, want %q as answered", id, a.MessageID)
	}
}

// testDroppedPort: a firewall that drops packets does not cost a message the time
// that a dial may take (15 s): within less the server itself gives up a request.
func testDroppedPort(t *testing.T, relay *postfix.Server) {
	to := relay.Recipient(t)
	s := serve(t, bridge(t, relay, relaytest.BlackHolePort(t), relay.Submission).with(environment{
		"MAILSIDECAR_REQUEST_TIMEOUT": "10s",
	}))
	for range 2 {
		a := s.send(t, hello(to))
		wantStatus(t, a, http.StatusOK)
		if r := a.Recipients[0]; r.Port != relay.Submission {
			t.Errorf("recipient = %+v, want delivered by port %d", r, relay.Submission)
		}
	}
	relay.Await(t, to, 2)
}

func testImplicitTLS(t *testing.T, relay *postfix.Server) {
	to := relay.Recipient(t)
	s := serve(t, bridge(t, relay, strconv.Itoa(relay.Submissions)+"/tls"))
	wantStatus(t, s.send(t, hello(to)), http.StatusOK)
	relay.Await(t, to, 1)
}

// testComposed checks what a mail program would show of a message that was
// posted as JSON.
func testComposed(t *testing.T, relay *postfix.Server) {
	to, hidden := relay.Recipient(t), relay.Recipient(t)
	s := serve(t, bridge(t, relay, relay.Submission))
	const subject = "Grüße aus Łódź 📮, und zwar so viele, dass das Feld gefaltet werden muss"
	text := ".dot\n..dots\n.\nFrom here\ntrailing blanks  \nŽluťoučký kůň\n" + strings.Repeat("long ", 600) + "\n"
	picture := make([]byte, 200_000)
	_, _ = rand.Read(picture)

	m := hello(to)
	m["subject"], m["text"], m["html"] = subject, text, "<p>Žluťoučký <img src=\"cid:logo\"></p>"
	m["bcc"] = hidden
	m["attachments"] = []map[string]any{
		{"filename": "přehled \"2026\".bin", "content": base64.StdEncoding.EncodeToString(picture)},
		{"filename": "logo.png", "content": base64.StdEncoding.EncodeToString(picture[:100]), "content_id": "logo"},
	}
	wantStatus(t, s.send(t, m), http.StatusOK)

	data := relay.Await(t, to, 1)[0].Data
	got := message(t, data)
	if decoded, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("Subject")); err != nil || decoded != subject {
		t.Errorf("Subject = %q (%v), want %q", decoded, err, subject)
	}
	parts := leaves(t, got.Header.Get("Content-Type"), got.Header.Get("Content-Transfer-Encoding"), got.Body)
	if body := parts["text/plain"]; string(body.data) != crlf(text) {
		t.Errorf("text/plain = %q, want %q", body.data, crlf(text))
	}
	if file := parts["přehled \"2026\".bin"]; !bytes.Equal(file.data, picture) {
		t.Errorf("attachment has %d octets, other than the %d sent; parts: %v", len(file.data), len(picture), keys(parts))
	}
	if logo := parts["logo.png"]; !bytes.Equal(logo.data, picture[:100]) || logo.contentID != "<logo>" {
		t.Errorf("inline part has %d octets and Content-ID %q, want 100 and <logo>", len(logo.data), logo.contentID)
	}
	if other := relay.Await(t, hidden, 1)[0].Data; !bytes.Equal(other, data) {
		t.Error("the Bcc recipient got another message")
	}
	if bytes.Contains(data, []byte(hidden)) {
		t.Error("the message names its Bcc recipient")
	}
}

// finished has everything that can go wrong on the wire: leading dots, a line
// of 998 octets, 8-bit text, trailing blanks, an unusual order of fields.
var finished = crlf(`Received: from app by shop
X-First: 1
Subject: =?utf-8?q?Z=C3=BCrich?=
To: someone@example.org
DATE: Tue, 03 Nov 2026 10:00:00 +0100
Message-ID: <finished@example.com>
From: "Shop, Inc." <shop@example.com>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

.one dot
..two dots
.
` + strings.Repeat("x", 998) + `
Žluťoučký kůň, trailing blanks  	
From the start of a line

last line
`)

// testFinished checks that a finished message arrives octet by octet, except
// for the field that must not be seen.
func testFinished(t *testing.T, relay *postfix.Server) {
	to := relay.Recipient(t)
	s := serve(t, bridge(t, relay, relay.Submission))
	posted := strings.Replace(finished, "X-First", "Bcc: hidden@example.org,\r\n hidden2@example.org\r\nX-First", 1)
	a := s.post(t, "message/rfc822", []byte(posted), http.Header{
		"Envelope-From": {"bounces@example.com"}, "Envelope-To": {to},
	})
	wantStatus(t, a, http.StatusOK)
	got := relay.Await(t, to, 1)[0]
	if string(got.Data) != finished {
		t.Errorf("delivered:\n%q\nwant:\n%q", got.Data, finished)
	}
	if got.ReturnPath != "bounces@example.com" {
		t.Errorf("Return-Path = %q, want bounces@example.com", got.ReturnPath)
	}

	a = s.post(t, "message/rfc822", []byte(finished), http.Header{"Envelope-From": {"<>"}, "Envelope-To": {to}})
	wantStatus(t, a, http.StatusOK)
	relay.Await(t, to, 2)
	for _, got := range relay.Mailbox(t, to) {
		if got.ReturnPath == "" {
			return
		}
	}
	t.Error("no message has the null reverse-path")
}

// testSevenBit: for a relay without 8BITMIME the body is encoded, and a reader sees
// the same text.
func testSevenBit(t *testing.T, relay *postfix.Server) {
	to := relay.Recipient(t)
	s := serve(t, bridge(t, relay, relay.SevenBit))
	a := s.post(t, "message/rfc822", []byte(finished), http.Header{
		"Envelope-From": {"shop@example.com"}, "Envelope-To": {to},
	})
	wantStatus(t, a, http.StatusOK)
	data := relay.Await(t, to, 1)[0].Data
	if i := bytes.IndexFunc(data, func(r rune) bool { return r > 127 }); i >= 0 {
		t.Errorf("8-bit octet at %d of a message for a relay without 8BITMIME", i)
	}
	got := message(t, data)
	parts := leaves(t, got.Header.Get("Content-Type"), got.Header.Get("Content-Transfer-Encoding"), got.Body)
	_, want, _ := strings.Cut(finished, "\r\n\r\n")
	if body := parts["text/plain"]; string(body.data) != want {
		t.Errorf("body decodes to %q, want %q", body.data, want)
	}
}

func testMechanisms(t *testing.T, relay *postfix.Server) {
	for _, mechanism := range []string{"auto", "plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256"} {
		t.Run(mechanism, func(t *testing.T) {
			to := relay.Recipient(t)
			env := bridge(t, relay, relay.Submission)
			env["SMTP_AUTH"] = mechanism
			wantStatus(t, serve(t, env).send(t, hello(to)), http.StatusOK)
			relay.Await(t, to, 1)
		})
	}
}

// testWrongPassword: the mail is not at fault, and the password is in no log.
func testWrongPassword(t *testing.T, relay *postfix.Server) {
	to := relay.Recipient(t)
	env := bridge(t, relay, relay.Submission)
	env["SMTP_PASSWORD_FILE"] = writeFile(t, "password", "not-the-password")
	s := serve(t, env)
	a := s.send(t, hello(to))
	wantStatus(t, a, http.StatusServiceUnavailable)
	if a.Code != "relay_unreachable" || !a.Retryable {
		t.Errorf("problem = %s, retryable %t, want relay_unreachable, retryable", a.Code, a.Retryable)
	}
	for what, text := range map[string]string{"answer": a.Body, "log": s.log.String()} {
		for _, secret := range []string{"not-the-password", base64.StdEncoding.EncodeToString([]byte("not-the-password"))} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s shows the password", what)
			}
		}
	}
	if n := len(relay.Mailbox(t, to)); n != 0 {
		t.Errorf("%d messages delivered", n)
	}
}

// testUnknownAuthority: a certificate that does not verify gets neither
// credentials nor mail.
func testUnknownAuthority(t *testing.T, relay *postfix.Server) {
	to := relay.Recipient(t)
	env := bridge(t, relay, relay.Submission, relay.SevenBit)
	delete(env, "SMTP_TLS_CA_FILE")
	env["SMTP_USERNAME"] = "nobody-saw-this@example.com"
	wantStatus(t, serve(t, env).send(t, hello(to)), http.StatusServiceUnavailable)
	if strings.Contains(relay.Log(), "nobody-saw-this") {
		t.Error("Postfix saw the user name")
	}
}

// testRecipients: recipients fail one by one, with Postfix's own words.
func testRecipients(t *testing.T, relay *postfix.Server) {
	s := serve(t, bridge(t, relay, relay.Submission))
	unknown := "unknown@" + postfix.Domain
	t.Run("unknown", func(t *testing.T) {
		a := s.send(t, hello(unknown))
		wantStatus(t, a, http.StatusUnprocessableEntity)
		if a.Code != "rejected" || a.Retryable {
			t.Errorf("problem = %s, retryable %t, want rejected, not retryable", a.Code, a.Retryable)
		}
		r := a.Recipients[0]
		if r.State != "bounced" || r.ReplyCode != 550 || r.EnhancedCode != "5.1.1" ||
			!strings.Contains(r.Text, "User unknown in virtual mailbox table") {
			t.Errorf("recipient = %+v, want bounced with Postfix's 550 5.1.1", r)
		}
	})
	t.Run("busy", func(t *testing.T) {
		a := s.send(t, hello(postfix.Busy))
		wantStatus(t, a, http.StatusBadGateway)
		if r := a.Recipients[0]; !a.Retryable || r.ReplyCode != 450 || r.EnhancedCode != "4.2.1" {
			t.Errorf("recipient = %+v, retryable %t, want 450 4.2.1, retryable", r, a.Retryable)
		}
	})
	t.Run("one of each", func(t *testing.T) {
		to := relay.Recipient(t)
		a := s.send(t, hello(unknown, to, postfix.Busy))
		wantStatus(t, a, http.StatusOK)
		for recipient, want := range map[string]string{unknown: "bounced", to: "delivered", postfix.Busy: "deferred"} {
			if got := a.state(recipient); got != want {
				t.Errorf("state of %s = %s, want %s", recipient, got, want)
			}
		}
		relay.Await(t, to, 1)
	})
}

// testOddAddresses: Postfix takes them as they are, and the others get their mail. As
// reverse-path they go in quotes, which Postfix takes off.
func testOddAddresses(t *testing.T, relay *postfix.Server) {
	to := append([]string{relay.Recipient(t)}, postfix.Odd...)
	s := serve(t, bridge(t, relay, relay.Submission))
	m := hello(to...)
	m["return_path"] = "bounce..1@" + postfix.Domain
	a := s.send(t, m)
	wantStatus(t, a, http.StatusOK)
	for _, recipient := range to {
		if got := a.state(recipient); got != "delivered" {
			t.Errorf("state of %s = %s, want delivered", recipient, got)
		}
		if got := relay.Await(t, recipient, 1)[0].ReturnPath; got != `"bounce..1"@`+postfix.Domain && got != "bounce..1@"+postfix.Domain {
			t.Errorf("Return-Path at %s = %q", recipient, got)
		}
	}
}

// testTooLarge: a message over the size that the relay announced is not sent.
func testTooLarge(t *testing.T, relay *postfix.Server) {
	s := serve(t, bridge(t, relay, relay.Submission))
	m := hello(relay.Recipient(t))
	m["text"] = strings.Repeat("0123456789012345678901234567890123456789\n", postfix.SizeLimit/40)
	a := s.send(t, m)
	wantStatus(t, a, http.StatusUnprocessableEntity)
	if strings.Contains(relay.Log(), "message file too big") || strings.Contains(relay.Log(), "Message size exceeds") {
		t.Error("Postfix was sent what it had announced not to take")
	}
}

// testManyRecipients: more recipients than go into one transaction.
func testManyRecipients(t *testing.T, relay *postfix.Server) {
	env := bridge(t, relay, relay.Submission)
	env["SMTP_MAX_RECIPIENTS"] = "3"
	var to []string
	for range 8 {
		to = append(to, relay.Recipient(t))
	}
	wantStatus(t, serve(t, env).send(t, hello(to...)), http.StatusOK)
	for _, recipient := range to {
		relay.Await(t, recipient, 1)
	}
}

// testCheck: the table of ports, from a real relay.
func testCheck(t *testing.T, relay *postfix.Server) {
	dead := machine.FreePort(t)
	env := bridge(t, relay, dead, relay.Submission, strconv.Itoa(relay.Submissions)+"/tls")
	code, out := exitCode(t, command(t, env, "check", "--json"))
	if code != 0 {
		t.Fatalf("check exits %d, want 0\n%s", code, out)
	}
	var got struct {
		Relays []struct {
			OK    bool
			Rungs []struct {
				Port      int
				TCP, Auth string
				TLS       *struct{ Version string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Relays) != 1 || len(got.Relays[0].Rungs) != 3 {
		t.Fatalf("check --json: %v\n%s", err, out)
	}
	r := got.Relays[0]
	if !r.OK || r.Rungs[0].TCP != "refused" || r.Rungs[1].Auth != "accepted" || r.Rungs[2].TLS == nil || r.Rungs[2].TLS.Version != "TLS 1.3" {
		t.Errorf("check found %+v, want port %d refused, login accepted, TLS 1.3 on the third", r, dead)
	}

	env["SMTP_PASSWORD_FILE"] = writeFile(t, "password", "not-the-password")
	code, out = exitCode(t, command(t, env, "check"))
	if code != 69 || !strings.Contains(out, "535") || strings.Contains(out, "not-the-password") {
		t.Errorf("check with a wrong password exits %d, want 69 and Postfix's 535\n%s", code, out)
	}
}

// testSend: the command hands a message to a running server.
func testSend(t *testing.T, relay *postfix.Server) {
	to := relay.Recipient(t)
	s := serve(t, bridge(t, relay, relay.Submission))
	cmd := command(t, environment{"MAILSIDECAR_URL": s.url}, "send",
		"--from", "shop@example.com", "--to", to, "--subject", "By hand", "--text", "It works.")
	if code, out := exitCode(t, cmd); code != 0 {
		t.Fatalf("send exits %d, want 0\n%s", code, out)
	}
	relay.Await(t, to, 1)
}

func message(t *testing.T, data []byte) *mail.Message {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("not a message: %v\n%q", err, data)
	}
	return m
}

// part is a leaf of a MIME tree, decoded.
type part struct {
	contentID string
	data      []byte
}

// leaves decodes a MIME tree with the standard library's readers. The leaves
// are named by file name, else by type.
func leaves(t *testing.T, contentType, encoding string, body io.Reader) map[string]part {
	t.Helper()
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatalf("Content-Type %q: %v", contentType, err)
	}
	found := map[string]part{}
	if !strings.HasPrefix(kind, "multipart/") {
		found[kind] = part{data: decode(t, encoding, body)}
		return found
	}
	r := multipart.NewReader(body, params["boundary"])
	for {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, leaf := range leaves(t, p.Header.Get("Content-Type"), p.Header.Get("Content-Transfer-Encoding"), p) {
			if p.FileName() != "" {
				name, leaf.contentID = p.FileName(), p.Header.Get("Content-Id")
			}
			found[name] = leaf
		}
	}
}

func decode(t *testing.T, encoding string, body io.Reader) []byte {
	t.Helper()
	switch strings.ToLower(encoding) {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("decode %s: %v", encoding, err)
	}
	return data
}

func keys(parts map[string]part) []string {
	var names []string
	for name := range parts {
		names = append(names, name)
	}
	return names
}
