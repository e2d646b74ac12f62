package compose

import (
	"io"
	"mime"
	"strings"
	"unicode/utf8"

	"mailsidecar/mailer"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
)

// The charset of raw text in header fields: RFC 6532 allows UTF-8 alone, but programs
// write what their body has.
const (
	utf8Charset = "utf-8"
	// guessedCharset is that of text which is not UTF-8 where no part names one.
	guessedCharset = "iso-8859-1"
)

// charsetAliases are names that programs of Microsoft and Sun give to charsets.
var charsetAliases = map[string]string{
	"cp932": "shift_jis", "ms932": "shift_jis", "windows-932": "shift_jis", "eucjp": "euc-jp", "euc_jp": "euc-jp",
	"cp936": "gbk", "ms936": "gbk", "windows-936": "gbk", "euc-cn": "gbk", "cp54936": "gb18030",
	"cp949": "euc-kr", "ms949": "euc-kr", "uhc": "euc-kr", "euckr": "euc-kr",
	"cp950": "big5", "ms950": "big5", "windows-950": "big5", "cp874": "windows-874", "utf8": utf8Charset, "utf_8": utf8Charset,
}

func canonicalCharset(name string) string {
	if alias, ok := charsetAliases[name]; ok {
		return alias
	}
	return name
}

// namedCharset returns the encoding of that name. It returns false where the name says
// nothing about octets over 127.
func namedCharset(name string) (encoding.Encoding, bool) {
	name = canonicalCharset(name)
	switch {
	case name == "" || len(name) > 40 || !isAtoms(name) || strings.ContainsAny(name, " *?="):
		return nil, false
	case strings.HasPrefix(name, "utf-"), strings.HasPrefix(name, "iso-2022-"), strings.HasPrefix(name, "hz-"),
		strings.HasSuffix(name, "ascii"), strings.HasPrefix(name, "ansi_x3"), strings.Contains(name, "unknown"), name == "x-user-defined", name == "binary":
		return nil, false
	}
	if e, err := htmlindex.Get(name); err == nil {
		return e, true
	}
	return charmap.ISO8859_1, true // which keeps the octets
}

// headerCharset returns the charset of raw header text that is not UTF-8: that of the
// entity, or of its first text part; guessedCharset without one.
func (e *mimeEntity) headerCharset() string {
	if charset, ok := e.textCharset(); ok {
		return charset
	}
	return guessedCharset
}

// textCharset returns the charset of the first text in the entity that names one, in
// lower case. Attached messages have a charset of their own.
func (e *mimeEntity) textCharset() (string, bool) {
	charset := strings.Trim(strings.ToLower(e.param("charset")), "' ")
	if canonicalCharset(charset) == utf8Charset {
		return utf8Charset, true
	}
	if _, ok := namedCharset(charset); ok {
		return charset, true
	}
	if isMessageType(e.mediaType) {
		return "", false
	}
	for _, p := range e.parts {
		if !isText(p.mediaType) && !strings.HasPrefix(p.mediaType, "multipart/") {
			continue
		}
		if charset, ok := p.textCharset(); ok {
			return charset, true
		}
	}
	return "", false
}

// headerText is the value of a header field as UTF-8.
type headerText struct {
	text    string
	charset string // to encode it in
	// foreign says that the value was not UTF-8: then only text for people may hold
	// characters beyond ASCII, because what identifies something is not guessed.
	foreign bool
}

// readText reads raw header text: as UTF-8 where it is, else in the charset.
func readText(charset, raw string) headerText {
	if utf8.ValidString(raw) {
		return headerText{text: raw, charset: utf8Charset}
	}
	if charset == utf8Charset {
		// A character may have been cut in its middle.
		if text := strings.ToValidUTF8(raw, ""); !mailer.IsASCII(text) {
			return headerText{strings.ToValidUTF8(raw, string(utf8.RuneError)), utf8Charset, true}
		}
		charset = guessedCharset
	}
	return headerText{decodeCharset(charset, raw), charset, true}
}

// decodeCharset returns raw as UTF-8. Octets that are no character are U+FFFD.
func decodeCharset(charset, raw string) string {
	e, ok := namedCharset(charset)
	if !ok {
		e = charmap.ISO8859_1
	}
	text, err := e.NewDecoder().String(raw)
	if err != nil {
		text = raw
	}
	return strings.ToValidUTF8(text, string(utf8.RuneError))
}

