package token

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	// recordVersion is the version of the form in which records are stored.
	recordVersion = 1
	// maxRecord limits a stored record, in octets.
	maxRecord = 64 << 10
	// maxToken limits an access token, in octets. A longer one does not fit into an
	// AUTH dialogue (RFC 4954 §4).
	maxToken = 8 << 10
	// maxRefreshToken limits a refresh token, in octets.
	maxRefreshToken = 16 << 10
	// maxRecordText limits each other text of a record, in octets.
	maxRecordText = 2 << 10
	// maxOutlived limits Outlived of a record.
	maxOutlived = 8
	// maxScopes limits the scopes of a record.
	maxScopes = 50
)

// Record is a login that outlasts the process: a refresh token, and all that is needed
// to use it.
type Record struct {
	RefreshToken string
	// TokenURL is the endpoint that issued the token. No other host gets to see it.
	TokenURL string
	// Issuer is "microsoft", "google" or empty: whose rules say how long the token
	// lives.
	Issuer   string
	Tenant   string // Microsoft's directory; empty means "common"
	ClientID string
	Scopes   []string
	// Account is the address or the sign-in name of the person who logged in; empty
	// where that is not known.
	Account string
	// Issued is when the endpoint issued the refresh token, or when a configured one
	// was first seen.
	Issued time.Time
	// Expires is when the refresh token ends, where the endpoint told; else zero.
	Expires time.Time
	// LoggedIn is when the person logged in, however often the refresh token was
	// replaced since; zero means Issued. It tells a new login from a replaced token.
	LoggedIn time.Time
	// Digest is that of the refresh token which was configured when this login was
	// stored, see [Digest]; empty where none was. With another one configured the record
	// is replaced, unless it is one of Outlived.
	Digest string
	// Outlived are the digests of other refresh tokens that were configured before the
	// person logged in, as far as is known. None of them takes the login's place.
	Outlived []string

	// AccessToken is kept to spare a request at the next start; it may be empty. It is
	// good from AccessFetched to AccessExpires.
	AccessToken   string
	AccessFetched time.Time
	AccessExpires time.Time
}

// Digest returns what a record keeps of the refresh token that is configured; empty
// where none is.
func Digest(refreshToken string) string {
	if refreshToken == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("mailsidecar oauth2 refresh token\n" + refreshToken))
	return hex.EncodeToString(sum[:])
}

// Outlives reports whether the login came after the configured refresh token of that
// digest, so that it is used in its place. An empty digest stands for none.
func (r Record) Outlives(digest string) bool {
	return digest == "" || r.Digest == digest || slices.Contains(r.Outlived, digest)
}

// Outliving is the login with the mark that it came after the configured refresh token
// of that digest. The latest 8 such marks are kept.
func (r Record) Outliving(digest string) Record {
	if !r.Outlives(digest) {
		r.Outlived = append(slices.Clone(r.Outlived), digest)
		r.Outlived = r.Outlived[max(0, len(r.Outlived)-maxOutlived):]
	}
	return r
}

// String names the record without its secrets.
func (r Record) String() string {
	return fmt.Sprintf("login of %q for client %q at %s", r.Account, r.ClientID, r.TokenURL)
}

// GoString is String, so that no verb of fmt prints a secret.
func (r Record) GoString() string { return r.String() }

// storedRecord is the form of a record in a store. Times are in UTC.
type storedRecord struct {
	Version       int       `json:"version"`
	RefreshToken  string    `json:"refresh_token"`
	TokenURL      string    `json:"token_url"`
	Issuer        string    `json:"issuer,omitempty"`
	Tenant        string    `json:"tenant,omitempty"`
	ClientID      string    `json:"client_id"`
	Scopes        []string  `json:"scopes,omitempty"`
	Account       string    `json:"account,omitempty"`
	Issued        time.Time `json:"issued"`
	Expires       time.Time `json:"expires,omitzero"`
	LoggedIn      time.Time `json:"logged_in,omitzero"`
	Digest        string    `json:"setting_sha256,omitempty"`
	Outlived      []string  `json:"outlived_settings_sha256,omitempty"`
	AccessToken   string    `json:"access_token,omitempty"`
	AccessFetched time.Time `json:"access_token_fetched,omitzero"`
	AccessExpires time.Time `json:"access_token_expires,omitzero"`
}

