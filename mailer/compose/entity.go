package compose

import (
	"bytes"
	"context"
	"strings"

	"mailsidecar/mailer"
)

// mimeEntity is one entity of a finished message (RFC 2045 §2.4), in slices of the
// received message. Unchanged parts are written as they are, with CRLF as line end.
type mimeEntity struct {
	fields []*rawField
	gap    []byte // the empty line after the fields; nil when there is none
	// broken says that a line in the header section is no field, so that readers
	// differ on where the body begins, or that there are too many fields.
	broken bool
	// body is everything after the gap. Only the body of a leaf may be re-encoded.
	body []byte
	// encoded replaces body when it is not nil.
	encoded *encodedBody
	// An entity that holds others has the parts of a multipart, or the one message of
	// a message/rfc822.
	preamble []byte
	parts    []mimePart
	closing  []byte // the close-delimiter line
	epilogue []byte

	mediaType string // in lower case
	params    []mimeParam
	encoding  string // Content-Transfer-Encoding, in lower case
	// opaque says that readers may understand the entity in different ways: it is
	// passed on, but cannot be changed.
	opaque bool
	// isMessage says that the entity is a message, not a part of one.
	isMessage bool
	// added are new fields for the end of the header section.
	added []mailer.Field
}

// mimePart is an entity with the lines that separate it from the others.
type mimePart struct {
	delimiter []byte // its line, with the line end; empty in message/rfc822
	*mimeEntity
	lineEnd []byte // belongs to the next delimiter (RFC 2046 §5.1.1)
}

// rawField is one header field as it was received.
type rawField struct {
	name string
	key  string // the name in lower case
	raw  []byte // with its line ends
	// text replaces raw when it is not nil; drop leaves the field out.
	text []byte
	drop bool
	// cleaned says that raw is a copy, in which CRs that end no line are blanks.
	cleaned bool
	// signed says that a signature covers the field.
	signed bool
	// spaced says that blanks before its colon were removed.
	spaced bool
}

// value returns the field's value, unfolded and trimmed.
func (f *rawField) value() string {
	_, value, _ := bytes.Cut(f.raw, []byte(":"))
	return strings.Trim(unfold(value), " \t")
}

