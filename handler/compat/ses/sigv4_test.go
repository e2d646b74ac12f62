package ses

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
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
		t.Errorf("the known signature does not match; canonical request:\n%s", s.canonical(r, emptyHash))
	}
}

// FuzzSignature: whatever a stranger sends is refused and harms nobody.
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
