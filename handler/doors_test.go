package handler

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/textproto"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"mailsidecar/queue"
	"mailsidecar/sendmail"
)

// party is an address with the name that goes with it.
type party struct{ Name, Email string }

// letter is what a person wants to send, before it takes the form of any API.
type letter struct {
	from        party
	to, cc, bcc []party
	replyTo     party
	subject     string
	text, html  string
	header      string // the value of the field X-Order
	filename    string // no file if empty
	file        []byte
}

// entrance is a way into the server. It makes the request with which the clients of one
// API submit a letter.
type entrance func(l letter, t testing.TB) *http.Request

// entrances are all of them.
func entrances() map[string]entrance {
	all := map[string]entrance{
		"json":  func(l letter, t testing.TB) *http.Request { return postJSON(t, "/v1/messages", l.native(true)) },
		"texts": func(l letter, t testing.TB) *http.Request { return postJSON(t, "/v1/messages", l.native(false)) },
		"batch": func(l letter, t testing.TB) *http.Request {
			return postJSON(t, "/v1/messages/batch", object{"messages": []object{l.native(false)}})
		},
		"form":     letter.form,
		"raw":      letter.raw,
		"envelope": letter.envelope,
		"mailgun":  letter.mailgun,
		"mime":     letter.mailgunMIME,
		"ses raw":  letter.sesRaw,
	}
	for name, body := range map[string]func(letter) object{
		"postmark": letter.postmark, "resend": letter.resend, "sendgrid": letter.sendgrid,
		"ses": letter.ses, "mailersend": letter.mailersend, "brevo": letter.brevo,
	} {
		all[name] = func(l letter, t testing.TB) *http.Request {
			return apis[name].request(name, bytes.NewReader(encode(t, body(l))))
		}
	}
	return all
}

// everyDoor is how a letter comes in by each entrance, and by the sendmail command. The
// error says why it was refused.
func everyDoor() map[string]func(l letter, t testing.TB, s http.Handler) error {
	all := map[string]func(l letter, t testing.TB, s http.Handler) error{"sendmail": letter.sendmail, "-bs": letter.smtp}
	for name, request := range entrances() {
		all[name] = func(l letter, t testing.TB, s http.Handler) error {
			if a := serve(s, request(l, t)); a.status/100 != 2 {
				return fmt.Errorf("%d %s", a.status, a.body)
			}
			return nil
		}
	}
	return all
}

type object = map[string]any

// without leaves out members that a client would not write.
func without(o object) object {
	for name, value := range o {
		switch v := value.(type) {
		case string:
			if v == "" {
				delete(o, name)
			}
		case []any:
			if len(v) == 0 {
				delete(o, name)
			}
		}
	}
	return o
}

func encode(t testing.TB, o object) []byte {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func postJSON(t testing.TB, path string, body object) *http.Request {
	t.Helper()
	return newRequest(http.MethodPost, path, string(encode(t, body)))
}

// text is the party in a header field or a form: a quoted name before the address.
func (p party) text() string {
	if p.Name == "" {
		return p.Email
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(p.Name) + `" <` + p.Email + `>`
}

func textsOf(people []party) []any {
	var list []any
	for _, p := range people {
		list = append(list, p.text())
	}
	return list
}

func joined(people []party) string {
	var list []string
	for _, p := range people {
		list = append(list, p.text())
	}
	return strings.Join(list, ", ")
}

func membersOf(people []party) []any {
	var list []any
	for _, p := range people {
		list = append(list, p.member())
	}
	return list
}

func (p party) member() object { return without(object{"email": p.Email, "name": p.Name}) }

func (l letter) native(apart bool) object {
	o := object{"subject": l.subject, "text": l.text, "html": l.html}
	if l.header != "" {
		o["headers"] = object{"X-Order": l.header}
	}
	if l.filename != "" {
		o["attachments"] = []any{object{"filename": l.filename, "content": l.file}}
	}
	if apart {
		o["from"], o["to"], o["cc"], o["bcc"] = l.from.member(), membersOf(l.to), membersOf(l.cc), membersOf(l.bcc)
		if l.replyTo.Email != "" {
			o["reply_to"] = l.replyTo.member()
		}
		return without(o)
	}
	o["from"], o["to"], o["cc"], o["bcc"] = l.from.text(), textsOf(l.to), textsOf(l.cc), textsOf(l.bcc)
	if l.replyTo.Email != "" {
		o["reply_to"] = l.replyTo.text()
	}
	return without(o)
}

// part writes one part of a form, as curl and browsers do.
func part(t testing.TB, w *multipart.Writer, name, filename, value string) {
	t.Helper()
	if value == "" && filename == "" {
		return
	}
	escaped := strings.NewReplacer("\r", "%0D", "\n", "%0A", `"`, "%22").Replace(filename)
	h := textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf(`form-data; name="%s"`, name)}}
	if filename != "" {
		h = textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf(`form-data; name="%s"; filename="%s"`, name, escaped)}, "Content-Type": {"application/octet-stream"}}
	}
	p, err := w.CreatePart(h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(p, value); err != nil {
		t.Fatal(err)
	}
}

