package compose

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"mailsidecar/mailer"
)

// entityFixer encodes anew what SMTP cannot carry as it is.
type entityFixer struct {
	*growth
	charset  string // of raw header text that is not UTF-8
	sevenBit bool   // 8-bit text cannot be carried either: the relay lacks 8BITMIME
	signed   bool   // a signature covers the entity
	label    bool   // text in UTF-8 that names no charset gets one
	checked  bool   // the signed octets have no bare CR
	depth    int    // number of attached messages around the entity
}

// fix plans the changes to the entity and the entities in it. It leaves the header
// section alone, except the fields that describe the encoding.
func (x entityFixer) fix(e *mimeEntity) error {
	if e.mediaType == "multipart/signed" {
		x.signed = true
	}
	if x.signed && !x.checked {
		if hasLoneCR(e.body) {
			return conversionRefused("a bare CR stands in the signed message")
		}
		x.checked = true
	}
	if err := x.Err(); err != nil {
		return err
	}
	switch {
	case e.opaque:
		return x.fixOpaque(e)
	case len(e.parts) == 0:
		return x.fixLeaf(e)
	}
	if err := x.fixSurroundings(e); err != nil {
		return err
	}
	if isMessageType(e.mediaType) {
		x.depth++
	}
	for _, p := range e.parts {
		if err := x.fixPart(p.mimeEntity); err != nil {
			return err
		}
	}
	if x.sevenBit && !x.signed && e.encoding != "" && e.encoding != "7bit" {
		return x.setField(e, "Content-Transfer-Encoding", "7bit")
	}
	return nil
}

// fixPart plans the changes to a part, or to an attached message.
func (x entityFixer) fixPart(e *mimeEntity) error {
	if charset, ok := e.textCharset(); ok {
		x.charset = charset
	} else if e.isMessage {
		x.charset = guessedCharset
	}
	if err := x.fixFields(e); err != nil {
		return err
	}
	return x.fix(e)
}

// unfit reports whether SMTP cannot carry raw as it is.
func (x entityFixer) unfit(raw []byte) bool {
	return bytes.IndexByte(raw, 0) >= 0 || hasLongLine(raw) || x.sevenBit && hasEightBit(raw)
}

// refuse returns why an entity that would have to change cannot be changed.
func (x entityFixer) refuse(what string) error {
	return x.refusal("a "+what+" holds a NUL or a line over 998 octets and cannot be encoded anew", what)
}

// refuseFor returns err as a refusal where it is a limit of the conversion.
func (x entityFixer) refuseFor(err error, what string) error {
	if !isLimit(err) {
		return err
	}
	return x.refusal("in a "+what+": "+err.Error(), what+" so large")
}

// refusal returns why a message is refused: text at the door, else one about what
// would have to change.
func (x entityFixer) refusal(text, what string) error {
	switch {
	case x.signed:
		return conversionRefused("a signed " + what + " would have to change")
	case x.sevenBit:
		return conversionRefused("the relay lacks 8BITMIME, and a " + what + " cannot be converted")
	default:
		return &mailer.InvalidError{Fields: []mailer.FieldError{{
			Position: whole("message"), Message: text,
		}}}
	}
}

// fixOpaque accepts an entity of doubtful structure only as it is.
func (x entityFixer) fixOpaque(e *mimeEntity) error {
	if x.unfit(e.body) {
		return x.refuse("part of doubtful structure")
	}
	return nil
}

// fixSurroundings drops a preamble or epilogue that SMTP cannot carry: no reader
// shows them. A delimiter line that is too long has blanks at its end.
func (x entityFixer) fixSurroundings(e *mimeEntity) error {
	for _, raw := range []*[]byte{&e.preamble, &e.epilogue} {
		if !x.unfit(*raw) {
			continue
		}
		if x.signed {
			return x.refuse("preamble or epilogue")
		}
		*raw = nil
	}
	lines := []*[]byte{&e.closing}
	for i := range e.parts {
		lines = append(lines, &e.parts[i].delimiter)
	}
	for _, line := range lines {
		if !x.unfit(*line) {
			continue
		}
		if x.signed {
			return x.refuse("delimiter")
		}
		*line = append(bytes.TrimRight(*line, " \t\r\n"), '\r', '\n')
	}
	return nil
}

