package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"strings"

	"mailsidecar/bench/peers/message"
)

// payload is the message that is sent again and again, as JSON and composed,
// cut where its id goes.
type payload struct {
	jsonBefore, jsonAfter []byte
	mimeBefore, mimeAfter []byte
	json                  []byte // whole, without an id
}

// idMark is the place of the id.
const idMark = "-id-goes-here-"

// newPayload makes 2.5 kB of text with 10 kB of HTML, and an attachment of that
// many octets where it is not zero.
func newPayload(attachment int) (*payload, error) {
	m := &message.Message{
		From: "Shop <shop@example.com>", To: []string{"Ana <ana@example.org>"},
		Subject: "Your order has been received – thank you",
		Text:    prose(2500),
		HTML:    "<html><body>\n<p>" + strings.ReplaceAll(prose(10_000), "\n", "</p>\n<p>") + "</p>\n</body></html>\n",
		Headers: map[string]string{"X-Bench": idMark},
	}
	if attachment > 0 {
		m.Attachments = []message.Attachment{{
			Filename: "invoice.pdf", ContentType: "application/pdf",
			Content: base64.StdEncoding.EncodeToString(noise(attachment)),
		}}
	}
	p := &payload{}
	text, err := json.Marshal(jsonMessage(m))
	if err != nil {
		return nil, err
	}
	p.json = text
	p.jsonBefore, p.jsonAfter, _ = bytes.Cut(text, []byte(idMark))
	msg, err := m.Mail()
	if err != nil {
		return nil, err
	}
	var composed bytes.Buffer
	if _, err := msg.WriteTo(&composed); err != nil {
		return nil, err
	}
	stuffed := bytes.ReplaceAll(composed.Bytes(), []byte("\r\n."), []byte("\r\n.."))
	if !bytes.HasSuffix(stuffed, []byte("\r\n")) {
		stuffed = append(stuffed, "\r\n"...)
	}
	p.mimeBefore, p.mimeAfter, _ = bytes.Cut(stuffed, []byte(idMark))
	return p, nil
}

// jsonMessage leaves out empty fields, because a strict reader refuses null lists.
func jsonMessage(m *message.Message) map[string]any {
	fields := map[string]any{
		"from": m.From, "to": m.To, "subject": m.Subject, "text": m.Text, "html": m.HTML, "headers": m.Headers,
	}
	if len(m.Attachments) > 0 {
		fields["attachments"] = m.Attachments
	}
	return fields
}

// prose is German and English text of about that many octets, in paragraphs.
func prose(size int) string {
	var b strings.Builder
	for b.Len() < size {
		b.WriteString("Thank you for your order. Größe und Menge finden Sie in der Übersicht; it ships within two days.\n")
	}
	return b.String()
}

// noise is the same in every run, and does not compress.
func noise(size int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}
