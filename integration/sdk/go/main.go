// Command go sends mail with the providers' clients for Go, each with nothing
// but its base URL changed, and prints what they made of the answers as JSON, as
// send.mjs does for Node. It has a module of its own, for the product needs none
// of these.
//
// usage: go run . URL KEY-NAME KEY
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	neturl "net/url"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"
	"github.com/aws/aws-sdk-go-v2/service/sesv2/types"
	"github.com/aws/smithy-go"
	"github.com/mailersend/mailersend-go"
	"github.com/mailgun/mailgun-go/v5"
	"github.com/mrz1836/postmark"
	"github.com/resend/resend-go/v3"
	"github.com/sendgrid/sendgrid-go"
	"github.com/sendgrid/sendgrid-go/helpers/mail"
)

const (
	shop    = "shop@example.com"
	name    = "Müller & Söhne, Köln"
	from    = `"` + name + `" <` + shop + `>`
	help    = "help@example.com"
	subject = "Ihre Bestellung № 1042 — grüße"
	text    = "Dear Ana,\n\n.a leading dot, a trailing blank \nund Umlaute: äöü €\n"
	html    = `<p>Grüße</p><img src="cid:logo.png">`
	invoice = "Rechnung März.pdf"
	logo    = "logo.png"
)

// sender sends with every client.
type sender struct {
	url, keyName, key string
	pdf, png          []byte
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: go run . URL KEY-NAME KEY")
		os.Exit(2)
	}
	s := sender{url: os.Args[1], keyName: os.Args[2], key: os.Args[3], pdf: make([]byte, 3000), png: make([]byte, 200)}
	for i := range s.pdf {
		s.pdf[i] = byte(i * 7)
	}
	for i := range s.png {
		s.png[i] = byte(255 - i)
	}
	answers := map[string]any{}
	for scenario, send := range s.scenarios() {
		value, err := send(context.Background())
		if err != nil {
			answers[scenario] = map[string]any{"error": describe(err)}
		} else {
			answers[scenario] = map[string]any{"value": value}
		}
	}
	out, err := json.MarshalIndent(answers, "", " ")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(out))
}

func to(local string) string { return local + "@example.org" }

func ana(local string) string { return "Ana Gómez <" + to(local) + ">" }

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func (s sender) scenarios() map[string]func(context.Context) (any, error) {
	return map[string]func(context.Context) (any, error){
		"sendgrid":           s.sendgrid,
		"sendgrid-gzip":      s.sendgridGzip,
		"sendgrid-invalid":   s.sendgridInvalid,
		"postmark":           s.postmark,
		"postmark-invalid":   s.postmarkInvalid,
		"resend":             s.resend,
		"resend-invalid":     s.resendInvalid,
		"mailgun":            s.mailgun,
		"mailgun-mime":       s.mailgunMIME,
		"mailgun-invalid":    s.mailgunInvalid,
		"mailersend":         s.mailersend,
		"mailersend-invalid": s.mailersendInvalid,
		"ses":                s.ses,
		"ses-invalid":        s.sesInvalid,
	}
}

// describe keeps what a program could read of an error.
func describe(err error) map[string]any {
	d := map[string]any{"type": fmt.Sprintf("%T", err), "text": err.Error()}
	var api smithy.APIError
	if errors.As(err, &api) {
		d = map[string]any{"type": fmt.Sprintf("%T", api), "code": api.ErrorCode(), "text": api.ErrorMessage()}
	}
	var mg *mailgun.UnexpectedResponseError
	if errors.As(err, &mg) {
		d = map[string]any{"type": fmt.Sprintf("%T", mg), "code": mg.Actual, "text": string(mg.Data)}
	}
	return d
}

func (s sender) sendgrid(ctx context.Context) (any, error) {
	return s.sendSendGrid(ctx, "sendgrid", false)
}

func (s sender) sendgridGzip(ctx context.Context) (any, error) {
	return s.sendSendGrid(ctx, "sendgrid-gzip", true)
}

func (s sender) sendSendGrid(ctx context.Context, local string, gzip bool) (any, error) {
	m := mail.NewV3Mail().SetFrom(mail.NewEmail(name, shop)).SetReplyTo(mail.NewEmail("Help", help))
	m.Subject = subject
	p := mail.NewPersonalization()
	p.AddTos(mail.NewEmail("Ana Gómez", to(local)))
	p.AddCCs(mail.NewEmail("", to(local+"-cc")))
	p.AddBCCs(mail.NewEmail("", to(local+"-bcc")))
	m.AddPersonalizations(p)
	m.AddContent(mail.NewContent("text/plain", text), mail.NewContent("text/html", html))
	m.SetHeader("X-Order-Id", "4711").AddCategories("order")
	m.AddAttachment(
		mail.NewAttachment().SetContent(encode(s.pdf)).SetFilename(invoice).SetType("application/pdf").SetDisposition("attachment"),
		mail.NewAttachment().SetContent(encode(s.png)).SetFilename(logo).SetType("image/png").SetDisposition("inline").SetContentID(logo),
	)
	return s.postSendGrid(ctx, m, gzip)
}