// fixFields rewrites the fields of a part or of an attached message that SMTP cannot
// carry. It also encodes raw 8-bit text in the fields of a part, unless a signature
// covers them or they belong to an attached message.
func (x entityFixer) fixFields(e *mimeEntity) error {
	for _, f := range e.fields {
		if !x.signed && x.depth == 0 {
			f.tidyName()
		}
		if bytes.IndexByte(f.raw, 0) >= 0 {
			return malformedMessage(whole("message"), "NUL is not allowed in a part's header section")
		}
		must := hasLongLine(f.raw) || x.sevenBit && f.needsASCII()
		may := f.needsASCII() && !x.signed && x.depth == 0
		if !must && !may {
			continue
		}
		if x.signed {
			return x.refuse("part's header section")
		}
		if err := x.rewrite(f, x.charset); err != nil {
			return x.refuseFor(err, "part's field "+printableName(f.name))
		}
		if !f.foldable() || x.sevenBit && hasEightBit(f.written()) {
			return x.refuse("part's header section")
		}
	}
	return nil
}

// fixLeaf encodes the body of a leaf where SMTP cannot carry it.
func (x entityFixer) fixLeaf(e *mimeEntity) error {
	own := isIdentity(e.encoding) && !isText(e.mediaType) && hasLoneCR(e.body) || e.encoding == "binary" && e.losesOctets()
	if !own && !x.unfit(e.body) {
		return x.labelText(e)
	}
	if x.signed {
		return x.refuse("part")
	}
	switch {
	case e.mediaType == "message/partial" || e.mediaType == "message/external-body":
		return x.refuse(e.mediaType + " part") // RFC 2046 §5.2 allows no encoding
	case e.encoding == "base64":
		e.encoded = rewrappedBase64(e.body)
	case e.encoding == "quoted-printable":
		e.encoded = rewrappedQuotedPrintable(e.body)
	case isIdentity(e.encoding):
		if err := x.encode(e, own); err != nil {
			return err
		}
	default:
		return x.refuse("part in an unknown encoding")
	}
	return x.refuseFor(x.replace(len(e.body), e.encoded.size), "part")
}

// labelText adds the charset to 8-bit text in UTF-8 that names none, and the other MIME
// fields to a message that has none. Text in another charset is left alone: readers
// guess as well.
func (x entityFixer) labelText(e *mimeEntity) error {
	if !x.label || x.signed || x.depth > 0 || !isIdentity(e.encoding) || !e.lacksCharset() || !utf8.Valid(e.body) {
		return nil
	}
	before := e.headerSize()
	if !e.addCharset(utf8Charset) {
		return nil
	}
	if e.isMessage {
		e.addMissing("MIME-Version", "1.0")
		e.addMissing("Content-Transfer-Encoding", "8bit")
	}
	return x.refuseFor(x.replace(before, e.headerSize()), "part")
}

// lacksCharset reports whether the entity is 8-bit text of an unknown charset.
func (e *mimeEntity) lacksCharset() bool {
	return strings.HasPrefix(e.mediaType, "text/") && hasEightBit(e.body) &&
		!slices.ContainsFunc(e.params, func(p mimeParam) bool { return strings.HasPrefix(p.name, "charset") })
}

// addCharset names the charset of the text. It returns false where the field is too
// strange to add to.
func (e *mimeEntity) addCharset(charset string) bool {
	i := slices.IndexFunc(e.fields, func(f *rawField) bool { return f.key == "content-type" })
	if i < 0 {
		e.added = append(e.added, mailer.Field{Name: "Content-Type", Value: e.mediaType + "; charset=" + charset})
		return true
	}
	f := e.fields[i]
	_, value, _ := strings.Cut(string(f.written()), ":")
	value = strings.TrimRight(strings.Trim(unfold([]byte(value)), " \t"), "; \t") + "; charset=" + charset
	mediaType, params, _ := parseParams(value)
	if mediaType != e.mediaType || len(params) == 0 || params[len(params)-1].value != charset {
		return false
	}
	text := appendHeaderField(nil, f.name, headerWords(value))
	if hasLongLine(text) {
		return false
	}
	f.text = text
	return true
}

