package handler

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// signRequest signs as the AWS SDKs do.
func signRequest(r *http.Request, accessKey, secret string, at time.Time) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	r.Header.Set("X-Amz-Date", at.UTC().Format("20060102T150405Z"))
	r.Header.Set("X-Amz-Content-Sha256", hash)
	sign(r, accessKey, secret, hash, "content-type", "host", "x-amz-content-sha256", "x-amz-date")
}

// sign writes the Authorization field of a request whose payload has that hash. It is
// written apart from what it tests, for a plain path without a query.
func sign(r *http.Request, accessKey, secret, hash string, signed ...string) {
	var fields strings.Builder
	for _, name := range signed {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		fields.WriteString(name + ":" + value + "\n")
	}
	names := strings.Join(signed, ";")
	request := sha256.Sum256([]byte(r.Method + "\n" + r.URL.Path + "\n\n" + fields.String() + "\n" + names + "\n" + hash))
	date := r.Header.Get("X-Amz-Date")
	scope := date[:8] + "/eu-central-1/ses/aws4_request"
	key := "AWS4" + secret
	for _, part := range append(strings.Split(scope, "/"), "AWS4-HMAC-SHA256\n"+date+"\n"+scope+"\n"+hex.EncodeToString(request[:])) {
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(part))
		key = string(h.Sum(nil))
	}
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+accessKey+"/"+scope+", SignedHeaders="+names+", Signature="+hex.EncodeToString([]byte(key)))
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
		{"unsigned payload without TLS", func(r *http.Request) { signPayload(r, "UNSIGNED-PAYLOAD") }, 403},
		{"no hash in the header", func(r *http.Request) { signPayload(r, "") }, 200},
		{"bearer", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+testKey) }, 403},
		{"incomplete", func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=shop/x") }, 403},
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
	strangers := s.unauthenticated.Share()
	if !strangers.Grow(1<<20-1) || s.unauthenticated.Share().Grow(2) || !strangers.Grow(1<<20) {
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
	if !s.unauthenticated.Share().Grow(1 << 20) {
		t.Error("a request kept a share of the budget after it was answered")
	}
}

// signPayload signs with a hash of the caller's choice; with none, the header
// has none and the body's is signed.
func signPayload(r *http.Request, hash string) {
	sum := sha256.Sum256([]byte(apis["ses"].body))
	signed := []string{"content-type", "host", "x-amz-date"}
	r.Header.Del("X-Amz-Content-Sha256")
	if hash != "" {
		r.Header.Set("X-Amz-Content-Sha256", hash)
	} else {
		hash = hex.EncodeToString(sum[:])
	}
	sign(r, "shop", testKey, hash, signed...)
}
