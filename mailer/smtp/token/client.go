package token

import (
	"encoding/base64"
	"net/http"
	"net/url"

	"mailsidecar/credentials"
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
		assertion, err = credentials.ReadAssertion(c.AssertionFile)
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
