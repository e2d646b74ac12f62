package credentials

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
)

// ServiceAccount is a Google service account that acts for the mailboxes of a
// Workspace domain (domain-wide delegation).
type ServiceAccount struct {
	Email string // client_email: who the account is
	// ClientID is the number that the administrator enters for the delegation; it may
	// be empty.
	ClientID string
	KeyID    string // may be empty
	key      *rsa.PrivateKey
}

// ReadServiceAccount reads the JSON file that Google's console gives with a new key.
// The error is a [*FileError].
func ReadServiceAccount(path string) (ServiceAccount, error) {
	data, err := Read(path, KindServiceAccount)
	if err != nil {
		return ServiceAccount{}, err
	}
	a, err := parseServiceAccount(data)
	if err != nil {
		return ServiceAccount{}, unfit(path, KindServiceAccount, err)
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
		return ServiceAccount{}, errors.New("it is no JSON key of a Google service account")
	}
	switch {
	case file.Type != "service_account":
		return ServiceAccount{}, errors.New(`it is no key of a service account: its "type" is another`)
	case file.Email == "":
		return ServiceAccount{}, errors.New(`it has no "client_email"`)
	}
	block, _ := pem.Decode([]byte(file.Key))
	if block == nil {
		return ServiceAccount{}, errors.New(`it has no "private_key" in PEM form`)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return ServiceAccount{}, errors.New(`its "private_key" is no RSA key`)
	}
	return ServiceAccount{file.Email, file.ClientID, file.KeyID, key}, nil
}

// SignRS256 signs a SHA-256 digest with RSASSA-PKCS1-v1_5 (RFC 7518 §3.3).
func (a ServiceAccount) SignRS256(digest []byte) ([]byte, error) {
	return rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, digest)
}
