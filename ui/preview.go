package ui

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-message"
	"golang.org/x/text/encoding/htmlindex"
)

// Limits of a preview. What is beyond them is left out, and the preview says so; the message
// itself can be downloaded whole.
const (
	maxPreviewText   = 256 << 10 // octets, of the text and of the source
	maxPreviewHTML   = 1 << 20
	maxPreviewParts  = 100
	maxPreviewDepth  = 10 // of parts within parts
	maxPreviewFields = 200
	maxPreviewField  = 2000 // characters
	maxPreviewHeader = 256 << 10
	maxInlinePicture = 256 << 10 // octets
	maxInlineAll     = 1 << 20
)

// preview is a message's content for people to look at. Its texts are UTF-8, and are what others
// have written: nothing of it may be put into a page but as text.
type preview struct {
	Header      []headerField
	Text        string // of the first text/plain part; empty where there is none
	HTML        string // likewise
	TextCut     bool
	HTMLCut     bool
	Attachments []attachment
	Source      string // as the message is stored
	SourceCut   bool
	// Trouble is what of the message could not be read, and why.
	Trouble string

	kept int // octets of pictures
}

// headerField is a field of the message's header section.
type headerField struct{ Name, Value string }

// attachment is a part that is neither the text nor the HTML.
type attachment struct {
	N    int // of the part, from 1 on
	Name string
	Type string // such as application/pdf, as the message has it
	Size int64  // in octets, decoded
	// Inline is for a picture that the HTML shows.
	Inline bool

	contentID string
	picture   []byte // of a small one that the HTML shows
}

// readPreview reads a message. It never fails: what cannot be read is in Source and in Trouble.
func readPreview(content io.Reader) preview {
	p := &preview{}
	source := &head{limit: maxPreviewText}
	all := io.TeeReader(content, source)
	r := partReader{each: p.part}
	p.trouble(r.message(all))
	_, err := io.Copy(io.Discard, all) // for the source, where the parts could not be read
	p.trouble(err)
	p.Source, p.SourceCut = printable(source.String()), source.over
	p.Header = headerOf(source.data.Bytes())
	p.inlinePictures()
	return *p
}

// trouble notes why a part could not be read. The first one is told.
func (p *preview) trouble(err error) {
	if err == nil || p.Trouble != "" {
		return
	}
	why := oneLine(short(err.Error(), 200))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		why = "it ends too early"
	}
	p.Trouble = "A part of this message cannot be read: " + why + "."
}

// head keeps the beginning of what is written to it.
type head struct {
	data  bytes.Buffer
	limit int
	over  bool
}

func (h *head) Write(b []byte) (int, error) {
	if room := h.limit - h.data.Len(); len(b) > room {
		h.over = true
		h.data.Write(b[:room])
	} else {
		h.data.Write(b)
	}
	return len(b), nil
}

// String is what is kept, without a character that is cut in two.
func (h *head) String() string {
	text := h.data.String()
	if h.over {
		for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
			if utf8.RuneStart(text[len(text)-i]) {
				if !utf8.FullRuneInString(text[len(text)-i:]) {
					text = text[:len(text)-i]
				}
				break
			}
		}
	}
	return text
}

// part takes one part into the preview. One that is broken does not hide the others.
func (p *preview) part(n int, e *message.Entity, kind string, params map[string]string) error {
	p.trouble(p.take(n, e, kind, params))
	return nil
}

func (p *preview) take(n int, e *message.Entity, kind string, params map[string]string) error {
	disposition, dparams, _ := mime.ParseMediaType(e.Header.Get("Content-Disposition"))
	name := fileName(dparams["filename"], params["name"])
	shown := disposition != "attachment" && name == ""
	switch {
	case kind == "text/plain" && shown && p.Text == "":
		text := &head{limit: maxPreviewText}
		err := decode(text, e.Body, params["charset"])
		p.Text, p.TextCut = printable(text.String()), text.over
		return err
	case kind == "text/html" && shown && p.HTML == "":
		text := &head{limit: maxPreviewHTML}
		err := decode(text, e.Body, params["charset"])
		p.HTML, p.HTMLCut = strings.ToValidUTF8(text.String(), "\uFFFD"), text.over
		return err
	}
	a := attachment{N: n, Name: name, Type: printable(short(kind, 100)), Inline: disposition == "inline"}
	a.contentID = strings.Trim(e.Header.Get("Content-Id"), "<> ")
	keep := &head{}
	if a.contentID != "" && inlineTypes[kind] {
		keep.limit = min(maxInlinePicture, maxInlineAll-p.kept)
	}
	size, err := io.Copy(keep, e.Body)
	a.Size = size
	if !keep.over {
		a.picture = keep.data.Bytes()
		p.kept += len(a.picture)
	}
	if a.Name == "" {
		a.Name = fmt.Sprintf("part-%d%s", n, extensions[kind])
	}
	p.Attachments = append(p.Attachments, a)
	return err
}

