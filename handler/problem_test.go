package handler

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/units"
)

const goodMessage = `{"from":"Shop <shop@example.com>","to":["ana@example.org"],"subject":"Hi","text":"Hello"}`

// problemCase is a request and the problem that it is answered with.
type problemCase struct {
	name   string
	change func(*Options)
	queue  *fakeQueue // default not durable, accepting
	method string     // default POST
	target string     // default /v1/messages
	fields []string
	body   string // default goodMessage
	// serve sends the request in another way.
	serve  func(*testing.T, *Server) answer
	status int
	code   api.Code
	field  string // of the first of errors
	detail string // a part of it
}

func failed(classes ...mailer.Class) *fakeQueue {
	var states []queue.State
	var failures []*mailer.Failure
	for _, c := range classes {
		states = append(states, queue.Deferred)
		failures = append(failures, refusal(c, map[mailer.Class]int{mailer.ClassPermanent: 550, mailer.ClassTransient: 450}[c], "the relay's words"))
	}
	return &fakeQueue{receipt: judged(states, failures...)}
}

func answering(err error) *fakeQueue { return &fakeQueue{durable: true, err: err} }

func stored() *fakeQueue { return &fakeQueue{durable: true} }

const twoRecipients = `{"from":"shop@example.com","to":["ana@example.org","bob@example.org"],"text":"x"}`

func message(member string) string {
	return `{"from":"shop@example.com","to":["ana@example.org"],"text":"x",` + member + `}`
}