// formNames are what a form calls what not all forms call alike.
type formNames struct{ list, replyTo, header, file string }

// parts is the letter as the body of a form, with its Content-Type.
func (l letter) parts(t testing.TB, names formNames) (*bytes.Buffer, string) {
	t.Helper()
	b := new(bytes.Buffer)
	w := multipart.NewWriter(b)
	part(t, w, "from", "", l.from.text())
	for i, people := range [][]party{l.to, l.cc, l.bcc} {
		for _, p := range people {
			part(t, w, []string{"to", "cc", "bcc"}[i]+names.list, "", p.text())
		}
	}
	if l.replyTo.Email != "" {
		part(t, w, names.replyTo, "", l.replyTo.text())
	}
	part(t, w, "subject", "", l.subject)
	part(t, w, "text", "", l.text)
	part(t, w, "html", "", l.html)
	part(t, w, names.header, "", l.header)
	if l.filename != "" {
		part(t, w, names.file, l.filename, string(l.file))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b, w.FormDataContentType()
}

func (l letter) form(t testing.TB) *http.Request {
	b, contentType := l.parts(t, formNames{"[]", "reply_to", "headers[X-Order]", "attachments"})
	return newRequest(http.MethodPost, "/v1/messages", b.String(), "Content-Type: "+contentType)
}

func (l letter) mailgun(t testing.TB) *http.Request {
	b, contentType := l.parts(t, formNames{"", "h:Reply-To", "h:X-Order", "attachment"})
	r := apis["mailgun"].request("mailgun", b)
	r.Header.Set("Content-Type", contentType)
	return r
}

func (l letter) mailgunMIME(t testing.TB) *http.Request {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range slices.Concat(l.to, l.cc, l.bcc) {
		part(t, w, "to", "", p.Email)
	}
	part(t, w, "message", "message.eml", l.message(true))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/v3/mg.example.com/messages.mime", &b)
	r.Header.Set("Content-Type", w.FormDataContentType())
	authorize(r, "mailgun", testKey)
	return r
}

func (l letter) postmark() object {
	o := object{"From": l.from.text(), "To": joined(l.to), "Cc": joined(l.cc), "Bcc": joined(l.bcc), "Subject": l.subject, "TextBody": l.text, "HtmlBody": l.html}
	if l.replyTo.Email != "" {
		o["ReplyTo"] = l.replyTo.text()
	}
	if l.header != "" {
		o["Headers"] = []any{object{"Name": "X-Order", "Value": l.header}}
	}
	if l.filename != "" {
		o["Attachments"] = []any{object{"Name": l.filename, "Content": l.file, "ContentType": "application/octet-stream"}}
	}
	return without(o)
}

func (l letter) resend() object {
	o := object{"from": l.from.text(), "to": textsOf(l.to), "cc": textsOf(l.cc), "bcc": textsOf(l.bcc), "subject": l.subject, "text": l.text, "html": l.html}
	if l.replyTo.Email != "" {
		o["reply_to"] = l.replyTo.text()
	}
	if l.header != "" {
		o["headers"] = object{"X-Order": l.header}
	}
	if l.filename != "" {
		o["attachments"] = []any{object{"filename": l.filename, "content": l.file}}
	}
	return without(o)
}

func (l letter) sendgrid() object {
	o := object{
		"from": l.from.member(), "subject": l.subject,
		"personalizations": []any{without(object{"to": membersOf(l.to), "cc": membersOf(l.cc), "bcc": membersOf(l.bcc)})},
	}
	var content []any
	if l.text != "" {
		content = append(content, object{"type": "text/plain", "value": l.text})
	}
	if l.html != "" {
		content = append(content, object{"type": "text/html", "value": l.html})
	}
	o["content"] = content
	if l.replyTo.Email != "" {
		o["reply_to"] = l.replyTo.member()
	}
	if l.header != "" {
		o["headers"] = object{"X-Order": l.header}
	}
	if l.filename != "" {
		o["attachments"] = []any{object{"filename": l.filename, "content": l.file}}
	}
	return without(o)
}

func (l letter) ses() object {
	simple := object{"Subject": object{"Data": l.subject}, "Body": without(object{})}
	body := object{}
	if l.text != "" {
		body["Text"] = object{"Data": l.text}
	}
	if l.html != "" {
		body["Html"] = object{"Data": l.html}
	}
	simple["Body"] = body
	if l.header != "" {
		simple["Headers"] = []any{object{"Name": "X-Order", "Value": l.header}}
	}
	if l.filename != "" {
		simple["Attachments"] = []any{object{"FileName": l.filename, "RawContent": l.file}}
	}
	o := object{
		"FromEmailAddress": l.from.text(), "Content": object{"Simple": simple},
		"Destination": without(object{"ToAddresses": textsOf(l.to), "CcAddresses": textsOf(l.cc), "BccAddresses": textsOf(l.bcc)}),
	}
	if l.replyTo.Email != "" {
		o["ReplyToAddresses"] = []any{l.replyTo.text()}
	}
	return o
}

func (l letter) sesRaw(t testing.TB) *http.Request {
	o := object{"Content": object{"Raw": object{"Data": []byte(l.message(false))}}}
	return apis["ses"].request("ses", bytes.NewReader(encode(t, o)))
}

func (l letter) mailersend() object {
	o := object{
		"from": l.from.member(), "to": membersOf(l.to), "cc": membersOf(l.cc), "bcc": membersOf(l.bcc), "subject": l.subject,
		"text": l.text, "html": l.html,
	}
	if l.replyTo.Email != "" {
		o["reply_to"] = l.replyTo.member()
	}
	if l.header != "" {
		o["headers"] = []any{object{"name": "X-Order", "value": l.header}}
	}
	if l.filename != "" {
		o["attachments"] = []any{object{"filename": l.filename, "content": l.file}}
	}
	return without(o)
}

func (l letter) brevo() object {
	o := object{
		"sender": l.from.member(), "to": membersOf(l.to), "cc": membersOf(l.cc), "bcc": membersOf(l.bcc), "subject": l.subject,
		"textContent": l.text, "htmlContent": l.html,
	}
	if l.replyTo.Email != "" {
		o["replyTo"] = l.replyTo.member()
	}
	if l.header != "" {
		o["headers"] = object{"X-Order": l.header}
	}
	if l.filename != "" {
		o["attachment"] = []any{object{"name": l.filename, "content": l.file}}
	}
	return without(o)
}

// message writes the letter as a MIME library does, with base64 for every text.
func (l letter) message(withoutBcc bool) string {
	var b strings.Builder
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
	}
	list := func(people []party) string {
		var texts []string
		for _, p := range people {
			if p.Name == "" {
				texts = append(texts, p.Email)
				continue
			}
			texts = append(texts, encodedWords(p.Name)+"\r\n <"+p.Email+">")
		}
		return strings.Join(texts, ",\r\n ")
	}
	field("From", list([]party{l.from}))
	field("To", list(l.to))
	field("Cc", list(l.cc))
	if !withoutBcc {
		field("Bcc", list(l.bcc))
	}
	if l.replyTo.Email != "" {
		field("Reply-To", list([]party{l.replyTo}))
	}
	field("Subject", encodedWords(l.subject))
	field("X-Order", encodedWords(l.header))
	b.WriteString("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=doors\r\n\r\n")
	leaf := func(contentType, disposition string, content []byte) {
		fmt.Fprintf(&b, "--doors\r\nContent-Type: %s\r\n%sContent-Transfer-Encoding: base64\r\n\r\n", contentType, disposition)
		encoded := base64.StdEncoding.EncodeToString(content)
		for len(encoded) > 76 {
			b.WriteString(encoded[:76] + "\r\n")
			encoded = encoded[76:]
		}
		b.WriteString(encoded + "\r\n")
	}
	if l.text != "" {
		leaf("text/plain; charset=utf-8", "", []byte(l.text))
	}
	if l.html != "" {
		leaf("text/html; charset=utf-8", "", []byte(l.html))
	}
	if l.filename != "" {
		leaf("application/octet-stream", "Content-Disposition: attachment;\r\n filename*="+percentEncoded(l.filename)+"\r\n", l.file)
	}
	b.WriteString("--doors--\r\n")
	return b.String()
}

