package cli

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mailsidecar/service/certs"
)

// demoMessage is a message that arrived at the demo relay.
type demoMessage struct {
	reversePath  string
	forwardPaths []string
	data         string
	tls          string // protocol version
	user         string // that authenticated
}

// demoRelay is an upstream relay as providers run them: it takes mail only after
// STARTTLS and AUTH. It keeps nothing and relays nowhere.
type demoRelay struct {
	username, password string
	ca                 *certs.Authority // behind its certificate
	port               int
	arrived            chan demoMessage // read it, or the relay stops taking mail

	server   *smtp.Server
	listener net.Listener
	served   chan error
}

// startDemoRelay serves on a free port of 127.0.0.1 until close.
func startDemoRelay(ctx context.Context) (*demoRelay, error) {
	ca, err := certs.NewAuthority("mailsidecar demo CA")
	if err != nil {
		return nil, fmt.Errorf("demo relay: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("demo relay: %w", err)
	}
	r := &demoRelay{
		username: "demo", password: rand.Text(), ca: ca,
		port:     listener.Addr().(*net.TCPAddr).Port,
		arrived:  make(chan demoMessage, 64),
		listener: listener, served: make(chan error, 1),
	}
	r.server = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &demoSession{relay: r, conn: c}, nil
	}))
	r.server.Domain = "relay.demo"
	r.server.ErrorLog = log.New(io.Discard, "", 0) // what clients do wrong is in the server's log
	r.server.TLSConfig = &tls.Config{GetCertificate: certs.NewIssuer(ca).GetCertificate, MinVersion: tls.VersionTLS12}
	r.server.MaxMessageBytes = 30 << 20
	r.server.ReadTimeout = time.Minute
	r.server.WriteTimeout = time.Minute
	go func() { r.served <- r.server.Serve(listener) }()
	return r, nil
}

// close ends the sessions and waits until nothing is accepted any more. The
// listener is closed besides the server, which does not know it yet when it has
// only just been told to serve.
func (r *demoRelay) close() error {
	err := errors.Join(r.server.Close(), ignoreClosed(r.listener.Close()))
	return errors.Join(err, ignoreClosed(<-r.served))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, smtp.ErrServerClosed) {
		return nil
	}
	return err
}

type demoSession struct {
	relay   *demoRelay
	conn    *smtp.Conn
	user    string
	message demoMessage
}

// AuthMechanisms are offered after STARTTLS only: the server sees to that.
func (s *demoSession) AuthMechanisms() []string { return []string{sasl.Plain} }

// Auth takes the one user name and password.
func (s *demoSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(identity, username, password string) error {
		if username != s.relay.username || password != s.relay.password || (identity != "" && identity != username) {
			return smtp.ErrAuthFailed
		}
		s.user = username
		return nil
	}), nil
}

func (s *demoSession) Mail(from string, _ *smtp.MailOptions) error {
	if s.user == "" {
		return &smtp.SMTPError{Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "Authentication required"}
	}
	s.message = demoMessage{reversePath: from, user: s.user}
	if state, ok := s.conn.TLSConnectionState(); ok {
		s.message.tls = tls.VersionName(state.Version)
	}
	return nil
}

func (s *demoSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	// So that users of the demo can see a refusal.
	if strings.HasPrefix(to, "nobody@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such user here"}
	}
	s.message.forwardPaths = append(s.message.forwardPaths, to)
	return nil
}

func (s *demoSession) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.message.data = string(data)
	select {
	case s.relay.arrived <- s.message:
		return nil
	default:
		return &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 3, 1}, Message: "Nobody reads the demo's mail"}
	}
}

func (s *demoSession) Reset()        { s.message = demoMessage{} }
func (s *demoSession) Logout() error { return nil }