func problemCases() []problemCase {
	return []problemCase{
		// 400
		{name: "empty body", body: " ", status: 400, code: api.CodeMalformedJSON},
		{name: "no body", method: "POST", target: "/v1/messages", body: "-", status: 400, code: api.CodeMalformedJSON, detail: "empty"},
		{name: "cut off", body: `{"from":"a`, status: 400, code: api.CodeMalformedJSON, detail: "ends"},
		{name: "trailing data", body: goodMessage + "{}", status: 400, code: api.CodeMalformedJSON},
		{name: "invalid UTF-8", body: message("\"subject\":\"\xff\""), status: 400, code: api.CodeMalformedJSON, field: "subject", detail: "UTF-8"},
		{name: "lone surrogate", body: message(`"subject":"\ud800"`), status: 400, code: api.CodeMalformedJSON, field: "subject"},
		{name: "unknown field", body: message(`"importance":1`), status: 400, code: api.CodeUnknownField, field: "importance"},
		{name: "wrong case", body: message(`"Subject":"x"`), status: 400, code: api.CodeUnknownField, field: "Subject", detail: "did you mean subject?"},
		{name: "unknown field inside", body: message(`"attachments":[{"name":"x"}]`), status: 400, code: api.CodeUnknownField, field: "attachments[0].name"},
		{name: "duplicate field", body: message(`"text":"y"`), status: 400, code: api.CodeDuplicateField, field: "text"},
		{name: "duplicate header", body: message(`"headers":{"X-A":"1","X-A":"2"}`), status: 400, code: api.CodeDuplicateField, field: "headers.X-A"},
		{name: "wrong type", body: message(`"subject":5`), status: 400, code: api.CodeWrongType, field: "subject", detail: "must be a string"},
		{name: "null", body: message(`"cc":null`), status: 400, code: api.CodeWrongType, field: "cc", detail: "null"},
		{name: "null in a list", body: message(`"cc":["a@example.com",null]`), status: 400, code: api.CodeWrongType, field: "cc[1]"},
		{name: "wrong type in an address", body: message(`"cc":[{"email":["a"]}]`), status: 400, code: api.CodeWrongType, field: "cc[0].email"},
		{name: "wrong type in headers", body: message(`"headers":{"X-Order":1042}`), status: 400, code: api.CodeWrongType, field: "headers.X-Order"},
		{name: "list instead of object", body: `[]`, status: 400, code: api.CodeWrongType, detail: "The body must be an object."},
		{name: "base64 without padding", body: message(`"attachments":[{"filename":"a","content":"YQ"}]`), status: 400, code: api.CodeInvalidBase64, field: "attachments[0].content"},
		{name: "base64 with line break", body: message(`"attachments":[{"filename":"a","content":"YWJj\nYWJj"}]`), status: 400, code: api.CodeInvalidBase64, field: "attachments[0].content"},
		{name: "CR LF in subject", body: message(`"subject":"a\r\nBcc: x@example.com"`), status: 400, code: api.CodeMalformedHeader, field: "subject"},
		{name: "CR LF beside a bad address", body: `{"from":"shop@example.com","to":"nobody","subject":"a\r\nb","text":"x"}`, status: 400, code: api.CodeMalformedHeader, detail: "A header field would be malformed"},
		{name: "NUL in subject", body: message(`"subject":"a\u0000"`), status: 400, code: api.CodeMalformedHeader, field: "subject"},
		{name: "CR LF in a name", body: message(`"cc":{"email":"a@example.com","name":"A\nBcc: x"}`), status: 400, code: api.CodeMalformedHeader, field: "cc.name"},
		{name: "CR LF in an address", body: message(`"cc":"a@example.com\r\nBcc: x@example.com"`), status: 400, code: api.CodeMalformedHeader, field: "cc"},
		{name: "LF in a header's value", body: message(`"headers":{"X-A":"1\n 2"}`), status: 400, code: api.CodeMalformedHeader, field: "headers.X-A"},
		{name: "colon in a header's name", body: message(`"headers":{"X-A: b\nBcc":"1"}`), status: 400, code: api.CodeMalformedHeader},
		{name: "blank in a header's name", body: message(`"headers":{"X A":"1"}`), status: 400, code: api.CodeMalformedHeader, field: "headers.X A"},
		{name: "CR in a file name", body: message(`"attachments":[{"filename":"a\rb","content":""}]`), status: 400, code: api.CodeMalformedHeader, field: "attachments[0].filename"},
		{name: "form without boundary", fields: []string{"Content-Type: multipart/form-data"}, status: 400, code: api.CodeMalformedForm},
		{name: "form that is none", fields: []string{"Content-Type: multipart/form-data; boundary=x"}, body: "--x\r\nno", status: 400, code: api.CodeMalformedForm},
		{name: "unknown parameter", queue: stored(), method: "GET", target: "/v1/messages?recipent=x", body: "-", status: 400, code: api.CodeInvalidParameter, field: "recipent"},
		{name: "parameter twice", queue: stored(), method: "GET", target: "/v1/messages?limit=1&limit=2", body: "-", status: 400, code: api.CodeInvalidParameter, field: "limit"},
		{name: "limit too high without a queue", method: "GET", target: "/v1/messages?limit=501", body: "-", status: 400, code: api.CodeInvalidParameter, field: "limit"},
		{name: "empty filter without a queue", target: "/v1/messages/retry", body: "{}", status: 400, code: api.CodeInvalidParameter},
		{name: "limit too high", queue: stored(), method: "GET", target: "/v1/messages?limit=501", body: "-", status: 400, code: api.CodeInvalidParameter, field: "limit"},
		{name: "status not known", queue: stored(), method: "GET", target: "/v1/messages?status=sent", body: "-", status: 400, code: api.CodeInvalidParameter, field: "status", detail: "delivered"},
		{name: "time", queue: stored(), method: "GET", target: "/v1/messages?since=yesterday", body: "-", status: 400, code: api.CodeInvalidParameter, field: "since"},
		{name: "cursor", queue: answering(queue.ErrInvalidCursor), method: "GET", target: "/v1/messages?cursor=x", body: "-", status: 400, code: api.CodeInvalidParameter, field: "cursor"},
		{name: "empty filter", queue: stored(), target: "/v1/messages/retry", body: "{}", status: 400, code: api.CodeInvalidParameter},
		{name: "empty idempotency key", queue: stored(), fields: []string{`Idempotency-Key: ""`}, status: 400, code: api.CodeInvalidParameter, field: "Idempotency-Key"},
		{name: "long idempotency key", queue: stored(), fields: []string{"Idempotency-Key: " + strings.Repeat("k", 257)}, status: 400, code: api.CodeInvalidParameter, field: "Idempotency-Key"},
		{name: "body ends early", serve: func(t *testing.T, s *Server) answer {
			return dialogue(t, s, post+"Content-Length: 100\r\n\r\n{", true)
		}, status: 400, code: api.CodeIncompleteBody},
		{name: "no message", fields: []string{"Content-Type: message/rfc822", "Envelope-From: <>", "Envelope-To: a@example.com"}, body: "-", status: 400, code: api.CodeMalformedMessage},
		// 401
		{name: "no key", fields: []string{"Authorization: "}, status: 401, code: api.CodeUnauthorized},
		{name: "wrong key", fields: []string{"Authorization: Bearer wrong"}, status: 401, code: api.CodeUnauthorized},
		{name: "key with its name", fields: []string{"Authorization: Bearer shop:" + testKey}, status: 401, code: api.CodeUnauthorized, detail: "send what follows the colon"},
		{name: "key with a blank before it", fields: []string{"Authorization: Bearer"}, status: 401, code: api.CodeUnauthorized, detail: "missing"},
		{name: "wrong scheme", fields: []string{"Authorization: Basic " + testKey}, status: 401, code: api.CodeUnauthorized, detail: "Basic"},
		{name: "no scheme", fields: []string{"Authorization: " + testKey}, status: 401, code: api.CodeUnauthorized, detail: "Bearer"},
		// 403
		{name: "foreign page", fields: []string{"Sec-Fetch-Site: cross-site"}, status: 403, code: api.CodeCrossOrigin},
		{name: "foreign page in an old browser", fields: []string{"Origin: https://evil.example"}, status: 403, code: api.CodeCrossOrigin},
		{name: "foreign host", change: func(o *Options) { o.Keys = nil }, target: "http://evil.example/v1/messages", status: 403, code: api.CodeForeignHost},
		{name: "no route", queue: answering(queue.ErrNoRoute), status: 403, code: api.CodeSenderNotAllowed},
		{name: "sender of another", change: func(o *Options) { o.Keys[0].Senders = []string{"example.net", "a@example.com"} }, status: 403, code: api.CodeSenderNotAllowed, field: "from", detail: "key shop may not send from shop@example.com (MAILSIDECAR_KEY_SENDERS)"},
		{name: "role", change: func(o *Options) { o.Keys[0].Roles = []string{"read"} }, status: 403, code: api.CodeRoleRequired, detail: "needs the role send, and the key shop has the role read only (MAILSIDECAR_KEY_ROLES)"},
		{name: "messages of another key", queue: stored(), method: "GET", target: "/v1/messages?key=blog", body: "-", status: 403, code: api.CodeRoleRequired, detail: "needs the role admin, and the key shop has the roles send and read only"},
		// 431
		{name: "large header", method: "GET", fields: []string{"X: " + strings.Repeat("x", 16<<10)}, body: "-", status: 431, code: api.CodeHeaderTooLarge, detail: "16 KiB"},
		// 404, 405
		{name: "no route", target: "/v2/messages", status: 404, code: api.CodeNotFound},
		{name: "no message", queue: answering(queue.ErrNotFound), method: "GET", target: "/v1/messages/x", body: "-", status: 404, code: api.CodeMessageNotFound},
		{name: "empty id", queue: answering(queue.ErrNotFound), method: "GET", target: "/v1/messages/", body: "-", status: 404, code: api.CodeNotFound},
		{name: "wrong method", method: "PUT", status: 405, code: api.CodeMethodNotAllowed},
		// 408, 409, 410
		{name: "slow body", change: func(o *Options) { o.BodyTimeout = 50 * time.Millisecond }, serve: func(t *testing.T, s *Server) answer {
			return dialogue(t, s, post+"Content-Length: 100\r\n\r\n{", false)
		}, status: 408, code: api.CodeBodyTimeout},
		{name: "key in use", queue: answering(queue.ErrIdempotencyInProgress), fields: []string{"Idempotency-Key: x"}, status: 409, code: api.CodeIdempotencyInUse},
		{name: "nothing to retry", queue: answering(queue.ErrNothingToRetry), target: "/v1/messages/x/retry", status: 409, code: api.CodeNothingToRetry},
		{name: "already resent", queue: answering(&queue.ResentError{ID: "id-8", State: queue.Delivered}), target: "/v1/messages/x/resend", body: `{"to":"a@example.org"}`, status: 409, code: api.CodeAlreadyResent},
		{name: "nothing to cancel", queue: answering(queue.ErrNothingToCancel), method: "DELETE", target: "/v1/messages/x", body: "-", status: 409, code: api.CodeNothingToCancel},
		{name: "content gone", queue: answering(queue.ErrContentGone), method: "GET", target: "/v1/messages/x/content", body: "-", status: 410, code: api.CodeContentGone},
		// 413
		{name: "body too large", change: small, body: message(`"subject":"` + strings.Repeat("x", 4000) + `"`), status: 413, code: api.CodeBodyTooLarge},
		{name: "body of unknown length too large", change: small, serve: func(_ *testing.T, s *Server) answer {
			r := newRequest("POST", "/v1/messages", message(`"html":"`+strings.Repeat("x", 4000)+`"`))
			r.ContentLength = -1
			return serve(s, r)
		}, status: 413, code: api.CodeBodyTooLarge},
		{name: "form too large", change: small, serve: func(_ *testing.T, s *Server) answer {
			r := newRequest("POST", "/v1/messages", "--x\r\nContent-Disposition: form-data; name=text\r\n\r\n"+strings.Repeat("x", 4000), "Content-Type: multipart/form-data; boundary=x")
			r.ContentLength = -1
			return serve(s, r)
		}, status: 413, code: api.CodeBodyTooLarge},
		{name: "message too large", change: small, body: message(`"html":"` + strings.Repeat("\\u0000ä", 300) + `"`), status: 413, code: api.CodeMessageTooLarge},
		// 415
		{name: "no content type", fields: []string{"Content-Type: "}, status: 415, code: api.CodeContentType},
		{name: "content type", fields: []string{"Content-Type: text/plain"}, status: 415, code: api.CodeContentType},
		{name: "content type that cannot be read", fields: []string{"Content-Type: application/json; ="}, status: 415, code: api.CodeContentType},
		{name: "charset", fields: []string{"Content-Type: application/json; charset=iso-8859-1"}, status: 415, code: api.CodeContentType, detail: "utf-8"},
		{name: "form to a batch", queue: stored(), target: "/v1/messages/batch", fields: []string{"Content-Type: multipart/form-data; boundary=x"}, status: 415, code: api.CodeContentType},
		{name: "gzip", fields: []string{"Content-Encoding: gzip"}, body: "\x1f\x8b", status: 415, code: api.CodeContentEncoding},
		// 422
		{name: "no recipient", body: `{"from":"a@example.com","text":"x"}`, status: 422, code: api.CodeInvalidMessage, field: "to"},
		{name: "empty list", body: `{"from":"a@example.com","to":[],"text":"x"}`, status: 422, code: api.CodeInvalidMessage, field: "to"},
		{name: "no sender", body: `{"to":"a@example.com","text":"x"}`, status: 422, code: api.CodeInvalidMessage, field: "from"},
		{name: "nothing in it", body: `{"from":"a@example.com","to":"a@example.com"}`, status: 422, code: api.CodeInvalidMessage, field: "text"},
		{name: "no address", body: message(`"cc":["a@example.com","nobody"]`), status: 422, code: api.CodeInvalidMessage, field: "cc[1]"},
		{name: "no address, single", body: message(`"cc":"nobody"`), status: 422, code: api.CodeInvalidMessage, field: "cc"},
		{name: "no address, taken apart", body: message(`"cc":[{"email":"nobody"}]`), status: 422, code: api.CodeInvalidMessage, field: "cc[0].email"},
		{name: "address missing", body: message(`"cc":[{"name":"Ana"}]`), status: 422, code: api.CodeInvalidMessage, field: "cc[0].email"},
		{name: "two in one", body: message(`"cc":"a@example.com, b@example.com"`), status: 422, code: api.CodeInvalidMessage, field: "cc"},
		{name: "structural header", body: message(`"headers":{"Bcc":"a@example.com"}`), status: 422, code: api.CodeInvalidMessage, field: "headers.Bcc"},
		{name: "content missing", body: message(`"attachments":[{"filename":"a"}]`), status: 422, code: api.CodeInvalidMessage, field: "attachments[0].content"},
		{name: "tag's name", body: message(`"tags":{"a b":"1"}`), status: 422, code: api.CodeInvalidMessage, field: "tags.a b"},
		{name: "tag's value", body: message(`"tags":{"a":"` + strings.Repeat("x", 257) + `"}`), status: 422, code: api.CodeInvalidMessage, field: "tags.a"},
		{name: "send_at", body: message(`"send_at":"tomorrow"`), status: 422, code: api.CodeInvalidMessage, field: "send_at"},
		{name: "send_at in years", body: message(`"send_at":"2999-01-01T00:00:00Z"`), status: 422, code: api.CodeInvalidMessage, field: "send_at"},
		{name: "expires_in", body: message(`"expires_in":"-1h"`), status: 422, code: api.CodeInvalidMessage, field: "expires_in"},
		{name: "expires_in too long", body: message(`"expires_in":"31d"`), status: 422, code: api.CodeInvalidMessage, field: "expires_in"},
		{name: "Envelope-To", fields: []string{"Content-Type: message/rfc822", "Envelope-From: <>", "Envelope-To: nobody"}, status: 422, code: api.CodeInvalidMessage, field: "Envelope-To"},
		{name: "one of Envelope-To", fields: []string{"Content-Type: message/rfc822", "Envelope-From: <>", "Envelope-To: a@example.com, b@-.example"}, status: 422, code: api.CodeInvalidMessage, field: "Envelope-To[1]"},
		{name: "too many recipients", change: func(o *Options) { o.MaxRecipients = 1 }, body: twoRecipients, status: 422, code: api.CodeTooManyRecipients},
		{name: "too many in Envelope-To", change: func(o *Options) { o.MaxRecipients = 1 }, fields: []string{"Content-Type: message/rfc822", "Envelope-From: <>", "Envelope-To: a@example.com, b@example.com"}, status: 422, code: api.CodeTooManyRecipients},
		{name: "key reused", queue: answering(queue.ErrIdempotencyMismatch), fields: []string{"Idempotency-Key: x"}, status: 422, code: api.CodeIdempotencyReused},
		{name: "key without a queue", fields: []string{"Idempotency-Key: x"}, status: 422, code: api.CodeQueueRequired},
		{name: "send_at without a queue", body: message(`"send_at":"2020-01-01T00:00:00Z"`), status: 422, code: api.CodeQueueRequired},
		{name: "expires_in without a queue", body: message(`"expires_in":"2h"`), status: 422, code: api.CodeQueueRequired},
		{name: "batch without a queue", target: "/v1/messages/batch", body: `{"messages":[]}`, status: 422, code: api.CodeQueueRequired},
		{name: "list without a queue", method: "GET", body: "-", status: 422, code: api.CodeQueueRequired},
		{name: "message without a queue", method: "GET", target: "/v1/messages/x", body: "-", status: 422, code: api.CodeQueueRequired},
		{name: "content without a queue", method: "GET", target: "/v1/messages/x/content", body: "-", status: 422, code: api.CodeQueueRequired},
		{name: "retry without a queue", target: "/v1/messages/x/retry", body: "-", status: 422, code: api.CodeQueueRequired},
		{name: "retry of many without a queue", target: "/v1/messages/retry", body: `{"status":"failed"}`, status: 422, code: api.CodeQueueRequired},
		{name: "cancel without a queue", method: "DELETE", target: "/v1/messages/x", body: "-", status: 422, code: api.CodeQueueRequired},
		{name: "empty batch", queue: stored(), target: "/v1/messages/batch", body: `{"messages":[]}`, status: 422, code: api.CodeInvalidBatch},
		{name: "batch of invalid", queue: stored(), target: "/v1/messages/batch", body: `{"messages":[{"to":"a@example.com"}]}`, status: 422, code: api.CodeInvalidBatch},
		{name: "large batch", queue: stored(), target: "/v1/messages/batch", body: `{"messages":[{}` + strings.Repeat(",{}", 500) + `]}`, status: 422, code: api.CodeTooManyMessages},
		{name: "all refused", queue: failed(mailer.ClassPermanent, mailer.ClassPermanent), body: twoRecipients, status: 422, code: api.CodeRejected, detail: "relay main, port 2525: rcpt: 550 the relay's words"},
		{name: "all bounced while waiting", queue: &fakeQueue{durable: true, receipt: judged([]queue.State{queue.Bounced}, refusal(mailer.ClassPermanent, 550, "no such user"))}, fields: []string{"Prefer: wait=5"}, status: 422, code: api.CodeRejected, detail: "550 no such user"},
		{name: "expired while waiting", queue: &fakeQueue{durable: true, receipt: judged([]queue.State{queue.Expired}, refusal(mailer.ClassTransient, 450, "busy"))}, fields: []string{"Prefer: wait=5"}, status: 502, code: api.CodeExpired, detail: "The message expired. At last: relay main, port 2525: rcpt: 450 busy"},
		{name: "expired, perhaps delivered", queue: &fakeQueue{durable: true, receipt: judged([]queue.State{queue.Expired}, refusal(mailer.ClassUncertain, 0, ""))}, fields: []string{"Prefer: wait=5"}, status: 504, code: api.CodeUncertain, detail: "no answer"},
		{name: "canceled while waiting", queue: &fakeQueue{durable: true, receipt: judged([]queue.State{queue.Canceled}, nil)}, fields: []string{"Prefer: wait=5"}, status: 422, code: api.CodeCanceled},
		// 429
		{name: "rate", change: func(o *Options) { o.Keys[0].Rate = units.Rate{Messages: 1, Per: time.Minute} }, queue: stored(), serve: func(t *testing.T, s *Server) answer {
			if got := serve(s, newRequest("POST", "/v1/messages", goodMessage)).status; got != 202 {
				t.Errorf("first of one per minute: %d, want 202", got)
			}
			return serve(s, newRequest("POST", "/v1/messages", goodMessage))
		}, status: 429, code: api.CodeRateLimited, detail: "key shop, 1/m in MAILSIDECAR_KEY_RATES"},
		// 5xx
		{name: "unknown error", queue: answering(errors.New("disk on fire at /secret/path")), status: 500, code: api.CodeInternal},
		{name: "panic", queue: &fakeQueue{receipt: func(queue.Submission) queue.Receipt { panic("boom") }}, status: 500, code: api.CodeInternal},
		{name: "deferred", queue: failed(mailer.ClassTransient), status: 502, code: api.CodeRelayDeferred, detail: "450"},
		{name: "deferred and refused", queue: failed(mailer.ClassTransient, mailer.ClassPermanent), body: twoRecipients, status: 502, code: api.CodeRelayDeferred, detail: "450"},
		{name: "broken dialogue", queue: &fakeQueue{receipt: judged([]queue.State{queue.Deferred}, refusal(mailer.ClassTransient, 0, ""))}, status: 502, code: api.CodeRelayDeferred, detail: "no answer"},
		{name: "not reached", queue: failed(mailer.ClassRelay), status: 503, code: api.CodeRelayUnreachable},
		{name: "refused, then not reached", queue: failed(mailer.ClassPermanent, mailer.ClassRelay), body: twoRecipients, status: 502, code: api.CodeRelayDeferred},
		{name: "uncertain", queue: failed(mailer.ClassUncertain, mailer.ClassPermanent), body: twoRecipients, status: 504, code: api.CodeUncertain},
		{name: "busy", change: func(o *Options) { o.MaxInFlight = 100 << 10 }, serve: whileOneWaits, status: 503, code: api.CodeBusy},
		{name: "many searches", queue: answering(queue.ErrTooManyLists), method: "GET", status: 503, code: api.CodeTooManySearches, detail: "take turns"},
		{name: "slow search", queue: answering(queue.ErrSearchTooSlow), method: "GET", status: 503, code: api.CodeTimeout, detail: "since and until"},
		{name: "queue full", queue: answering(queue.ErrFull), status: 503, code: api.CodeQueueFull},
		{name: "disk full", queue: answering(fmt.Errorf("submit: %w", queue.ErrDiskFull)), status: 503, code: api.CodeDiskFull},
		{name: "draining", queue: answering(queue.ErrDraining), status: 503, code: api.CodeDraining, detail: "another instance"},
		{name: "relay paused", queue: answering(queue.ErrPaused), status: 503, code: api.CodeRelayPaused, detail: "nowhere to wait"},
		{name: "no such relay", queue: answering(&queue.UnknownRelayError{Name: "x", Known: []string{"one", "two"}}), status: 404, code: api.CodeRelayNotFound, detail: "one, two"},
		{name: "shutting down", queue: answering(queue.ErrShuttingDown), status: 503, code: api.CodeShuttingDown},
		{name: "store closed", queue: answering(&queue.StoreError{Path: "/data/queue.db", Err: queue.ErrClosed}), status: 503, code: api.CodeShuttingDown},
		{name: "store moved", queue: answering(&queue.StoreError{Path: "/data/queue.db", Err: queue.ErrMoved}), status: 503, code: api.CodeQueueUnavailable},
		{name: "commit too slow", queue: &fakeQueue{block: make(chan struct{})}, change: func(o *Options) { o.RequestTimeout = time.Millisecond }, status: 503, code: api.CodeTimeout},
	}
}

