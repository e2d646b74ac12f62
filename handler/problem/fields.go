package problem

import (
	"errors"
	"strings"

	"mailsidecar/api"
	"mailsidecar/mailer"
)

// FieldErrors collects what is wrong with a request, so that the client reads all
// of it at once. For each path the first finding counts.
type FieldErrors struct {
	Fields []api.FieldError
	// Malformed says that some field breaks the form of a header value.
	Malformed bool
	seen      map[string]bool
}

// MaxFields is how many fields an answer names. [More] stands for the others.
const MaxFields = 50

// More stands for the findings that an answer leaves out.
var More = api.FieldError{Message: "and further errors"}

// AtMost returns the first n findings, and [More] if there are others.
func AtMost(fields []api.FieldError, n int) []api.FieldError {
	if len(fields) <= n || len(fields) == n+1 && fields[n] == More {
		return fields
	}
	return append(fields[:n:n], More)
}

// Add reports what is wrong with the field at a path.
func (f *FieldErrors) Add(path, message string) {
	switch {
	case f.Full() || f.seen[path]:
		return
	case len(f.Fields) == MaxFields:
		f.Fields = append(f.Fields, More)
		return
	case f.seen == nil:
		f.seen = map[string]bool{}
	}
	f.seen[path] = true
	f.Fields = append(f.Fields, At(path, message))
}

// Full reports whether further findings change nothing.
func (f *FieldErrors) Full() bool { return len(f.Fields) > MaxFields }

// AddAddress reports what is wrong with an address.
func (f *FieldErrors) AddAddress(path string, err error) {
	if bad, ok := errors.AsType[*mailer.AddressError](err); ok && bad.Malformed {
		f.Malformed = true
	}
	f.Add(path, err.Error())
}

// Err is nil where nothing is wrong, else an [*Error].
func (f *FieldErrors) Err() error {
	if len(f.Fields) == 0 {
		return nil
	}
	return Invalid(f.Malformed, f.Fields)
}

// Invalid returns the problem of a message with these fields wrong. malformed says
// that some of them break the form of a header value.
func Invalid(malformed bool, fields []api.FieldError) *Error {
	switch {
	case malformed && len(fields) > 1:
		// The first finding need not be the one that the code is about.
		return New(api.CodeMalformedHeader, "A header field would be malformed; errors lists all findings.", fields...)
	case malformed:
		return New(api.CodeMalformedHeader, "", fields...)
	}
	return New(api.CodeInvalidMessage, "", fields...)
}

// Located writes where each field is, as path says.
func Located(fields []mailer.FieldError, path func(mailer.Position) string) []api.FieldError {
	located := make([]api.FieldError, len(fields))
	for i, f := range fields {
		located[i] = At(path(f.Position), f.Message)
	}
	return located
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

// At says what is wrong with the field at a path.
func At(path, message string) api.FieldError {
	return api.FieldError{Field: path, Message: message}
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
	under.Fields = make([]api.FieldError, len(p.Fields))
	for i, f := range p.Fields {
		if f == More {
			under.Fields[i] = f
			continue
		}
		under.Fields[i] = At(strings.TrimSuffix(path+"."+f.Field, "."), f.Message)
	}
	return &under
}
