package handler

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

var resend = &provider{
	name:   "resend",
	title:  "Resend",
	routes: []providerRoute{{"/emails", resendEmail}, {"/emails/batch", resendBatch}},
	owns:   under("/emails"),
	secret: bearer,
	answer: func(c complaint) (int, any) {
		f := resendComplaint(c)
		f.Message = resendText(c)
		return f.StatusCode, f
	},
	requests: []providerRequest{
		{"POST /emails", resendMail{}},
		{"POST /emails/batch (a list of up to 100, each as in /emails)", nil},
	},
}

const (
	maxResendBatch  = 100
	maxResendPeople = 50
	resendAhead     = 30 * 24 * time.Hour

	headerBatchValidation = "X-Batch-Validation"
)

type resendMail struct {
	From        string       `json:"from"`
	To          texts        `json:"to" note:"at most 50"`
	Cc          texts        `json:"cc"`
	Bcc         texts        `json:"bcc"`
	ReplyTo     texts        `json:"reply_to"`
	Subject     string       `json:"subject"`
	HTML        string       `json:"html"`
	Text        string       `json:"text" note:"none is made from the HTML"`
	Headers     pairs        `json:"headers"`
	Attachments []resendFile `json:"attachments"`
	Tags        []resendTag  `json:"tags" note:"kept as tags of the message"`
	ScheduledAt string       `json:"scheduled_at" note:"a time of RFC 3339 or such as in 10 minutes, at most 30 days ahead; needs a queue"`
	Template    refused      `json:"template" note:"templates are kept by the provider: render them in the app"`
	TopicID     ignored      `json:"topic_id"`
}

type resendFile struct {
	Content         fileContent `json:"content"`
	Path            refused     `json:"path" note:"attachments are not fetched from a URL: send their content"`
	Filename        string      `json:"filename"`
	ContentType     string      `json:"content_type"`
	ContentID       string      `json:"content_id" note:"inline where the HTML refers to it"`
	InlineContentID string      `json:"inline_content_id" note:"the older name of content_id"`
}

type resendTag struct {
	Name  string `json:"name"`
	Value scalar `json:"value"`
}

type resendFault struct {
	StatusCode int    `json:"statusCode"`
	Name       string `json:"name"`
	Message    string `json:"message"`
}

type resendDone struct {
	ID string `json:"id"`
}

func resendEmail(x *exchange) error {
	key, err := x.idempotency(x.c.Request().Header)
	if err != nil {
		return err
	}
	data, err := x.readBytes(x.maxBody())
	if err != nil {
		return err
	}
	var m resendMail
	if err := x.decode(data, &m, ""); err != nil {
		return err
	}
	o, err := m.outgoing()
	if err != nil {
		return err
	}
	o.idempotencyKey, o.fingerprint = key, jsonFingerprint(key, "POST /emails", data)
	done, err := x.send([]outgoing{o})
	if err != nil {
		return err
	}
	return writeJSON(x.c, http.StatusOK, intake.TypeJSON, resendDone{done[0].id})
}

// jsonFingerprint digests a request; white space and the order of members do
// not count.
func jsonFingerprint(key, route string, data []byte) [32]byte {
	f := intake.NewFingerprint(key, route)
	if key != "" {
		v := jsontext.Value(bytes.Clone(data))
		_ = v.Canonicalize() // what is no JSON was refused before
		f.Bytes(v)
	}
	return f.Sum()
}

