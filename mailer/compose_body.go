package mailer

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"strings"

	"github.com/wneessen/go-mail"
)

// composedBody is a MIME body with its fields. The frame is everything but the
// attachments' contents: markers stand in their places.
//
// go-mail builds the structure, but it would hold an attachment five times in
// memory while it encodes it. So it is given a short marker to encode for each,
// and the contents are encoded straight into the final buffer, which is made
// once, in its exact size.
type composedBody struct {
	fields  []byte // MIME-Version and Content-* of the top level
	frame   []byte
	markers [][]byte // as they stand in the frame, in that order
	files   [][]byte // the contents, in the same order
}

func composeBody(m Message) (composedBody, error) {
	inline, attached := splitInline(m)
	if m.Text == "" && m.HTML == "" && len(attached) == 1 {
		return composeSingleFile(attached[0]), nil
	}
	var b composedBody
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	// Never used: set so that go-mail does not ask for the host's name.
	msg.SetMessageIDWithValue("frame")
	addBodies(msg, m)
	msg.SetEmbeds(b.addFiles(inline, "inline"))
	msg.SetAttachments(b.addFiles(attached, "attachment"))

	var rendered bytes.Buffer
	if _, err := msg.WriteTo(&rendered); err != nil {
		return composedBody{}, fmt.Errorf("build MIME structure: %w", err)
	}
	header, frame, found := bytes.Cut(rendered.Bytes(), []byte("\r\n\r\n"))
	if !found {
		return composedBody{}, errors.New("build MIME structure: no header section")
	}
	b.fields, b.frame = mimeFields(header), frame
	if !b.complete() {
		return composedBody{}, errors.New("build MIME structure: an attachment has no place")
	}
	return b, nil
}

// complete reports whether the frame has all markers, in their order.
func (b *composedBody) complete() bool {
	rest := b.frame
	for _, marker := range b.markers {
		_, after, found := bytes.Cut(rest, marker)
		if !found {
			return false
		}
		rest = after
	}
	return true
}

// splitInline parts the images that the HTML can refer to from the files that
// are merely attached.
func splitInline(m Message) (inline, attached []Attachment) {
	for _, a := range m.Attachments {
		if a.ContentID != "" && m.HTML != "" {
			inline = append(inline, a)
		} else {
			attached = append(attached, a)
		}
	}
	return inline, attached
}

// addBodies adds text and HTML, quoted-printable, which carries blanks at line
// ends and lines of any length.
func addBodies(msg *mail.Msg, m Message) {
	if m.Text != "" {
		msg.AddAlternativeWriter(mail.TypeTextPlain, textWriter(m.Text))
	}
	if m.HTML != "" {
		msg.AddAlternativeWriter(mail.TypeTextHTML, textWriter(m.HTML))
	}
}

func textWriter(s string) func(io.Writer) (int64, error) {
	return func(w io.Writer) (int64, error) {
		n, err := w.Write(crlfText(s))
		return int64(n), err
	}
}

// crlfText makes every line end of s a CRLF.
func crlfText(s string) []byte {
	return appendCRLF(make([]byte, 0, len(s)+strings.Count(s, "\n")), []byte(s))
}

// markerLen is long enough never to be found by chance, and short enough for
// one line of base64.
const markerLen = 48

func (b *composedBody) addFiles(list []Attachment, disposition string) []*mail.File {
	files := make([]*mail.File, len(list))
	for i, a := range list {
		marker := make([]byte, markerLen)
		rand.Read(marker)
		b.markers = append(b.markers, base64.StdEncoding.AppendEncode(nil, marker))
		b.files = append(b.files, a.Content)
		files[i] = &mail.File{
			Header: textproto.MIMEHeader{},
			Writer: func(w io.Writer) (int64, error) {
				n, err := w.Write(marker)
				return int64(n), err
			},
		}
		for _, f := range fileFields(a, disposition) {
			files[i].Header.Set(f.Name, f.Value)
		}
	}
	return files
}

// fileFields are the fields of an attachment's part, their values folded.
func fileFields(a Attachment, disposition string) []Field {
	mediaType, params := attachmentType(a)
	value := []byte(disposition)
	if a.Filename != "" {
		value = appendParam(value, "filename", a.Filename)
	}
	fields := []Field{
		{Name: "Content-Type", Value: contentTypeValue(mediaType, params, a.Filename)},
		{Name: "Content-Transfer-Encoding", Value: "base64"},
		{Name: "Content-Disposition", Value: string(value)},
	}
	if a.ContentID != "" {
		fields = append(fields, Field{Name: "Content-ID", Value: "<" + a.ContentID + ">"})
	}
	return fields
}

// composeSingleFile makes the body of a message that is one file. There is no
// structure to build, and go-mail would fold the folded fields again.
func composeSingleFile(a Attachment) composedBody {
	marker := []byte(rand.Text())
	b := composedBody{
		fields:  []byte("MIME-Version: 1.0\r\n"),
		frame:   append(marker, '\r', '\n'),
		markers: [][]byte{marker},
		files:   [][]byte{a.Content},
	}
	for _, f := range fileFields(a, "attachment") {
		b.fields = fmt.Appendf(b.fields, "%s: %s\r\n", f.Name, f.Value)
	}
	return b
}

// mimeFields picks the MIME fields, with their folded lines, out of a header
// section by go-mail; all other fields are ours.
func mimeFields(header []byte) []byte {
	var fields []byte
	wanted := false
	for line := range bytes.Lines(header) {
		if line[0] != ' ' && line[0] != '\t' {
			name, _, _ := strings.Cut(strings.ToLower(string(line)), ":")
			wanted = name == "mime-version" || strings.HasPrefix(name, "content-")
		}
		if wanted {
			fields = append(append(fields, bytes.TrimRight(line, "\r\n")...), '\r', '\n')
		}
	}
	return fields
}

// render puts the message together in one buffer of its exact size.
func (b *composedBody) render(header []byte) []byte {
	size := len(header) + len(b.fields) + len("\r\n") + len(b.frame) + len("\r\n")
	for i, content := range b.files {
		size += base64Size(len(content)) - len(b.markers[i])
	}
	data := make([]byte, 0, size)
	data = append(data, header...)
	data = append(data, b.fields...)
	data = append(data, '\r', '\n')
	frame := b.frame
	for i, content := range b.files {
		before, after, _ := bytes.Cut(frame, b.markers[i])
		data = append(data, before...)
		data = appendBase64(data, content)
		frame = after
	}
	data = append(data, frame...)
	if !bytes.HasSuffix(data, []byte("\r\n")) {
		data = append(data, '\r', '\n')
	}
	return data
}

// base64Line is how many octets make a line of 76 characters (RFC 2045 §6.8).
const base64Line = 57

func base64Size(n int) int {
	lines := (n + base64Line - 1) / base64Line
	return base64.StdEncoding.EncodedLen(n) + max(lines-1, 0)*len("\r\n")
}

// appendBase64 encodes content in lines of 76 characters; the last has no line
// end.
func appendBase64(dst, content []byte) []byte {
	for len(content) > base64Line {
		dst = base64.StdEncoding.AppendEncode(dst, content[:base64Line])
		dst = append(dst, '\r', '\n')
		content = content[base64Line:]
	}
	return base64.StdEncoding.AppendEncode(dst, content)
}
