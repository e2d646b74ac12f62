package ses

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/problem"
)

// This file checks AWS Signature Version 4, with which the AWS SDKs sign their
// requests instead of sending a key.

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	timeFormat = "20060102T150405Z"
	// maxSkew is how far the client's clock may be off, as AWS has it.
	maxSkew         = 15 * time.Minute
	unsignedPayload = "UNSIGNED-PAYLOAD"

	headerDate = "X-Amz-Date"
	headerHash = "X-Amz-Content-Sha256"
)

// signature is the Authorization field of a signed request.
type signature struct {
	accessKey     string
	scope         string // date/region/service/aws4_request
	date, region  string
	service       string
	signedHeaders []string
	sum           string
	at            time.Time
}

// parseSignature reads the signature of a request; its error is a
// [*problem.Error].
func parseSignature(r *http.Request, now time.Time) (signature, error) {
	var s signature
	fields, found := strings.CutPrefix(r.Header.Get("Authorization"), algorithm+" ")
	if !found {
		return s, problem.New(api.CodeUnauthorized, "The request is not signed: send Authorization: "+algorithm+".")
	}
	for field := range strings.SplitSeq(fields, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		switch name {
		case "Credential":
			s.accessKey, s.scope, _ = strings.Cut(value, "/")
		case "SignedHeaders":
			s.signedHeaders = strings.Split(value, ";")
		case "Signature":
			s.sum = value
		}
	}
	scope := strings.Split(s.scope, "/")
	if len(scope) != 4 || scope[3] != terminator || s.accessKey == "" || len(s.sum) != hex.EncodedLen(sha256.Size) {
		return s, problem.New(api.CodeUnauthorized, "The Authorization field is not a complete "+algorithm+" signature.")
	}
	s.date, s.region, s.service = scope[0], scope[1], scope[2]
	return s, s.checkTime(r, now)
}

func (s *signature) checkTime(r *http.Request, now time.Time) error {
	at, err := time.Parse(timeFormat, r.Header.Get(headerDate))
	if err != nil {
		if at, err = http.ParseTime(r.Header.Get("Date")); err != nil {
			return problem.New(api.CodeUnauthorized, "The request has no X-Amz-Date.")
		}
	}
	s.at = at.UTC()
	switch skew := now.Sub(at).Abs(); {
	case skew > maxSkew:
		return problem.New(api.CodeUnauthorized, "Signature expired: the clocks of client and server differ by more than 15 minutes.")
	case s.at.Format("20060102") != s.date:
		return problem.New(api.CodeUnauthorized, "The date of the credential scope is not that of the request.")
	case s.service != "ses" && s.service != "email":
		return problem.New(api.CodeUnauthorized, "The credential scope is not for the service ses.")
	case !distinct(s.signedHeaders):
		return problem.New(api.CodeUnauthorized, "SignedHeaders has a field twice.")
	case !slices.Contains(s.signedHeaders, "host"):
		return problem.New(api.CodeUnauthorized, "The Host field must be signed.")
	}
	return nil
}

// distinct reports whether no name is there twice. A name adds all values of its field to
// what is signed.
func distinct(names []string) bool {
	sorted := slices.Sorted(slices.Values(names))
	return len(slices.Compact(sorted)) == len(names)
}

// matches reports whether the request was signed with the secret; hash is that
// of its payload, in hexadecimal. Where the base URL ends in a slash, some SDKs sign the
// path as they send it, and others without the slash that is too much.
func (s *signature) matches(r *http.Request, secret, hash string) bool {
	sent := hmac.Equal([]byte(s.sign(r, compat.SentPath(r), secret, hash)), []byte(s.sum))
	tidy := hmac.Equal([]byte(s.sign(r, r.URL.EscapedPath(), secret, hash)), []byte(s.sum))
	return sent || tidy
}

func (s *signature) sign(r *http.Request, path, secret, hash string) string {
	sum := sha256.Sum256([]byte(s.canonical(r, path, hash)))
	toSign := strings.Join([]string{algorithm, s.at.Format(timeFormat), s.scope, hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.date, s.region, s.service, terminator} {
		key = keyedHash(key, part)
	}
	return hex.EncodeToString(keyedHash(key, toSign))
}

func keyedHash(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// canonical writes the request in the one form that is signed.
func (s *signature) canonical(r *http.Request, path, hash string) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n" + escapePath(path) + "\n" + canonicalQuery(r.URL.Query()) + "\n")
	for _, name := range s.signedHeaders {
		values := r.Header.Values(name)
		switch name {
		case "host":
			values = []string{r.Host}
		case "content-length":
			values = []string{r.Header.Get(name)}
		}
		trimmed := make([]string, len(values))
		for i, v := range values {
			trimmed[i] = strings.Join(strings.Fields(v), " ")
		}
		b.WriteString(name + ":" + strings.Join(trimmed, ",") + "\n")
	}
	b.WriteString("\n" + strings.Join(s.signedHeaders, ";") + "\n" + hash)
	return b.String()
}

// escapePath escapes the path of the request line once more, as every
// service but S3 wants it.
func escapePath(path string) string {
	segments := strings.Split(path, "/")
	for i := range segments {
		segments[i] = escape(segments[i])
	}
	return strings.Join(segments, "/")
}

func canonicalQuery(query url.Values) string {
	var pairs []string
	for name, values := range query {
		for _, v := range values {
			pairs = append(pairs, escape(name)+"="+escape(v))
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// escape escapes all but RFC 3986's unreserved characters.
func escape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}