// encodedWords writes each run of up to ten characters as an encoded-word (RFC 2047).
func encodedWords(text string) string {
	var words []string
	for runes := range slices.Chunk([]rune(text), 10) {
		words = append(words, "=?UTF-8?B?"+base64.StdEncoding.EncodeToString([]byte(string(runes)))+"?=")
	}
	return strings.Join(words, "\r\n ")
}

// percentEncoded is an extended value (RFC 2231 §4).
func percentEncoded(text string) string {
	var b strings.Builder
	b.WriteString("utf-8''")
	for _, c := range []byte(text) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

func (l letter) raw(testing.TB) *http.Request {
	return newRequest(http.MethodPost, "/v1/messages", l.message(false), "Content-Type: message/rfc822")
}

func (l letter) envelope(testing.TB) *http.Request {
	var to []string
	for _, p := range slices.Concat(l.to, l.cc, l.bcc) {
		to = append(to, p.Email)
	}
	return newRequest(http.MethodPost, "/v1/messages", l.message(false),
		"Content-Type: message/rfc822", "Envelope-From: "+l.from.Email, "Envelope-To: "+strings.Join(to, ", "))
}

// run runs the sendmail command against the server.
func run(t testing.TB, s http.Handler, in string, args ...string) error {
	server := httptest.NewServer(s)
	defer server.Close()
	for name, value := range map[string]string{
		"MAILSIDECAR_URL": server.URL, "MAILSIDECAR_API_KEY": testKey, "MAILSIDECAR_WAIT": "0", "MAILSIDECAR_FROM": "", "NAME": "",
	} {
		t.Setenv(name, value)
	}
	var out, errs bytes.Buffer
	status := sendmail.Program{In: strings.NewReader(in), Out: &out, Err: &errs, Version: "test"}.Run(t.Context(), args)
	for line := range strings.Lines(out.String()) {
		if line >= "4" { // an SMTP reply that refuses
			return fmt.Errorf("%s", out.String())
		}
	}
	if status != 0 {
		return fmt.Errorf("status %d: %s", status, errs.String())
	}
	return nil
}

func (l letter) sendmail(t testing.TB, s http.Handler) error {
	return run(t, s, strings.ReplaceAll(l.message(false), "\r\n", "\n"), "-t", "-i")
}

func (l letter) smtp(t testing.TB, s http.Handler) error {
	var b strings.Builder
	fmt.Fprintf(&b, "EHLO localhost\r\nMAIL FROM:<%s>\r\n", l.from.Email)
	for _, p := range slices.Concat(l.to, l.cc, l.bcc) {
		fmt.Fprintf(&b, "RCPT TO:<%s>\r\n", p.Email)
	}
	fmt.Fprintf(&b, "DATA\r\n%s.\r\nQUIT\r\n", strings.ReplaceAll(l.message(true), "\r\n.", "\r\n.."))
	return run(t, s, b.String(), "-bs")
}

// arrived is what a mail program shows of a submission, and who gets it.
type arrived struct {
	ReversePath  string
	ForwardPaths []string // sorted
	Fields       map[string]string
	Parts        []string // type, file name, content
}

// arrival reads a submission with the standard library alone.
func arrival(t testing.TB, sub queue.Submission) arrived {
	t.Helper()
	if bytes.Contains(sub.Content.Data, []byte("hidden-recipient")) {
		t.Errorf("a Bcc recipient stands in\n%s", sub.Content.Data)
	}
	a := arrived{ReversePath: sub.Envelope.ReversePath, ForwardPaths: slices.Sorted(slices.Values(sub.Envelope.ForwardPaths)), Fields: map[string]string{}}
	m, err := mail.ReadMessage(bytes.NewReader(sub.Content.Data))
	if err != nil {
		t.Fatalf("%v in\n%s", err, sub.Content.Data)
	}
	for _, name := range []string{"From", "To", "Cc", "Reply-To"} {
		list, err := m.Header.AddressList(name)
		if err != nil && m.Header.Get(name) != "" && m.Header.Get(name) != "undisclosed-recipients:;" {
			a.Fields[name] = "unreadable: " + m.Header.Get(name)
			continue
		}
		for _, address := range list {
			a.Fields[name] += fmt.Sprintf("%q <%s>,", strings.TrimSpace(address.Name), address.Address)
		}
	}
	for _, name := range []string{"Subject", "X-Order"} {
		text, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get(name))
		if err != nil {
			t.Fatal(err)
		}
		a.Fields[name] = strings.TrimSpace(text) // some APIs take blanks at the edges for none
	}
	for name := range m.Header {
		if strings.Contains(strings.ToLower(name), "bcc") {
			t.Errorf("the message has the field %s:\n%s", name, sub.Content.Data)
		}
	}
	leaves(t, textproto.MIMEHeader(m.Header), m.Body, &a.Parts)
	return a
}

