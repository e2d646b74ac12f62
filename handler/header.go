package handler

import (
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
)

const (
	headerIdempotencyKey    = "Idempotency-Key"
	headerIdempotencyReplay = "Idempotency-Replayed"
	headerPrefer            = "Prefer"
	headerPreferenceApplied = "Preference-Applied"
	headerEnvelopeFrom      = "Envelope-From"
	headerEnvelopeTo        = "Envelope-To"
	headerEnvelopePriority  = "Envelope-Priority"

	maxIdempotencyKey = 256
)

const (
	typeJSON      = "application/json"
	typeForm      = "multipart/form-data"
	typeRFC822    = "message/rfc822"
	acceptedTypes = typeJSON + ", " + typeForm + ", " + typeRFC822
)

// contentType returns the media type of the body, one of accepted, and its
// parameters.
func contentType(h http.Header, accepted ...string) (string, map[string]string, error) {
	for _, coding := range h.Values("Content-Encoding") {
		if coding != "" && !strings.EqualFold(strings.TrimSpace(coding), "identity") {
			return "", nil, problem.New(api.CodeContentEncoding, "Send the body as it is, without Content-Encoding.")
		}
	}
	return mediaTypeOf(h, accepted...)
}

func mediaTypeOf(h http.Header, accepted ...string) (string, map[string]string, error) {
	given := h.Values("Content-Type")
	if len(given) != 1 {
		return "", nil, problem.New(api.CodeContentType, "Send one Content-Type: "+strings.Join(accepted, ", ")+".")
	}
	mediaType, params, err := mime.ParseMediaType(given[0])
	if err != nil {
		return "", nil, problem.New(api.CodeContentType, "The Content-Type cannot be read.")
	}
	for _, t := range accepted {
		if mediaType == t {
			return mediaType, params, checkCharset(mediaType, params)
		}
	}
	return "", nil, problem.New(api.CodeContentType, "This route takes "+strings.Join(accepted, ", ")+".")
}

func checkCharset(mediaType string, params map[string]string) error {
	charset := params["charset"]
	if mediaType == typeRFC822 || charset == "" || strings.EqualFold(charset, "utf-8") {
		return nil // a finished message names the charset of each of its parts
	}
	return problem.New(api.CodeContentType, "The charset must be utf-8.")
}

// idempotencyKey returns the key of the request, unquoted: a Structured Field
// string ("x", RFC 9651 §3.3.3) and a bare word (x) are the same key.
func idempotencyKey(h http.Header) (string, error) {
	given := h.Values(headerIdempotencyKey)
	if len(given) == 0 {
		return "", nil
	}
	key := strings.TrimSpace(given[0])
	if n := len(key); n >= 2 && key[0] == '"' && key[n-1] == '"' {
		key = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(key[1 : n-1])
	}
	printable := strings.IndexFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) < 0
	if len(given) > 1 || key == "" || len(key) > maxIdempotencyKey || !printable {
		return "", problem.New(api.CodeInvalidParameter, "", problem.At(headerIdempotencyKey,
			fmt.Sprintf("must be given once, with 1 to %d printable ASCII characters", maxIdempotencyKey)))
	}
	return key, nil
}

// preferredWait reads Prefer: wait=N (RFC 7240 §4.3), in seconds. A preference
// that cannot be understood is ignored, as §2 there wants it.
func preferredWait(h http.Header) time.Duration {
	for _, field := range h.Values(headerPrefer) {
		for preference := range strings.SplitSeq(field, ",") {
			preference, _, _ = strings.Cut(preference, ";")
			name, value, _ := strings.Cut(preference, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 32)
			if err != nil {
				return 0
			}
			return min(time.Duration(seconds)*time.Second, api.MaxWait) // the first one counts
		}
	}
	return 0
}
