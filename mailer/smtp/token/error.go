package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailsidecar/credentials"
	"mailsidecar/mailer"
)

const (
	// maxErrorText limits what an error quotes of the endpoint's description, in octets.
	maxErrorText = 500
	// maxErrorCode limits the other texts of an error, in octets.
	maxErrorCode = 100
	// maxErrorNumbers limits the AADSTS numbers of an error.
	maxErrorNumbers = 10
	// longestRetryAfter limits how long an endpoint may ask us to wait.
	longestRetryAfter = time.Hour
)

// Kind says what is to be done about a failed request for a token.
type Kind int

const (
	// KindPassing is a fault of network or endpoint that may pass: 5xx, no answer, one
	// that cannot be understood.
	KindPassing Kind = iota
	// KindTooOften is an endpoint that wants to be asked less often: 429, slow_down.
	KindTooOften
	// KindLogin is a login that is not valid, or not any more, so that a person has to
	// log in again: invalid_grant, interaction_required, consent_required. For the
	// grants without a person it is the grant itself, such as a JWT, that is refused.
	KindLogin
	// KindClient is a request or a client that the endpoint does not accept, so that
	// the settings or the registration have to be changed: invalid_client, invalid_scope.
	KindClient
)

// Error is the refusal of a token endpoint (RFC 6749 §5.2), or an answer of it that
// holds no token. It never holds a secret, and its texts are printable.
type Error struct {
	Status int // of HTTP
	// Code is the field "error", such as "invalid_grant"; empty where the answer is no
	// JSON of OAuth2.
	Code        string
	Description string // "error_description", shortened; else what is wrong with the answer
	Subtype     string // "error_subtype" of Google, such as "invalid_rapt"; or "suberror" of Microsoft
	// Numbers are Microsoft's AADSTS numbers, from "error_codes" or else out of the
	// description. They choose words, never what is done.
	Numbers []int
	// RetryAfter is how long the endpoint asks us to wait, at most an hour; zero where
	// it does not say.
	RetryAfter time.Duration
	// Skew is how far the endpoint's clock is ahead of ours, see [Answer].
	Skew time.Duration
}

// Error says what the endpoint answered.
func (e *Error) Error() string {
	words := []string{"token endpoint answered " + strconv.Itoa(e.Status)}
	if e.Code != "" {
		words = append(words, e.Code)
	}
	if e.Subtype != "" {
		words = append(words, "("+e.Subtype+")")
	}
	text := strings.Join(words, " ")
	if e.Description != "" {
		text += ": " + e.Description
	}
	return text
}

// Kind judges by the HTTP status and the field "error" alone.
func (e *Error) Kind() Kind {
	switch {
	case e.Status == http.StatusTooManyRequests || e.Code == "slow_down":
		return KindTooOften
	case e.Status >= 500 || e.Status == http.StatusRequestTimeout || e.Code == "" ||
		e.Code == "temporarily_unavailable" || e.Code == "server_error":
		return KindPassing
	case slices.Contains(loginCodes, e.Code):
		return KindLogin
	default:
		return KindClient
	}
}

// loginCodes are the errors which only a person who logs in can end: those of RFC 6749
// §5.2, of OpenID Connect Core §3.1.2.6, and of device codes (RFC 8628 §3.5).
var loginCodes = []string{
	"invalid_grant", "interaction_required", "login_required", "consent_required", "account_selection_required",
	"access_denied", "authorization_declined", "expired_token", "bad_verification_code",
}

// KindOf returns the kind of a failed request for a token; [KindPassing] where the
// error is no [*Error]. A missing or foreign login is [KindLogin].
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind()
	}
	if errors.Is(err, ErrNotStored) || errors.As(err, new(*ForeignError)) || errors.As(err, new(*DamagedError)) {
		return KindLogin
	}
	if errors.As(err, new(*ClientError)) {
		return KindClient
	}
	return KindPassing
}

// ForeignError is a stored login that the settings do not fit: they name another
// client or another host of the token endpoint.
type ForeignError struct {
	What       string // "client" or "token endpoint"
	Stored     string
	Configured string
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("the stored login belongs to %s %q, and the settings name %q",
		e.What, mailer.Printable(e.Stored, maxErrorCode), mailer.Printable(e.Configured, maxErrorCode))
}

// UnwritableError says that the successor of a refresh token could not be saved, so that
// it is not spent now.
type UnwritableError struct{ Err error }

func (e *UnwritableError) Error() string {
	return "a new refresh token could not be stored, so that none was asked for: " + e.Err.Error()
}

func (e *UnwritableError) Unwrap() error { return e.Err }

// MemoryError is a login that is not valid where no other one can be stored: the store
// is in memory, and the command login does not reach it.
type MemoryError struct{ Err error }

func (e *MemoryError) Error() string { return e.Err.Error() }

func (e *MemoryError) Unwrap() error { return e.Err }

// ClientError is a certificate, a key or an assertion of the client that cannot be
// used.
type ClientError = credentials.FileError

// aadsts finds Microsoft's numbers in a description.
var aadsts = regexp.MustCompile(`AADSTS(\d{4,8})\b`)

// refusal makes an Error of an answer without a token. fields are those of its JSON
// object; nil where it is none.
func refusal(r *http.Response, fields map[string]json.RawMessage, now time.Time, secrets []string) *Error {
	clean := func(name string, limit int) string {
		return mailer.Printable(mailer.Redact(strings.Join(strings.Fields(textField(fields[name])), " "), secrets), limit)
	}
	e := &Error{
		Status: r.StatusCode, Code: clean("error", maxErrorCode), Description: clean("error_description", maxErrorText),
		RetryAfter: retryAfter(r.Header.Get("Retry-After"), now),
	}
	if e.Subtype = clean("error_subtype", maxErrorCode); e.Subtype == "" {
		e.Subtype = clean("suberror", maxErrorCode)
	}
	var numbers []int
	if json.Unmarshal(fields["error_codes"], &numbers) == nil && len(numbers) > 0 {
		e.Numbers = numbers[:min(len(numbers), maxErrorNumbers)]
		return e
	}
	for _, m := range aadsts.FindAllStringSubmatch(e.Description, maxErrorNumbers) {
		if n, err := strconv.Atoi(m[1]); err == nil && !slices.Contains(e.Numbers, n) {
			e.Numbers = append(e.Numbers, n)
		}
	}
	return e
}

// textField returns a JSON string; empty for anything else.
func textField(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}

// retryAfter reads a Retry-After field (RFC 9110 §10.2.3): seconds or a date. Zero
// means that it says nothing, or nothing that can be understood.
func retryAfter(field string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(strings.TrimSpace(field), 10, 63); err == nil {
		return time.Duration(min(seconds, uint64(longestRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(field); err == nil {
		return min(max(0, at.Sub(now)), longestRetryAfter)
	}
	return 0
}