func (e *mimeEntity) addMissing(name, value string) {
	if !e.hasField(strings.ToLower(name)) {
		e.added = append(e.added, mailer.Field{Name: name, Value: value})
	}
}

// headerSize returns the octets of the header section.
func (e *mimeEntity) headerSize() int {
	n := 0
	for _, f := range e.fields {
		n += len(f.written())
	}
	for _, f := range e.added {
		n += len(f.Name) + len(": ") + len(f.Value) + len("\r\n")
	}
	return n
}

// encodedBody is a body that is encoded when the message is written: its octets are
// made in their place, once their number is known.
type encodedBody struct {
	size     int
	appendTo func(dst []byte) []byte
}

// isText reports whether every CR and LF in such an entity is a line end: in text,
// and in reports such as message/delivery-status.
func isText(mediaType string) bool {
	return strings.HasPrefix(mediaType, "text/") || strings.HasPrefix(mediaType, "message/") || !strings.Contains(mediaType, "/")
}

// encode encodes a leaf that had no encoding: as quoted-printable where it is text,
// which stays readable, else as base64. own says that its CRs and LFs are its own, not
// line ends.
func (x entityFixer) encode(e *mimeEntity, own bool) error {
	encoding := "base64"
	switch {
	case own || !isText(e.mediaType) || e.isWide():
		e.encoded = &encodedBody{base64Size(len(e.body)), func(dst []byte) []byte { return appendBase64(dst, e.body) }}
	case bytes.IndexByte(e.body, 0) >= 0:
		e.encoded = &encodedBody{base64Size(crlfSize(e.body)), func(dst []byte) []byte { return appendBase64Lines(dst, e.body) }}
	default:
		encoding = "quoted-printable"
		e.encoded = &encodedBody{quotedSize(e.body), func(dst []byte) []byte { return appendQuoted(dst, e.body) }}
	}
	added := len(e.added)
	e.describeEncoded()
	for _, f := range e.added[added:] {
		if err := x.replace(0, len(f.Name)+len(": ")+len(f.Value)+len("\r\n")); err != nil {
			return x.refuseFor(err, "part")
		}
	}
	return x.setField(e, "Content-Transfer-Encoding", encoding)
}

// losesOctets reports whether the body has octets that are no line end where it has
// them, and would become one: a CR, or in a part whose header section has CRLF an LF.
func (e *mimeEntity) losesOctets() bool {
	pairs := bytes.Count(e.body, []byte("\r\n"))
	return hasLoneCR(e.body) || bytes.HasSuffix(e.gap, []byte("\r\n")) && bytes.Count(e.body, []byte("\n")) > pairs
}

// isWide reports whether the text has two or four octets a character, so that an
// octet CR or LF may be half a character.
func (e *mimeEntity) isWide() bool {
	charset := strings.ToLower(e.param("charset"))
	return strings.HasPrefix(charset, "utf-16") || strings.HasPrefix(charset, "utf-32")
}

// describeEncoded adds the other fields that an encoding needs: MIME-Version in
// a message, and a Content-Type for text beyond ASCII. Where that is not UTF-8, its
// charset is unknown (RFC 1428 §3).
func (e *mimeEntity) describeEncoded() {
	if e.isMessage {
		e.addMissing("MIME-Version", "1.0")
	}
	switch {
	case !e.lacksCharset():
	case utf8.Valid(e.body):
		e.addCharset(utf8Charset)
	case !e.hasField("content-type"):
		e.addCharset("unknown-8bit")
	}
}

