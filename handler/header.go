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
