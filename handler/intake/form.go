package intake

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"strings"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
)

// FormProblem finds the problem in an error of multipart, which wraps those of [Body].
func FormProblem(err error) error {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	return problem.New(api.CodeMalformedForm, "")
}

// escapedName undoes what browsers and their imitators do to a name (WHATWG HTML,
// multipart/form-data encoding algorithm).
var escapedName = strings.NewReplacer("%22", `"`, "%0D", "\r", "%0d", "\r", "%0A", "\n", "%0a", "\n")

// PlainName returns the name of a part, or of its file, as it was before a browser
// wrote it into the part's header.
func PlainName(name string) string { return escapedName.Replace(name) }

// ReadPart reads a part of a form into one slice. Its memory grows with the octets that
// come, and copying them waits for its turn where they are many.
func (b *Body) ReadPart(part *multipart.Part) ([]byte, error) {
	fields := 0
	for _, values := range part.Header {
		fields += len(values)
	}
	if err := b.Charge(weightPart + weightMember*int64(fields)); err != nil {
		return nil, err
	}
	const firstChunk = 512
	var chunks [][]byte
	chunk, size := make([]byte, 0, firstChunk), int64(0)
	for {
		if len(chunk) == cap(chunk) {
			chunks, chunk = append(chunks, chunk), make([]byte, 0, min(2*cap(chunk), largestChunk))
		}
		n, err := part.Read(chunk[len(chunk):cap(chunk)])
		chunk, size = chunk[:len(chunk)+n], size+int64(n)
		switch {
		case errors.Is(err, io.EOF):
			return b.join(append(chunks, chunk), size)
		case err != nil:
			return nil, FormProblem(err)
		}
	}
}

// CheckPart refuses a part without a name, and one in an encoding or a charset that
// forms do not have.
func CheckPart(part *multipart.Part, name string) error {
	if name == "" {
		return problem.New(api.CodeMalformedForm, "A part has no name.")
	}
	switch strings.ToLower(part.Header.Get("Content-Transfer-Encoding")) {
	case "", "7bit", "8bit", "binary":
	default: // RFC 7578 §4.7 deprecates it
		return problem.New(api.CodeMalformedForm, "", problem.At(name, "must not have a Content-Transfer-Encoding"))
	}
	_, params, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
	if err == nil && part.FileName() == "" && checkCharset("", params) != nil {
		return problem.New(api.CodeContentType, "", problem.At(name, "must be in utf-8"))
	}
	return nil
}
