package token

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/credentials"
	"mailsidecar/credentials/credentialstest"
)

// endless is a body without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func (endless) Close() error { return nil }

// silent is a body that never comes.
type silent struct{ ctx context.Context }

func (s silent) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func (silent) Close() error { return nil }

// TestHostileAnswers: an answer that is no token is an error that can be read, within
// the time limit, and nothing of it reaches the error unescaped.
func TestHostileAnswers(t *testing.T) {
	const secret = "spent+secret/1"
	long := strings.Repeat("x", 100<<10)
	for _, tt := range []struct {
		name   string
		answer *http.Response
		want   string
		kind   Kind
	}{
		{"HTML", answerWith(200, "<html>Sign in to the hotel's network</html>"), "answered 200: the answer is no JSON object", KindPassing},
		{"HTML 404", answerWith(404, "<html>"), "answered 404: the answer is no JSON object", KindPassing},
		{"empty", answerWith(200, ""), "no JSON object", KindPassing},
		{"redirect", answerWith(302, "", "Location", "https://evil.test/"), "it redirects to another address", KindPassing},
		{"JSON null", answerWith(200, "null"), "no JSON object", KindPassing},
		{"JSON list", answerWith(200, `[{"access_token":"x"}]`), "no JSON object", KindPassing},
		{"no token", answerWith(200, `{}`), "the access token is empty", KindPassing},
		{"number", answerWith(200, `{"access_token":12345}`), "the access token is empty", KindPassing},
		{"control character", answerWith(200, `{"access_token":"a\u0001b"}`), "holds a blank, a control character", KindPassing},
		{"line end", answerWith(200, `{"access_token":"a\r\nQUIT"}`), "holds a blank, a control character", KindPassing},
		{"not ASCII", answerWith(200, `{"access_token":"aé"}`), "holds a blank, a control character", KindPassing},
		{"long", answerWith(200, `{"access_token":"`+long+`"}`), "over 8192 octets long", KindPassing},
		{"long refresh token", answerWith(200, `{"access_token":"a","refresh_token":"`+long+`"}`), "over 16384 octets long", KindPassing},
		{"control character in the refresh token", answerWith(200, `{"access_token":"a","refresh_token":"a\u0000"}`), "the refresh token holds a control character", KindPassing},
		{"MAC token", answerWith(200, `{"access_token":"a","token_type":"mac"}`), "no bearer token", KindPassing},
		{"an error with status 200", answerWith(200, `{"error":"invalid_grant","access_token":"a"}`), "answered 200 invalid_grant", KindLogin},
		{"escape sequences", answerWith(400, `{"error":"invalid_grant\u001b[31m","error_description":"\u001b]0;x\u0007"}`), `invalid_grant\x1b[31m: \x1b]0;x\x07`, KindClient},
		{"long words", answerWith(400, `{"error":"`+long+`","error_description":"`+long+`"}`), "answered 400 xxx", KindClient},
		{"wrong types", answerWith(400, `{"error":{"a":1},"error_description":[],"error_codes":"7","error_subtype":3}`), "answered 400", KindPassing},
		{"it repeats the request", answerWith(400, `{"error":"invalid_grant","error_description":"bad `+secret+` or `+url.QueryEscape(secret)+` or client-secret"}`), "bad [redacted] or [redacted] or [redacted]", KindLogin},
		{"endless", &http.Response{StatusCode: http.StatusOK, Body: endless{}}, "the answer is over 1048576 octets long", KindPassing},
		{"deep", answerWith(200, strings.Repeat(`{"a":`, 200000)), "no JSON object", KindPassing},
	} {
		i := &issuer{fail: func(int, url.Values) *http.Response { return tt.answer }}
		e := loginOptions(i, nil).Endpoint
		_, err := e.Refresh(t.Context(), secret, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) || KindOf(err) != tt.kind {
			t.Errorf("%s: Refresh() = %v (kind %d), want %q (kind %d)", tt.name, err, KindOf(err), tt.want, tt.kind)
			continue
		}
		if text := err.Error(); len(text) > 800 || strings.Contains(text, "secret") || strings.ContainsFunc(text, isControl) {
			t.Errorf("%s: Refresh() = %.900q: not fit for a log", tt.name, text)
		}
	}
}

