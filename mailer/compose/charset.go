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
	charset := strings.ToLower(e.param("charset"))
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
		if octets, err := e.encoder.String(text); err == nil {
			return e, charset, octets
		}
	}
	return charsetEncoder{}, utf8Charset, text
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
