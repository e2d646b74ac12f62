package api

// Code says what happened in a word that a client can switch on. Codes never change
// their meaning; docs/http-api.md lists them.
type Code string

// All the codes of a [Problem].
const (
	CodeMalformedJSON     Code = "malformed_json"
	CodeUnknownField      Code = "unknown_field"
	CodeDuplicateField    Code = "duplicate_field"
	CodeWrongType         Code = "wrong_type"
	CodeInvalidBase64     Code = "invalid_base64"
	CodeMalformedForm     Code = "malformed_form"
	CodeMalformedHeader   Code = "malformed_header"
	CodeMalformedMessage  Code = "malformed_message"
	CodeInvalidParameter  Code = "invalid_parameter"
	CodeIncompleteBody    Code = "incomplete_body"
	CodeUnauthorized      Code = "unauthorized"
	CodeCrossOrigin       Code = "cross_origin"
	CodeForeignHost       Code = "foreign_host"
	CodeSenderNotAllowed  Code = "sender_not_allowed"
	CodeRoleRequired      Code = "role_required"
	CodeNotFound          Code = "not_found"
	CodeMessageNotFound   Code = "message_not_found"
	CodeRelayNotFound     Code = "relay_not_found"
	CodeMethodNotAllowed  Code = "method_not_allowed"
	CodeBodyTimeout       Code = "body_timeout"
	CodeIdempotencyInUse  Code = "idempotency_key_in_use"
	CodeNothingToRetry    Code = "nothing_to_retry"
	CodeAlreadyResent     Code = "already_resent"
	CodeNothingToCancel   Code = "nothing_to_cancel"
	CodeContentGone       Code = "content_gone"
	CodeBodyTooLarge      Code = "body_too_large"
	CodeMessageTooLarge   Code = "message_too_large"
	CodeContentType       Code = "unsupported_content_type"
	CodeContentEncoding   Code = "unsupported_content_encoding"
	CodeHeaderTooLarge    Code = "header_too_large"
	CodeInvalidMessage    Code = "invalid_message"
	CodeTooManyRecipients Code = "too_many_recipients"
	CodeTooManyMessages   Code = "too_many_messages"
	CodeInvalidBatch      Code = "invalid_batch"
	CodeIdempotencyReused Code = "idempotency_key_reused"
	CodeQueueRequired     Code = "queue_required"
	CodeRejected          Code = "rejected"
	CodeCanceled          Code = "canceled"
	CodeRateLimited       Code = "rate_limited"
	CodeInternal          Code = "internal"
	CodeExpired           Code = "expired"
	CodeRelayDeferred     Code = "relay_deferred"
	CodeRelayUnreachable  Code = "relay_unreachable"
	CodeBusy              Code = "busy"
	CodeTooManySearches   Code = "too_many_searches"
	CodeQueueFull         Code = "queue_full"
	CodeDiskFull          Code = "disk_full"
	CodeQueueUnavailable  Code = "queue_unavailable"
	CodeShuttingDown      Code = "shutting_down"
	CodeDraining          Code = "draining"
	CodeRelayPaused       Code = "relay_paused"
	CodeTimeout           Code = "timeout"
	CodeUncertain         Code = "uncertain"
)

// NothingDone ends the detail of a [CodeQueueUnavailable] where nothing can have been stored.
const NothingDone = "Nothing was stored or changed."

// Problem is every answer that is an error (RFC 9457). Members beyond Code and
// RequestID are there where a relay or a message is concerned.
type Problem struct {
	// Type is "urn:mailsidecar:problem:" and the code: a type is an identity and need
	// not be fetched (RFC 9457 §3.1.1).
	Type   string       `json:"type"`
	Title  string       `json:"title"`  // the same for every problem of that code
	Status int          `json:"status"` // of HTTP
	Detail string       `json:"detail"` // one or more sentences
	Code   Code         `json:"code"`
	Errors []FieldError `json:"errors,omitempty"`
	// Retryable says that the same request may succeed later. Nothing is going to be
	// sent for this one; but after [CodeQueueUnavailable] and [CodeTimeout] it may have
	// been stored: repeat it with the same Idempotency-Key.
	Retryable bool   `json:"retryable"`
	RequestID string `json:"request_id,omitempty"` // as in the server's log
	// The relay's reply, and where it was given.
	ReplyCode    int    `json:"reply_code,omitzero"`
	EnhancedCode string `json:"enhanced_code,omitempty"`
	Stage        string `json:"stage,omitempty"`
	Relay        string `json:"relay,omitempty"`
	Port         int    `json:"port,omitzero"`
	// What became of the message, where one was made.
	ID         string        `json:"id,omitempty"`
	MessageID  string        `json:"message_id,omitempty"`
	Recipients []Recipient   `json:"recipients,omitempty"`
	Results    []BatchResult `json:"results,omitempty"` // of a batch of which nothing was stored
}

// FieldError says what is wrong with one field of a request.
type FieldError struct {
	Field   string `json:"field"` // path in the request, such as "to[1].email"; empty: the whole
	Message string `json:"message"`
}
