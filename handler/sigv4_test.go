package handler

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// signRequest signs as the AWS SDKs do, with code of its own for the parts that
// could be wrong in the same way on both sides kept to a minimum: the known
// answers in TestSignatureKnown are AWS's.
func signRequest(r *http.Request, accessKey, secret string, at time.Time) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	at = at.UTC()
	r.Header.Set(headerAmzDate, at.Format(sigTime))
	r.Header.Set(headerAmzHash, hash)
	s := signature{
		scope: at.Format("20060102") + "/eu-central-1/ses/aws4_request", date: at.Format("20060102"), region: "eu-central-1", service: "ses",
		signedHeaders: []string{"content-type", "host", "x-amz-content-sha256", "x-amz-date"}, at: at,
	}
	r.Header.Set("Authorization", sigAlgorithm+" Credential="+accessKey+"/"+s.scope+", SignedHeaders="+strings.Join(s.signedHeaders, ";")+", Signature="+s.sign(r, secret, hash))
}

// TestSignatureKnown is the example of AWS's documentation ("Create a signed
// request", GET of iam ListUsers).
func TestSignatureKnown(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", nil)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	r.Header.Set(headerAmzDate, "20150830T123600Z")
	s := signature{
		scope: "20150830/us-east-1/iam/aws4_request", date: "20150830", region: "us-east-1", service: "iam",
		signedHeaders: []string{"content-type", "host", "x-amz-date"}, at: time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC),
		sum: "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
	}
	const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if !s.matches(r, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", emptyHash) {
		t.Errorf("the known signature does not match; canonical request:\n%s", s.canonical(r, emptyHash))
	}
}

func TestSignature(t *testing.T) {
	api := apis["ses"]
	for _, tc := range []struct {
		name string
		edit func(r *http.Request)
		want int
	}{
		{"good", func(*http.Request) {}, 200},
		{"another body", func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(strings.Replace(api.body, "ana", "eve", 1)))
		}, 403},
		{"another host", func(r *http.Request) { r.Host = "proxy.example" }, 403},
		{"another header", func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }, 403},
		{"another query", func(r *http.Request) { r.URL.RawQuery = "a=b" }, 403},
		{"unknown key", func(r *http.Request) { signRequest(r, "nobody", testKey, time.Now()) }, 403},
		{"another key's secret", func(r *http.Request) { signRequest(r, "blog", testKey, time.Now()) }, 403},
		{"old", func(r *http.Request) { signRequest(r, "shop", testKey, time.Now().Add(-16*time.Minute)) }, 403},
		{"from the future", func(r *http.Request) { signRequest(r, "shop", testKey, time.Now().Add(16*time.Minute)) }, 403},
		{"a little late", func(r *http.Request) { signRequest(r, "shop", testKey, time.Now().Add(-14*time.Minute)) }, 200},
		{"unsigned payload without TLS", func(r *http.Request) { signPayload(r, unsignedPayload) }, 403},
		{"no hash in the header", func(r *http.Request) { signPayload(r, "") }, 200},
		{"bearer", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+testKey) }, 403},
		{"incomplete", func(r *http.Request) { r.Header.Set("Authorization", sigAlgorithm+" Credential=shop/x") }, 403},
		{"host not signed", func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), ";host", "", 1))
		}, 403},
	} {
		r := api.request("ses", strings.NewReader(api.body))
		tc.edit(r)
		if got := serve(newTestServer(t, &fakeQueue{durable: true}, nil), r); got.status != tc.want {
			t.Errorf("%s = %d %s, want %d", tc.name, got.status, text(got), tc.want)
		}
	}
}

// TestUnprovenBodies: bodies that must be read before their signature can be
// checked keep nobody out who has proven himself.
func TestUnprovenBodies(t *testing.T) {
	api := apis["ses"]
	s := newTestServer(t, &fakeQueue{durable: true}, func(o *Options) { o.MaxInFlight = 4 << 20 })
	strangers := s.unproven.Share()
	if !strangers.Grow(1<<20-1) || s.unproven.Share().Grow(2) || !strangers.Grow(1<<20) {
		t.Fatal("bodies of strangers may hold more or less than 1 MiB of 4 MiB")
	}
	unhashed := api.request("ses", strings.NewReader(api.body))
	signPayload(unhashed, "")
	if got := serve(s, unhashed); got.status != 503 {
		t.Errorf("no hash in the header, beside strangers = %d %s, want 503", got.status, text(got))
	}
	if got := serve(s, api.request("ses", strings.NewReader(api.body))); got.status != 200 {
		t.Errorf("a hash in the header, beside strangers = %d %s, want 200", got.status, text(got))
	}
	strangers.Shrink(0)
	for _, length := range []int64{int64(len(api.body)), -1} {
		r := api.request("ses", strings.NewReader(api.body))
		signPayload(r, "")
		r.ContentLength = length
		if got := serve(s, r); got.status != 200 {
			t.Errorf("no hash in the header, alone, length %d = %d %s, want 200", length, got.status, text(got))
		}
	}
	if !s.unproven.Share().Grow(1 << 20) {
		t.Error("a request kept a share of the budget after it was answered")
	}
}

// signPayload signs with a hash of the caller's choice; with none, the header
// has none and the body's is signed.
func signPayload(r *http.Request, hash string) {
	sum := sha256.Sum256([]byte(apis["ses"].body))
	signed := []string{"content-type", "host", "x-amz-date"}
	r.Header.Del(headerAmzHash)
	if hash != "" {
		r.Header.Set(headerAmzHash, hash)
	} else {
		hash = hex.EncodeToString(sum[:])
	}
	at, err := time.Parse(sigTime, r.Header.Get(headerAmzDate))
	if err != nil {
		panic(err)
	}
	s := signature{
		scope: at.Format("20060102") + "/eu-central-1/ses/aws4_request", date: at.Format("20060102"), region: "eu-central-1", service: "ses",
		signedHeaders: signed, at: at,
	}
	r.Header.Set("Authorization", sigAlgorithm+" Credential=shop/"+s.scope+", SignedHeaders="+strings.Join(signed, ";")+", Signature="+s.sign(r, testKey, hash))
}

// FuzzSignature: whatever a stranger sends is refused and harms nobody.
func FuzzSignature(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=shop/20300101/eu/ses/aws4_request, SignedHeaders=host, Signature=00", "20300101T000000Z")
	f.Add("AWS4-HMAC-SHA256 Credential=//, SignedHeaders=;;, Signature=", "")
	f.Fuzz(func(t *testing.T, authorization, date string) {
		r := httptest.NewRequest(http.MethodPost, "/v2/email/outbound-emails", nil)
		r.Header.Set("Authorization", authorization)
		r.Header.Set(headerAmzDate, date)
		now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
		s, err := parseSignature(r, now)
		if err == nil && s.matches(r, "secret", unsignedPayload) {
			t.Errorf("%q matches", authorization)
		}
	})
}
