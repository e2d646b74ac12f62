package sim

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"mailsidecar/handler/compat/compattest"
	"mailsidecar/sim/chance"
	"mailsidecar/sim/model"
)

// door writes the request of a message as the clients of a provider do.
type door func(d *Draft, m mail)

// mail is what all providers have.
type mail struct {
	from          string
	to, cc, bcc   []string
	subject, text string
	at            time.Time // when it is sent, for those that sign it
}

var doors = []door{postmark, resend, sendgrid, mailersend, brevo, mailgun, ses}

// provider is a request as a client of a provider makes it.
func (w *World) provider(d *Draft, c chance.Chance, name string, now time.Time) {
	m := mail{from: w.from(d.Key, name), subject: name, text: text(c, name), at: now}
	m.to, m.cc, m.bcc = people(c, name)
	d.Foreign = true
	doors[c.Of("provider").Below(len(doors))](d, m)
	paths := append(append(m.to[:len(m.to):len(m.to)], m.cc...), m.bcc...)
	d.Submissions = []model.Submission{{Token: name, Paths: paths, Priority: "normal", Valid: true}}
}

func postmark(d *Draft, m mail) {
	d.Path = "/email"
	d.Header.Del("Authorization")
	d.Header.Set("X-Postmark-Server-Token", d.Key.Secret())
	d.json(map[string]any{
		"From": m.from, "To": strings.Join(m.to, ","), "Cc": strings.Join(m.cc, ","), "Bcc": strings.Join(m.bcc, ","),
		"Subject": m.subject, "TextBody": m.text,
	})
}

func resend(d *Draft, m mail) {
	d.Path = "/emails"
	d.json(map[string]any{"from": m.from, "to": m.to, "cc": m.cc, "bcc": m.bcc, "subject": m.subject, "text": m.text})
}

func sendgrid(d *Draft, m mail) {
	d.Path = "/v3/mail/send"
	d.json(map[string]any{
		"personalizations": []any{withPeople(map[string]any{}, m)}, "from": map[string]string{"email": m.from}, "subject": m.subject,
		"content": []any{map[string]string{"type": "text/plain", "value": m.text}},
	})
}

func mailersend(d *Draft, m mail) {
	d.Path = "/v1/email"
	d.json(withPeople(map[string]any{"from": map[string]string{"email": m.from}, "subject": m.subject, "text": m.text}, m))
}

func brevo(d *Draft, m mail) {
	d.Path = "/v3/smtp/email"
	d.Header.Del("Authorization")
	d.Header.Set("Api-Key", d.Key.Secret())
	d.json(withPeople(map[string]any{"sender": map[string]string{"email": m.from}, "subject": m.subject, "textContent": m.text}, m))
}

func mailgun(d *Draft, m mail) {
	d.Path = "/v3/" + d.Key.Domain + "/messages"
	d.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("api:"+d.Key.Secret())))
	d.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	d.Body = url.Values{"from": {m.from}, "to": m.to, "cc": m.cc, "bcc": m.bcc, "subject": {m.subject}, "text": {m.text}}.Encode()
}

func ses(d *Draft, m mail) {
	d.Path = "/v2/email/outbound-emails"
	d.Header.Del("Authorization")
	d.json(map[string]any{
		"FromEmailAddress": m.from,
		"Destination":      map[string]any{"ToAddresses": m.to, "CcAddresses": m.cc, "BccAddresses": m.bcc},
		"Content":          map[string]any{"Simple": map[string]any{"Subject": map[string]string{"Data": m.subject}, "Body": map[string]any{"Text": map[string]string{"Data": m.text}}}},
	})
	r := httptest.NewRequest(http.MethodPost, d.Path, strings.NewReader(d.Body))
	r.Header = d.Header
	compattest.SignRequest(r, d.Key.Name, d.Key.Secret(), m.at)
}

// withPeople adds the recipients as objects, where there are any.
func withPeople(v map[string]any, m mail) map[string]any {
	for name, list := range map[string][]string{"to": m.to, "cc": m.cc, "bcc": m.bcc} {
		var people []any
		for _, address := range list {
			people = append(people, map[string]string{"email": address})
		}
		if len(people) > 0 {
			v[name] = people
		}
	}
	return v
}
