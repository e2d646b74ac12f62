package intake

import (
	"mime"
	"net/http"
	"strings"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
)

// The media types of requests and answers.
const (
	TypeJSON   = "application/json"
	TypeForm   = "multipart/form-data"
	TypeRFC822 = "message/rfc822"
)

// PlainMediaType is [MediaType] where no content coding is understood.
func PlainMediaType(h http.Header, accepted ...string) (string, map[string]string, error) {
	for _, coding := range h.Values("Content-Encoding") {
		if coding != "" && !strings.EqualFold(strings.TrimSpace(coding), "identity") {
			return "", nil, problem.New(api.CodeContentEncoding, "Send the body as it is, without Content-Encoding.")
		}
	}
	return MediaType(h, accepted...)
}

// MediaType returns the media type of the body, one of accepted, and its parameters.
func MediaType(h http.Header, accepted ...string) (string, map[string]string, error) {
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
	if mediaType == TypeRFC822 {
		return nil // a finished message names the charset of each of its parts
	}
	switch strings.ToLower(params["charset"]) {
	case "", "utf-8", "utf8", "us-ascii", "ascii": // ASCII is UTF-8, too
		return nil
	}
	return problem.New(api.CodeContentType, "The charset must be utf-8.")
}
