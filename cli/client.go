package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"time"

	"mailsidecar/config"
)

// client talks to a running server over its HTTP interface.
type client struct {
	base *url.URL
	key  string // empty: the server needs none
	http *http.Client
	// offline says that there is no server, and no network to speak of.
	offline bool
}

// connect returns a client of the server that MAILSIDECAR_URL names, or that the
// same configuration would start here.
func connect(timeout time.Duration) (*client, error) {
	cfg, err := config.LoadClient()
	if err != nil {
		return nil, misconfigured(err, nil)
	}
	return configuredClient(cfg, timeout)
}

func configuredClient(cfg config.Client, timeout time.Duration) (*client, error) {
	c, err := newClient(cfg.URL, cfg.APIKey.Reveal(), timeout)
	if err != nil {
		return nil, err
	}
	trust, err := clientTrust(cfg.TLSCAFile)
	if err != nil {
		return nil, err
	}
	if trust != nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = trust
		c.http.Transport = transport
	}
	return c, nil
}

// clientTrust returns nil, which is the system's certificates, unless there is a
// file of others.
func clientTrust(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, exit(exitConfig, "MAILSIDECAR_TLS_CA_FILE: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, exit(exitConfig, "MAILSIDECAR_TLS_CA_FILE: %s has no certificate in PEM form", file)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// newClient returns a client of the server at base. timeout bounds one request
// with its answer.
func newClient(base, key string, timeout time.Duration) (*client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, exit(exitConfig, "MAILSIDECAR_URL: %q is not an http or https address, such as http://127.0.0.1:8587", base)
	}
	return &client{base: u, key: key, http: &http.Client{Timeout: timeout}}, nil
}

// answer is a whole response.
type answer struct {
	status int
	header http.Header
	body   []byte
	from   *client // who asked; nil in tests
}

// maxAnswer bounds what is read of one answer; an exported message is the
// largest, and the server's own limit on messages is below that.
const maxAnswer = 256 << 20

// do sends one request and reads the whole answer. The error says that there is
// no answer; what kind of answer it is, is for the caller to judge.
func (c *client) do(ctx context.Context, method, path string, header http.Header, body []byte) (answer, error) {
	target := *c.base
	path, target.RawQuery, _ = strings.Cut(path, "?")
	target.Path = strings.TrimSuffix(target.Path, "/") + path
	connected := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = true }})
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("request: %w", err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	req.Header.Set("User-Agent", "mailsidecar/"+buildVersion().version)
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, c.noAnswer(err, connected)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{}, c.noAnswer(err, true)
	}
	return answer{resp.StatusCode, resp.Header, data, c}, nil
}

// noAnswer says in a line why there is no answer. Once connected, the server may
// have done what it was asked to.
func (c *client) noAnswer(err error, connected bool) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the method and the address, which are said below
	}
	if connected {
		return exit(exitUncertain, "the server at %s did not finish its answer, but may have done what it was asked to: %w", c.base.Redacted(), err)
	}
	return exit(exitUnavailable, "no answer from the server at %s: %w (is it running? MAILSIDECAR_URL says where)", c.base.Redacted(), err)
}

// problem is an error answer (RFC 9457), as the server's interface defines it.
type problem struct {
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	Retryable bool   `json:"retryable"`
	RequestID string `json:"request_id"`
	ID        string `json:"id"`
	MessageID string `json:"message_id"`
	Errors    []struct {
		Field   string `json:"field"`
		Message string `json:"message"`
	} `json:"errors"`
	Recipients []recipient `json:"recipients"`

	offline bool // it came from no server
}

// problem reads the answer as an error. One from something else than the
// server, a proxy say, becomes a problem without a code.
func (a answer) problem() problem {
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil || p.Code == "" {
		p = problem{Title: http.StatusText(a.status), Detail: "the answer is not the server's own; is there a proxy between?"}
	}
	p.Status = a.status
	if p.Code == "unauthorized" {
		p.Detail = a.keyAdvice()
	}
	p.offline = a.from != nil && a.from.offline
	return p
}

// keyAdvice says which variable to set, where the server's own words are for
// those who write HTTP.
func (a answer) keyAdvice() string {
	const remedy = "set MAILSIDECAR_API_KEY to the secret, without the name, of one of the server's MAILSIDECAR_API_KEYS"
	if a.from != nil && a.from.key != "" {
		return "the server does not know the key that was sent: " + remedy
	}
	return "no key was sent: " + remedy + ". Only where that variable is set here, too, and holds a single key, is it taken by itself"
}

// repeats says that the detail is one of the errors, which are printed anyway.
func (p problem) repeats() bool {
	for _, e := range p.Errors {
		if p.Detail == e.Field+": "+e.Message {
			return true
		}
	}
	return false
}

// err makes an error of a refusal: what the server said, and the exit status
// that goes with it.
func (p problem) err() error {
	var b strings.Builder
	b.WriteString(p.Title)
	if p.Detail != "" && strings.TrimSuffix(p.Detail, ".") != p.Title && !p.repeats() {
		b.WriteString(": " + p.Detail)
	}
	for _, e := range p.Errors {
		fmt.Fprintf(&b, "\n  %s: %s", e.Field, e.Message)
	}
	fmt.Fprintf(&b, "\n  (%s)", strings.Join(p.origin(), ", "))
	return &statusError{p.exitStatus(), errors.New(b.String())}
}

// origin is what somebody needs who looks further: the answer's status and code,
// and the request's id in the server's log.
func (p problem) origin() []string {
	if p.offline {
		return []string{p.Code}
	}
	all := []string{fmt.Sprintf("HTTP %d", p.Status)}
	if p.Code != "" {
		all = append(all, p.Code)
	}
	if p.RequestID != "" {
		all = append(all, "request "+p.RequestID)
	}
	return all
}

func (p problem) exitStatus() int {
	switch {
	case p.Code == "invalid_parameter":
		return exitUsage // parameters come from flags
	case p.Code == "uncertain":
		return exitUncertain
	case p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden:
		return exitNoPerm
	case p.Retryable:
		return exitTransient
	case p.Status >= 500 || p.Code == "":
		return exitUnavailable
	default:
		return exitRefused
	}
}