func (m *resendMail) outgoing() (outgoing, error) {
	var f findings
	o := outgoing{Message: mailer.Message{
		Subject: m.Subject, Text: m.Text, HTML: m.HTML, Header: m.Headers,
		To: f.lists("to", m.To), Cc: f.lists("cc", m.Cc), Bcc: f.lists("bcc", m.Bcc), ReplyTo: f.lists("reply_to", m.ReplyTo),
	}, where: resendField}
	m.require(&f)
	if from := f.lists("from", texts{m.From}); len(from) == 1 {
		o.From = from[0]
	} else {
		f.Add("from", "must be one address")
	}
	if len(o.To) > maxResendPeople {
		f.Add("to", fmt.Sprintf("may have %d addresses", maxResendPeople))
	}
	for i, a := range m.Attachments {
		if !a.Content.given {
			f.Add(fmt.Sprintf("attachments[%d].content", i), "is required")
		}
		o.attach(mailer.Attachment{
			Filename: a.Filename, ContentType: a.ContentType,
			ContentID: orText(a.ContentID, a.InlineContentID), Content: a.Content.data,
		}, false)
	}
	for _, t := range m.Tags {
		o.tag(t.Name, string(t.Value))
	}
	at, err := parseResendTime(m.ScheduledAt, time.Now())
	if err != nil {
		f.Add("scheduled_at", err.Error())
	}
	if err := f.Err(); err != nil {
		return o, err
	}
	o.sendAt, err = later(at, resendAhead, "scheduled_at")
	return o, err
}

const textRequired = "is required"

func (m *resendMail) require(f *findings) {
	switch {
	case m.From == "":
		f.Add("from", textRequired)
	case len(m.To) == 0:
		f.Add("to", textRequired)
	case m.Subject == "":
		f.Add("subject", textRequired)
	case m.HTML == "" && m.Text == "":
		f.Add("html", "html or text "+textRequired)
	}
}

// lists reads addresses, each text one or a list of them.
func (f *findings) lists(field string, list texts) []mailer.Address {
	var all []mailer.Address
	for _, text := range list {
		if strings.TrimSpace(text) != "" {
			all = append(all, f.list(field, text)...)
		}
	}
	return all
}

var resendDelay = regexp.MustCompile(`^in (\d{1,4}|an?|one) ?(m|mins?|minutes?|h|hours?|d|days?|weeks?)$`)

// parseResendTime reads a time as people write it to Resend.
func parseResendTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05.999999Z07", "2006-01-02T15:04:05.999Z0700"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	m := resendDelay.FindStringSubmatch(strings.ToLower(strings.TrimSpace(text)))
	if m == nil {
		return time.Time{}, fmt.Errorf("must be a time of RFC 3339, such as 2030-01-31T08:00:00Z, or such as in 10 minutes")
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		n = 1
	}
	unit := map[byte]time.Duration{'m': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[m[2][0]]
	return now.Add(time.Duration(n) * unit), nil
}

func resendField(field string) string {
	name, _, _, ok := indexed(field)
	if ok && name != "attachments" {
		return name
	}
	return field
}

type resendItemFault struct {
	Index   int    `json:"index"`
	Message string `json:"message"`
}

type resendBatchDone struct {
	Data   []resendDone      `json:"data"`
	Errors []resendItemFault `json:"errors,omitempty"`
}

// resendBatch refuses all messages for one that is wrong, unless the client
// asks for those that are right to be sent.
func resendBatch(x *exchange) error {
	h := x.c.Request().Header
	key, err := x.idempotency(h)
	if err != nil {
		return err
	}
	data, err := x.readBytes(maxBatchBody)
	if err != nil {
		return err
	}
	var items []jsontext.Value
	if err := decodeProvider(data, &items, ""); err != nil {
		return err
	}
	if len(items) == 0 || len(items) > maxResendBatch {
		return problem.New(api.CodeInvalidBatch, fmt.Sprintf("A batch has 1 to %d messages.", maxResendBatch))
	}
	permissive := strings.EqualFold(h.Get(headerBatchValidation), "permissive")
	fingerprint := jsonFingerprint(key, "POST /emails/batch", data)
	answer := resendBatchDone{Data: []resendDone{}}
	var subs []queue.Submission
	for i, item := range items {
		sub, err := x.resendItem(item, key, fingerprint)
		switch {
		case err == nil:
			subs = append(subs, sub)
		case permissive && problem.For(err).Status() < http.StatusInternalServerError:
			answer.Errors = append(answer.Errors, resendItemFault{i, resendText(newComplaint(problem.For(err), nil))})
		default:
			return err
		}
	}
	if len(subs) > 0 {
		done, err := x.submit(subs)
		if err != nil {
			return err
		}
		for _, d := range done {
			answer.Data = append(answer.Data, resendDone{d.id})
		}
	}
	return writeJSON(x.c, http.StatusOK, intake.TypeJSON, answer)
}

