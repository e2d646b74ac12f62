// Package token fetches OAuth2 access tokens for XOAUTH2, and keeps them as long as
// they are of use. No error of it holds a secret.
package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"mailsidecar/mailer"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	// fetchTimeout limits one request to the token endpoint.
	fetchTimeout = 30 * time.Second
	// renewBefore is how long before its expiry a token is replaced.
	renewBefore = time.Minute
	// minAge is the age from which a token is replaced when the relay refuses it:
	// for a younger one another would be refused, too.
	minAge = time.Minute
	// failureLife is how long an error of the endpoint is given again without asking.
	failureLife = 10 * time.Second
	// unknownLife is how long a token is kept that names no expiry.
	unknownLife = 5 * time.Minute
)

// Source returns an access token. refused is the token that the relay refused, or
// empty; the source may return it again when there is no other. It may be called
// from many goroutines.
type Source func(ctx context.Context, refused string) (string, error)

// Options says where the access token comes from: the first of AccessToken,
// AccessTokenFile and TokenURL that is set.
type Options struct {
	AccessToken string
	// AccessTokenFile is read again for each login.
	AccessTokenFile string

	// TokenURL is asked with RefreshToken, or where that is empty with the
	// client's own credentials (RFC 6749 §6, §4.4).
	TokenURL     string
	ClientID     string
	ClientSecret string // public clients have none
	RefreshToken string
	Scopes       []string // may be empty

	Client *http.Client // nil means one that follows no redirects
}

// New returns the source that the options name. It keeps a fetched token until
// shortly before it expires or until the relay refuses it. One request to the
// endpoint serves all callers that wait for it.
func New(o Options) (Source, error) {
	switch {
	case o.AccessToken != "":
		return func(context.Context, string) (string, error) { return o.AccessToken, nil }, nil
	case o.AccessTokenFile != "":
		return func(context.Context, string) (string, error) { return readToken(o.AccessTokenFile) }, nil
	case o.TokenURL == "" || o.ClientID == "":
		return nil, errors.New("no token, and no token URL with a client id to fetch one")
	}
	f := &fetcher{opts: o, turn: make(chan struct{}, 1)}
	if f.opts.Client == nil {
		f.opts.Client = &http.Client{
			Timeout: fetchTimeout,
			// A redirect would carry the secrets to another host.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return f.token, nil
}

func readToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("the token file does not hold one token")
	}
	return token, nil
}

// fetcher fetches tokens and keeps the last one.
type fetcher struct {
	opts    Options
	turn    chan struct{} // holds one value while a caller uses the fields below
	current string
	fetched time.Time
	expires time.Time
	failure error // of the last request, at failed; nil when it succeeded
	failed  time.Time
}

func (f *fetcher) token(ctx context.Context, refused string) (string, error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	now := time.Now()
	if f.current != "" && now.Before(f.expires) && (f.current != refused || now.Sub(f.fetched) < minAge) {
		return f.current, nil
	}
	if f.failure != nil && now.Sub(f.failed) < failureLife {
		return "", f.failure
	}
	t, err := f.fetch(ctx)
	if ctx.Err() == nil { // else the error may be the caller's
		f.failure, f.failed = err, time.Now()
	}
	if err != nil {
		return "", err
	}
	f.current, f.fetched, f.expires = t.AccessToken, time.Now(), t.Expiry.Add(-renewBefore)
	if t.Expiry.IsZero() {
		f.expires = time.Now().Add(unknownLife)
	}
	// Some servers issue a new refresh token each time, and revoke the old one.
	f.opts.RefreshToken = cmp.Or(t.RefreshToken, f.opts.RefreshToken)
	return f.current, nil
}

func (f *fetcher) fetch(ctx context.Context) (*oauth2.Token, error) {
	config := clientcredentials.Config{
		ClientID: f.opts.ClientID, ClientSecret: f.opts.ClientSecret, TokenURL: f.opts.TokenURL,
		Scopes: f.opts.Scopes, AuthStyle: oauth2.AuthStyleInParams,
	}
	if f.opts.RefreshToken != "" {
		config.EndpointParams = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {f.opts.RefreshToken}}
	}
	t, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, f.opts.Client))
	refused, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return t, err
	}
	// The error's own text quotes the endpoint's whole answer.
	return nil, fmt.Errorf("token endpoint: %s: %s", refused.Response.Status,
		mailer.Printable(strings.TrimSpace(refused.ErrorCode+" "+refused.ErrorDescription), maxErrorText))
}
