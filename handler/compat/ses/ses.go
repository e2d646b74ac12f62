// Package ses answers as Amazon SES v2 does. The types of its requests are its
// documentation: docs/provider-apis.md is made of them.
package ses

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/processor"
)

// API is the API of Amazon SES v2.
var API = &compat.API{
	Name:     "ses",
	Title:    "Amazon SES v2",
	Routes:   []compat.Route{{Path: "/v2/email/outbound-emails", Serve: send}},
	Owns:     compat.Under("/v2/email"),
	Signed:   true,
	Answer:   answer,
	Requests: []compat.RequestDoc{{Path: "POST /v2/email/outbound-emails", Fields: mail{}}},
}

const maxPeople = 50

type mail struct {
	FromEmailAddress         string         `json:"FromEmailAddress" note:"with Raw the reverse-path, unless a bounce address is given"`
	Destination              destination    `json:"Destination" note:"at most 50 addresses; with Raw the envelope"`
	ReplyToAddresses         []string       `json:"ReplyToAddresses"`
	FeedbackForwarding       string         `json:"FeedbackForwardingEmailAddress" note:"the reverse-path"`
	Content                  content        `json:"Content"`
	EmailTags                []tag          `json:"EmailTags" note:"kept as tags of the message"`
	ConfigurationSetName     compat.Ignored `json:"ConfigurationSetName"`
	FromEmailAddressIdentity compat.Ignored `json:"FromEmailAddressIdentityArn"`
	FeedbackForwardingARN    compat.Ignored `json:"FeedbackForwardingEmailAddressIdentityArn"`
	EndpointID               compat.Ignored `json:"EndpointId"`
	TenantName               compat.Ignored `json:"TenantName"`
	ListManagementOptions    compat.Ignored `json:"ListManagementOptions" note:"no unsubscribe link is added"`
}

type destination struct {
	ToAddresses  []string `json:"ToAddresses"`
	CcAddresses  []string `json:"CcAddresses"`
	BccAddresses []string `json:"BccAddresses"`
}

type content struct {
	Raw      raw            `json:"Raw"`
	Simple   simple         `json:"Simple"`
	Template compat.Refused `json:"Template" note:"templates are kept by the provider: render them in the app"`
}

type raw struct {
	Data compat.FileContent `json:"Data" note:"a finished message"`
}

type simple struct {
	Subject     text   `json:"Subject"`
	Body        body   `json:"Body"`
	Headers     []pair `json:"Headers"`
	Attachments []file `json:"Attachments"`
}

type body struct {
	Text text `json:"Text"`
	HTML text `json:"Html"`
}

type text struct {
	Data    string         `json:"Data"`
	Charset compat.Ignored `json:"Charset" note:"what is sent is UTF-8"`
}

type pair struct {
	Name  string `json:"Name"`
	Value string `json:"Value"`
}

type tag = pair

type file struct {
	RawContent  compat.FileContent `json:"RawContent"`
	FileName    string             `json:"FileName"`
	ContentType string             `json:"ContentType"`
	Disposition string             `json:"ContentDisposition"`
	ContentID   string             `json:"ContentId" note:"inline with ContentDisposition INLINE, or where the HTML refers to it"`
	Description compat.Ignored     `json:"ContentDescription"`
	Encoding    compat.Ignored     `json:"ContentTransferEncoding"`
}

func send(x *compat.Exchange) error {
	data, err := readSigned(x)
	if err != nil {
		return err
	}
	var m mail
	if err := x.Decode(data, &m, ""); err != nil {
		return err
	}
	o, err := m.outgoing(x.Expansion())
	if err != nil {
		return err
	}
	done, err := x.Send([]compat.Message{o})
	if err != nil {
		return err
	}
	return x.AnswerJSON(http.StatusOK, map[string]string{"MessageId": done[0].ID})
}

// readSigned reads the body of a request signed with a key: its name is the
// access key id and its secret the secret access key.
func readSigned(x *compat.Exchange) ([]byte, error) {
	r := x.Request
	if x.Keys.Empty() {
		return x.ReadBytes(x.MaxBody)
	}
	s, err := parseSignature(r, time.Now())
	if err != nil {
		return nil, err
	}
	prove := func(hash string) error {
		return x.ProveSigned(s.accessKey, detailSignature, func(secret string) bool { return s.matches(r, secret, hash) })
	}
	hash := r.Header.Get(headerHash)
	// With a hash in the header, strangers are refused before the body is read.
	if hash != "" {
		if err := prove(hash); err != nil {
			return nil, err
		}
	}
	if zipped, err := intake.IsZipped(r.Header); zipped || err != nil {
		return nil, problem.New(api.CodeContentEncoding, "Send the body as it is, without Content-Encoding.")
	}
	data, err := x.ReadBytes(x.MaxBody)
	if err != nil {
		return nil, err
	}
	if hash == unsignedPayload && r.TLS != nil {
		return data, nil
	}
	digest := sha256.New()
	processor.Digest(digest, data)
	actual := hex.EncodeToString(digest.Sum(nil))
	if hash == "" {
		return data, prove(actual)
	}
	if hash != actual {
		return nil, problem.New(api.CodeUnauthorized, detailSignature)
	}
	return data, nil
}

const detailSignature = "The request signature we calculated does not match the signature you provided. " +
	"Check the access key id (the key's name), the secret access key (the key's secret) and the signing method."