// small lets a message have 2000 octets and a body 3000.
func small(o *Options) { o.MaxMessageSize = 2000 }

// whileOneWaits sends a second request while a first one holds the budget.
func whileOneWaits(t *testing.T, s *Server) answer {
	share := otherShare(s)
	if !share.Grow(64 << 10) {
		t.Fatal("no room in an empty budget")
	}
	defer share.Close()
	return serve(s, newRequest("POST", "/v1/messages", goodMessage))
}

func TestProblems(t *testing.T) {
	seen := map[api.Code]bool{}
	for _, tc := range problemCases() {
		t.Run(fmt.Sprintf("%d %s", tc.status, tc.name), func(t *testing.T) {
			q := tc.queue
			if q == nil {
				q = &fakeQueue{}
			}
			s := newTestServer(t, q, tc.change)
			response := tc.send(t, s)
			p := read[api.Problem](t, response)
			seen[p.Code] = true
			tc.check(t, response, p)
			if len(q.got) > 0 && q.err == nil && q.receipt == nil && q.block == nil && tc.code != api.CodeRateLimited {
				t.Errorf("a refused request reached the queue")
			}
		})
	}
	for _, c := range problem.Codes() {
		if !seen[c] {
			t.Errorf("no case is answered with %s", c)
		}
	}
}

