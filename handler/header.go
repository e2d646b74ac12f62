package handler

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
)

const (
	headerIdempotencyReplay = "Idempotency-Replayed"
	headerPrefer            = "Prefer"
	headerPreferenceApplied = "Preference-Applied"
	headerEnvelopeFrom      = "Envelope-From"
	headerEnvelopeTo        = "Envelope-To"
	headerEnvelopePriority  = "Envelope-Priority"
)

// acceptedTypes are those of POST /v1/messages.
const acceptedTypes = intake.TypeJSON + ", " + intake.TypeForm + ", " + intake.TypeRFC822

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

// maxSmallHeader is the size of a header that every request may have, with octetsPerField
// for each field: a cookie of 8 KiB and what several proxies add have room in it, and so
// has it in the memory of a connection.
const (
	maxSmallHeader = 16 << 10
	octetsPerField = 128
)

// headerSize is how large the request's header is, for maxSmallHeader.
func headerSize(r *http.Request) int {
	size := len(r.RequestURI)
	for name, values := range r.Header {
		for _, v := range values {
			size += len(name) + len(v) + octetsPerField
		}
	}
	return size
}

// takesEnvelope reports whether the header may have a message's recipients. That request
// is authenticated before anything else.
func takesEnvelope(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Path == "/v1/messages"
}
