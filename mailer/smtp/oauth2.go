package smtp

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

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	// tokenTimeout bounds one request to the token endpoint.
	tokenTimeout = 30 * time.Second
	// tokenEarly is how long before its expiry a token is replaced.
	tokenEarly = time.Minute
	// tokenYoung is how long after it was fetched a token is not replaced though the
	// relay refuses it: another one would fare no better.
	tokenYoung = time.Minute
	// tokenUnknown is how long a token is kept that names no expiry.
	tokenUnknown = 5 * time.Minute
)

// TokenOptions says where the access token for XOAUTH2 comes from: the first of
// AccessToken, AccessTokenFile and TokenURL that is set.
type TokenOptions struct {
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

// NewTokenSource returns a function for Options.TokenSource. It may be
// called from many goroutines; a fetched token is kept until shortly before it
// expires or until the relay refuses it, and fetched once for all who wait. No error
// holds a secret.
func NewTokenSource(o TokenOptions) (func(ctx context.Context, refused string) (string, error), error) {
	switch {
	case o.AccessToken != "":
		return func(context.Context, string) (string, error) { return o.AccessToken, nil }, nil
	case o.AccessTokenFile != "":
		return func(context.Context, string) (string, error) { return readToken(o.AccessTokenFile) }, nil
	case o.TokenURL == "" || o.ClientID == "":
		return nil, errors.New("no token, and no token URL with a client id to fetch one")
	}
	f := &tokenFetcher{opts: o, turn: make(chan struct{}, 1)}
	if f.opts.Client == nil {
		f.opts.Client = &http.Client{
			Timeout: tokenTimeout,
			// A redirect would carry the secrets to somebody else.
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

// tokenFetcher fetches tokens and keeps the last one.
type tokenFetcher struct {
	opts    TokenOptions
	turn    chan struct{} // held by whoever uses what follows
	current string
	fetched time.Time
	expires time.Time
}

func (f *tokenFetcher) token(ctx context.Context, refused string) (string, error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	now := time.Now()
	if f.current != "" && now.Before(f.expires) && (f.current != refused || now.Sub(f.fetched) < tokenYoung) {
		return f.current, nil
	}
	t, err := f.fetch(ctx)
	if err != nil {
		return "", err
	}
	f.current, f.fetched, f.expires = t.AccessToken, time.Now(), t.Expiry.Add(-tokenEarly)
	if t.Expiry.IsZero() {
		f.expires = time.Now().Add(tokenUnknown)
	}
	// Some providers hand out a new refresh token each time, and end the old one.
	f.opts.RefreshToken = cmp.Or(t.RefreshToken, f.opts.RefreshToken)
	return f.current, nil
}

func (f *tokenFetcher) fetch(ctx context.Context) (*oauth2.Token, error) {
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
	// Its own text quotes the endpoint's whole answer.
	return nil, fmt.Errorf("token endpoint: %s: %s", refused.Response.Status,
		printable(strings.TrimSpace(refused.ErrorCode+" "+refused.ErrorDescription), maxReplyText))
}
