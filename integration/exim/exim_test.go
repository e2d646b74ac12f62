package exim

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"strconv"
	"testing"

	"mailsidecar/integration/mta"
)

// TestServer proves with the standard library's client that the server is the
// relay that the other tests take it for.
func TestServer(t *testing.T) {
	s := Start(t, Options{})
	ana := s.Recipient(t)
	c := dialTLS(t, s)
	wantCode(t, "AUTH with a wrong password", c.Auth(smtp.PlainAuth("", s.Username, "wrong", "localhost")), 535)

	c = dialTLS(t, s)
	if err := c.Mail("shop@example.com"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "RCPT without AUTH", c.Rcpt(ana), 550)
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := c.Auth(smtp.PlainAuth("", s.Username, s.Password, "localhost")); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("bounce@example.com"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "RCPT unknown", c.Rcpt("nobody@"+Domain), 550)
	wantCode(t, "RCPT busy", c.Rcpt(Busy), 451)
	wantCode(t, "RCPT elsewhere", c.Rcpt("somebody@example.net"), 550)
	if err := c.Rcpt(ana); err != nil {
		t.Fatal(err)
	}
	got := submit(t, c, s, ana)
	if string(got.Data) != message {
		t.Errorf("delivered:\n%q\nwant:\n%q", got.Data, message)
	}
	if got.ReturnPath != "bounce@example.com" {
		t.Errorf("Return-Path = %q, want bounce@example.com", got.ReturnPath)
	}
}

const message = "From: Shop <shop@example.com>\r\nTo: x\r\nDate: Tue, 03 Nov 2026 10:00:00 +0100\r\n" +
	"Message-ID: <raw@example.com>\r\nSubject: raw\r\n\r\n..two dots\r\n.\r\ntrailing blank \r\n"

func submit(t *testing.T, c *smtp.Client, s *Server, recipient string) mta.Delivered {
	t.Helper()
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(message)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return s.Await(t, recipient, 1)[0]
}

func dialTLS(t *testing.T, s *Server) *smtp.Client {
	t.Helper()
	ca, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	c, err := smtp.Dial(net.JoinHostPort("localhost", strconv.Itoa(s.Submission)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if ok, _ := c.Extension("AUTH"); ok {
		t.Error("AUTH is offered before STARTTLS")
	}
	if err := c.StartTLS(&tls.Config{ServerName: "localhost", RootCAs: roots}); err != nil {
		t.Fatal(err)
	}
	return c
}

func wantCode(t *testing.T, what string, err error, want int) {
	t.Helper()
	var reply *textproto.Error
	if !errors.As(err, &reply) || reply.Code != want {
		t.Errorf("%s = %v, want reply code %d", what, err, want)
	}
}
