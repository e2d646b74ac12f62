package token

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"time"
)

// ServiceAccount is a Google service account that acts for the mailboxes of a
// Workspace domain (domain-wide delegation).
type ServiceAccount struct {
	Email    string // client_email: who the account is
	ClientID string // the number that the administrator enters for the delegation
	keyID    string
	key      *rsa.PrivateKey
}

// serviceAccountSkew is how much our clock may be ahead of Google's.
const serviceAccountSkew = 10 * time.Second

// ReadServiceAccount reads the JSON file that Google's console gives with a new key.
// The error is a [*ClientError] and does not quote the file.
func ReadServiceAccount(path string) (ServiceAccount, error) {
	data, err := readLimited(path)
	if err != nil {
		return ServiceAccount{}, &ClientError{path, err}
	}
	a, err := parseServiceAccount(data)
	if err != nil {
		return ServiceAccount{}, &ClientError{path, err}
	}
	return a, nil
}

func parseServiceAccount(data []byte) (ServiceAccount, error) {
	var file struct {
		Type     string `json:"type"`
		Email    string `json:"client_email"`
		ClientID string `json:"client_id"`
		KeyID    string `json:"private_key_id"`
		Key      string `json:"private_key"`
	}
	if err := json.Unmarshal(data, &file); err != nil || file.Type == "" {
		return ServiceAccount{}, errors.New("the file is no JSON key of a Google service account")
	}
	switch {
	case file.Type != "service_account":
		return ServiceAccount{}, errors.New(`the file is no key of a service account: its "type" is another`)
	case file.Email == "":
		return ServiceAccount{}, errors.New(`the file has no "client_email"`)
	}
	block, _ := pem.Decode([]byte(file.Key))
	if block == nil {
		return ServiceAccount{}, errors.New(`the file has no "private_key" in PEM form`)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return ServiceAccount{}, errors.New(`its "private_key" is no RSA key`)
	}
	return ServiceAccount{file.Email, file.ClientID, file.KeyID, key}, nil
}

// assertion returns the JWT that asks for a token to act for subject (RFC 7523 §2.1).
func (a ServiceAccount) assertion(subject, scope, audience string) (string, error) {
	now := time.Now().Add(-serviceAccountSkew)
	header := map[string]any{"alg": "RS256", "typ": "JWT"}
	if a.keyID != "" {
		header["kid"] = a.keyID
	}
	claims := map[string]any{
		"iss": a.Email, "sub": subject, "scope": scope, "aud": audience,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	return signJWT(header, claims, func(digest []byte) ([]byte, error) {
		return rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, digest)
	})
}