func (tc *problemCase) send(t *testing.T, s *Server) answer {
	if tc.serve != nil {
		return tc.serve(t, s)
	}
	method, target, body := tc.method, tc.target, tc.body
	if method == "" {
		method = "POST"
	}
	if target == "" {
		target = "/v1/messages"
	}
	switch body {
	case "":
		body = goodMessage
	case "-":
		body = ""
	}
	return serve(s, newRequest(method, target, body, tc.fields...))
}

// TestRelayNotBefore: without a queue the client has to come again, and learns when.
func TestRelayNotBefore(t *testing.T) {
	at := time.Now().Add(100*time.Second + time.Minute)
	for name, err := range map[string]error{"rate": &mailer.RateError{At: at}, "login": &mailer.LoginError{Next: at}, "quota": nil} {
		f := refusal(mailer.ClassRelay, 535, "5.7.8")
		if f.Stage, f.Err = mailer.StageAuth, err; err == nil {
			f.Stage, f.Until = mailer.StageContent, at
		}
		r := serve(newTestServer(t, &fakeQueue{receipt: judged([]queue.State{queue.Deferred}, f)}, nil), newRequest("POST", "/v1/messages", goodMessage))
		if got, _ := strconv.Atoi(r.header.Get("Retry-After")); r.status != 503 || got < 150 || got > 160 {
			t.Errorf("%s: answer = %d, Retry-After %d, want 503 and 160", name, r.status, got)
		}
		p := read[api.Problem](t, r)
		if !p.Retryable || p.ReplyCode != 535 {
			t.Errorf("%s: problem = %+v, want it retryable, with the relay's last verdict", name, p)
		}
		if want := "not before " + at.UTC().Format(time.RFC3339); name == "login" && !strings.Contains(p.Detail, want) {
			t.Errorf("detail = %q, want %q in it", p.Detail, want)
		}
	}
}

