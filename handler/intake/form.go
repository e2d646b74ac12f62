package intake

import (
	"bytes"
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

const (
	// The header of a form's part may have about so many octets and lines. Clients write
	// three lines.
	maxPartHeader = 16 << 10
	maxPartLines  = 100
	// partHeaderStep is how many octets are read at once of a part's header.
	partHeaderStep = 512
)

// Parts reads the parts of a form (RFC 7578). It limits the header of each while that is
// read: it takes far more memory than its octets, and a client may send it slowly.
type Parts struct {
	source partSource
	reader *multipart.Reader
}

// Parts returns the parts of the body, which is a form with this boundary. An empty one
// is an error.
func (b *Body) Parts(boundary string) (*Parts, error) {
	if boundary == "" {
		return nil, problem.New(api.CodeMalformedForm, "The Content-Type has no boundary.")
	}
	p := &Parts{source: partSource{body: b}}
	p.reader = multipart.NewReader(&p.source, boundary)
	return p, nil
}

// Next returns the next part, whose header is read. After the last one the error is
// [io.EOF], and the body is read to its end. Any other error is a [*problem.Error].
func (p *Parts) Next() (*multipart.Part, error) {
	p.source.begin()
	part, err := p.reader.NextRawPart()
	p.source.inHeader = false
	if errors.Is(err, io.EOF) {
		if _, err := io.Copy(io.Discard, p.source.body); err != nil {
			return nil, FormProblem(err)
		}
		return nil, io.EOF
	}
	switch {
	case p.source.err != nil: // multipart may take it for a field that is cut off
		return nil, p.source.err
	case err != nil:
		return nil, FormProblem(err)
	}
	return part, nil
}

// partSource is the body as [multipart.Reader] reads it. That reads on only while a
// header is not complete, so that all that came before belongs to the header.
type partSource struct {
	body          *Body
	inHeader      bool
	octets, lines int   // of the header so far
	err           error // that the header is too large
}

func (s *partSource) begin() { s.inHeader, s.octets, s.lines = true, 0, 0 }

func (s *partSource) Read(p []byte) (int, error) {
	if !s.inHeader {
		return s.body.Read(p)
	}
	if s.octets > maxPartHeader || s.lines > maxPartLines {
		s.err = problem.New(api.CodeMalformedForm, "The header of a part is too large: it may have 16 KiB and 100 lines.")
		return 0, s.err
	}
	n, err := s.body.Read(p[:min(len(p), partHeaderStep)])
	s.octets += n
	s.lines += bytes.Count(p[:n], []byte{'\n'})
	return n, err
}

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
