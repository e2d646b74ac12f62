package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"strconv"
	"strings"
)

// HeaderOwn is in every answer of the server, with the value "1": by it a client
// knows that the answer is mailsidecar's, and not that of a proxy or of another
// server at the same address.
const HeaderOwn = "Mailsidecar"

// own says that the answer to a request for path is mailsidecar's. Servers from
// before [HeaderOwn] are known by the form of their answers.
func (a Answer) own(path string) bool {
	if a.Header.Get(HeaderOwn) != "" {
		return true
	}
	switch kind, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type")); kind {
	case "text/plain":
		text := string(bytes.TrimSpace(a.Body))
		return strings.HasSuffix(path, "/readyz") && (text == "ok" || text == "not ready")
	case "message/rfc822":
		return strings.HasSuffix(path, "/content")
	case "application/problem+json":
		return readProblemCode(a.Body) != ""
	case "application/json":
		return ownJSON(a.Body)
	default:
		return false
	}
}

func readProblemCode(body []byte) Code {
	var p Problem
	if json.Unmarshal(body, &p) != nil {
		return ""
	}
	return p.Code
}

// ownJSON says that body is one of the objects which mailsidecar answers with.
func ownJSON(body []byte) bool {
	var got struct {
		ID         *string          `json:"id"`
		Recipients *json.RawMessage `json:"recipients"`
		Messages   *json.RawMessage `json:"messages"`
		Relays     *json.RawMessage `json:"relays"`
		Results    *json.RawMessage `json:"results"`
		Retried    *json.RawMessage `json:"retried"`
	}
	if json.Unmarshal(body, &got) != nil {
		return false
	}
	return got.ID != nil && *got.ID != "" && got.Recipients != nil ||
		got.Messages != nil || got.Relays != nil || got.Results != nil || got.Retried != nil
}

// ForeignAnswerError says that something else than mailsidecar answered. It
// did not take the message.
type ForeignAnswerError struct {
	Server   string // address, without a password
	Status   int    // of HTTP
	Location string // where a redirect leads to; else empty
}

func (e *ForeignAnswerError) Error() string {
	what := "HTTP " + strconv.Itoa(e.Status)
	if e.Location != "" {
		what += ", a redirect to " + strconv.QuoteToASCII(e.Location[:min(len(e.Location), 200)])
	}
	return fmt.Sprintf("the answer of %s is not mailsidecar's (%s): MAILSIDECAR_URL must be the address of mailsidecar, and a proxy between must reach it", e.Server, what)
}