// leaves reads the parts of a message down to those that are not multipart.
func leaves(t testing.TB, h textproto.MIMEHeader, body io.Reader, to *[]string) {
	t.Helper()
	mediaType, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		t.Fatalf("Content-Type %q: %v", h.Get("Content-Type"), err)
	}
	if strings.HasPrefix(mediaType, "multipart/") {
		parts := multipart.NewReader(body, params["boundary"])
		for {
			p, err := parts.NextRawPart()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			leaves(t, p.Header, p, to)
		}
	}
	switch strings.ToLower(h.Get("Content-Transfer-Encoding")) {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	content, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	if strings.HasPrefix(mediaType, "text/") && h.Get("Content-Disposition") == "" {
		// A text that ends without a line end may get one on the way; the base64 of a
		// finished message keeps line ends that texts in JSON do not.
		text = strings.TrimRight(strings.NewReplacer("\r\r\n", "\n", "\r\n", "\n", "\r", "\n").Replace(text), "\n")
	}
	_, params, _ = mime.ParseMediaType(h.Get("Content-Disposition"))
	if params["filename"] != "" { // its type is guessed by some doors, and named by others
		mediaType = "file"
	}
	*to = append(*to, fmt.Sprintf("%s %q %q", mediaType, params["filename"], text))
}

