package handler

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/handler/intake"
	"mailsidecar/mailer"
)

// messageRequest is what POST /v1/messages takes: the object in JSON, or the
// parts of a form by the same names.
type messageRequest struct {
	From        mailbox      `json:"from"`
	To          mailboxes    `json:"to"`
	Cc          mailboxes    `json:"cc"`
	Bcc         mailboxes    `json:"bcc"`
	ReplyTo     mailboxes    `json:"reply_to"`
	Subject     string       `json:"subject"`
	Text        string       `json:"text"`
	HTML        string       `json:"html"`
	Headers     members      `json:"headers"`
	Calendar    calendar     `json:"calendar"`
	Attachments []attachment `json:"attachments"`
	ReturnPath  string       `json:"return_path"`
	Tags        members      `json:"tags"`
	SendAt      string       `json:"send_at"`
	ExpiresIn   string       `json:"expires_in"`
	Priority    string       `json:"priority"`
}

type calendar struct {
	Content string `json:"content"`
	Method  string `json:"method"`
}

type attachment struct {
	Filename    string `json:"filename"`
	Content     []byte `json:"content"`
	ContentType string `json:"content_type"`
	ContentID   string `json:"content_id"`
}

// mailbox is an address as the client wrote it: in one string, or taken apart.
type mailbox struct {
	text  string // such as "Ana <ana@example.org>"
	email string
	name  string
	given bool
	apart bool // email and name, rather than text
}

// mailboxes are a list of them, or a single one in its place.
type mailboxes struct {
	list   []mailbox
	single bool
}

// members are an object's members in their order.
type members []mailer.Field

var (
	errNotMailbox = errors.New("must be a string or an object with email and name")
	errNotList    = errors.New("must be a string, an object or a list of them")
	errNotObject  = errors.New("must be an object of strings")
)

func (m *mailbox) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	m.given = true
	switch d.PeekKind() {
	case '"':
		return json.UnmarshalDecode(d, &m.text)
	case '{':
		var o struct {
			Email string `json:"email"`
			Name  string `json:"name"`
		}
		err := json.UnmarshalDecode(d, &o)
		m.apart, m.email, m.name = true, o.Email, o.Name
		return err
	case '[':
		m.apart = true
		return intake.ReadEmptyList(d, errNotMailbox.Error())
	default:
		return wrongKind(d, errNotMailbox)
	}
}

func (m *mailboxes) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case '[':
		return json.UnmarshalDecode(d, &m.list)
	case '"', '{':
		m.single = true
		m.list = make([]mailbox, 1)
		return json.UnmarshalDecode(d, &m.list[0])
	default:
		return wrongKind(d, errNotList)
	}
}

func (m *members) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case '{':
	case '[':
		return intake.ReadEmptyList(d, errNotObject.Error())
	default:
		return wrongKind(d, errNotObject)
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		var f mailer.Field
		if err := json.UnmarshalDecode(d, &f.Name); err != nil {
			return err
		}
		if err := json.UnmarshalDecode(d, &f.Value); err != nil {
			return err
		}
		*m = append(*m, f)
	}
	_, err := d.ReadToken()
	return err
}

// wrongKind returns want, or the syntax error if the input goes on with no value.
func wrongKind(d *jsontext.Decoder, want error) error {
	if d.PeekKind() != 0 {
		return want
	}
	_, err := d.ReadToken()
	return err
}

// digest digests a decoded message. The order of tags does not count.
func (m *messageRequest) digest(f intake.Fingerprint) {
	if f.None() {
		return
	}
	for _, list := range [][]mailbox{{m.From}, m.To.list, m.Cc.list, m.Bcc.list, m.ReplyTo.list} {
		f.Count(len(list))
		for _, box := range list {
			f.Text(strconv.FormatBool(box.apart), box.text, box.email, box.name)
		}
	}
	f.Text(m.Subject, m.Text, m.HTML, m.ReturnPath, m.SendAt, m.ExpiresIn)
	f.Option("priority", m.Priority)
	f.Option("calendar", m.Calendar.Content)
	f.Option("calendar method", m.Calendar.Method)
	m.Headers.digest(f)
	members(slices.SortedFunc(slices.Values(m.Tags), func(a, b mailer.Field) int {
		return strings.Compare(a.Name, b.Name)
	})).digest(f)
	f.Count(len(m.Attachments))
	for _, a := range m.Attachments {
		f.Text(a.Filename, a.ContentType, a.ContentID)
		f.Bytes(a.Content)
	}
}

func (list members) digest(f intake.Fingerprint) {
	f.Count(len(list))
	for _, m := range list {
		f.Text(m.Name, m.Value)
	}
}