func (x *exchange) resendItem(data []byte, key string, fingerprint [32]byte) (queue.Submission, error) {
	var m resendMail
	if err := x.decode(data, &m, ""); err != nil {
		return queue.Submission{}, err
	}
	o, err := m.outgoing()
	if err != nil {
		return queue.Submission{}, err
	}
	o.idempotencyKey, o.fingerprint = key, fingerprint
	return x.compose(&o)
}

var resendFaults = map[api.Code]resendFault{
	api.CodeInvalidParameter:  {StatusCode: http.StatusBadRequest, Name: "invalid_idempotency_key"},
	api.CodeIdempotencyReused: {StatusCode: http.StatusConflict, Name: "invalid_idempotent_request"},
	api.CodeIdempotencyInUse:  {StatusCode: http.StatusConflict, Name: "concurrent_idempotent_requests"},
	api.CodeSenderNotAllowed:  {StatusCode: http.StatusForbidden, Name: "invalid_from_address"},
	api.CodeUncertain:         {StatusCode: http.StatusConflict, Name: "application_error"},
	api.CodeCrossOrigin:       {StatusCode: http.StatusForbidden, Name: "security_error"},
	api.CodeForeignHost:       {StatusCode: http.StatusForbidden, Name: "security_error"},
}

// resendUnprocessable are answered with 422, as other mistakes with 400.
var resendUnprocessable = []api.Code{
	api.CodeInvalidMessage, api.CodeInvalidBase64, api.CodeWrongType, api.CodeMalformedHeader, api.CodeRejected, api.CodeTooManyRecipients, api.CodeQueueRequired,
}

// resendComplaint finds status and name. The PHP client takes an answer with
// any name but the documented ones for a success.
func resendComplaint(c complaint) resendFault {
	if f, ok := resendFaults[c.Code]; ok {
		return f
	}
	switch {
	case c.Code == api.CodeUnauthorized && c.Detail == detailKeyMissing:
		return resendFault{StatusCode: http.StatusUnauthorized, Name: "missing_api_key"}
	case c.Code == api.CodeUnauthorized:
		return resendFault{StatusCode: http.StatusForbidden, Name: "invalid_api_key"}
	case slices.Contains(resendUnprocessable, c.Code):
		return resendFault{StatusCode: http.StatusUnprocessableEntity, Name: resendFieldName(c)}
	case c.status >= http.StatusInternalServerError:
		return resendFault{StatusCode: http.StatusInternalServerError, Name: "internal_server_error"}
	}
	names := map[int]string{
		http.StatusNotFound: "not_found", http.StatusMethodNotAllowed: "method_not_allowed", http.StatusTooManyRequests: "rate_limit_exceeded",
	}
	return resendFault{StatusCode: c.status, Name: orText(names[c.status], "validation_error")}
}

func resendFieldName(c complaint) string {
	if len(c.Fields) == 0 {
		return "validation_error"
	}
	switch f := c.Fields[0]; {
	case strings.HasPrefix(f.Field, "attachments"):
		return "invalid_attachment"
	case strings.HasSuffix(f.Message, textRequired):
		return "missing_required_field"
	default:
		return "validation_error"
	}
}

func resendText(c complaint) string {
	if len(c.Fields) == 0 || c.Detail != "" || c.Fields[0].Field == "" {
		return c.text
	}
	f := c.Fields[0]
	if strings.HasSuffix(f.Message, textRequired) {
		return fmt.Sprintf("Missing `%s` field.", f.Field)
	}
	return fmt.Sprintf("Invalid `%s` field: %s.", f.Field, f.Message)
}
