package intake

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
)

// MaxBatchBody is how many octets the body of a batch may have.
const MaxBatchBody = 50 << 20

// Items reads an object whose only member is a list of 1 to atMost items. It hands
// over one after the other, undecoded, so that the caller need hold only one in decoded
// form. Its error is a [*problem.Error], or the first of read.
func Items(data []byte, member string, atMost int, read func(item []byte) error) error {
	r := itemReader{jsontext.NewDecoder(bytes.NewBuffer(data)), data, member} // reads data in place
	if r.d.PeekKind() != '{' {
		return r.syntaxOr(problem.New(api.CodeWrongType, "", problem.At("", "must be an object")))
	}
	if err := r.skip(); err != nil {
		return err
	}
	n := 0
	for r.d.PeekKind() == '"' {
		name, err := r.d.ReadToken()
		if err != nil {
			return JSONProblem(err, data, "")
		}
		if name.String() != member {
			return problem.New(api.CodeUnknownField, "", problem.At(problem.Cut(name.String()), "is not a field of this request"))
		}
		if n, err = r.list(atMost, read); err != nil {
			return err
		}
	}
	if err := r.skip(); err != nil {
		return err
	}
	if _, err := r.d.ReadToken(); !errors.Is(err, io.EOF) {
		return problem.New(api.CodeMalformedJSON, "There is something after the object.")
	}
	if n == 0 {
		return problem.New(api.CodeInvalidBatch, "", problem.At(member, "must have at least one message"))
	}
	return nil
}

type itemReader struct {
	d      *jsontext.Decoder
	data   []byte
	member string
}

// list reads the list and returns how many items it has.
func (r itemReader) list(atMost int, read func([]byte) error) (n int, err error) {
	if r.d.PeekKind() != '[' {
		return 0, r.syntaxOr(problem.New(api.CodeWrongType, "", problem.At(r.member, "must be a list")))
	}
	if err := r.skip(); err != nil {
		return 0, err
	}
	for ; r.d.PeekKind() != ']'; n++ {
		if n == atMost {
			return n, problem.New(api.CodeTooManyMessages, fmt.Sprintf("A batch may have %d messages.", atMost))
		}
		item, err := r.d.ReadValue()
		if err != nil {
			return n, JSONProblem(err, r.data, "")
		}
		if err := read(item); err != nil {
			return n, err
		}
	}
	return n, r.skip()
}

// skip passes over a bracket.
func (r itemReader) skip() error {
	if _, err := r.d.ReadToken(); err != nil {
		return JSONProblem(err, r.data, "")
	}
	return nil
}

// syntaxOr returns the syntax error that comes next in the input, else p.
func (r itemReader) syntaxOr(p *problem.Error) error {
	if r.d.PeekKind() != 0 {
		return p
	}
	_, err := r.d.ReadToken()
	if errors.Is(err, io.EOF) {
		err = &jsontext.SyntacticError{Err: io.ErrUnexpectedEOF}
	}
	if err != nil {
		return JSONProblem(err, r.data, "")
	}
	return p
}
