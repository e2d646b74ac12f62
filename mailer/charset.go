package mailer

import (
	"errors"
	"io"
	"mime"
	"strings"
)

// asciiDecoder decodes encoded-words as far as ASCII goes: of charsets without a table
// here, every character beyond it becomes U+FFFD. It refuses charsets in which octets of
// ASCII are not characters of ASCII, or the reverse, such as UTF-7, UTF-16 and EBCDIC.
func asciiDecoder() *mime.WordDecoder {
	return &mime.WordDecoder{CharsetReader: func(charset string, in io.Reader) (io.Reader, error) {
		charset, _, _ = strings.Cut(strings.ToLower(charset), "*") // a language (RFC 2231 §5)
		read := asciiReaderOf(charset)
		if read == nil {
			return nil, errCharset
		}
		text, err := io.ReadAll(in) // an encoded-word of a field that is in memory
		return strings.NewReader(read(string(text))), err
	}}
}

var errCharset = errors.New("charset not known")

// asciiReaderOf returns what makes U+FFFD of a charset's characters beyond ASCII, or nil.
func asciiReaderOf(charset string) func(string) string {
	for _, family := range []struct {
		prefix string
		read   func(string) string
	}{
		{"iso-2022-", asciiOfISO2022},
		{"shift", asciiOfShiftJIS},
		{"sjis", asciiOfShiftJIS},
		{"x-sjis", asciiOfShiftJIS},
		{"windows-31j", asciiOfShiftJIS},
		{"cp932", asciiOfShiftJIS},
		{"big5", asciiOfPairs},
		{"gb", asciiOfPairs},
		{"x-gbk", asciiOfPairs},
		{"cp936", asciiOfPairs},
		{"ks_c_5601", asciiOfOctets}, // no @ is half of a character
		{"cp949", asciiOfOctets},
		{"euc-", asciiOfOctets},
		{"utf-8", strings.Clone},
		{"utf8", strings.Clone},
		{"us-ascii", asciiOfOctets},
		{"ascii", asciiOfOctets},
		{"iso-8859-", asciiOfOctets},
		{"windows-", asciiOfOctets},
		{"cp125", asciiOfOctets},
		{"koi8-", asciiOfOctets},
		{"tis-620", asciiOfOctets},
		{"macintosh", asciiOfOctets},
	} {
		if strings.HasPrefix(charset, family.prefix) {
			return family.read
		}
	}
	return nil
}

// asciiOfOctets reads charsets of one octet a character.
func asciiOfOctets(text string) string {
	return asciiOf(text, func(string) int { return 1 })
}

// asciiOfPairs reads charsets in which an octet over 0x80 begins a pair. The second one
// may be one of ASCII from 0x40 on: the @ is one half of a common character of Big5.
func asciiOfPairs(text string) string {
	return asciiOf(text, func(s string) int {
		if len(s) > 1 && s[0] > 0x80 && s[0] < 0xff && s[1] >= 0x40 {
			return 2
		}
		return 1
	})
}

// asciiOfShiftJIS is asciiOfPairs but for half-width Katakana, which are one octet each.
func asciiOfShiftJIS(text string) string {
	return asciiOf(text, func(s string) int {
		if len(s) > 1 && (s[0] > 0x80 && s[0] < 0xa0 || s[0] >= 0xe0 && s[0] < 0xfd) && s[1] >= 0x40 {
			return 2
		}
		return 1
	})
}

// asciiOf replaces the characters beyond ASCII; size tells how many octets the one has
// that a text begins with.
func asciiOf(text string, size func(string) int) string {
	var b strings.Builder
	for text != "" {
		n := 1
		if text[0] < 0x80 {
			b.WriteByte(text[0])
		} else {
			n = size(text)
			b.WriteString("\ufffd")
		}
		text = text[n:]
	}
	return b.String()
}

// asciiOfISO2022 reads ISO-2022-JP (RFC 1468): ESC ( begins characters of one octet, ESC $
// those of two, up to the end of the line for many programs. Control characters stay, and
// so do the octets behind an escape that not every program knows.
func asciiOfISO2022(text string) string {
	var b strings.Builder
	for i, piece := range strings.Split(text, "\x1b") {
		switch {
		case i == 0:
			b.WriteString(asciiOfOctets(piece))
		case strings.HasPrefix(piece, "(B"), strings.HasPrefix(piece, "(J"):
			b.WriteString(asciiOfOctets(piece[2:]))
		case (strings.HasPrefix(piece, "$B") || strings.HasPrefix(piece, "$@")) && isPairs(piece[2:]):
			b.WriteString(strings.Repeat("\ufffd", len(piece)/2-1))
		default:
			b.WriteString("\ufffd" + asciiOfOctets(piece))
		}
	}
	return b.String()
}

// isPairs reports whether text is printable ASCII, of an even length.
func isPairs(text string) bool {
	return len(text)%2 == 0 && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}
