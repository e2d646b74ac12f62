package token

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"mailsidecar/credentials"
)

const (
	// assertionLife is how long an assertion that we sign is good: Microsoft wants 5 to
	// 10 minutes.
	assertionLife = 5 * time.Minute
	// assertionSkew is how much our clock may be ahead of the endpoint's.
	assertionSkew = 30 * time.Second
	// actForLife is how long an assertion for Google is good: it takes an hour at most.
	actForLife = time.Hour
)

// signAssertion returns a JWT by which the client proves that it has the key of its
// certificate (RFC 7523 §3).
func (c Client) signAssertion(audience string) (string, error) {
	cert, err := credentials.ReadCertificate(c.CertFile, c.KeyFile)
	if err != nil {
		return "", err
	}
	now := time.Now()
	if now.After(cert.NotAfter()) {
		return "", &ClientError{File: c.CertFile, Err: &credentials.EndedError{At: cert.NotAfter()}, Kind: credentials.KindCertificate}
	}
	header := map[string]any{"alg": "PS256", "typ": "JWT", "x5t#S256": cert.Thumbprint()}
	claims := map[string]any{
		"aud": audience, "iss": c.ID, "sub": c.ID, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-assertionSkew).Unix(), "exp": now.Add(assertionLife).Unix(),
	}
	return signJWT(header, claims, cert.SignPS256)
}

// actFor returns the JWT that asks for a token of the mailbox subject (RFC 7523 §2.1).
func actFor(a credentials.ServiceAccount, subject, scope, audience string) (string, error) {
	now := time.Now().Add(-assertionSkew)
	header := map[string]any{"alg": "RS256", "typ": "JWT"}
	if a.KeyID != "" {
		header["kid"] = a.KeyID
	}
	claims := map[string]any{
		"iss": a.Email, "sub": subject, "scope": scope, "aud": audience,
		"iat": now.Unix(), "exp": now.Add(actForLife).Unix(),
	}
	return signJWT(header, claims, a.SignRS256)
}

// signJWT makes a JWS in compact form (RFC 7515 §3.1). sign gets its SHA-256.
func signJWT(header, claims map[string]any, sign func(digest []byte) ([]byte, error)) (string, error) {
	head, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	b.WriteString(base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body))
	digest := sha256.Sum256(b.Bytes())
	signature, err := sign(digest[:])
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return b.String() + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