// send submits the letter by one door and returns what came to the queue.
func (l letter) send(t testing.TB, submit func(l letter, t testing.TB, s http.Handler) error) (arrived, error) {
	t.Helper()
	q := &fakeQueue{durable: true}
	if err := submit(l, t, newTestServer(t, q, nil)); err != nil {
		return arrived{}, err
	}
	got := q.submissions()
	if len(got) != 1 {
		t.Fatalf("%d messages came to the queue, want 1", len(got))
	}
	return arrival(t, got[0]), nil
}

// letters are of the kinds that apps send.
func letters() map[string]letter {
	ana, shop := party{"Ana", "ana@example.org"}, party{"My Shop, Ltd.", "info@shop.example"}
	plain := letter{from: shop, to: []party{ana}, subject: "Hello", text: "Hi."}
	with := func(change func(*letter)) letter {
		l := plain
		change(&l)
		return l
	}
	return map[string]letter{
		"plain":      plain,
		"bare":       with(func(l *letter) { l.from, l.to = party{"", "info@shop.example"}, []party{{"", "ana@example.org"}} }),
		"html alone": with(func(l *letter) { l.text, l.html = "", "<p>Hi</p>" }),
		"all": with(func(l *letter) {
			l.cc, l.bcc, l.replyTo = []party{{"Bo \"the\" Li", "bo@example.org"}}, []party{{"", "archive@example.net"}}, party{"Help", "help@shop.example"}
			l.html, l.header, l.filename, l.file = "<p>Hi</p>", "1042", "a.pdf", []byte("%PDF\r\n\x00\xff")
		}),
		"names": with(func(l *letter) {
			l.from, l.to = party{"Müller & Söhne 株式会社", "info@shop.example"}, []party{{"Doe, John (Sales)", "john@example.org"}, {"o'Neil @ home", "neil@example.org"}, {"back\\slash", "b@example.org"}, {"dot. at end.", "d@example.org"}}
		}),
		"long subject": with(func(l *letter) { l.subject = strings.Repeat("Ärger mit Umbrüchen 😀 ", 20) + "Ende" }),
		"spaces":       with(func(l *letter) { l.subject = "a  b   c" }),
		"long lines": with(func(l *letter) {
			l.text = strings.Repeat("x", 3000) + "\n.\n..\nFrom here\n" + strings.Repeat("ü", 2000)
		}),
		"line ends": with(func(l *letter) { l.text = "a\r\nb\nc\r\n\r\nd" }),
		"domain":    with(func(l *letter) { l.to = []party{{"", "x@müller.test"}, {"Jo", "jo@BÜCHER.test"}} }),
		"dots": with(func(l *letter) {
			l.to = []party{{"", "a..b@docomo.test"}, {"Dot", "a.@docomo.test"}, {"", ".b@docomo.test"}}
		}),
		"long local": with(func(l *letter) { l.to = []party{{"", strings.Repeat("v", 100) + "=example.org@bounce.test"}} }),
		"plus and case": with(func(l *letter) {
			l.to = []party{{"", "Ana+Shop@Example.ORG"}, {"", "o'neil@example.org"}, {"", "a/b=c@example.org"}}
		}),
		"twice":     with(func(l *letter) { l.cc = []party{ana}; l.bcc = []party{{"", "ANA@example.org"}, ana} }),
		"files":     with(func(l *letter) { l.filename, l.file = "Rechnung „März“ 2026.pdf", []byte("x") }),
		"long file": with(func(l *letter) { l.filename, l.file = strings.Repeat("übung ", 30)+".txt", []byte("x") }),
		"many": with(func(l *letter) {
			l.to = nil
			for i := range 40 {
				l.to = append(l.to, party{fmt.Sprint("N", i), fmt.Sprintf("n%d@example.org", i)})
			}
		}),
	}
}

