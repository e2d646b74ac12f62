package handler

import (
	"errors"
	"io"
	"mime/multipart"
	"regexp"
	"strings"
	"unicode/utf8"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

// formOverhead is how many parts a form may have besides its recipients.
const formOverhead = 500

// listPart is the name of a part that repeats, as PHP and others must write it:
// to, to[] or to[0]. The order of the parts counts, the index does not.
var listPart = regexp.MustCompile(`^([a-z_]+)(\[\d*\])?$`)

// memberPart is the name of a part that stands for a member of an object:
// headers[X-Order].
var memberPart = regexp.MustCompile(`^(headers|tags)\[([^\[\]]+)\]$`)

// decodeForm reads a multipart/form-data body (RFC 7578) with the same field
// names as the JSON object. Files are in parts named attachments and inline.
func (s *Server) decodeForm(b *intake.Body, boundary string) (messageRequest, error) {
	var m messageRequest
	parts, err := b.Parts(boundary)
	if err != nil {
		return m, err
	}
	form := formReader{body: b, message: &m, seen: map[string]bool{}}
	for n := 0; ; n++ {
		part, err := parts.Next()
		switch {
		case errors.Is(err, io.EOF):
			return m, nil
		case err != nil:
			return m, err
		case n >= s.maxRecipients+formOverhead:
			return m, problem.New(api.CodeMalformedForm, "The form has too many parts.")
		}
		if err := form.read(part); err != nil {
			return m, err
		}
	}
}

type formReader struct {
	body    *intake.Body
	message *messageRequest
	seen    map[string]bool
}

// read reads one part into the field that it names.
func (f *formReader) read(part *multipart.Part) error {
	name := intake.PlainName(part.FormName())
	if err := intake.CheckPart(part, name); err != nil {
		return err
	}
	content, err := f.body.ReadPart(part)
	if err != nil {
		return err
	}
	if member := memberPart.FindStringSubmatch(name); member != nil {
		return f.member(member[1], member[2], content)
	}
	if to := f.calendarText(name); to != nil {
		return f.calendar(to, content)
	}
	if list := listPart.FindStringSubmatch(name); list != nil {
		if found, err := f.list(list[1], part, content); found || err != nil {
			return err
		}
	}
	return f.single(name, content)
}

// list takes a part that may be repeated, if it is one.
func (f *formReader) list(name string, part *multipart.Part, content []byte) (found bool, err error) {
	lists := map[string]*mailboxes{
		"to": &f.message.To, "cc": &f.message.Cc, "bcc": &f.message.Bcc, "reply_to": &f.message.ReplyTo,
	}
	if to := lists[name]; to != nil {
		text, err := formText(name, content)
		to.list = append(to.list, mailbox{text: text, given: true})
		return true, err
	}
	if name != "attachments" && name != "inline" {
		return false, nil
	}
	if part.FileName() == "" {
		return true, problem.New(api.CodeWrongType, "", problem.At(name, "must be a file with a file name"))
	}
	a := attachment{Filename: intake.PlainName(part.FileName()), ContentType: part.Header.Get("Content-Type"), Content: content}
	if name == "inline" {
		a.ContentID = strings.Trim(part.Header.Get("Content-Id"), "<>")
		if a.ContentID == "" {
			a.ContentID = a.Filename
		}
	}
	f.message.Attachments = append(f.message.Attachments, a)
	return true, nil
}

// calendarText returns what a part of an invitation becomes, nil for any other part.
func (f *formReader) calendarText(name string) *string {
	switch name {
	case "calendar", "calendar[content]":
		return &f.message.Calendar.Content
	case "calendar[method]":
		return &f.message.Calendar.Method
	default:
		return nil
	}
}

// calendar takes an invitation, as a text or a file, or its method.
func (f *formReader) calendar(to *string, content []byte) error {
	path := "calendar.content"
	if to == &f.message.Calendar.Method {
		path = "calendar.method"
	}
	if err := f.once(path); err != nil {
		return err
	}
	text, err := formText(path, content)
	*to = text
	return err
}

// member takes headers[NAME] and tags[NAME].
func (f *formReader) member(object, name string, content []byte) error {
	path := object + "." + name
	value, err := formText(path, content)
	if err != nil {
		return err
	}
	if err := f.once(path); err != nil {
		return err
	}
	if err := f.rejectBothForms(object); err != nil {
		return err
	}
	to := f.object(object)
	*to = append(*to, mailer.Field{Name: name, Value: value})
	return nil
}

func (f *formReader) object(name string) *members {
	if name == "tags" {
		return &f.message.Tags
	}
	return &f.message.Headers
}

// single takes a part that stands for itself.
func (f *formReader) single(name string, content []byte) error {
	m := f.message
	texts := map[string]*string{
		"subject": &m.Subject, "text": &m.Text, "html": &m.HTML, "return_path": &m.ReturnPath,
		"send_at": &m.SendAt, "expires_in": &m.ExpiresIn, "priority": &m.Priority, "from": &m.From.text,
	}
	isObject := name == "headers" || name == "tags"
	if texts[name] == nil && !isObject {
		return problem.New(api.CodeUnknownField, "", problem.At(problem.Cut(name), "is not a field of this request"))
	}
	if err := f.once(name); err != nil {
		return err
	}
	if isObject {
		if to := f.object(name); len(*to) == 0 {
			if err := f.body.Weigh(content); err != nil {
				return err
			}
			return intake.Decode(content, to, name)
		}
		return f.rejectBothForms(name)
	}
	text, err := formText(name, content)
	*texts[name] = text
	m.From.given = m.From.given || name == "from"
	return err
}

func (f *formReader) once(path string) error {
	if f.seen[path] {
		return problem.New(api.CodeDuplicateField, "", problem.At(problem.Cut(path), "is given twice"))
	}
	f.seen[path] = true
	return nil
}

// rejectBothForms refuses an object given both as JSON and by its members.
func (f *formReader) rejectBothForms(object string) error {
	if f.seen[object] {
		return problem.New(api.CodeDuplicateField, "", problem.At(object, "is given both as JSON and by its members"))
	}
	return nil
}

func formText(path string, content []byte) (string, error) {
	if !utf8.Valid(content) {
		return "", problem.New(api.CodeMalformedForm, "", problem.At(problem.Cut(path), "is not valid UTF-8"))
	}
	return string(content), nil
}
