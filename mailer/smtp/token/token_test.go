package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tokenEndpoint answers with the given bodies in turn, and keeps the forms.
func tokenEndpoint(t *testing.T, bodies ...string) (url string, forms func() []map[string][]string) {
	t.Helper()
	var mu sync.Mutex
	var got []map[string][]string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		got = append(got, r.PostForm)
		body := bodies[min(len(got), len(bodies))-1]
		w.Header().Set("Content-Type", "application/json")
		if strings.Contains(body, `"error"`) {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []map[string][]string {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}

func TestSourceFetches(t *testing.T) {
	url, forms := tokenEndpoint(t,
		`{"access_token":"t1","expires_in":30,"refresh_token":"r2"}`,
		`{"access_token":"t2","expires_in":3600}`)
	source, err := New(Options{
		TokenURL: url, ClientID: "id", ClientSecret: "cs", RefreshToken: "r1", Scopes: []string{"mail"},
	})
	if err != nil {
		t.Fatal(err)
	}
	// t1 is about to expire at once, so that the second call renews it; t2 lasts.
	for _, want := range []string{"t1", "t2", "t2"} {
		if got, err := source(t.Context(), ""); got != want || err != nil {
			t.Errorf("source() = %q, %v, want %q", got, err, want)
		}
	}
	if got := len(forms()); got != 2 {
		t.Fatalf("the endpoint was asked %d times, want 2", got)
	}
	for i, refresh := range []string{"r1", "r2"} {
		form := forms()[i]
		if form["grant_type"][0] != "refresh_token" || form["refresh_token"][0] != refresh ||
			form["client_id"][0] != "id" || form["client_secret"][0] != "cs" || form["scope"][0] != "mail" {
			t.Errorf("request %d = %v, want refresh token %s", i, form, refresh)
		}
	}
}

func TestSourceClientCredentials(t *testing.T) {
	url, forms := tokenEndpoint(t, `{"access_token":"t1","expires_in":3600}`)
	source, err := New(Options{TokenURL: url, ClientID: "id", ClientSecret: "cs"})
	if err != nil {
		t.Fatal(err)
	}
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			if got, err := source(t.Context(), ""); got != "t1" || err != nil {
				t.Errorf("source() = %q, %v, want t1", got, err)
			}
		})
	}
	callers.Wait()
	if got := forms(); len(got) != 1 || got[0]["grant_type"][0] != "client_credentials" {
		t.Errorf("requests = %v, want one with client credentials", got)
	}
}

func TestSourceRefused(t *testing.T) {
	refusal, err := json.Marshal(map[string]string{
		"error": "invalid_grant", "error_description": "Token has been revoked\x1b[31m", "echo": "refresh-secret",
	})
	if err != nil {
		t.Fatal(err)
	}
	url, _ := tokenEndpoint(t, string(refusal))
	source, err := New(Options{TokenURL: url, ClientID: "id", RefreshToken: "refresh-secret"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = source(t.Context(), "")
	if err == nil || !strings.Contains(err.Error(), "invalid_grant Token has been revoked") {
		t.Errorf("source() = %v, want the endpoint's error", err)
	}
	if strings.ContainsAny(err.Error(), "\x1b") || strings.Contains(err.Error(), "refresh-secret") {
		t.Errorf("source() = %q: not fit for a log", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := source(ctx, ""); err == nil {
		t.Error("source() with an ended context gave a token")
	}
}

func TestSourceFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	source, err := New(Options{AccessTokenFile: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source(t.Context(), ""); err == nil {
		t.Error("source() without a file gave a token")
	}
	for _, tt := range []struct{ text, want string }{{"one\n", "one"}, {"two", "two"}, {"\n", ""}, {"a\nb", ""}} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := source(t.Context(), ""); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("source() with file %q = %q, %v, want %q", tt.text, got, err, tt.want)
		}
	}
}

// TestSourceReplaces: a token that the relay refuses is replaced before its
// time, unless it is that young that another one would fare no better.
func TestSourceReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetched := 0
		endpoint := roundTripper(func(*http.Request) (*http.Response, error) {
			fetched++
			body := fmt.Sprintf(`{"access_token":"t%d","expires_in":3600}`, fetched)
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
			}, nil
		})
		source, err := New(Options{
			TokenURL: "https://token.test", ClientID: "id", RefreshToken: "r1", Client: &http.Client{Transport: endpoint},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			after         time.Duration
			refused, want string
		}{
			{0, "", "t1"},
			{30 * time.Second, "t1", "t1"}, // too young
			{30 * time.Second, "", "t1"},
			{0, "t1", "t2"},
			{0, "t1", "t2"}, // another login had the old one, too
			{time.Minute, "t1", "t2"},
			{time.Minute, "t2", "t3"},
			{30 * time.Minute, "", "t3"},
		} {
			time.Sleep(step.after)
			if got, err := source(t.Context(), step.refused); got != step.want || err != nil {
				t.Errorf("source(%q) = %q, %v, want %q", step.refused, got, err, step.want)
			}
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestSourceFails: an endpoint that fails is not asked again at once.
func TestSourceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		source, err := New(Options{TokenURL: "http://token.test/", ClientID: "id", Client: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			asked++
			return nil, errors.New("no route")
		})}})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if _, err := source(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "no route") {
				t.Errorf("source() = %v, want the endpoint's error", err)
			}
			time.Sleep(time.Second)
		}
		if asked != 2 {
			t.Errorf("the endpoint was asked %d times in 20 s, want 2", asked)
		}
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
