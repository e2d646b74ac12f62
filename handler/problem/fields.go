package problem

import (
	"errors"
	"strings"

	"mailsidecar/api"
	"mailsidecar/mailer"
)

// FieldErrors collects what is wrong with a request, so that the client reads all
// of it at once. For each field the first finding counts.
type FieldErrors struct {
	mailer.InvalidError
	seen map[string]bool
}

// Add reports what is wrong with a field.
func (f *FieldErrors) Add(field, message string) {
	if f.seen == nil {
		f.seen = map[string]bool{}
	}
	if !f.seen[field] {
		f.seen[field] = true
		f.Fields = append(f.Fields, At(field, message))
	}
}

// AddAddress reports what is wrong with an address.
func (f *FieldErrors) AddAddress(field string, err error) {
	if bad, ok := errors.AsType[*mailer.AddressError](err); ok && bad.Malformed {
		f.Malformed = true
	}
	f.Add(field, err.Error())
}

// Err is nil where nothing is wrong, else a [*mailer.InvalidError].
func (f *FieldErrors) Err() error {
	if len(f.Fields) == 0 {
		return nil
	}
	return &f.InvalidError
}

// MaxPath is how many octets of a client's own names are repeated to it.
const MaxPath = 120

// Cut shortens what a client wrote for an answer or a log.
func Cut(path string) string {
	if len(path) > MaxPath {
		return strings.ToValidUTF8(path[:MaxPath], "") + "…"
	}
	return path
}

// At says what is wrong with a field.
func At(field, message string) mailer.FieldError {
	return mailer.FieldError{Field: field, Message: message}
}

// Below puts a path before the fields that an error names.
func Below(path string, err error) error {
	if err == nil {
		return nil
	}
	p := For(err)
	if p.Code == api.CodeInternal {
		return err
	}
	under := *p
	under.Fields = make([]mailer.FieldError, len(p.Fields))
	for i, f := range p.Fields {
		under.Fields[i] = At(path+"."+f.Field, f.Message)
	}
	return &under
}