// inlineTypes are those of pictures that the preview of HTML shows.
var inlineTypes = map[string]bool{"image/png": true, "image/jpeg": true, "image/gif": true, "image/webp": true}

// extensions are for parts that have no name.
var extensions = map[string]string{
	"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp", "text/plain": ".txt", "text/html": ".html",
	"text/calendar": ".ics", "application/pdf": ".pdf", "message/rfc822": ".eml",
}

// inlinePictures puts the pictures that the message has with it into its HTML, in place of the
// addresses that stand for them. What is put there has no character that means anything in HTML.
func (p *preview) inlinePictures() {
	left := maxInlineAll
	for i := range p.Attachments {
		a := &p.Attachments[i]
		picture := a.picture
		a.picture = nil
		if len(picture) == 0 || len(picture) > left || len(a.contentID) > 200 || !strings.Contains(p.HTML, "cid:"+a.contentID) {
			continue
		}
		data := "data:" + a.Type + ";base64," + base64.StdEncoding.EncodeToString(picture)
		if html, n := replaceAddress(p.HTML, "cid:"+a.contentID, data, left/len(picture)); n > 0 {
			p.HTML = html
			left -= n * len(picture)
			a.Inline = true
		}
	}
}

// replaceAddress replaces an address in HTML where it ends: cid:logo is not the beginning of cid:logo2. Where it
// stands there more than most times, it replaces none.
func replaceAddress(html, address, by string, most int) (replaced string, n int) {
	var b strings.Builder
	rest := html
	for {
		before, after, found := strings.Cut(rest, address)
		b.WriteString(before)
		if !found {
			return b.String(), n
		}
		if rest = after; after != "" && !strings.ContainsRune("\"'`)>&;, \t\r\n", rune(after[0])) {
			b.WriteString(address)
			continue
		}
		if n++; n > most {
			return html, 0
		}
		b.WriteString(by)
	}
}

// framed is the HTML as it is shown in a frame of its own. The answer's policy forbids scripts
// and everything that would be loaded. It does not forbid that a browser connects in
// advance to a server that <link> names, which would tell that server of the look: so that there
// are no such elements, nor those that could change the policy's meaning.
func (p *preview) framed() string {
	var b strings.Builder
	b.WriteString("<!doctype html>")
	rest := p.HTML
	for {
		i := strings.IndexByte(rest, '<')
		if i < 0 {
			b.WriteString(rest)
			return b.String()
		}
		b.WriteString(rest[:i+1])
		rest = rest[i+1:]
		for _, name := range [...]string{"link", "meta", "base"} {
			if len(rest) >= len(name) && strings.EqualFold(rest[:len(name)], name) {
				b.WriteString("x-")
			}
		}
	}
}

// partReader goes through the parts of a message.
type partReader struct {
	n    int
	each func(n int, e *message.Entity, kind string, params map[string]string) error
}

var (
	errManyParts = fmt.Errorf("it has more than %d parts", maxPreviewParts)
	errDeepParts = fmt.Errorf("parts are within parts more than %d times", maxPreviewDepth)
)

func (r *partReader) message(content io.Reader) error {
	e, err := message.ReadWithOptions(content, &message.ReadOptions{MaxHeaderBytes: maxPreviewHeader})
	if e == nil {
		return cmpErr(err, errors.New("it has no header"))
	}
	return r.entity(e, 0)
}

// entity goes through one part, and those within it.
func (r *partReader) entity(e *message.Entity, depth int) error {
	kind, params, err := e.Header.ContentType()
	kind = strings.ToLower(strings.TrimSpace(kind))
	if kind == "" || err != nil && !strings.Contains(kind, "/") {
		kind = "text/plain" // RFC 2045 §5.2
	}
	if parts := e.MultipartReader(); parts != nil && params["boundary"] != "" {
		if depth >= maxPreviewDepth {
			return errDeepParts
		}
		for {
			part, err := parts.NextPart()
			switch {
			case errors.Is(err, io.EOF):
				return nil
			case part == nil || err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err):
				return cmpErr(err, errors.New("a part is missing"))
			}
			if err := r.entity(part, depth+1); err != nil {
				return err
			}
		}
	}
	if r.n++; r.n > maxPreviewParts {
		return errManyParts
	}
	return r.each(r.n, e, kind, params)
}

