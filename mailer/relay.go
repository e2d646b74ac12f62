package mailer

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"time"
)

// RelayOptions says how to reach one relay and what to show it.
type RelayOptions struct {
	Name string // in logs and answers; empty means Host
	Host string // DNS name or IP address
	// Ladder holds the rungs in order of preference; at least one.
	Ladder []Rung

	// Username and Password log in; an empty Username means no AUTH.
	Username string
	Password string
	// Mechanism is a SASL mechanism's name, or "auto" (also when empty):
	// XOAUTH2 with a TokenSource, else the best one offered.
	Mechanism string
	// TokenSource returns an OAuth2 access token; nil when a password is used.
	// It is called once for each login.
	TokenSource func(ctx context.Context) (string, error)

	// Cleartext is SMTP_TLS=none: no TLS at all, on every rung.
	Cleartext bool
	// AllowCleartext lets Cleartext leave loopback and private networks.
	AllowCleartext bool
	RootCAs        *x509.CertPool // nil: the system's
	ServerName     string         // name in the certificate; empty means Host

	// Helo is our name in EHLO; empty means the host's name where that is a
	// domain, else the address literal of the connection (RFC 5321 §4.1.3).
	Helo string
	// MaxRecipients is the number of recipients in one transaction; zero means 100.
	MaxRecipients int

	Timeouts Timeouts     // zero fields mean the defaults
	Logger   *slog.Logger // nil discards

	// Dial replaces the network in tests; nil means net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Timeouts bounds each stage of the dialogue with a relay (RFC 5321 §4.5.3.2).
// The context given to Deliver or Check shortens every one of them.
type Timeouts struct {
	Connect time.Duration // TCP, each address; default 5 s
	Hello   time.Duration // greeting, EHLO, STARTTLS and TLS together; default 30 s
	Command time.Duration // AUTH step, MAIL, RCPT; default 5 min
	Data    time.Duration // the reply to DATA; default 2 min
	Write   time.Duration // progress of the content; default 3 min
	Dot     time.Duration // the reply to the final dot; default 10 min
}
