package oauth2_test

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// zitadel is an issuer made with zitadel/oidc, with the storage of its example.
//
// As it is there, a refresh token is good once. With keepsOld one stays good though it
// was used, as Microsoft's do.
type zitadel struct {
	*storage.Storage
	keepsOld bool
	life     time.Duration // of access tokens
	keys     map[string]*rsa.PublicKey
	// path is that of the issuer's name. Google's service accounts sign for the token
	// endpoint, and the library takes what is signed for its name.
	path string

	mu     sync.Mutex
	issued map[string]time.Time // access tokens by their ids, until when
	denied bool                 // the person says no
}

// users are those of the issuer: each has the same id, name and address.
type users struct{}

func (users) ExampleClientID() string { return "unused" }

func (users) GetUserByUsername(name string) *storage.User { return users{}.GetUserByID(name) }

func (users) GetUserByID(name string) *storage.User {
	if name != account && name != otherAccount {
		return nil
	}
	return &storage.User{ID: name, Username: name, Password: "unused", Email: name, EmailVerified: true}
}

// public is the registration of a program on a desktop, which may also use device codes.
type public struct{ op.Client }

func (public) IsScopeAllowed(string) bool           { return true }
func (public) IDTokenUserinfoClaimsAssertion() bool { return true }

func (public) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
}

// machine is the registration of a server.
type machine struct{ *storage.Client }

func (machine) GetID() string              { return "server" }
func (machine) IsScopeAllowed(string) bool { return true }
func (machine) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeClientCredentials}
}

// webSecret is that of the client "web", a program with a secret in which a person signs
// in.
const webSecret = "secret of the web +/="

// newZitadel starts the issuer, with options that may change it.
func newZitadel(t *testing.T, change func(*zitadel)) (*zitadel, *issuer) {
	t.Helper()
	client := storage.NativeClient(clientID, "http://localhost", "http://127.0.0.1")
	z := &zitadel{
		Storage: storage.NewStorageWithClients(users{}, map[string]*storage.Client{
			clientID: client, "web": storage.WebClient("web", webSecret, "http://localhost:"+webPort),
		}),
		life: time.Hour, issued: map[string]time.Time{},
	}
	if change != nil {
		change(z)
	}
	i := newIssuer(t)
	provider, err := op.NewProvider(&op.Config{
		CryptoKey: sha256.Sum256([]byte("key")), CryptoKeyId: "1",
		CodeMethodS256: true, AuthMethodPost: true, GrantTypeRefreshToken: true,
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime: 5 * time.Minute, PollInterval: time.Second, UserFormPath: "/device", UserCode: op.UserCodeBase20,
		},
	}, z, op.StaticIssuer(i.URL+z.path), op.WithAllowInsecure())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", provider)
	mux.HandleFunc("/login/username", func(w http.ResponseWriter, r *http.Request) { z.login(w, r, op.AuthCallbackURL(provider)) })
	mux.HandleFunc("/device", z.device)
	i.serve(mux)
	i.authorizeURL, i.tokenURL, i.deviceURL = i.URL+"/authorize", i.URL+"/oauth/token", i.URL+"/device_authorization"
	i.accepts = func(user, token string) bool { return i.userinfo(i.URL+"/userinfo", user, token) }
	return z, i
}

// login is the page on which the person logs in and agrees, or does not.
func (z *zitadel) login(w http.ResponseWriter, r *http.Request, callback func(context.Context, string) string) {
	id := r.FormValue("authRequestID")
	if r.Method != http.MethodPost {
		_, _ = w.Write([]byte("log in"))
		return
	}
	z.mu.Lock()
	denied := z.denied
	z.mu.Unlock()
	request, err := z.AuthRequestByID(r.Context(), id)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if denied {
		back := request.GetRedirectURI() + "?" + url.Values{
			"error": {"access_denied"}, "error_description": {"AADSTS65004: the person declined"}, "state": {request.GetState()},
		}.Encode()
		http.Redirect(w, r, back, http.StatusFound)
		return
	}
	if err := z.CheckUsernamePassword(r.FormValue("username"), "unused", id); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	ctx := op.ContextWithIssuer(r.Context(), "")
	http.Redirect(w, r, callback(ctx, id), http.StatusFound)
}

// device is the page on which the person types the code.
func (z *zitadel) device(w http.ResponseWriter, r *http.Request) {
	var err error
	if r.FormValue("action") == "deny" {
		err = z.DenyDeviceAuthorization(r.Context(), r.FormValue("user_code"))
	} else {
		err = z.CompleteDeviceAuthorization(r.Context(), r.FormValue("user_code"), r.FormValue("username"))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func (z *zitadel) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := z.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return public{c}, nil
}

// CreateAccessToken is for grants without a refresh token.
func (z *zitadel) CreateAccessToken(ctx context.Context, r op.TokenRequest) (string, time.Time, error) {
	id, _, err := z.Storage.CreateAccessToken(ctx, r)
	return id, z.note(id), err
}

func (z *zitadel) CreateAccessAndRefreshTokens(ctx context.Context, r op.TokenRequest, used string) (id, refresh string, expires time.Time, err error) {
	if z.keepsOld {
		used = "" // as if it were the first: the one that was used is not removed
	}
	id, refresh, _, err = z.Storage.CreateAccessAndRefreshTokens(ctx, r, used)
	return id, refresh, z.note(id), err
}

// note records an access token and returns when it ends.
func (z *zitadel) note(id string) time.Time {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.issued[id] = time.Now().Add(z.life)
	return z.issued[id]
}

// SetUserinfoFromToken answers whose token it is.
func (z *zitadel) SetUserinfoFromToken(ctx context.Context, info *oidc.UserInfo, id, subject, origin string) error {
	z.mu.Lock()
	until := z.issued[id]
	z.mu.Unlock()
	if !time.Now().Before(until) {
		return errors.New("the token has ended")
	}
	info.Subject, info.PreferredUsername = subject, subject
	return nil
}

// The grants without a person: a client's secret, and a JWT of a service account.

func (z *zitadel) ClientCredentials(_ context.Context, id, secret string) (op.Client, error) {
	if id != "server" || secret != "server secret/+" {
		return nil, errors.New("wrong client or secret")
	}
	return machine{storage.NativeClient(id)}, nil
}

func (z *zitadel) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	return &oidc.JWTTokenRequest{Subject: account, Audience: []string{id}, Scopes: scopes}, nil
}

func (z *zitadel) GetKeyByIDAndClientID(_ context.Context, id, client string) (*jose.JSONWebKey, error) {
	key := z.keys[id]
	if key == nil {
		return nil, errors.New("no such key")
	}
	return &jose.JSONWebKey{KeyID: id, Use: "sig", Key: key}, nil
}

// ValidateJWTProfileScopes gets the scopes of the form; Google's are in the JWT.
func (z *zitadel) ValidateJWTProfileScopes(_ context.Context, _ string, scopes []string) ([]string, error) {
	return scopes, nil
}
