// Package api has the words of the HTTP interface, once for the server and its
// clients, and a client: one request, one whole answer. cli's commands and sendmail
// are built on it; what an answer means, and which exit status it gets, is theirs
// to say. It imports nothing but the standard library, so that sendmail alone is a
// small program.
package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"mailsidecar/files"
)

// Client talks to a running server.
type Client struct {
	// HTTP makes the requests. Its transport may be replaced before the first.
	HTTP *http.Client

	base    *url.URL
	key     string
	version string
}

// New returns a client of the server at base, an http or https address that may
// have a path. key is the secret of an API key; empty sends none. version is what
// the program calls itself by. timeout limits one request with its answer.
func New(base, key, version string, timeout time.Duration) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("MAILSIDECAR_URL: %q is not an http or https address, such as http://127.0.0.1:8587", base)
	}
	client := &http.Client{
		Timeout: timeout,
		// The server redirects no request, and a redirect would drop the message.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Client{HTTP: client, base: u, key: key, version: version}, nil
}

// Server returns the server's address, without a password.
func (c *Client) Server() string { return c.base.Redacted() }

// HasKey says that requests carry an API key.
func (c *Client) HasKey() bool { return c.key != "" }

// Answer is a whole response.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// maxAnswer limits one answer, in octets; an exported message is the
// largest, and the server's own limit on messages is below that.
const maxAnswer = 256 << 20

// Do sends one request and reads the whole answer, of whatever status. path may
// have a query. When there is no answer the error is a [*NoAnswerError], and when
// the answer is another server's it is a [*ForeignAnswerError].
func (c *Client) Do(ctx context.Context, method, path string, header http.Header, body []byte) (Answer, error) {
	target := *c.base
	path, target.RawQuery, _ = strings.Cut(path, "?")
	target.Path = strings.TrimSuffix(target.Path, "/") + path
	connected := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = true }})
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return Answer{}, fmt.Errorf("request: %w", err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	req.Header.Set("User-Agent", "mailsidecar/"+c.version)
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return Answer{}, c.noAnswer(err, connected)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return Answer{}, c.noAnswer(err, true)
	}
	answer := Answer{resp.StatusCode, resp.Header, data}
	if !answer.own(path) {
		return Answer{}, &ForeignAnswerError{Server: c.Server(), Status: resp.StatusCode, Location: resp.Header.Get("Location")}
	}
	return answer, nil
}

func (c *Client) noAnswer(err error, connected bool) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the method and the address, which Error says
	}
	return &NoAnswerError{Server: c.Server(), Connected: connected, Err: err}
}

// NoAnswerError says that no whole answer came.
type NoAnswerError struct {
	Server string // address, without a password
	// Connected says that the server may have seen the request, and may have done
	// what it was asked to.
	Connected bool
	Err       error
}

func (e *NoAnswerError) Error() string {
	if e.Connected {
		return fmt.Sprintf("the server at %s did not finish its answer, but may have done what it was asked to: %v", e.Server, e.Err)
	}
	return fmt.Sprintf("no answer from the server at %s: %v (%s)", e.Server, e.Err, hint(e.Err))
}

// Unwrap returns the cause.
func (e *NoAnswerError) Unwrap() error { return e.Err }

// maxAuthorities limits a file of certificate authorities, in octets.
const maxAuthorities = 1 << 20

// Trust returns the TLS configuration of a client that trusts the certificate
// authorities in file, in PEM form, besides the system's. Without a file it is
// nil, which is the system's alone.
func Trust(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := files.Read(file, maxAuthorities)
	if err != nil {
		return nil, fmt.Errorf("MAILSIDECAR_TLS_CA_FILE: %s: %w", files.Shown(file), err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("MAILSIDECAR_TLS_CA_FILE: %s has no certificate in PEM form", files.Shown(file))
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