// charsetEncoder writes single characters in a charset.
type charsetEncoder struct {
	encoder *encoding.Encoder // nil: UTF-8
	src     [utf8.UTFMax]byte
	dst     [16]byte
}

// newCharsetEncoder returns an encoder for text, and the charset that it writes: UTF-8
// where the text cannot be written in charset.
func newCharsetEncoder(charset, text string) (e charsetEncoder, used, octets string) {
	if named, ok := namedCharset(charset); ok && charset != utf8Charset {
		e.encoder = named.NewEncoder()
		if octets, err := e.encoder.String(text); err == nil && !isExtended(charset, octets) {
			return e, charset, octets
		}
	}
	return charsetEncoder{}, utf8Charset, text
}

// isExtended reports whether octets hold characters that the charset of that name has only
// in the table that Web browsers read it by, which is that of Windows. Other readers have
// none there.
func isExtended(charset, octets string) bool {
	single, extended := pairsOf(charset)
	for i := 0; i < len(octets); i++ {
		switch lead := octets[i]; {
		case lead < 0x80 || single(lead):
		case i+1 == len(octets) || extended(lead, octets[i+1]):
			return true
		default:
			i++
		}
	}
	return false
}

// pairsOf returns which octets over 0x7f are characters by themselves in a charset, and
// which pairs of the others its own standard lacks.
func pairsOf(charset string) (single func(byte) bool, extended func(lead, trail byte) bool) {
	never := func(byte) bool { return false }
	switch {
	case strings.HasPrefix(charset, "iso-8859-"), strings.HasPrefix(charset, "iso8859-"), charset == "latin1", charset == "tis-620":
		return func(c byte) bool { return c > 0x9f }, func(byte, byte) bool { return true }
	case strings.HasPrefix(charset, "gb2312"), strings.HasPrefix(charset, "gb_2312"), charset == "euc-cn":
		return never, func(lead, trail byte) bool {
			return lead < 0xa1 || lead > 0xf7 || trail < 0xa1 || 0xaa <= lead && lead <= 0xaf || lead == 0xa2 && trail < 0xb1 || lead == 0xa6 && trail > 0xdf
		}
	case strings.HasPrefix(charset, "ks"), strings.HasPrefix(charset, "euc-kr"), charset == "euckr":
		return never, func(lead, trail byte) bool { return lead < 0xa1 || trail < 0xa1 }
	case strings.HasPrefix(charset, "shift"), charset == "sjis", charset == "x-sjis":
		return func(c byte) bool { return 0xa0 < c && c < 0xe0 }, func(lead, _ byte) bool { return lead == 0x87 || lead > 0xec }
	case charset == "big5":
		return never, func(lead, trail byte) bool {
			return lead < 0xa1 || lead > 0xf9 || lead == 0xf9 && trail > 0xd5 || lead == 0xc6 && trail > 0x7e || lead == 0xc7 || lead == 0xc8
		}
	}
	return func(byte) bool { return true }, nil
}

// size returns the length of the character in octets.
func (e *charsetEncoder) size(r rune) int {
	if e.encoder == nil || r < utf8.RuneSelf {
		return utf8.RuneLen(r)
	}
	e.encoder.Reset()
	n, _, err := e.encoder.Transform(e.dst[:], utf8.AppendRune(e.src[:0], r), true)
	if err != nil {
		return 1 // cannot be: the text as a whole was encoded
	}
	return n
}

// decodeText decodes raw text and the encoded-words of a field, for people to read.
func decodeText(charset, raw string) string {
	text := readText(charset, raw).text
	d := mime.WordDecoder{CharsetReader: func(charset string, r io.Reader) (io.Reader, error) {
		e, err := htmlindex.Get(canonicalCharset(strings.ToLower(charset)))
		if err != nil {
			return nil, err
		}
		return e.NewDecoder().Reader(r), nil
	}}
	if decoded, err := d.DecodeHeader(text); err == nil {
		return strings.ToValidUTF8(decoded, string(utf8.RuneError))
	}
	return text
}
