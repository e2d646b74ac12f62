package intake

import (
	"fmt"
	"net/http"
	"strings"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
)

// HeaderIdempotencyKey names a request that may be repeated.
const (
	HeaderIdempotencyKey = "Idempotency-Key"
	maxIdempotencyKey    = 256 // octets
)

// IdempotencyKey returns the key of the request, unquoted: a Structured Field
// string ("x", RFC 9651 §3.3.3) and a bare word (x) are the same key. It is empty for a
// request without one.
func IdempotencyKey(h http.Header) (string, error) {
	given := h.Values(HeaderIdempotencyKey)
	if len(given) == 0 {
		return "", nil
	}
	key := strings.TrimSpace(given[0])
	if n := len(key); n >= 2 && key[0] == '"' && key[n-1] == '"' {
		key = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(key[1 : n-1])
	}
	printable := strings.IndexFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) < 0
	if len(given) > 1 || key == "" || len(key) > maxIdempotencyKey || !printable {
		return "", problem.New(api.CodeInvalidParameter, "", problem.At(HeaderIdempotencyKey,
			fmt.Sprintf("must be given once, with 1 to %d printable ASCII characters", maxIdempotencyKey)))
	}
	return key, nil
}