// TestSlowAnswer: neither the header nor the body of an answer is waited for longer
// than the limit.
func TestSlowAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := &issuer{latency: 365 * 24 * time.Hour}
		trickling := transport(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: silent{r.Context()}}, nil
		})
		for _, slow := range []http.RoundTripper{never, trickling} {
			e := &Endpoint{TokenURL: "https://login.test/token", Client: Client{ID: "id"}, Transport: slow}
			begin := time.Now()
			_, err := e.ClientCredentials(t.Context(), nil)
			if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > RequestTimeout {
				t.Errorf("ClientCredentials() = %v after %v, want the end of the time", err, took)
			}
		}
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestRealHTTP: over a real connection a redirect is not followed, a broken answer is
// an error without the secrets, and a token is a token.
func TestRealHTTP(t *testing.T) {
	reached := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer other.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		case "/broken":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"access_`)
		default:
			fmt.Fprintf(w, `{"access_token":"for-%s"}`, r.FormValue("refresh_token"))
		}
	}))
	defer server.Close()
	for path, want := range map[string]string{"/redirect": "redirects", "/broken": "unexpected EOF", "/token": ""} {
		e := &Endpoint{TokenURL: server.URL + path, Client: Client{ID: "id", Secret: "client-secret"}}
		a, err := e.Refresh(t.Context(), "secret", nil)
		if want == "" && (err != nil || a.AccessToken != "for-secret") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: Refresh() = %+v, %v, want %q", path, a, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error holds a secret: %v", path, err)
		}
	}
	if reached {
		t.Error("a redirect was followed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	e := &Endpoint{TokenURL: "http://" + l.Addr().String() + "/token?key=secret", Client: Client{ID: "id"}}
	if _, err := e.Refresh(t.Context(), "secret", nil); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Refresh() without a server = %v, want the reason without the URL", err)
	}
}

