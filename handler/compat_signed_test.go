package handler

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"mailsidecar/handler/compat/compattest"
	"mailsidecar/handler/intake"
)

// otherShare is that of another key's request.
func otherShare(s *Server) *intake.Share {
	share := s.budget.Share()
	share.Prove("other")
	return share
}

// TestUnprovenBodies: bodies that must be read before their signature can be
// checked keep nobody out who has proven himself.
func TestUnprovenBodies(t *testing.T) {
	api := apis["ses"]
	api.body = strings.Replace(api.body, "{", "{"+strings.Repeat(" ", 8<<10), 1)
	s := newTestServer(t, &fakeQueue{durable: true}, func(o *Options) { o.MaxInFlight, o.MaxMessageSize = 4<<20, 1<<19 })
	stranger := s.budget.Share()
	if !stranger.Grow(1<<20-1) || s.budget.Share().Grow(2) || !stranger.Grow(1<<20) {
		t.Fatal("bodies of strangers may hold more or less than 1 MiB of 4 MiB")
	}
	unhashed := api.request("ses", strings.NewReader(api.body))
	signPayload(unhashed, "", api.body)
	if got := serve(s, unhashed); got.status != 503 {
		t.Errorf("no hash in the header, beside strangers = %d %s, want 503", got.status, text(got))
	}
	if got := serve(s, api.request("ses", strings.NewReader(api.body))); got.status != 200 {
		t.Errorf("a hash in the header, beside strangers = %d %s, want 200", got.status, text(got))
	}
	stranger.Close()
	for _, length := range []int64{int64(len(api.body)), -1} {
		r := api.request("ses", strings.NewReader(api.body))
		signPayload(r, "", api.body)
		r.ContentLength = length
		if got := serve(s, r); got.status != 200 {
			t.Errorf("no hash in the header, alone, length %d = %d %s, want 200", length, got.status, text(got))
		}
	}
	if !otherShare(s).Grow(4 << 20) {
		t.Error("a request kept a share of the budget after it was answered")
	}
}

// signPayload signs with a hash of the caller's choice; with none, the header
// has none and the body's is signed.
func signPayload(r *http.Request, hash, body string) {
	sum := sha256.Sum256([]byte(body))
	signed := []string{"content-type", "host", "x-amz-date"}
	r.Header.Del("X-Amz-Content-Sha256")
	if hash != "" {
		r.Header.Set("X-Amz-Content-Sha256", hash)
	} else {
		hash = hex.EncodeToString(sum[:])
	}
	compattest.Sign(r, "shop", testKey, hash, signed...)
}