// Marshal returns the record as JSON with a version, for stores. It holds the secrets.
// A record that [ParseRecord] would refuse is an error.
func (r Record) Marshal() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	stored := storedRecord{
		recordVersion, r.RefreshToken, r.TokenURL, r.Issuer, r.Tenant, r.ClientID, r.Scopes, r.Account,
		r.Issued.UTC(), r.Expires.UTC(), r.LoggedIn.UTC(), r.Digest, r.Outlived, r.AccessToken, r.AccessFetched.UTC(), r.AccessExpires.UTC(),
	}
	data, err := json.MarshalIndent(stored, "", "  ") //nolint:gosec // the secrets are what is stored
	if err != nil {
		return nil, err
	}
	if data = append(data, '\n'); len(data) > maxRecord {
		return nil, errors.New("the record is too long")
	}
	return data, nil
}

// ParseRecord reads what [Record.Marshal] wrote. Unknown fields, further data and
// values out of bounds are errors, which never quote a value.
func ParseRecord(data []byte) (Record, error) {
	if len(data) > maxRecord {
		return Record{}, errors.New("it is too long")
	}
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return Record{}, errors.New("it is no JSON object with a version")
	}
	if version.Version != recordVersion {
		return Record{}, fmt.Errorf("it has version %d, and this program knows version %d", version.Version, recordVersion)
	}
	var s storedRecord
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Record{}, errors.New("a field is unknown or has the wrong type")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Record{}, errors.New("more follows the record")
	}
	r := Record{
		RefreshToken: s.RefreshToken, TokenURL: s.TokenURL, Issuer: s.Issuer, Tenant: s.Tenant, ClientID: s.ClientID,
		Scopes: s.Scopes, Account: s.Account, Issued: s.Issued, Expires: s.Expires, LoggedIn: s.LoggedIn, Digest: s.Digest, Outlived: s.Outlived,
		AccessToken: s.AccessToken, AccessFetched: s.AccessFetched, AccessExpires: s.AccessExpires,
	}
	return r, r.check()
}

// check reports what is wrong with a record, without quoting it.
func (r Record) check() error {
	if err := checkRefreshToken(r.RefreshToken); err != nil {
		return err
	}
	if r.AccessToken != "" {
		if err := checkToken(r.AccessToken); err != nil {
			return err
		}
	}
	if u, err := url.Parse(r.TokenURL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return errors.New("the token URL is no https URL")
	}
	if r.ClientID == "" {
		return errors.New("the client id is missing")
	}
	texts := append([]string{r.TokenURL, r.Issuer, r.Tenant, r.ClientID, r.Account, r.Digest}, r.Scopes...)
	texts = append(texts, r.Outlived...)
	for _, text := range texts {
		if len(text) > maxRecordText || strings.ContainsFunc(text, isControl) {
			return errors.New("a text is too long or holds a control character")
		}
	}
	if len(r.Scopes) > maxScopes {
		return errors.New("there are too many scopes")
	}
	if len(r.Outlived) > maxOutlived {
		return errors.New("there are too many digests of settings")
	}
	if r.Issued.IsZero() {
		return errors.New("the time of issue is missing")
	}
	return nil
}

// checkToken reports why s cannot be used as an access token: as RFC 6750 §2.1 wants
// it, it is printable ASCII without blanks.
func checkToken(s string) error {
	switch {
	case s == "":
		return errors.New("the access token is empty")
	case len(s) > maxToken:
		return fmt.Errorf("the access token is over %d octets long", maxToken)
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("the access token holds a blank, a control character or one outside ASCII")
	}
	return nil
}

// checkRefreshToken reports why s cannot be a refresh token (RFC 6749, appendix A.17).
func checkRefreshToken(s string) error {
	switch {
	case s == "":
		return errors.New("the refresh token is empty")
	case len(s) > maxRefreshToken:
		return fmt.Errorf("the refresh token is over %d octets long", maxRefreshToken)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }):
		return errors.New("the refresh token holds a control character or one outside ASCII")
	}
	return nil
}

// isControl reports whether the character has no place in a line of text: also those
// of C1, and the marks that turn the direction of writing.
func isControl(r rune) bool { return !unicode.IsPrint(r) }
