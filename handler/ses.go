package handler

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

var ses = &provider{
	name:     "ses",
	title:    "Amazon SES v2",
	routes:   []providerRoute{{"/v2/email/outbound-emails", sesSend}},
	owns:     under("/v2/email"),
	answer:   sesAnswer,
	requests: []providerRequest{{"POST /v2/email/outbound-emails", sesMail{}}},
}

const maxSESPeople = 50

type sesMail struct {
	FromEmailAddress         string         `json:"FromEmailAddress" note:"with Raw the reverse-path, unless a bounce address is given"`
	Destination              sesDestination `json:"Destination" note:"at most 50 addresses; with Raw the envelope"`
	ReplyToAddresses         []string       `json:"ReplyToAddresses"`
	FeedbackForwarding       string         `json:"FeedbackForwardingEmailAddress" note:"the reverse-path"`
	Content                  sesContent     `json:"Content"`
	EmailTags                []sesTag       `json:"EmailTags" note:"kept as tags of the message"`
	ConfigurationSetName     ignored        `json:"ConfigurationSetName"`
	FromEmailAddressIdentity ignored        `json:"FromEmailAddressIdentityArn"`
	FeedbackForwardingARN    ignored        `json:"FeedbackForwardingEmailAddressIdentityArn"`
	EndpointID               ignored        `json:"EndpointId"`
	TenantName               ignored        `json:"TenantName"`
	ListManagementOptions    ignored        `json:"ListManagementOptions" note:"no unsubscribe link is added"`
}

type sesDestination struct {
	ToAddresses  []string `json:"ToAddresses"`
	CcAddresses  []string `json:"CcAddresses"`
	BccAddresses []string `json:"BccAddresses"`
}

type sesContent struct {
	Raw      sesRaw    `json:"Raw"`
	Simple   sesSimple `json:"Simple"`
	Template refused   `json:"Template" note:"templates are kept by the provider: render them in the app"`
}

type sesRaw struct {
	Data fileContent `json:"Data" note:"a finished message"`
}

type sesSimple struct {
	Subject     sesText   `json:"Subject"`
	Body        sesBody   `json:"Body"`
	Headers     []sesPair `json:"Headers"`
	Attachments []sesFile `json:"Attachments"`
}

type sesBody struct {
	Text sesText `json:"Text"`
	HTML sesText `json:"Html"`
}

type sesText struct {
	Data    string  `json:"Data"`
	Charset ignored `json:"Charset" note:"what is sent is UTF-8"`
}

type sesPair struct {
	Name  string `json:"Name"`
	Value string `json:"Value"`
}

type sesTag = sesPair

type sesFile struct {
	RawContent  fileContent `json:"RawContent"`
	FileName    string      `json:"FileName"`
	ContentType string      `json:"ContentType"`
	Disposition string      `json:"ContentDisposition"`
	ContentID   string      `json:"ContentId" note:"inline with ContentDisposition INLINE, or where the HTML refers to it"`
	Description ignored     `json:"ContentDescription"`
	Encoding    ignored     `json:"ContentTransferEncoding"`
}

func sesSend(x *exchange) error {
	data, err := x.readSigned()
	if err != nil {
		return err
	}
	var m sesMail
	if err := x.decode(data, &m, ""); err != nil {
		return err
	}
	o, err := m.outgoing()
	if err != nil {
		return err
	}
	done, err := x.send([]outgoing{o})
	if err != nil {
		return err
	}
	return writeJSON(x.c, http.StatusOK, intake.TypeJSON, map[string]string{"MessageId": done[0].id})
}

// readSigned reads the body of a request signed with a key: its name is the
// access key id and its secret the secret access key.
func (x *exchange) readSigned() ([]byte, error) {
	r := x.c.Request()
	if x.keys.Empty() {
		return x.readBytes(x.maxBody())
	}
	s, err := parseSignature(r, time.Now())
	if err != nil {
		return nil, err
	}
	key, secret, known := x.keys.Signer(s.accessKey)
	hash := r.Header.Get(headerAmzHash)
	// A hash in the header tells a stranger before the body is read.
	if !known || hash != "" && !s.matches(r, secret, hash) {
		return nil, problem.New(api.CodeUnauthorized, detailSignature)
	}
	x.setKey(key)
	if zipped, err := intake.IsZipped(r.Header); zipped || err != nil {
		return nil, problem.New(api.CodeContentEncoding, "Send the body as it is, without Content-Encoding.")
	}
	if hash == "" {
		unproven := x.unproven.Share()
		defer unproven.Shrink(0)
		if !unproven.Grow(announced(r, x.maxBody())) {
			return nil, problem.New(api.CodeBusy, "")
		}
	}
	data, err := x.readBytes(x.maxBody())
	if err != nil {
		return nil, err
	}
	if hash == unsignedPayload && r.TLS != nil {
		return data, nil
	}
	sum := sha256.Sum256(data)
	if actual := hex.EncodeToString(sum[:]); hash != "" && hash != actual || hash == "" && !s.matches(r, secret, actual) {
		return nil, problem.New(api.CodeUnauthorized, detailSignature)
	}
	return data, nil
}

// announced is how long a body is at most.
func announced(r *http.Request, limit int64) int64 {
	if r.ContentLength < 0 {
		return limit
	}
	return min(r.ContentLength, limit)
}