func (tc *problemCase) check(t *testing.T, r answer, p api.Problem) {
	t.Helper()
	if r.status != tc.status || p.Status != tc.status || p.Code != tc.code {
		t.Errorf("answer = %d %s (%+v), want %d %s", r.status, p.Code, p, tc.status, tc.code)
	}
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type = %q", got)
	}
	m := problem.New(tc.code, "").Body("")
	if p.Title != m.Title || p.Retryable != m.Retryable || p.Type != "urn:mailsidecar:problem:"+string(tc.code) || p.Detail == "" {
		t.Errorf("problem = %+v, want title %q, retryable %v, a type and a detail", p, m.Title, m.Retryable)
	}
	if p.RequestID == "" || p.RequestID != r.header.Get("X-Request-Id") {
		t.Errorf("request_id = %q, X-Request-Id %q", p.RequestID, r.header.Get("X-Request-Id"))
	}
	if tc.field != "" && (len(p.Errors) == 0 || p.Errors[0].Field != tc.field || p.Errors[0].Message == "") {
		t.Errorf("errors = %+v, want field %q", p.Errors, tc.field)
	}
	if !strings.Contains(p.Detail, tc.detail) || strings.Contains(p.Detail, testKey) || strings.Contains(p.Detail, "secret") {
		t.Errorf("detail = %q, want %q in it and no secret", p.Detail, tc.detail)
	}
	if got := r.header.Get("Retry-After"); (got != "") != (problem.New(tc.code, "").RetryAfterSeconds() > 0) {
		t.Errorf("Retry-After = %q, want %d", got, problem.New(tc.code, "").RetryAfterSeconds())
	}
	for field, want := range map[string]bool{"WWW-Authenticate": tc.status == 401, "Allow": tc.status == 405} {
		if got := r.header.Get(field); (got != "") != want {
			t.Errorf("%s = %q, want it: %v", field, got, want)
		}
	}
}

