package ses

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mailsidecar/handler/compat/compattest"
)

// TestSignatureKnown is the example of AWS's documentation ("Create a signed
// request", GET of iam ListUsers).
func TestSignatureKnown(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", nil)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	r.Header.Set(headerDate, "20150830T123600Z")
	s := signature{
		scope: "20150830/us-east-1/iam/aws4_request", date: "20150830", region: "us-east-1", service: "iam",
		signedHeaders: []string{"content-type", "host", "x-amz-date"}, at: time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC),
		sum: "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
	}
	const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if !s.matches(r, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", emptyHash) {
		t.Errorf("the known signature does not match; canonical request:\n%s", s.canonical(r, "/", emptyHash))
	}
}

// FuzzSignature: without the secret no request is let in.
func FuzzSignature(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=shop/20300101/eu/ses/aws4_request, SignedHeaders=host, Signature=00", "20300101T000000Z")
	f.Add("AWS4-HMAC-SHA256 Credential=//, SignedHeaders=;;, Signature=", "")
	f.Fuzz(func(t *testing.T, authorization, date string) {
		r := httptest.NewRequest(http.MethodPost, "/v2/email/outbound-emails", nil)
		r.Header.Set("Authorization", authorization)
		r.Header.Set(headerDate, date)
		now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
		s, err := parseSignature(r, now)
		if err == nil && s.matches(r, "secret", unsignedPayload) {
			t.Errorf("%q matches", authorization)
		}
	})
}

func TestSignature(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(r *http.Request)
		want int
	}{
		{"good", func(*http.Request) {}, 200},
		{"another body", func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(strings.Replace(good, "ana", "eve", 1)))
		}, 403},
		{"another host", func(r *http.Request) { r.Host = "proxy.example" }, 403},
		{"another header", func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }, 403},
		{"another query", func(r *http.Request) { r.URL.RawQuery = "a=b" }, 403},
		{"unknown key", func(r *http.Request) { compattest.SignRequest(r, "nobody", compattest.ShopSecret, time.Now()) }, 403},
		{"another key's secret", func(r *http.Request) { compattest.SignRequest(r, "blog", compattest.ShopSecret, time.Now()) }, 403},
		{"old", func(r *http.Request) {
			compattest.SignRequest(r, "shop", compattest.ShopSecret, time.Now().Add(-16*time.Minute))
		}, 403},
		{"from the future", func(r *http.Request) {
			compattest.SignRequest(r, "shop", compattest.ShopSecret, time.Now().Add(16*time.Minute))
		}, 403},
		{"a little late", func(r *http.Request) {
			compattest.SignRequest(r, "shop", compattest.ShopSecret, time.Now().Add(-14*time.Minute))
		}, 200},
		{"unsigned payload without TLS", func(r *http.Request) { signPayload(r, "UNSIGNED-PAYLOAD") }, 403},
		{"no hash in the header", func(r *http.Request) { signPayload(r, "") }, 200},
		{"bearer", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+compattest.ShopSecret) }, 403},
		{"incomplete", func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=shop/x") }, 403},
		{"host not signed", func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), ";host", "", 1))
		}, 403},
	} {
		r := request("", good)
		tc.edit(r)
		if got := new(compattest.Desk).Serve(t, API, r); got.Code != tc.want {
			t.Errorf("%s = %d %s, want %d", tc.name, got.Code, got.Body, tc.want)
		}
	}
}

// signPayload signs with a hash of the caller's choice; with none, the header
// has none and the body's is signed.
func signPayload(r *http.Request, hash string) {
	sum := sha256.Sum256([]byte(good))
	signed := []string{"content-type", "host", "x-amz-date"}
	r.Header.Del("X-Amz-Content-Sha256")
	if hash != "" {
		r.Header.Set("X-Amz-Content-Sha256", hash)
	} else {
		hash = hex.EncodeToString(sum[:])
	}
	compattest.Sign(r, "shop", compattest.ShopSecret, hash, signed...)
}