// unfold removes the line ends of a field. A blank follows each of them.
func unfold(raw []byte) string {
	var b strings.Builder
	b.Grow(len(raw))
	for _, c := range raw {
		if c != '\r' && c != '\n' {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// cutLine returns the first line of raw and its line end: CRLF, LF, CR, or the CR CR LF
// that programs make of CRLF when they take LF for the whole of a line end. The last
// line may have none.
func cutLine(raw []byte) (line, end, rest []byte) {
	i := lineLen(raw)
	n := i
	switch {
	case bytes.HasPrefix(raw[i:], []byte("\r\r\n")):
		n += 3
	case bytes.HasPrefix(raw[i:], []byte("\r\n")):
		n += 2
	case i < len(raw):
		n++
	}
	return raw[:i], raw[i:n], raw[n:]
}

// lineLen returns the position of the first CR or LF. The fast search for LF has a
// short window; otherwise each line of a message with only CRs would be searched to
// the end of the message.
func lineLen(raw []byte) int {
	window := raw[:min(len(raw), 256)]
	if lf := bytes.IndexByte(window, '\n'); lf >= 0 {
		if cr := bytes.IndexByte(window[:lf], '\r'); cr >= 0 {
			return cr
		}
		return lf
	}
	i := 0
	for i < len(raw) && raw[i] != '\r' && raw[i] != '\n' {
		i++
	}
	return i
}

// maxDepth limits how deep parts may be nested.
const maxDepth = 30

// Limits of what one message may be split into, far above real mail: without them a
// few megabytes of delimiters would become gigabytes of entities.
const (
	maxEntities = 10_000
	maxFields   = 50_000
)

// mimeParser reads a message into entities.
type mimeParser struct {
	context.Context
	entities, fields int // read so far
}

// parseMessage reads a message with all entities in it. It never fails: an entity that
// it cannot understand is opaque. Once ctx ended, no further entity is understood.
func parseMessage(ctx context.Context, raw []byte) *mimeEntity {
	p := mimeParser{Context: ctx}
	return p.message(raw, 0)
}

func (p *mimeParser) message(raw []byte, depth int) *mimeEntity {
	e := p.entity(raw, "text/plain", depth)
	e.isMessage = true
	return e
}

func (p *mimeParser) entity(raw []byte, defaultType string, depth int) *mimeEntity {
	p.entities++
	e := &mimeEntity{}
	rest := p.parseFields(e, raw)
	e.body = rest
	e.describe(defaultType)
	if e.opaque = e.opaque || p.Err() != nil; e.opaque {
		return e
	}
	switch {
	case strings.HasPrefix(e.mediaType, "multipart/"):
		p.parseMultipart(e, depth)
	case isMessageType(e.mediaType) && isIdentity(e.encoding):
		if depth >= maxDepth {
			e.opaque = true
			break
		}
		e.parts = []mimePart{{mimeEntity: p.message(e.body, depth+1)}}
	}
	return e
}

// parseFields reads the header section and returns what follows it. A line of it ends
// with LF and the CRs before it. Any other CR is a blank, so that it begins no field: a
// program that takes LF alone out of what its visitors write must not let them add
// recipients.
func (p *mimeParser) parseFields(e *mimeEntity, raw []byte) (rest []byte) {
	for len(raw) > 0 {
		size := bytes.IndexByte(raw, '\n') + 1
		if size == 0 {
			size = len(raw)
		}
		line, cleaned := cleanLine(raw[:size])
		text, _, _ := cutLine(line)
		name, isField := fieldName(text)
		switch {
		case len(text) == 0:
			e.gap = raw[:size]
			return raw[size:]
		case (text[0] == ' ' || text[0] == '\t') && len(e.fields) > 0:
			e.fields[len(e.fields)-1].fold(line, cleaned)
		case isField && p.fields < maxFields:
			p.fields++
			e.fields = append(e.fields, &rawField{name: name, key: strings.ToLower(name), raw: line, cleaned: cleaned})
		default:
			e.broken = len(e.fields) > 0
			return raw
		}
		raw = raw[size:]
	}
	return nil
}

// cleanLine returns a line of a header section. Where CRs stand in it that are no part of
// its end, or too many at its end, it is a copy with blanks and CRLF.
func cleanLine(line []byte) (clean []byte, cleaned bool) {
	text := bytes.TrimRight(line, "\r\n")
	if bytes.IndexByte(text, '\r') < 0 {
		switch string(line[len(text):]) {
		case "", "\n", "\r\n", "\r\r\n":
			return line, false
		}
	}
	return append(bytes.ReplaceAll(text, []byte("\r"), []byte(" ")), '\r', '\n'), true
}

// fold adds a line to the field. A line that was not cleaned is adjacent in the message.
func (f *rawField) fold(line []byte, cleaned bool) {
	switch {
	case f.cleaned:
		f.raw = append(f.raw, line...)
	case cleaned:
		f.raw = append(bytes.Clone(f.raw), line...)
		f.cleaned = true
	default:
		f.raw = f.raw[:len(f.raw)+len(line)]
	}
}

// fieldName returns the name of the field that line begins. Blanks before the colon
// are obsolete, but readers accept them (RFC 5322 §4.5).
func fieldName(line []byte) (string, bool) {
	name, _, found := bytes.Cut(line, []byte(":"))
	text := strings.TrimRight(string(name), " \t")
	return text, found && isFieldName(text)
}

// describe reads the media type and the encoding of the entity.
func (e *mimeEntity) describe(defaultType string) {
	e.mediaType = defaultType
	types, encodings, understood := 0, 0, true
	for _, f := range e.fields {
		switch f.key {
		case "content-type":
			types++
			e.mediaType, e.params, understood = parseParams(f.value())
		case "content-transfer-encoding":
			encodings++
			e.encoding = strings.ToLower(strings.Trim(mailer.StripComments(f.value()), " \t;"))
		}
	}
	e.opaque = e.broken || types > 1 || encodings > 1 || !understood
}

func (e *mimeEntity) param(name string) string {
	for _, p := range e.params {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// isMessageType reports whether the body of such an entity is a message (RFC 2046
// §5.2.1, RFC 6532 §3.7).
func isMessageType(mediaType string) bool {
	return mediaType == "message/rfc822" || mediaType == "message/global" || mediaType == "message/news"
}

// isIdentity reports whether the encoding leaves the body as it is (RFC 2045 §6.2).
func isIdentity(encoding string) bool {
	return encoding == "" || encoding == "7bit" || encoding == "8bit" || encoding == "binary"
}

// maxBoundary is the length of a boundary in octets, far more than the 70 that RFC
// 2046 §5.1.1 allows.
const maxBoundary = 200

// parseMultipart splits the body at its delimiter lines. Without them, or with an
// encoding that a multipart must not have, the entity is opaque.
func (p *mimeParser) parseMultipart(e *mimeEntity, depth int) {
	boundary := strings.TrimRight(e.param("boundary"), " ")
	if boundary == "" || len(boundary) > maxBoundary || !isPrintable(boundary) ||
		!isIdentity(e.encoding) || depth >= maxDepth {
		e.opaque = true
		return
	}
	s := multipartSplitter{parser: p, entity: e, delimiter: []byte("--" + boundary), depth: depth, partType: "text/plain"}
	if e.mediaType == "multipart/digest" {
		s.partType = "message/rfc822"
	}
	if !s.split(e.body) {
		e.preamble, e.parts, e.closing, e.epilogue = nil, nil, nil, nil
	}
	e.opaque = len(e.parts) == 0
}

// multipartSplitter splits the body of one multipart into its parts.
type multipartSplitter struct {
	parser    *mimeParser
	entity    *mimeEntity
	delimiter []byte
	depth     int
	partType  string
	opening   []byte // the delimiter line of the part being read
}

// split reports whether all parts could be read.
func (s *multipartSplitter) split(body []byte) bool {
	start := 0 // of the section being read
	for pos := s.nextLine(body, 0); pos < len(body); {
		line, end, _ := cutLine(body[pos:])
		next := pos + len(line) + len(end)
		isDelimiter, isClosing := s.match(line)
		if isDelimiter {
			if s.parser.entities >= maxEntities {
				return false
			}
			before := max(start, pos-lineEndLen(body[:pos]))
			s.section(body[start:before], body[before:pos])
			if isClosing {
				s.entity.closing, s.entity.epilogue = body[pos:next], body[next:]
				return true
			}
			s.opening = body[pos:next]
			start = next
		}
		pos = s.nextLine(body, next)
	}
	s.section(body[start:], nil)
	return true
}

// nextLine returns the position of the next line that begins with the delimiter, from
// pos on; that of the end without one. A search for the delimiter is much faster than
// one for each line end, and each level of nested parts is searched anew.
func (s *multipartSplitter) nextLine(body []byte, pos int) int {
	for {
		i := bytes.Index(body[pos:], s.delimiter)
		if i < 0 {
			return len(body)
		}
		if pos += i; pos == 0 || body[pos-1] == '\n' || body[pos-1] == '\r' {
			return pos
		}
		pos++
	}
}

// lineEndLen returns the length of the line end that raw ends with.
func lineEndLen(raw []byte) int {
	if bytes.HasSuffix(raw, []byte("\r\r\n")) {
		return 3
	}
	if bytes.HasSuffix(raw, []byte("\r\n")) {
		return 2
	}
	return min(len(raw), 1)
}

// match reports whether line is a delimiter line, and a closing one. Blanks may follow
// the boundary (RFC 2046 §5.1.1). A close-delimiter counts only after a delimiter.
func (s *multipartSplitter) match(line []byte) (isDelimiter, isClosing bool) {
	rest, found := bytes.CutPrefix(line, s.delimiter)
	if !found {
		return false, false
	}
	rest, isClosing = bytes.CutPrefix(rest, []byte("--"))
	if len(bytes.TrimRight(rest, " \t")) > 0 || isClosing && s.opening == nil {
		return false, false
	}
	return true, isClosing
}

// section ends the preamble, or a part.
func (s *multipartSplitter) section(raw, lineEnd []byte) {
	if s.opening == nil {
		s.entity.preamble = raw[:len(raw)+len(lineEnd)] // adjacent in the message
		return
	}
	s.entity.parts = append(s.entity.parts, mimePart{
		delimiter:  s.opening,
		mimeEntity: s.parser.entity(raw, s.partType, s.depth+1),
		lineEnd:    lineEnd,
	})
}

// appendTo appends the entity, every line end as CRLF.
func (e *mimeEntity) appendTo(dst []byte) []byte {
	for _, f := range e.fields {
		if f.drop {
			continue
		}
		if f.text != nil {
			dst = append(dst, f.text...)
			continue
		}
		dst = appendCRLF(dst, f.raw)
	}
	if len(e.fields) > 0 && (e.gap != nil || len(e.added) > 0) {
		dst = endLine(dst)
	}
	for _, f := range e.added {
		dst = appendHeaderField(dst, f.Name, headerWords(f.Value))
	}
	if e.gap != nil || len(e.added) > 0 && len(e.body) > 0 {
		dst = append(dst, '\r', '\n')
	}
	if e.encoded != nil {
		return e.encoded.appendTo(dst)
	}
	if len(e.parts) == 0 {
		return appendCRLF(dst, e.body)
	}
	dst = appendCRLF(dst, e.preamble)
	for _, p := range e.parts {
		dst = appendCRLF(dst, p.delimiter)
		dst = p.appendTo(dst)
		dst = appendCRLF(dst, p.lineEnd)
	}
	return appendCRLF(appendCRLF(dst, e.closing), e.epilogue)
}

// size returns the octets that appendTo appends.
func (e *mimeEntity) size() int {
	n, endsLine := 0, true
	for _, f := range e.fields {
		switch {
		case f.drop:
		case f.text != nil:
			n, endsLine = n+len(f.text), bytes.HasSuffix(f.text, []byte("\r\n"))
		default:
			n, endsLine = n+crlfSize(f.raw), endsWithLine(f.raw)
		}
	}
	if len(e.fields) > 0 && (e.gap != nil || len(e.added) > 0) && !endsLine {
		n += len("\r\n")
	}
	for _, f := range e.added {
		n += len(appendHeaderField(nil, f.Name, headerWords(f.Value)))
	}
	if e.gap != nil || len(e.added) > 0 && len(e.body) > 0 {
		n += len("\r\n")
	}
	switch {
	case e.encoded != nil:
		return n + e.encoded.size
	case len(e.parts) == 0:
		return n + crlfSize(e.body)
	}
	n += crlfSize(e.preamble) + crlfSize(e.closing) + crlfSize(e.epilogue)
	for _, p := range e.parts {
		n += crlfSize(p.delimiter) + p.size() + crlfSize(p.lineEnd)
	}
	return n
}

// crlfSize returns the octets that appendCRLF appends.
func crlfSize(raw []byte) int {
	size, lone := len(raw), bytes.Count(raw, []byte("\r"))
	for {
		i := bytes.IndexByte(raw, '\n')
		if i < 0 {
			return size + lone
		}
		switch {
		case i >= 2 && raw[i-1] == '\r' && raw[i-2] == '\r': // one line end
			size--
			lone -= 2
		case i >= 1 && raw[i-1] == '\r':
			lone--
		default:
			size++
		}
		raw = raw[i+1:]
	}
}

func endsWithLine(raw []byte) bool {
	return len(raw) > 0 && (raw[len(raw)-1] == '\n' || raw[len(raw)-1] == '\r')
}

// renderBehind returns the message with its changes, and a line end at its end, behind some
// octets of room, in one buffer of its exact size. It asks for the message first.
func (e *mimeEntity) renderBehind(ctx context.Context, room int, reserve Reserve) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	size := e.size() + len("\r\n")
	if err := reserve.ask(size); err != nil {
		return nil, err
	}
	return endLine(e.appendTo(make([]byte, room, room+size))), nil
}

// appendCRLF appends raw with every CRLF, LF and CR as CRLF.
func appendCRLF(dst, raw []byte) []byte {
	for len(raw) > 0 {
		line, end, rest := cutLine(raw)
		dst = append(dst, line...)
		if len(end) > 0 {
			dst = append(dst, '\r', '\n')
		}
		raw = rest
	}
	return dst
}

// endLine appends a line end unless dst ends with one.
func endLine(dst []byte) []byte {
	if bytes.HasSuffix(dst, []byte("\r\n")) {
		return dst
	}
	return append(dst, '\r', '\n')
}