var errPartRead = errors.New("the part was read")

// copyPart writes one part, decoded, to w, and tells begin its name before. ok says that there is
// such a part.
func copyPart(content io.Reader, n int, begin func(name string) io.Writer) (ok bool, err error) {
	r := partReader{each: func(i int, e *message.Entity, kind string, params map[string]string) error {
		if i != n {
			return nil
		}
		_, dparams, _ := mime.ParseMediaType(e.Header.Get("Content-Disposition"))
		name := fileName(dparams["filename"], params["name"])
		if name == "" {
			name = fmt.Sprintf("part-%d%s", n, extensions[kind])
		}
		if _, err := io.Copy(begin(name), e.Body); err != nil {
			return err
		}
		return errPartRead
	}}
	err = r.message(content)
	if errors.Is(err, errPartRead) {
		return true, nil
	}
	return false, err
}

// decode copies text of a charset to w, as UTF-8. A charset that is not known is taken for UTF-8.
func decode(w io.Writer, text io.Reader, charset string) error {
	switch strings.ToLower(charset) {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
	default:
		if e, err := htmlindex.Get(charset); err == nil {
			text = e.NewDecoder().Reader(text)
		}
	}
	_, err := io.Copy(w, text)
	return err
}

// headerOf reads the fields of a message's header section, in their order. Encoded words are
// decoded.
func headerOf(source []byte) (fields []headerField) {
	words := mime.WordDecoder{CharsetReader: func(charset string, input io.Reader) (io.Reader, error) {
		e, err := htmlindex.Get(charset)
		if err != nil {
			return nil, err
		}
		return e.NewDecoder().Reader(input), nil
	}}
	var lines []string // of the last field
	done := func() []headerField {
		if last := len(fields) - 1; last >= 0 {
			fields[last].Value = strings.Join(lines, " ")
		}
		return decodeFields(fields, words)
	}
	for line := range bytes.Lines(source) {
		line = bytes.TrimRight(line, "\r\n")
		name, value, found := strings.Cut(string(line), ":")
		switch last := len(fields) - 1; {
		case len(line) == 0:
			return done()
		case last >= 0 && (line[0] == ' ' || line[0] == '\t'):
			lines = append(lines, strings.TrimSpace(string(line)))
		case len(fields) == maxPreviewFields:
			return append(done(), headerField{"…", "There are more fields: the source has them."})
		case found:
			if last >= 0 {
				fields[last].Value = strings.Join(lines, " ")
			}
			fields, lines = append(fields, headerField{Name: strings.TrimSpace(name)}), []string{strings.TrimSpace(value)}
		}
	}
	return done()
}

func decodeFields(fields []headerField, words mime.WordDecoder) []headerField {
	for i, f := range fields {
		if decoded, err := words.DecodeHeader(f.Value); err == nil {
			f.Value = decoded
		}
		fields[i] = headerField{short(oneLine(f.Name), 100), short(oneLine(f.Value), maxPreviewField)}
	}
	return fields
}

// printable is a text without what a page cannot show: invalid UTF-8 and control characters
// become U+FFFD, line ends become line feeds.
func printable(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return '\n'
		case unicode.IsControl(r):
			return '\uFFFD'
		default:
			return r
		}
	}, text)
}

// oneLine is a text in one line.
func oneLine(text string) string {
	return strings.Join(strings.Fields(printable(text)), " ")
}

// short cuts a text to a number of characters.
func short(text string, n int) string { return cut(text, n) }

// maxFileName is in characters.
const maxFileName = 120

// fileName is the name under which a part is offered: of the first of the names that has any. It
// has no directory, and no character that is invisible or turns the direction of the text: such a
// name could look as if it ended otherwise.
func fileName(names ...string) string {
	words := mime.WordDecoder{}
	for _, name := range names {
		if decoded, err := words.DecodeHeader(name); err == nil {
			name = decoded
		}
		name = path.Base(strings.ReplaceAll(strings.ToValidUTF8(name, ""), `\`, "/"))
		name = strings.Map(func(r rune) rune {
			switch {
			case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r), strings.ContainsRune(`"<>:|?*`, r):
				return -1
			case unicode.IsSpace(r):
				return ' '
			default:
				return r
			}
		}, name)
		name = strings.Trim(name, " .")
		if runes := []rune(name); len(runes) > maxFileName {
			end := []rune(path.Ext(name))
			if len(end) > 20 {
				end = nil
			}
			name = string(runes[:maxFileName-len(end)]) + string(end)
		}
		if name != "" && name != "/" {
			return name
		}
	}
	return ""
}