// TestAnswer: what is read of a good answer, in all the forms that servers give it.
func TestAnswer(t *testing.T) {
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"preferred_username":"jo@example.com","email":"other@example.com","tid":"t-1"}`))
	tricks := base64.RawURLEncoding.EncodeToString([]byte(`{"preferred_username":"jo\u009b31m@example.com","email":"\u202emoc.elpmaxe@oj","tid":"t\n1"}`))
	for _, tt := range []struct {
		body string
		want Answer
	}{
		{`{"access_token":"a"}`, Answer{AccessToken: "a"}},
		{`{"access_token":"a","token_type":"bearer","expires_in":3600,"unknown":{"x":[1]}}`, Answer{AccessToken: "a", Life: time.Hour}},
		{`{"access_token":"a","expires_in":"3600"}`, Answer{AccessToken: "a", Life: time.Hour}},
		{`{"access_token":"a","expires_in":3599.7}`, Answer{AccessToken: "a", Life: 3599 * time.Second}},
		{`{"access_token":"a","expires_in":-5}`, Answer{AccessToken: "a"}},
		{`{"access_token":"a","expires_in":0}`, Answer{AccessToken: "a"}},
		{`{"access_token":"a","expires_in":"soon"}`, Answer{AccessToken: "a"}},
		{`{"access_token":"a","expires_in":null}`, Answer{AccessToken: "a"}},
		{`{"access_token":"a","expires_in":"NaN"}`, Answer{AccessToken: "a"}},
		{`{"access_token":"a","expires_in":1e300}`, Answer{AccessToken: "a", Life: longestLife}},
		{`{"access_token":"a","expires_in":"Infinity"}`, Answer{AccessToken: "a", Life: longestLife}},
		{`{"access_token":"a","expires_in":true,"scope":7,"id_token":[],"refresh_token":9}`, Answer{AccessToken: "a"}},
		{`{"access_token":"a","refresh_token":"r","refresh_token_expires_in":604799}`, Answer{AccessToken: "a", RefreshToken: "r", RefreshLife: 604799 * time.Second}},
		{`{"access_token":"a","scope":"mail  offline_access"}`, Answer{AccessToken: "a", Scopes: []string{"mail", "offline_access"}}},
		{`{"access_token":"a","scope":["mail"]}`, Answer{AccessToken: "a", Scopes: []string{"mail"}}},
		{`{"access_token":"a","id_token":"e30.` + claims + `.x"}`, Answer{AccessToken: "a", ID: Identity{"jo@example.com", "other@example.com", "t-1"}}},
		{`{"access_token":"a","id_token":"e30.` + tricks + `.x"}`, Answer{AccessToken: "a"}},
		{`{"access_token":"a","id_token":"e30.!!!.x"}`, Answer{AccessToken: "a"}},
		{`{"access_token":"a","error":null,"refresh_token":null,"token_type":null,"scope":null,"id_token":null}`, Answer{AccessToken: "a"}},
		{`{"access_token":"a","error":"","error_description":"","refresh_token":"","scope":""}`, Answer{AccessToken: "a"}},
		{`{"access_token":"a","Access_Token":"b"}`, Answer{AccessToken: "a"}},
	} {
		i := &issuer{fail: func(int, url.Values) *http.Response { return answerWith(200, tt.body) }}
		e := loginOptions(i, nil).Endpoint
		if got, err := e.Refresh(t.Context(), "r", nil); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("answer %s = %+v, %v, want %+v", tt.body, got, err, tt.want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"access_token":"a","expires_in":"3600","refresh_token":"r","scope":"a b"}`, `{"error":"invalid_grant","error_codes":[700082]}`,
		`{"access_token":"a","id_token":"a.e30.c","refresh_token_expires_in":1e9}`, `<html>`, `null`, `{"error_description":"AADSTS50034: \u001b"}`,
	} {
		f.Add(200, seed, "120")
		f.Add(400, seed, "Wed, 21 Oct 2015 07:28:00 GMT")
	}
	f.Fuzz(func(t *testing.T, status int, body, retry string) {
		if status < 100 || status > 999 {
			return
		}
		answer := answerWith(status, body)
		answer.Header["Retry-After"] = []string{retry}
		i := &issuer{fail: func(int, url.Values) *http.Response { return answer }}
		e := loginOptions(i, nil).Endpoint
		a, err := e.Refresh(context.Background(), "spent-token", nil)
		switch {
		case err == nil && (checkToken(a.AccessToken) != nil || a.Life < 0 || a.Life > longestLife || a.RefreshLife < 0):
			t.Errorf("Refresh() = %+v", a)
		case err != nil && (strings.ContainsFunc(err.Error(), isControl) || strings.Contains(err.Error(), "spent-token") || len(err.Error()) > 900):
			t.Errorf("Refresh() = %q: not fit for a log", err)
		}
		if refused, ok := errors.AsType[*Error](err); ok && (refused.RetryAfter < 0 || refused.RetryAfter > longestRetryAfter) {
			t.Errorf("Retry-After %q = %v", retry, refused.RetryAfter)
		}
	})
}

// TestErrorKinds: status and "error" decide, numbers do not.
func TestErrorKinds(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		want   Kind
	}{
		{400, `{"error":"invalid_grant"}`, KindLogin},
		{400, `{"error":"invalid_grant","error_subtype":"invalid_rapt"}`, KindLogin},
		{400, `{"error":"interaction_required","error_codes":[50076]}`, KindLogin},
		{401, `{"error":"invalid_client","error_codes":[7000222]}`, KindClient},
		{400, `{"error":"unauthorized_client"}`, KindClient},
		{400, `{"error":"invalid_scope"}`, KindClient},
		{403, `{"error":"admin_policy_enforced"}`, KindClient},
		{400, `{"error":"temporarily_unavailable"}`, KindPassing},
		{400, `{"error":"server_error"}`, KindPassing},
		{500, `{"error":"invalid_grant"}`, KindPassing},
		{503, ``, KindPassing},
		{408, ``, KindPassing},
		{429, `{"error":"invalid_grant"}`, KindTooOften},
		{400, `{"error":"slow_down"}`, KindTooOften},
	} {
		i := &issuer{fail: func(int, url.Values) *http.Response { return answerWith(tt.status, tt.body) }}
		e := loginOptions(i, nil).Endpoint
		_, err := e.Refresh(t.Context(), "r", nil)
		if got := KindOf(fmt.Errorf("wrapped: %w", err)); got != tt.want {
			t.Errorf("%d %s is of kind %d, want %d", tt.status, tt.body, got, tt.want)
		}
	}
}

