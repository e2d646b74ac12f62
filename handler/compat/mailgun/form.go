package mailgun

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

// formData is a decoded form: its texts and its files, in their order.
type formData struct {
	values []mailer.Field
	files  []formFile
}

type formFile struct {
	name, filename, contentType string
	content                     []byte
}

const typeURLEncoded = "application/x-www-form-urlencoded"

// readForm reads a form of either type and judges its fields. A name may have
// an index: attachment[0], to[].
func readForm(x *compat.Exchange, known []compat.FormField) (*formData, error) {
	b, mediaType, params, err := x.OpenBody(x.MaxBody, intake.TypeForm, typeURLEncoded)
	if err != nil {
		return nil, err
	}
	form := &formData{}
	if mediaType == intake.TypeForm {
		err = form.readParts(b, params["boundary"])
	} else {
		err = form.readQuery(b)
	}
	if err != nil {
		return nil, err
	}
	if err := b.Weigh([]byte(form.value("recipient-variables"))); err != nil {
		return nil, err
	}
	if err := b.Begin(); err != nil {
		return nil, err
	}
	return form, judgeForm(x, form, known)
}

// maxFormParts has room for a thousand recipients in a part each.
const maxFormParts = 3000

func (form *formData) readParts(b *intake.Body, boundary string) error {
	parts, err := b.Parts(boundary)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		part, err := parts.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n >= maxFormParts:
			return problem.New(api.CodeMalformedForm, "The form has too many parts.")
		}
		if err := form.readPart(b, part); err != nil {
			return intake.FormProblem(err)
		}
	}
}

func (form *formData) readPart(b *intake.Body, part *multipart.Part) error {
	name := plainName(intake.PlainName(part.FormName()))
	if err := intake.CheckPart(part, name); err != nil {
		return err
	}
	content, err := b.ReadPart(part)
	if err != nil {
		return err
	}
	filename := intake.PlainName(part.FileName())
	if filename != "" || name == "attachment" || name == "inline" {
		form.files = append(form.files, formFile{name, filename, part.Header.Get("Content-Type"), content})
		return nil
	}
	return form.addText(name, string(content))
}

func (form *formData) addText(name, text string) error {
	if !utf8.ValidString(text) && !strings.EqualFold(name, "message") {
		return problem.New(api.CodeMalformedForm, "", problem.At(problem.Cut(name), "parameter is not valid UTF-8"))
	}
	form.values = append(form.values, mailer.Field{Name: name, Value: text})
	return nil
}

var indexedName = regexp.MustCompile(`\[\d*\]$`)

// plainName is the name without an index. A header field may have such a name.
func plainName(name string) string {
	if strings.HasPrefix(name, "h:") {
		return name
	}
	return indexedName.ReplaceAllString(name, "")
}

func (form *formData) readQuery(b *intake.Body) error {
	data, err := b.All()
	if err != nil {
		return err
	}
	if err := b.Begin(); err != nil { // here, because the values are copies
		return err
	}
	for octets := range bytes.SplitSeq(data, []byte("&")) {
		if len(octets) == 0 {
			continue
		}
		pair := string(octets)
		if len(form.values) == maxFormParts {
			return problem.New(api.CodeMalformedForm, "The form has too many fields.")
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return problem.New(api.CodeMalformedForm, "")
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return problem.New(api.CodeMalformedForm, "")
		}
		if err := form.addText(plainName(name), value); err != nil {
			return err
		}
	}
	return nil
}

// judgeForm refuses fields that cannot be honoured, and single fields given twice.
func judgeForm(x *compat.Exchange, form *formData, known []compat.FormField) error {
	var f compat.Fields
	var notHonoured []string
	for _, v := range form.values {
		switch field := findField(known, v.Name); {
		case v.Value == "":
		case field == nil:
			f.Add(problem.Cut(v.Name), "parameter is not known here")
		case field.Treatment == compat.IsRefused:
			f.Add(problem.Cut(v.Name), "parameter is not supported here: "+field.Note)
		case field.Treatment == compat.IsIgnored && len(notHonoured) < problem.MaxFields:
			notHonoured = append(notHonoured, v.Name)
		}
	}
	for _, file := range form.files {
		if findField(known, file.name) == nil {
			f.Add(problem.Cut(file.name), "parameter is not known here")
		}
	}
	x.LogIgnored(notHonoured)
	if len(f.Fields) > 0 {
		return problem.New(api.CodeInvalidMessage, "", f.Fields...)
	}
	return form.checkOnce()
}

// checkOnce: which of two subjects would be meant?
func (form *formData) checkOnce() error {
	seen := map[string]bool{}
	for _, v := range form.values {
		switch v.Name {
		case "from", "subject", "text", "html", "recipient-variables", "o:deliverytime", "o:testmode", "message":
			if seen[v.Name] {
				return problem.New(api.CodeDuplicateField, "", problem.At(v.Name, "parameter is given twice"))
			}
			seen[v.Name] = true
		}
	}
	return nil
}

func findField(known []compat.FormField, name string) *compat.FormField {
	for i, k := range known {
		prefix, any := strings.CutSuffix(k.Name, "*")
		if name == k.Name || any && strings.HasPrefix(name, prefix) {
			return &known[i]
		}
	}
	return nil
}

// value is the first text of that name.
func (form *formData) value(name string) string {
	for _, v := range form.values {
		if v.Name == name {
			return v.Value
		}
	}
	return ""
}

// content is a file or, in its place, a text.
func (form *formData) content(name string) []byte {
	for _, file := range form.files {
		if file.name == name {
			return file.content
		}
	}
	return []byte(form.value(name))
}