// TestProblemTellsRelay: what the relay said is in the answer, member by member.
func TestProblemTellsRelay(t *testing.T) {
	q := failed(mailer.ClassPermanent, mailer.ClassPermanent)
	p := read[api.Problem](t, serve(newTestServer(t, q, nil), newRequest("POST", "/v1/messages", twoRecipients)))
	if p.ReplyCode != 550 || p.EnhancedCode != "5.0.0" || p.Stage != "rcpt" || p.Relay != "main" || p.Port != 2525 || p.ID != "id-1" {
		t.Errorf("problem = %+v", p)
	}
	if len(p.Recipients) != 2 || p.Recipients[1].Email != "bob@example.org" || p.Recipients[1].Kind != "bounced" || p.Recipients[1].ReplyCode != 550 {
		t.Errorf("recipients = %+v", p.Recipients)
	}
}

func TestEveryFindingAtOnce(t *testing.T) {
	body := `{"from":"nobody","to":["a@example.com","nobody"],"cc":[{"email":"x"}],"subject":"s","headers":{"To":"x"},"tags":{"":"x"},"expires_in":"x"}`
	p := read[api.Problem](t, serve(newTestServer(t, &fakeQueue{durable: true}, nil), newRequest("POST", "/v1/messages", body)))
	got := map[string]int{}
	for _, e := range p.Errors {
		got[e.Field]++
	}
	for _, want := range []string{"from", "to[1]", "cc[0].email", "text", "headers.To", "tags.", "expires_in"} {
		if got[want] != 1 {
			t.Errorf("field %s is named %d times, want once: %+v", want, got[want], p.Errors)
		}
	}
}

func TestClientThatWentAway(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q := &fakeQueue{block: make(chan struct{})}
	response := serve(newTestServer(t, q, nil), newRequest("POST", "/v1/messages", goodMessage).WithContext(ctx))
	if p := read[api.Problem](t, response); p.Code != api.CodeTimeout {
		t.Errorf("code = %s, want timeout rather than internal", p.Code)
	}
}