const detailSignature = "The request signature we calculated does not match the signature you provided. " +
	"Check the access key id (the key's name), the secret access key (the key's secret) and the signing method."

func (m *sesMail) outgoing() (outgoing, error) {
	var f findings
	o := outgoing{where: sesField}
	for _, t := range m.EmailTags {
		o.tag(t.Name, t.Value)
	}
	raw, simple := m.Content.Raw.Data.given, m.Content.Simple.given()
	d := m.Destination
	if len(d.ToAddresses)+len(d.CcAddresses)+len(d.BccAddresses) > maxSESPeople {
		f.Add("Destination", fmt.Sprintf("Recipient count exceeds %d.", maxSESPeople))
	}
	switch {
	case raw && simple:
		f.Add("Content", "has both Raw and Simple")
	case raw:
		m.finished(&o, &f)
	case simple:
		m.simple(&o, &f)
	default:
		f.Add("Content", "Raw or Simple is required")
	}
	return o, f.Err()
}

func (s *sesSimple) given() bool {
	return s.Subject.Data != "" || s.Body.Text.Data != "" || s.Body.HTML.Data != "" || len(s.Attachments) > 0
}

// finished makes the envelope of a raw message.
func (m *sesMail) finished(o *outgoing, f *findings) {
	o.finished = m.Content.Raw.Data.data
	if from := orText(m.FeedbackForwarding, m.FromEmailAddress); from != "" {
		if list := f.list("FromEmailAddress", from); len(list) == 1 {
			o.envelope.EnvelopeFrom = list[0].Email
		}
	}
	var to []string
	d := m.Destination
	for _, list := range [][]mailer.Address{
		f.lists("Destination.ToAddresses", d.ToAddresses), f.lists("Destination.CcAddresses", d.CcAddresses),
		f.lists("Destination.BccAddresses", d.BccAddresses),
	} {
		for _, a := range list {
			to = append(to, a.Email)
		}
	}
	o.envelope.EnvelopeTo = strings.Join(to, ", ")
}

func (m *sesMail) simple(o *outgoing, f *findings) {
	s, d := &m.Content.Simple, m.Destination
	o.Message = mailer.Message{
		To: f.lists("Destination.ToAddresses", d.ToAddresses), Cc: f.lists("Destination.CcAddresses", d.CcAddresses),
		Bcc: f.lists("Destination.BccAddresses", d.BccAddresses), ReplyTo: f.lists("ReplyToAddresses", m.ReplyToAddresses),
		Subject: s.Subject.Data, Text: s.Body.Text.Data, HTML: s.Body.HTML.Data, ReturnPath: m.FeedbackForwarding,
	}
	if list := f.lists("FromEmailAddress", texts{m.FromEmailAddress}); len(list) == 1 {
		o.From = list[0]
	}
	for _, h := range s.Headers {
		o.Header = append(o.Header, mailer.Field(h))
	}
	for i, a := range s.Attachments {
		if !a.RawContent.given {
			f.Add(fmt.Sprintf("Content.Simple.Attachments[%d].RawContent", i), textRequired)
		}
		o.attach(mailer.Attachment{
			Filename: a.FileName, ContentType: a.ContentType, ContentID: a.ContentID, Content: a.RawContent.data,
		}, strings.EqualFold(a.Disposition, "INLINE"))
	}
}

var sesFields = map[string]string{
	"from": "FromEmailAddress", "to": "Destination.ToAddresses", "cc": "Destination.CcAddresses",
	"bcc": "Destination.BccAddresses", "reply_to": "ReplyToAddresses", "return_path": "FeedbackForwardingEmailAddress",
	"subject": "Content.Simple.Subject", "text": "Content.Simple.Body", "message": "Content.Raw.Data",
	"Envelope-From": "FromEmailAddress", "Envelope-To": "Destination",
}

func sesField(field string) string {
	name, n, rest, ok := indexed(field)
	if !ok {
		return orText(sesFields[field], field)
	}
	if name == "attachments" {
		return fmt.Sprintf("Content.Simple.Attachments[%d]%s", n, rest)
	}
	return fmt.Sprintf("%s[%d]", orText(sesFields[name], name), n)
}

// sesAnswer names the exception in the header, where the SDKs look for it.
func sesAnswer(c complaint) (int, any) {
	kind := "BadRequestException"
	switch {
	case c.Code == api.CodeUnauthorized:
		c.status, kind = http.StatusForbidden, "InvalidSignatureException"
	case c.Code == api.CodeRejected:
		kind = "MessageRejected"
	case c.Code == api.CodeSenderNotAllowed:
		c.status, kind = http.StatusBadRequest, "MailFromDomainNotVerifiedException"
	case c.Code == api.CodeUncertain:
		kind = "ConflictException"
	case c.status == http.StatusForbidden:
		kind = "AccessDeniedException"
	case c.status == http.StatusNotFound:
		kind = "NotFoundException"
	case c.status == http.StatusTooManyRequests:
		kind = "TooManyRequestsException"
	case c.status >= http.StatusInternalServerError:
		kind = "InternalServiceErrorException"
	}
	text := c.text
	if len(c.Fields) > 0 && c.Detail == "" && c.Fields[0].Field != "" {
		text = fmt.Sprintf("%s: %s", dotted(c.Fields[0].Field), c.Fields[0].Message)
	}
	c.header.Set("X-Amzn-Errortype", kind)
	return c.status, map[string]string{"message": text}
}