// TestDoors: the same letter comes to the same people with the same fields, texts and
// files, whichever way it comes in.
func TestDoors(t *testing.T) {
	for name, l := range letters() {
		t.Run(name, func(t *testing.T) {
			want, err := l.send(t, everyDoor()["json"])
			if err != nil {
				t.Fatal("json:", err)
			}
			for door, submit := range everyDoor() {
				got, err := l.send(t, submit)
				if name == "twice" && door == "sendgrid" && err != nil {
					continue // as SendGrid does
				}
				if name == "dots" && err == nil && got.Fields["To"] != want.Fields["To"] {
					// A finished message keeps its own form of these addresses, which the
					// standard library cannot read.
					got.Fields["To"] = want.Fields["To"]
				}
				if err != nil {
					t.Errorf("%s: %v", door, err)
				} else if !reflect.DeepEqual(got, want) {
					t.Errorf("%s:\n%+q\njson:\n%+q", door, got, want)
				}
			}
		})
	}
}

// FuzzDoors: whatever is written into a letter, the doors that take it agree, and Bcc
// recipients stand in no message.
func FuzzDoors(f *testing.F) {
	for _, l := range letters() {
		f.Add(l.from.Name, l.to[0].Name, l.to[0].Email, l.subject, l.text, l.html, l.header, l.filename)
	}
	f.Add("a\u202eb", "x\u0085y", "a\u200bb@example.org", "s\rBcc: evil@example.net", "a\rb\r\r\nc", "<p>\x00", "v\r\nX-Y: 1", "a/b\\c\"d")
	f.Add("", "Ana <x@example.net>", "\"a b\"@example.org", " s ", "\n", "\ufeff<p>", "=?utf-8?q?x?=", "..")
	f.Fuzz(func(t *testing.T, fromName, toName, email, subject, text, html, header, filename string) {
		for _, s := range []string{fromName, toName, email, subject, text, html, header, filename} {
			if !utf8.ValidString(s) || len(s) > 2000 {
				t.Skip()
			}
		}
		if strings.ContainsFunc(email, func(r rune) bool { return r > 126 }) {
			t.Skip()
		}
		if strings.Contains(fromName+toName+subject+header, "=?") {
			t.Skip("an encoded-word stays one, unless it is encoded once more")
		}
		if local, _, _ := strings.Cut(email, "@"); strings.Contains("."+local+".", "..") {
			t.Skip("a finished message keeps its own form of it, which the standard library cannot read")
		}
		if strings.ContainsAny(filename, `\%/`) || strings.ContainsFunc(filename, unicode.IsControl) {
			t.Skip("clients of forms escape file names in different ways")
		}
		if strings.ContainsAny(email, ",;:<>()[] \t\r\n\"") {
			t.Skip("more than an address where doors read lists")
		}
		l := letter{
			from: party{fromName, "info@shop.example"}, to: []party{{toName, email}}, bcc: []party{{"", "hidden-recipient@example.net"}},
			subject: subject, text: text, html: html, header: header, filename: filename, file: []byte(text),
		}
		taken := map[string]arrived{}
		for name, submit := range everyDoor() {
			if got, err := l.send(t, submit); err == nil {
				taken[name] = got
			}
		}
		want, ok := taken["json"]
		if !ok {
			t.Skip("refused")
		}
		for door, got := range taken {
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\n%+q\njson:\n%+q", door, got, want)
			}
		}
	})
}

// TestOrigin: each door says for the log which it is, and which request it was.
func TestOrigin(t *testing.T) {
	want := map[string]string{"json": "json", "form": "form", "batch": "batch", "postmark": "postmark"}
	seen := map[string]bool{}
	for name, request := range entrances() {
		q := &fakeQueue{durable: true}
		r := request(letters()["plain"], t)
		r.Header.Set("X-Request-Id", "trace-1")
		if a := serve(newTestServer(t, q, nil), r); a.status/100 != 2 {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		o := q.submissions()[0].Origin
		if o.Door == "" || o.RequestID != "trace-1" || want[name] != "" && o.Door != want[name] {
			t.Errorf("%s: the origin is %+v", name, o)
		}
		seen[o.Door] = true
	}
	for _, door := range []string{"json", "form", "rfc822", "batch", "brevo", "mailersend", "mailgun", "postmark", "resend", "sendgrid", "ses"} {
		if !seen[door] {
			t.Errorf("no entrance came in by the door %s: %v", door, seen)
		}
	}
}
