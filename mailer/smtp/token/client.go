package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// Client is the application that is registered with an OAuth2 server, and how it
// proves that: the first of CertFile, AssertionFile and Secret that is set. Without
// any it is a public client, which only names itself.
type Client struct {
	ID     string
	Secret string
	// Basic sends id and secret in an Authorization field (RFC 6749 §2.3.1) instead of
	// the form.
	Basic bool
	// CertFile and KeyFile are in PEM form and may be the same file; an empty KeyFile
	// means CertFile. The key, an RSA key, signs a JWT (RFC 7523 §2.2). They are read
	// anew each time, so that a renewed certificate is taken without a restart.
	CertFile, KeyFile string
	// AssertionFile holds a JWT of another issuer, such as Kubernetes, that is sent as
	// it is. It is read anew each time, because such a token is good for an hour or so.
	AssertionFile string
}

// maxAssertion limits an assertion, and each file of keys, in octets.
const maxAssertion = 64 << 10

const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// prove adds what proves the client to a request for audience. The error is a
// [*ClientError].
func (c Client) prove(form url.Values, header http.Header, audience string) error {
	if c.CertFile == "" && c.AssertionFile == "" && c.Basic && c.Secret != "" {
		credentials := url.QueryEscape(c.ID) + ":" + url.QueryEscape(c.Secret)
		header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(credentials)))
		return nil
	}
	if c.ID != "" {
		form.Set("client_id", c.ID)
	}
	var assertion string
	var err error
	switch {
	case c.CertFile != "":
		assertion, err = c.signAssertion(audience)
	case c.AssertionFile != "":
		assertion, err = ReadAssertion(c.AssertionFile)
	case c.Secret != "":
		form.Set("client_secret", c.Secret)
	}
	if err != nil {
		return err
	}
	if assertion != "" {
		form.Set("client_assertion_type", jwtBearer)
		form.Set("client_assertion", assertion)
	}
	return nil
}

// ReadAssertion reads a JWT from a file: three parts of base64url, and a line end at
// most. The error is a [*ClientError] and does not quote the file.
func ReadAssertion(path string) (string, error) {
	data, err := readLimited(path)
	if err != nil {
		return "", &ClientError{path, err}
	}
	assertion := strings.TrimSpace(string(data))
	switch {
	case assertion == "":
		return "", &ClientError{path, errors.New("the file is empty, and should hold a JWT")}
	case strings.Count(assertion, ".") != 2 || strings.ContainsFunc(assertion, notBase64URL):
		return "", &ClientError{path, errors.New("the file holds no JWT")}
	}
	return assertion, nil
}

func notBase64URL(r rune) bool {
	letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	return !letter && r != '-' && r != '_' && r != '.' && r != '='
}

// readLimited reads a file of at most maxAssertion octets. The error has no path.
func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, reason(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxAssertion+1))
	switch {
	case err != nil:
		return nil, reason(err)
	case len(data) > maxAssertion:
		return nil, fmt.Errorf("the file is over %d octets long", maxAssertion)
	}
	return data, nil
}

// reason is err without the path that os puts into it.
func reason(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}
