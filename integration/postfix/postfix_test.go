package postfix

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
)

// TestServer proves with the standard library's client that the server is the
// strict relay that the other tests take it for.
func TestServer(t *testing.T) {
	s := Start(t)
	ana := s.Recipient(t)
	const msg = "From: Shop <shop@example.com>\r\nTo: x\r\nBcc: hidden@example.net\r\nSubject: raw\r\n\r\n..two dots\r\n.\r\ntrailing blank \r\n"

	t.Run("no AUTH in clear", func(t *testing.T) {
		c := dial(t, s.Submission)
		if ok, _ := c.Extension("AUTH"); ok {
			t.Error("AUTH is offered before STARTTLS")
		}
		wantCode(t, "MAIL before STARTTLS", c.Mail("shop@example.com"), 530)
	})
	t.Run("no relaying without AUTH", func(t *testing.T) {
		c := dialTLS(t, s)
		if err := c.Mail("shop@example.com"); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "RCPT without AUTH", c.Rcpt(ana), 554)
	})
	t.Run("wrong password", func(t *testing.T) {
		c := dialTLS(t, s)
		wantCode(t, "AUTH", c.Auth(smtp.PlainAuth("", s.Username, "wrong", "localhost")), 535)
	})
	t.Run("recipients", func(t *testing.T) {
		c := dialTLS(t, s)
		if err := c.Auth(smtp.PlainAuth("", s.Username, s.Password, "localhost")); err != nil {
			t.Fatal(err)
		}
		if err := c.Mail("bounce@example.com"); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "RCPT unknown", c.Rcpt("nobody@"+Domain), 550)
		wantCode(t, "RCPT busy", c.Rcpt(Busy), 450)
		if err := c.Rcpt(ana); err != nil {
			t.Fatal(err)
		}
		w, err := c.Data()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(msg)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got := s.Await(t, ana, 1)[0]
		if string(got.Data) != msg {
			t.Errorf("delivered:\n%q\nwant:\n%q", got.Data, msg)
		}
		if got.ReturnPath != "bounce@example.com" {
			t.Errorf("Return-Path = %q, want bounce@example.com", got.ReturnPath)
		}
	})
}

func dial(t *testing.T, port int) *smtp.Client {
	t.Helper()
	c, err := smtp.Dial(net.JoinHostPort("localhost", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func dialTLS(t *testing.T, s *Server) *smtp.Client {
	t.Helper()
	ca, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	c := dial(t, s.Submission)
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
