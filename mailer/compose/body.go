package compose

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"slices"
	"strings"
	"sync"

	"mailsidecar/mailer"

	"github.com/wneessen/go-mail"
)

// composedBody is a MIME body with its fields. The frame is the body with a marker in
// the place of each text and file.
//
// go-mail builds the structure, but it would hold each content five times in memory
// while it encodes it. So it gets a short marker for each, and this package encodes
// the contents, files straight into the final buffer, which is allocated once in its
// exact size.
type composedBody struct {
	fields []byte // MIME-Version and Content-* of the top level
	frame  []byte
	parts  []composedPart // in the order of their markers in the frame
}

// composedPart is a leaf: a text or a file.
type composedPart struct {
	marker []byte // its place in the frame
	text   string
	isText bool
	file   []byte
	size   int    // encoded
	quoted []byte // a short text as quoted-printable; nil for a long one
}

func composeBody(ctx context.Context, m mailer.Message, method string) (composedBody, error) {
	inline, attached := splitInline(m)
	switch {
	case len(m.Attachments) == 0 && m.Calendar.Content == "":
		return composeTexts(m)
	case m.Text == "" && m.HTML == "" && m.Calendar.Content == "" && len(attached) == 1:
		return composeSingleFile(attached[0]), nil
	default:
		return buildFrame(ctx, textsOf(m, method), inline, attached, "")
	}
}

// composeTexts makes the body of a message without files. Its frame depends only on
// which texts there are, so go-mail builds each of the three frames once.
func composeTexts(m mailer.Message) (composedBody, error) {
	frame := frameOfBoth
	switch {
	case m.HTML == "":
		frame = frameOfText
	case m.Text == "":
		frame = frameOfHTML
	}
	b, err := frame()
	if err != nil {
		return composedBody{}, err
	}
	var random [len(noBoundary) / 2]byte
	rand.Read(random[:])
	boundary := hex.AppendEncode(nil, random[:])
	b.fields = bytes.ReplaceAll(b.fields, []byte(noBoundary), boundary)
	b.frame = bytes.ReplaceAll(b.frame, []byte(noBoundary), boundary)
	b.parts = slices.Clone(b.parts)
	for i, text := range textsOf(m, "") {
		b.parts[i].text = text.content
	}
	return b, nil
}

// noBoundary is the place of each message's boundary in such a frame.
const noBoundary = "000000000000000000000000000000000000000000000000000000000000"

var (
	frameOfText = textFrame(mailer.Message{Text: "text"})
	frameOfHTML = textFrame(mailer.Message{HTML: "html"})
	frameOfBoth = textFrame(mailer.Message{Text: "text", HTML: "html"})
)

func textFrame(m mailer.Message) func() (composedBody, error) {
	return sync.OnceValues(func() (composedBody, error) {
		return buildFrame(context.Background(), textsOf(m, ""), nil, nil, noBoundary)
	})
}

// buildFrame lets go-mail build the MIME structure. An empty boundary means a new one
// for each multipart.
func buildFrame(ctx context.Context, texts []messageText, inline, attached []mailer.Attachment, boundary string) (composedBody, error) {
	var b composedBody
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent(), mail.WithBoundary(boundary))
	// Not used, but set so that go-mail does not ask for the host's name.
	msg.SetMessageIDWithValue("frame")
	for _, text := range texts {
		msg.AddAlternativeWriter(text.mediaType, b.addText(text.content))
	}
	if err := ctx.Err(); err != nil {
		return composedBody{}, err
	}
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
		return composedBody{}, errors.New("build MIME structure: a part has no place")
	}
	return b, nil
}

// complete reports whether the frame holds all markers, in their order.
func (b *composedBody) complete() bool {
	rest := b.frame
	for _, p := range b.parts {
		_, after, found := bytes.Cut(rest, p.marker)
		if !found {
			return false
		}
		rest = after
	}
	return true
}

// splitInline separates the files that the HTML can refer to from the other ones.
func splitInline(m mailer.Message) (inline, attached []mailer.Attachment) {
	for _, a := range m.Attachments {
		if a.ContentID != "" && m.HTML != "" {
			inline = append(inline, a)
		} else {
			attached = append(attached, a)
		}
	}
	return inline, attached
}

// messageText is the text, the HTML or the calendar of a message.
type messageText struct {
	mediaType mail.ContentType
	content   string
}

// textsOf returns the texts of a message. They are always sent as quoted-printable,
// which carries blanks at line ends and lines of any length. To find out whether 7bit
// is enough would take as long as the encoding, which leaves short lines of ASCII as
// they are.
func textsOf(m mailer.Message, method string) []messageText {
	texts := make([]messageText, 0, 3)
	if m.Text != "" {
		texts = append(texts, messageText{mail.TypeTextPlain, m.Text})
	}
	if m.HTML != "" {
		texts = append(texts, messageText{mail.TypeTextHTML, m.HTML})
	}
	if m.Calendar.Content != "" {
		texts = append(texts, messageText{mail.ContentType(calendarType(method)), m.Calendar.Content})
	}
	return texts
}

// markerLen, in octets, is too long to occur by chance, and short enough for one line
// of base64.
const markerLen = 48

func (b *composedBody) addText(text string) func(io.Writer) (int64, error) {
	marker := []byte(rand.Text()) // quoted-printable leaves it as it is
	b.parts = append(b.parts, composedPart{marker: marker, text: text, isText: true})
	return bytesWriter(marker)
}