func (s sender) sendgridInvalid(ctx context.Context) (any, error) {
	m := mail.NewSingleEmail(mail.NewEmail(name, shop), subject, mail.NewEmail("", "not an address"), text, html)
	return s.postSendGrid(ctx, m, false)
}

func (s sender) postSendGrid(ctx context.Context, m *mail.SGMailV3, gzip bool) (any, error) {
	c := sendgrid.NewSendClient(s.key)
	c.BaseURL = s.url + "/v3/mail/send"
	if gzip {
		c.Headers["Content-Encoding"] = "gzip"
	}
	r, err := c.SendWithContext(ctx, m)
	if err != nil {
		return nil, err
	}
	return map[string]any{"status": r.StatusCode, "id": r.Headers["X-Message-Id"], "body": r.Body}, nil
}

func (s sender) postmarkClient() *postmark.Client {
	c := postmark.NewClient(s.key, "")
	c.BaseURL = s.url
	return c
}

func (s sender) postmark(ctx context.Context) (any, error) {
	return s.postmarkClient().SendEmail(ctx, postmark.Email{
		From: from, To: ana("postmark") + ", " + to("postmark-2"), Cc: to("postmark-cc"), Bcc: to("postmark-bcc"), ReplyTo: help,
		Subject: subject, TextBody: text, HTMLBody: html, Tag: "order", Metadata: map[string]string{"customer": "42"}, TrackOpens: true,
		Headers: []postmark.Header{{Name: "X-Order-Id", Value: "4711"}},
		Attachments: []postmark.Attachment{
			{Name: invoice, Content: encode(s.pdf), ContentType: "application/pdf"},
			{Name: logo, Content: encode(s.png), ContentType: "image/png", ContentID: "cid:" + logo},
		},
	})
}

func (s sender) postmarkInvalid(ctx context.Context) (any, error) {
	return s.postmarkClient().SendEmail(ctx, postmark.Email{From: from, To: "not an address", Subject: subject, TextBody: text})
}

func (s sender) resendClient() (*resend.Client, error) {
	c := resend.NewClient(s.key)
	var err error
	c.BaseURL, err = neturl.Parse(s.url + "/")
	return c, err
}

func (s sender) resend(ctx context.Context) (any, error) {
	c, err := s.resendClient()
	if err != nil {
		return nil, err
	}
	return c.Emails.SendWithOptions(ctx, &resend.SendEmailRequest{
		From: from, To: []string{to("resend")}, Cc: []string{to("resend-cc")}, Bcc: []string{to("resend-bcc")}, ReplyTo: help,
		Subject: subject, Text: text, Html: html, Headers: map[string]string{"X-Order-Id": "4711"},
		Tags: []resend.Tag{{Name: "order", Value: "1042"}},
		Attachments: []*resend.Attachment{
			{Content: s.pdf, Filename: invoice}, {Content: s.png, Filename: logo, ContentType: "image/png", ContentId: logo},
		},
	}, &resend.SendEmailOptions{IdempotencyKey: "go-order-1042"})
}

func (s sender) resendInvalid(ctx context.Context) (any, error) {
	c, err := s.resendClient()
	if err != nil {
		return nil, err
	}
	return c.Emails.SendWithContext(ctx, &resend.SendEmailRequest{From: from, To: []string{"not an address"}, Subject: subject, Text: text})
}

func (s sender) sendMailgun(ctx context.Context, m mailgun.Message) (any, error) {
	c := mailgun.NewMailgun(s.key)
	if err := c.SetAPIBase(s.url); err != nil {
		return nil, err
	}
	return c.Send(ctx, m)
}

func (s sender) mailgun(ctx context.Context) (any, error) {
	m := mailgun.NewMessage("mg.example.com", from, subject, text, ana("mailgun"), to("mailgun-2"))
	m.AddCC(to("mailgun-cc"))
	m.AddBCC(to("mailgun-bcc"))
	m.SetHTML(html)
	m.SetReplyTo(help)
	m.AddHeader("X-Order-Id", "4711")
	m.SetTracking(false)
	if err := errors.Join(m.AddTag("order"), m.AddVariable("customer", 42)); err != nil {
		return nil, err
	}
	m.AddBufferAttachment(invoice, s.pdf)
	m.AddReaderInline(logo, io.NopCloser(bytes.NewReader(s.png)))
	return s.sendMailgun(ctx, m)
}