// TestErrorFields: what is read of Microsoft's and Google's refusals.
func TestErrorFields(t *testing.T) {
	microsoft := `{"error":"invalid_grant","error_description":"AADSTS700082: The refresh token has expired due to inactivity.\r\nTrace ID: 1","error_codes":[700082],"suberror":"bad_token"}`
	old := `{"error":"invalid_grant","error_description":"AADSTS70008: expired. AADSTS70008 again, AADSTS50173: revoked, AADSTS123456789: no number"}`
	for _, tt := range []struct {
		body, retry, subtype string
		numbers              []int
		wait                 time.Duration
	}{
		{microsoft, "120", "bad_token", []int{700082}, 2 * time.Minute},
		{old, "", "", []int{70008, 50173}, 0},
		{`{"error":"invalid_grant","error_subtype":"invalid_rapt"}`, "-1", "invalid_rapt", nil, 0},
		{`{"error":"x"}`, time.Now().Add(10 * time.Minute).UTC().Format(http.TimeFormat), "", nil, 10 * time.Minute},
		{`{"error":"x"}`, "Wed, 21 Oct 2015 07:28:00 GMT", "", nil, 0},
		{`{"error":"x"}`, "1e9", "", nil, 0},
	} {
		i := &issuer{fail: func(int, url.Values) *http.Response { return answerWith(400, tt.body, "Retry-After", tt.retry) }}
		endpoint := loginOptions(i, nil).Endpoint
		_, err := endpoint.Refresh(t.Context(), "r", nil)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Subtype != tt.subtype || !slices.Equal(e.Numbers, tt.numbers) || e.RetryAfter.Round(time.Minute) != tt.wait {
			t.Errorf("%s with Retry-After %q = %#v, want subtype %q, numbers %v, wait %v", tt.body, tt.retry, e, tt.subtype, tt.numbers, tt.wait)
		}
	}
}