func (m *mail) outgoing(e *compat.Expansion) (compat.Message, error) {
	var f compat.Fields
	o := compat.Message{Path: path, HeaderPath: func(n int) string { return fmt.Sprintf("Content.Simple.Headers[%d]", n) }, Limit: e}
	for _, t := range m.EmailTags {
		o.Tag(t.Name, t.Value)
	}
	raw, simple := m.Content.Raw.Data.Given, m.Content.Simple.given()
	d := m.Destination
	if len(d.ToAddresses)+len(d.CcAddresses)+len(d.BccAddresses) > maxPeople {
		f.Add("Destination", fmt.Sprintf("Recipient count exceeds %d.", maxPeople))
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

func (s *simple) given() bool {
	return s.Subject.Data != "" || s.Body.Text.Data != "" || s.Body.HTML.Data != "" || len(s.Attachments) > 0
}

// finished makes the envelope of a raw message.
func (m *mail) finished(o *compat.Message, f *compat.Fields) {
	o.Finished = m.Content.Raw.Data.Data
	for _, from := range []mailer.Field{{Name: "FeedbackForwardingEmailAddress", Value: m.FeedbackForwarding}, {Name: "FromEmailAddress", Value: m.FromEmailAddress}} {
		if from.Value == "" {
			continue
		}
		if a := one(from.Name, from.Value, f); o.Envelope.From.Email == "" {
			o.Envelope.From = a
		}
	}
	d := m.Destination
	o.Envelope.To = slices.Concat(
		f.Lists("Destination.ToAddresses", d.ToAddresses), f.Lists("Destination.CcAddresses", d.CcAddresses),
		f.Lists("Destination.BccAddresses", d.BccAddresses),
	)
}

// one reads a single address, which is at path.
func one(path, text string, f *compat.Fields) mailer.Address {
	list := f.Lists(path, compat.Texts{text})
	if len(list) != 1 {
		f.Add(path, "must be one address")
		return mailer.Address{}
	}
	return list[0]
}

func (m *mail) simple(o *compat.Message, f *compat.Fields) {
	s, d := &m.Content.Simple, m.Destination
	o.Message = mailer.Message{
		To: f.Lists("Destination.ToAddresses", d.ToAddresses), Cc: f.Lists("Destination.CcAddresses", d.CcAddresses),
		Bcc: f.Lists("Destination.BccAddresses", d.BccAddresses), ReplyTo: f.Lists("ReplyToAddresses", m.ReplyToAddresses),
		Subject: s.Subject.Data, Text: s.Body.Text.Data, HTML: s.Body.HTML.Data, ReturnPath: m.FeedbackForwarding,
	}
	o.From = one("FromEmailAddress", m.FromEmailAddress, f)
	if len(o.To)+len(o.Cc)+len(o.Bcc) == 0 {
		f.Add("Destination", "at least one address "+compat.Required)
	}
	for _, h := range s.Headers {
		o.Header = append(o.Header, mailer.Field(h))
	}
	for i, a := range s.Attachments {
		if !a.RawContent.Given {
			f.Add(fmt.Sprintf("Content.Simple.Attachments[%d].RawContent", i), compat.Required)
		}
		o.Attach(mailer.Attachment{
			Filename: a.FileName, ContentType: a.ContentType, ContentID: a.ContentID, Content: a.RawContent.Data,
		}, strings.EqualFold(a.Disposition, "INLINE"))
	}
}

var fieldNames = map[string]string{
	"from": "FromEmailAddress", "to": "Destination.ToAddresses", "cc": "Destination.CcAddresses",
	"bcc": "Destination.BccAddresses", "reply_to": "ReplyToAddresses", "return_path": "FeedbackForwardingEmailAddress",
	"subject": "Content.Simple.Subject.Data", "text": "Content.Simple.Body", "html": "Content.Simple.Body", "message": "Content.Raw.Data",
	"headers": "Content.Simple.Headers", "attachments": "Content.Simple.Attachments",
	"filename": "FileName", "content_type": "ContentType", "content_id": "ContentId",
}

// path is where something is in the request; lists of addresses are one field each.
func path(at mailer.Position) string {
	name := fieldNames[at.Field]
	if at.Field == "attachments" && at.Item > 0 {
		return fmt.Sprintf("%s[%d].%s", name, at.Item-1, fieldNames[at.Member])
	}
	return name
}

// answer names the exception in the header, where the SDKs look for it.
func answer(p compat.Problem) (int, any) {
	kind := "BadRequestException"
	switch {
	case p.Code == api.CodeUnauthorized:
		p.Status, kind = http.StatusForbidden, "InvalidSignatureException"
	case p.Code == api.CodeRejected:
		kind = "MessageRejected"
	case p.Code == api.CodeSenderNotAllowed:
		p.Status, kind = http.StatusBadRequest, "MailFromDomainNotVerifiedException"
	case p.Code == api.CodeUncertain:
		kind = "ConflictException"
	case p.Status == http.StatusForbidden:
		kind = "AccessDeniedException"
	case p.Status == http.StatusNotFound:
		kind = "NotFoundException"
	case p.Status == http.StatusTooManyRequests:
		kind = "TooManyRequestsException"
	case p.Status >= http.StatusInternalServerError:
		kind = "InternalServiceErrorException"
	}
	text := p.Text
	if len(p.Fields) > 0 && p.Detail == "" && p.Fields[0].Field != "" {
		text = fmt.Sprintf("%s: %s", compat.Dotted(p.Fields[0].Field), p.Fields[0].Message)
	}
	p.Header.Set("X-Amzn-Errortype", kind)
	return p.Status, map[string]string{"message": text}
}