func (e *mimeEntity) hasField(key string) bool {
	for _, f := range e.fields {
		if f.key == key {
			return true
		}
	}
	return false
}

// setField replaces the value of a field, or adds the field.
func (x entityFixer) setField(e *mimeEntity, name, value string) error {
	before := 0
	text := appendHeaderField(nil, name, headerWords(value))
	i := slices.IndexFunc(e.fields, func(f *rawField) bool { return f.key == strings.ToLower(name) })
	if i < 0 {
		e.added = append(e.added, mailer.Field{Name: name, Value: value})
	} else {
		f := e.fields[i]
		before = len(f.written())
		text = appendHeaderField(nil, f.name, headerWords(value))
		f.text = text
	}
	return x.refuseFor(x.replace(before, len(text)), "part")
}

// appendBase64Lines appends the base64 of what appendCRLF makes of text.
func appendBase64Lines(dst, text []byte) []byte {
	// So many octets at a time are whole lines of base64.
	const block = 64 * base64Line
	buf := make([]byte, 0, 2*block)
	for len(text) > 0 {
		n := min(len(text), block/2) // which has twice as many octets at most
		for n < len(text) && text[n-1] == '\r' && (text[n] == '\n' || bytes.HasPrefix(text[n:], []byte("\r\n"))) {
			n++
		}
		buf = appendCRLF(buf, text[:n])
		text = text[n:]
		for len(text) > 0 && len(buf) > base64Line {
			whole := (len(buf) - 1) / base64Line * base64Line // one line at least is left
			dst = append(appendBase64(dst, buf[:whole]), '\r', '\n')
			buf = append(buf[:0], buf[whole:]...)
		}
	}
	return appendBase64(dst, buf)
}

// rewrappedBase64 breaks base64 into lines of 76 characters. It drops characters outside
// the alphabet, as readers do (RFC 2045 §6.8).
func rewrappedBase64(body []byte) *encodedBody {
	n := 0
	for _, c := range body {
		if isBase64(c) {
			n++
		}
	}
	return &encodedBody{n + max(n-1, 0)/76*len("\r\n"), func(dst []byte) []byte {
		col := 0
		for _, c := range body {
			if !isBase64(c) {
				continue
			}
			if col == 76 {
				dst = append(dst, '\r', '\n')
				col = 0
			}
			dst = append(dst, c)
			col++
		}
		return dst
	}}
}

func isBase64(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '/' || c == '='
}

// rewrappedQuotedPrintable encodes the octets that quoted-printable should have encoded
// and breaks long lines softly (RFC 2045 §6.7).
func rewrappedQuotedPrintable(body []byte) *encodedBody {
	size := 0
	rewrapQuoted(body, func(piece []byte) { size += len(piece) })
	return &encodedBody{size, func(dst []byte) []byte {
		rewrapQuoted(body, func(piece []byte) { dst = append(dst, piece...) })
		return dst
	}}
}

func rewrapQuoted(body []byte, write func([]byte)) {
	for len(body) > 0 {
		line, end, rest := cutLine(body)
		rewrapQuotedLine(line, write)
		if len(end) > 0 {
			write([]byte("\r\n"))
		}
		body = rest
	}
}

func rewrapQuotedLine(line []byte, write func([]byte)) {
	// Blanks at the end of an encoded line are no content.
	line = bytes.TrimRight(line, " \t")
	var escaped [len("=XX")]byte
	col := 0
	for len(line) > 0 {
		n := 1
		if len(line) > 2 && line[0] == '=' && isHex(line[1]) && isHex(line[2]) {
			n = 3
		}
		unit := line[:n]
		if c := line[0]; c == 0 || c >= utf8.RuneSelf {
			escaped = [...]byte{'=', upperHex[c>>4], upperHex[c&15]}
			unit = escaped[:]
		}
		if col+len(unit) > maxQuotedLine && len(line) > n {
			write([]byte("=\r\n"))
			col = 0
		}
		write(unit)
		col += len(unit)
		line = line[n:]
	}
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' || 'a' <= c && c <= 'f'
}