func (s sender) mailgunMIME(ctx context.Context) (any, error) {
	finished := "From: " + shop + "\nTo: " + to("mailgun-mime") + "\nBcc: " + to("mailgun-mime-bcc") + "\nSubject: Finished\n\nReady made.\n"
	m := mailgun.NewMIMEMessage("mg.example.com", io.NopCloser(bytes.NewReader([]byte(finished))), to("mailgun-mime"), to("mailgun-mime-bcc"))
	return s.sendMailgun(ctx, m)
}

func (s sender) mailgunInvalid(ctx context.Context) (any, error) {
	return s.sendMailgun(ctx, mailgun.NewMessage("mg.example.com", from, subject, text, "not an address"))
}

// elsewhere sends every request to another server: the client has no setting
// for it.
type elsewhere struct{ base *neturl.URL }

func (e elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = e.base.Scheme, e.base.Host, e.base.Host
	return http.DefaultTransport.RoundTrip(r)
}

func (s sender) sendMailerSend(ctx context.Context, recipient mailersend.Recipient, rest func(*mailersend.Message)) (any, error) {
	base, err := neturl.Parse(s.url)
	if err != nil {
		return nil, err
	}
	c := mailersend.NewMailersend(s.key)
	c.SetClient(&http.Client{Transport: elsewhere{base}})
	m := c.Email.NewMessage()
	m.SetFrom(mailersend.From{Name: name, Email: shop})
	m.SetRecipients([]mailersend.Recipient{recipient})
	m.SetSubject(subject)
	m.SetText(text)
	if rest != nil {
		rest(m)
	}
	r, err := c.Email.Send(ctx, m)
	if err != nil {
		return nil, err
	}
	return map[string]any{"status": r.StatusCode, "id": r.Header.Get("X-Message-Id")}, nil
}

func (s sender) mailersend(ctx context.Context) (any, error) {
	return s.sendMailerSend(ctx, mailersend.Recipient{Name: "Ana Gómez", Email: to("mailersend")}, func(m *mailersend.Message) {
		m.SetCc([]mailersend.Recipient{{Email: to("mailersend-cc")}})
		m.SetBcc([]mailersend.Recipient{{Email: to("mailersend-bcc")}})
		m.SetReplyTo(mailersend.Recipient{Name: "Help", Email: help})
		m.SetHTML(html)
		m.SetTags([]string{"order"})
		m.AddAttachment(mailersend.Attachment{Content: encode(s.pdf), Filename: invoice})
		m.AddAttachment(mailersend.Attachment{Content: encode(s.png), Filename: logo, Disposition: "inline", ID: logo})
	})
}

func (s sender) mailersendInvalid(ctx context.Context) (any, error) {
	return s.sendMailerSend(ctx, mailersend.Recipient{Email: "not an address"}, nil)
}

func (s sender) sesClient() *sesv2.Client {
	return sesv2.New(sesv2.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(s.url), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(s.keyName, s.key, ""),
	})
}

func content(data string) *types.Content { return &types.Content{Data: aws.String(data)} }

func (s sender) ses(ctx context.Context) (any, error) {
	out, err := s.sesClient().SendEmail(ctx, &sesv2.SendEmailInput{
		FromEmailAddress: aws.String(from), ReplyToAddresses: []string{help},
		Destination: &types.Destination{
			ToAddresses: []string{ana("ses")}, CcAddresses: []string{to("ses-cc")}, BccAddresses: []string{to("ses-bcc")},
		},
		EmailTags: []types.MessageTag{{Name: aws.String("order"), Value: aws.String("1042")}},
		Content: &types.EmailContent{Simple: &types.Message{
			Subject: content(subject), Body: &types.Body{Text: content(text), Html: content(html)},
			Headers: []types.MessageHeader{{Name: aws.String("X-Order-Id"), Value: aws.String("4711")}},
			Attachments: []types.Attachment{
				{FileName: aws.String(invoice), RawContent: s.pdf, ContentType: aws.String("application/pdf")},
				{FileName: aws.String(logo), RawContent: s.png, ContentDisposition: types.AttachmentContentDispositionInline, ContentId: aws.String(logo)},
			},
		}},
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"MessageId": aws.ToString(out.MessageId)}, nil
}

func (s sender) sesInvalid(ctx context.Context) (any, error) {
	return s.sesClient().SendEmail(ctx, &sesv2.SendEmailInput{
		FromEmailAddress: aws.String(from), Destination: &types.Destination{ToAddresses: []string{"not an address"}},
		Content: &types.EmailContent{Simple: &types.Message{Subject: content(subject), Body: &types.Body{Text: content(text)}}},
	})
}
