package oauth2_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v3"
	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/openid"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/jwt"
)

// strict is an issuer made with ory/fosite: a refresh token is good once, and when it
// comes again every token of the same login ends.
type strict struct {
	fosite.OAuth2Provider
	config *fosite.Config
	store  *storage.MemoryStore
}

// newStrict starts the issuer. certificate, if not nil, is that of the client "server".
func newStrict(t *testing.T, certificate *x509.Certificate) (*strict, *issuer) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := newIssuer(t)
	i.authorizeURL, i.tokenURL = i.URL+"/authorize", i.URL+"/token"
	s := &strict{
		store: storage.NewMemoryStore(),
		config: &fosite.Config{
			GlobalSecret: []byte("a secret of thirty-two octets ..."), IDTokenIssuer: i.URL, TokenURL: i.tokenURL,
			AccessTokenLifespan: time.Hour, RefreshTokenLifespan: time.Hour, EnforcePKCE: true,
			ScopeStrategy: fosite.ExactScopeStrategy, MinParameterEntropy: 8,
		},
	}
	scopes := []string{mailScope, "openid", "profile", "offline_access"}
	s.store.Clients[clientID] = &fosite.DefaultClient{
		ID: clientID, Public: true, RedirectURIs: []string{"http://127.0.0.1"}, ResponseTypes: []string{"code"},
		GrantTypes: []string{"authorization_code", "refresh_token"}, Scopes: scopes,
	}
	if certificate != nil {
		s.store.Clients["server"] = &fosite.DefaultOpenIDConnectClient{
			DefaultClient:           &fosite.DefaultClient{ID: "server", GrantTypes: []string{"client_credentials"}, Scopes: scopes},
			TokenEndpointAuthMethod: "private_key_jwt", TokenEndpointAuthSigningAlgorithm: "PS256",
			JSONWebKeys: &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: certificate.PublicKey, Use: "sig"}}},
		}
	}
	s.OAuth2Provider = compose.ComposeAllEnabled(s.config, s.store, key)
	mux := http.NewServeMux()
	mux.HandleFunc("/authorize", s.authorize)
	mux.HandleFunc("/token", s.token)
	i.serve(mux)
	i.accepts = s.accepts
	return s, i
}

func newSession(subject string) *openid.DefaultSession {
	return &openid.DefaultSession{
		Claims: &jwt.IDTokenClaims{
			Subject: subject, RequestedAt: time.Now().Add(-time.Second), AuthTime: time.Now().Add(-time.Second),
			Extra: map[string]any{"preferred_username": subject},
		},
		Headers: &jwt.Headers{}, Subject: subject, Username: subject,
	}
}

// authorize is the page on which the person logs in and agrees.
func (s *strict) authorize(w http.ResponseWriter, r *http.Request) {
	request, err := s.NewAuthorizeRequest(r.Context(), r)
	if err != nil {
		s.WriteAuthorizeError(r.Context(), w, request, err)
		return
	}
	if r.Method != http.MethodPost {
		_, _ = w.Write([]byte("log in"))
		return
	}
	for _, scope := range request.GetRequestedScopes() {
		request.GrantScope(scope)
	}
	response, err := s.NewAuthorizeResponse(r.Context(), request, newSession(r.PostForm.Get("username")))
	if err != nil {
		s.WriteAuthorizeError(r.Context(), w, request, err)
		return
	}
	s.WriteAuthorizeResponse(r.Context(), w, request, response)
}

func (s *strict) token(w http.ResponseWriter, r *http.Request) {
	request, err := s.NewAccessRequest(r.Context(), r, newSession(""))
	if err != nil {
		s.WriteAccessError(r.Context(), w, request, err)
		return
	}
	if request.GetGrantTypes().ExactOne("client_credentials") {
		request.SetSession(newSession(account))
		for _, scope := range request.GetRequestedScopes() {
			request.GrantScope(scope)
		}
	}
	response, err := s.NewAccessResponse(r.Context(), request)
	if err != nil {
		s.WriteAccessError(r.Context(), w, request, err)
		return
	}
	s.WriteAccessResponse(r.Context(), w, request, response)
}

// accepts reports whether the token is one of the user's.
func (s *strict) accepts(user, token string) bool {
	_, request, err := s.IntrospectToken(context.Background(), token, fosite.AccessToken, newSession(""))
	return err == nil && request.GetSession().GetSubject() == user
}

// revoke ends every token of everybody.
func (s *strict) revoke() {
	for id := range s.store.RefreshTokenRequestIDs {
		_ = s.store.RevokeRefreshToken(context.Background(), id)
	}
	for id := range s.store.AccessTokenRequestIDs {
		_ = s.store.RevokeAccessToken(context.Background(), id)
	}
}