// TestClientProof: how the client proves itself, in each way.
func TestClientProof(t *testing.T) {
	files := credentialstest.New(t)
	var header http.Header
	var form url.Values
	capture := transport(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		header = r.Header
		form, _ = url.ParseQuery(string(body))
		return answerWith(200, `{"access_token":"a"}`), err
	})
	ask := func(c Client) error {
		e := &Endpoint{TokenURL: "https://login.test/token", Client: c, Transport: capture}
		_, err := e.ClientCredentials(t.Context(), []string{"mail"})
		return err
	}
	if err := ask(Client{ID: "id:1", Secret: "a b/ü", Basic: true}); err != nil {
		t.Fatal(err)
	}
	if user, password, ok := (&http.Request{Header: header}).BasicAuth(); !ok || user != "id%3A1" || password != "a+b%2F%C3%BC" || form.Has("client_secret") || form.Has("client_id") {
		t.Errorf("Basic: user %q, password %q, form %v", user, password, form)
	}
	if err := ask(Client{ID: "id"}); err != nil || form.Get("client_id") != "id" || form.Has("client_secret") || header.Get("Authorization") != "" {
		t.Errorf("public client: %v, form %v", err, form)
	}
	if err := ask(Client{ID: "id", CertFile: files.Certificate, KeyFile: files.Key}); err != nil {
		t.Fatal(err)
	}
	if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || form.Get("client_id") != "id" {
		t.Errorf("certificate: form %v", form)
	}
	checkAssertion(t, files, form.Get("client_assertion"))
	for _, jwt := range []string{"a.b.c", "d.e.f"} { // read anew each time
		if err := os.WriteFile(files.Assertion, []byte(jwt+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ask(Client{ID: "id", AssertionFile: files.Assertion}); err != nil || form.Get("client_assertion") != jwt {
			t.Errorf("assertion: %v, %q, want %q", err, form.Get("client_assertion"), jwt)
		}
	}
	for _, c := range []Client{{ID: "id", AssertionFile: filepath.Join(t.TempDir(), "missing")}, {ID: "id", CertFile: files.EndedCertificate}} {
		if err := ask(c); !errors.As(err, new(*ClientError)) || KindOf(err) != KindClient {
			t.Errorf("client %+v: %v, want a ClientError", c, err)
		}
	}
}

// checkAssertion verifies a JWT that a certificate signed (RFC 7523 §3).
func checkAssertion(t *testing.T, files credentialstest.Files, jwt string) {
	t.Helper()
	data, err := os.ReadFile(files.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	header, claims, signed, signature := splitJWT(t, jwt)
	thumbprint := sha256.Sum256(cert.Raw)
	if header["alg"] != "PS256" || header["x5t#S256"] != base64.RawURLEncoding.EncodeToString(thumbprint[:]) {
		t.Errorf("header = %v", header)
	}
	digest := sha256.Sum256([]byte(signed))
	if err := rsa.VerifyPSS(cert.PublicKey.(*rsa.PublicKey), crypto.SHA256, digest[:], signature, &rsa.PSSOptions{SaltLength: 32}); err != nil {
		t.Errorf("signature: %v", err)
	}
	life := time.Duration(claims["exp"].(float64)-claims["nbf"].(float64)) * time.Second
	if claims["iss"] != "id" || claims["sub"] != "id" || claims["aud"] != "https://login.test/token" || claims["jti"] == "" || life < 5*time.Minute || life > 10*time.Minute {
		t.Errorf("claims = %v", claims)
	}
}

func splitJWT(t *testing.T, jwt string) (header, claims map[string]any, signed string, signature []byte) {
	t.Helper()
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		t.Fatalf("JWT = %q", jwt)
	}
	for i, into := range []any{&header, &claims} {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	return header, claims, parts[0] + "." + parts[1], signature
}

// TestServiceAccount: Google's grant without a person.
func TestServiceAccount(t *testing.T) {
	files := credentialstest.New(t)
	i := &issuer{life: 3600}
	o := clientOptions(i)
	o.Endpoint.Client = Client{}
	o.Grant, o.ServiceAccountFile, o.Subject, o.Scopes = GrantServiceAccount, files.ServiceAccount, "shop@example.com", []string{"https://mail.google.com/"}
	want(t, open(t, o, false), "", "access1")
	form := i.form(0)
	if form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || form.Has("client_id") || form.Has("scope") {
		t.Errorf("form = %v", form)
	}
	header, claims, signed, signature := splitJWT(t, form.Get("assertion"))
	digest := sha256.Sum256([]byte(signed))
	if err := rsa.VerifyPKCS1v15(files.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
		t.Errorf("signature: %v", err)
	}
	if header["alg"] != "RS256" || header["kid"] != "key-1" || claims["iss"] != "bot@project.iam.gserviceaccount.com" || claims["sub"] != "shop@example.com" ||
		claims["scope"] != "https://mail.google.com/" || claims["aud"] != "https://login.test/token" || claims["exp"].(float64)-claims["iat"].(float64) != 3600 {
		t.Errorf("header = %v, claims = %v", header, claims)
	}
	if a, err := credentials.ReadServiceAccount(files.ServiceAccount); err != nil || a.ClientID != "1042" {
		t.Errorf("ReadServiceAccount() = %+v, %v", a, err)
	}
}

// TestCode: the exchange of a code, and the example of RFC 7636, appendix B.
func TestCode(t *testing.T) {
	if got := Challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"); got != "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" {
		t.Errorf("Challenge() = %q", got)
	}
	if a, b := NewVerifier(), NewVerifier(); a == b || len(a) != 43 {
		t.Errorf("NewVerifier() = %q, %q", a, b)
	}
	i := new(issuer)
	e := loginOptions(i, nil).Endpoint
	if _, err := e.ExchangeCode(t.Context(), "code-1", "http://localhost:1", "verifier-1"); err != nil {
		t.Fatal(err)
	}
	form := i.form(0)
	if form.Get("grant_type") != "authorization_code" || form.Get("code") != "code-1" || form.Get("redirect_uri") != "http://localhost:1" || form.Get("code_verifier") != "verifier-1" {
		t.Errorf("form = %v", form)
	}
}

// TestDevice: the questions go on through faults that pass, as slowly as the endpoint
// wants, until it decides or the code ends (RFC 8628 §3.5).
func TestDevice(t *testing.T) {
	pending := func() *http.Response { return answerWith(400, `{"error":"authorization_pending"}`) }
	for _, tt := range []struct {
		name    string
		answers []*http.Response
		then    func() *http.Response
		want    string
		took    time.Duration
	}{
		{"at once", nil, nil, "", 5 * time.Second},
		{"later", []*http.Response{pending(), pending()}, nil, "", 15 * time.Second},
		{"slower", []*http.Response{answerWith(400, `{"error":"slow_down"}`)}, nil, "", 15 * time.Second},
		{"a fault", []*http.Response{noAnswer, answerWith(503, "")}, nil, "", 35 * time.Second},
		{"declined", []*http.Response{pending(), answerWith(400, `{"error":"authorization_declined"}`)}, nil, "authorization_declined", 10 * time.Second},
		{"too late", nil, pending, "expired_token", 905 * time.Second},
		{"no network", nil, func() *http.Response { return noAnswer }, "expired_token", 915 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			i := &issuer{fail: func(n int, form url.Values) *http.Response {
				switch {
				case n == 1:
					return answerWith(200, `{"device_code":"device-secret","user_code":"ABCD-EFGH","verification_uri":"https://login.test/device","expires_in":900,"interval":5}`)
				case n-2 < len(tt.answers):
					return tt.answers[n-2]
				case tt.then != nil:
					return tt.then()
				}
				if form.Get("device_code") != "device-secret" || form.Get("client_id") != "id" {
					t.Errorf("form = %v", form)
				}
				return nil
			}}
			e := loginOptions(i, nil).Endpoint
			d, err := e.AskDeviceCode(t.Context(), "https://login.test/devicecode", []string{"mail"})
			if err != nil || d.UserCode != "ABCD-EFGH" || d.VerificationURI != "https://login.test/device" || i.form(0).Get("scope") != "mail" {
				t.Fatalf("AskDeviceCode() = %+v, %v", d, err)
			}
			begin := time.Now()
			a, err := e.AwaitDevice(t.Context(), d)
			if (tt.want == "") != (err == nil && a.AccessToken == "access1") || tt.want != "" && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: AwaitDevice() = %+v, %v, want %q", tt.name, a, err, tt.want)
			}
			if took := time.Since(begin); took != tt.took {
				t.Errorf("%s: took %v, want %v", tt.name, took, tt.took)
			}
		})
	}
	for _, body := range []string{`{}`, `{"device_code":"d","user_code":"\u001b[0m","verification_uri":"https://x"}`, `{"error":"unauthorized_client"}`} {
		i := &issuer{fail: func(int, url.Values) *http.Response { return answerWith(200, body) }}
		e := loginOptions(i, nil).Endpoint
		if d, err := e.AskDeviceCode(t.Context(), "https://login.test/devicecode", nil); err == nil {
			t.Errorf("AskDeviceCode() with %s = %+v", body, d)
		}
	}
}

func TestClockSkew(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 500, time.UTC)
	for date, want := range map[string]time.Duration{
		"Sun, 29 Nov 2026 12:00:00 GMT": 0, "Sun, 29 Nov 2026 12:00:05 GMT": 0, // written while we waited
		"Sun, 29 Nov 2026 12:10:10 GMT": 10 * time.Minute, "Sun, 29 Nov 2026 11:50:00 GMT": -10 * time.Minute, "": 0, "yesterday": 0,
	} {
		if got := clockSkew(date, now, now.Add(10*time.Second)).Round(time.Second); got != want {
			t.Errorf("clockSkew(%q) = %v, want %v", date, got, want)
		}
	}
}