func (b *composedBody) addFiles(list []mailer.Attachment, disposition string) []*mail.File {
	files := make([]*mail.File, len(list))
	for i, a := range list {
		marker := make([]byte, markerLen)
		rand.Read(marker)
		b.parts = append(b.parts, composedPart{marker: base64.StdEncoding.AppendEncode(nil, marker), file: a.Content})
		files[i] = &mail.File{Header: textproto.MIMEHeader{}, Writer: bytesWriter(marker)}
		for _, f := range fileFields(a, disposition) {
			files[i].Header.Set(f.Name, f.Value)
		}
	}
	return files
}

func bytesWriter(p []byte) func(io.Writer) (int64, error) {
	return func(w io.Writer) (int64, error) {
		n, err := w.Write(p)
		return int64(n), err
	}
}

// fileFields returns the header fields of an attachment's part, folded.
func fileFields(a mailer.Attachment, disposition string) []mailer.Field {
	mediaType, params := attachmentType(a)
	value := []byte(disposition)
	if a.Filename != "" {
		value = appendParam(value, "filename", a.Filename)
	}
	fields := []mailer.Field{
		{Name: "Content-Type", Value: contentTypeValue(mediaType, params, a.Filename)},
		{Name: "Content-Transfer-Encoding", Value: "base64"},
		{Name: "Content-Disposition", Value: string(value)},
	}
	if a.ContentID != "" {
		fields = append(fields, mailer.Field{Name: "Content-ID", Value: "<" + a.ContentID + ">"})
	}
	return fields
}

// composeSingleFile makes the body of a message that is one file. It has no structure
// to build, and go-mail would fold the folded fields again.
func composeSingleFile(a mailer.Attachment) composedBody {
	marker := []byte(rand.Text())
	b := composedBody{
		fields: []byte("MIME-Version: 1.0\r\n"),
		frame:  append(marker, '\r', '\n'),
		parts:  []composedPart{{marker: marker, file: a.Content}},
	}
	for _, f := range fileFields(a, "attachment") {
		b.fields = fmt.Appendf(b.fields, "%s: %s\r\n", f.Name, f.Value)
	}
	return b
}

// mimeFields returns the MIME fields, folded, of a header section by go-mail. It drops
// the other fields, which this package writes itself.
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

// render returns the whole message behind some octets of room, in one buffer of its exact
// size, which it asks for first.
func (b *composedBody) render(ctx context.Context, header []byte, reserve Reserve, room int) ([]byte, error) {
	texts := textBuffers.Get().(*textBuffer)
	defer texts.release()
	size := len(header) + len(b.fields) + len("\r\n") + len(b.frame)
	if !b.endsLine() {
		size += len("\r\n")
	}
	for i := range b.parts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := &b.parts[i]
		p.measure(texts)
		size += p.size - len(p.marker)
	}
	size += room
	if err := reserve.ask(size); err != nil {
		return nil, err
	}
	data := make([]byte, room, size)
	data = append(data, header...)
	data = append(data, b.fields...)
	data = append(data, '\r', '\n')
	frame := b.frame
	for i := range b.parts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := &b.parts[i]
		before, after, _ := bytes.Cut(frame, p.marker)
		data = append(data, before...)
		data = p.appendTo(data)
		frame = after
	}
	data = append(data, frame...)
	if !bytes.HasSuffix(data, []byte("\r\n")) {
		data = append(data, '\r', '\n')
	}
	return data, nil
}

// endsLine reports whether the encoded body ends with a line end.
func (b *composedBody) endsLine() bool {
	if n := len(b.parts); n > 0 && bytes.HasSuffix(b.frame, b.parts[n-1].marker) {
		text := b.parts[n-1].text
		return strings.HasSuffix(text, "\n") || strings.HasSuffix(text, "\r")
	}
	return bytes.HasSuffix(b.frame, []byte("\r\n"))
}

// measure finds the encoded size. A short text it encodes for that at once.
func (p *composedPart) measure(texts *textBuffer) {
	switch {
	case !p.isText:
		p.size = base64Size(len(p.file))
	case len(p.text) > maxTextBuffer/4:
		p.size = quotedSize(p.text)
	default:
		p.quoted = texts.encode(p.text)
		p.size = len(p.quoted)
	}
}

func (p *composedPart) appendTo(dst []byte) []byte {
	switch {
	case !p.isText:
		return appendBase64(dst, p.file)
	case p.quoted != nil:
		return append(dst, p.quoted...)
	default:
		return appendQuoted(dst, p.text)
	}
}

// textBuffer holds encoded short texts until their size is known.
type textBuffer struct{ buf []byte }

var textBuffers = sync.Pool{New: func() any { return new(textBuffer) }}

// maxTextBuffer is the size in octets up to which a buffer is kept for the next
// message.
const maxTextBuffer = 64 << 10

func (t *textBuffer) encode(text string) []byte {
	start := len(t.buf)
	t.buf = appendQuotedPrintable(t.buf, text)
	return t.buf[start:]
}

// release gives the buffer to the next message. The results of encode are not valid
// any more.
func (t *textBuffer) release() {
	if t.buf = t.buf[:0]; cap(t.buf) <= maxTextBuffer {
		textBuffers.Put(t)
	}
}

// base64Line is the number of octets that make a line of 76 characters (RFC 2045
// §6.8).
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
