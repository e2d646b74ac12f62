// Godial is the service that one writes in an afternoon: echo in front, and
// go-mail's DialAndSend for each request. The answer is the relay's verdict.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"

	"github.com/labstack/echo/v4"
	"github.com/wneessen/go-mail"

	"mailsidecar/bench/peers/message"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	host := flag.String("host", "localhost", "the relay's name")
	port := flag.Int("port", 587, "the relay's port, with STARTTLS")
	ca := flag.String("ca", "", "PEM file with the relay's authority")
	flag.Parse()
	if err := run(*listen, *host, *port, *ca); err != nil {
		fmt.Fprintln(os.Stderr, "godial:", err)
		os.Exit(1)
	}
}

func run(listen, host string, port int, ca string) error {
	text, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return errors.New("no certificate in " + ca)
	}
	options := []mail.Option{
		mail.WithPort(port), mail.WithTLSPolicy(mail.TLSMandatory),
		mail.WithTLSConfig(&tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}),
		mail.WithSMTPAuth(mail.SMTPAuthPlain), mail.WithUsername("bench"), mail.WithPassword("bench"),
	}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.POST("/v1/messages", func(c echo.Context) error { return send(c, host, options) })
	return e.Start(listen)
}

func send(c echo.Context, host string, options []mail.Option) error {
	m, err := message.Decode(c.Request().Body)
	if err != nil {
		return echo.NewHTTPError(http.StatusBadRequest, err.Error())
	}
	msg, err := m.Mail()
	if err != nil {
		return echo.NewHTTPError(http.StatusUnprocessableEntity, err.Error())
	}
	client, err := mail.NewClient(host, options...)
	if err != nil {
		return err
	}
	if err := client.DialAndSendWithContext(c.Request().Context(), msg); err != nil {
		return echo.NewHTTPError(http.StatusBadGateway, err.Error())
	}
	return c.JSON(http.StatusOK, map[string]string{"status": "delivered", "message_id": msg.GetMessageID()})
}
