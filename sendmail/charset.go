package sendmail

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// In Shift_JIS, Big5 and GBK the second octet of a character may be a backslash, a bracket or
// an @ of ASCII. So that none of them is taken for one, each such character of a field that
// is not UTF-8 becomes one rune while the field is read and written. The rune is of a
// plane for private use, from firstPair on; the octets are its last 16 bits.
const (
	firstPair rune = 0x100000
	lastPair  rune = firstPair + 0xffff
)

// doubleOctets has the charsets in which the second octet of a character may be of ASCII, and
// which octets begin a character. UHC (EUC-KR) is not among them: its are letters.
var doubleOctets = map[string]func(c byte) bool{
	"shift_jis": beginsShiftJIS, "shift-jis": beginsShiftJIS, "sjis": beginsShiftJIS, "x-sjis": beginsShiftJIS, "csshiftjis": beginsShiftJIS,
	"ms_kanji": beginsShiftJIS, "windows-31j": beginsShiftJIS, "cp932": beginsShiftJIS, "ms932": beginsShiftJIS, "windows-932": beginsShiftJIS,
	"big5": beginsPair, "big5-hkscs": beginsPair, "cn-big5": beginsPair, "csbig5": beginsPair, "cp950": beginsPair, "ms950": beginsPair, "windows-950": beginsPair,
	"gbk": beginsPair, "x-gbk": beginsPair, "gb2312": beginsPair, "gb_2312-80": beginsPair, "gb18030": beginsPair, "cp936": beginsPair, "ms936": beginsPair, "windows-936": beginsPair, "cp54936": beginsPair,
}

func beginsShiftJIS(c byte) bool { return 0x81 <= c && c <= 0x9f || 0xe0 <= c && c <= 0xfc }

func beginsPair(c byte) bool { return 0x81 <= c && c <= 0xfe }

// joinPairs makes one rune of each character of two octets, in the fields that are not UTF-8.
func (m *message) joinPairs() {
	var begins func(byte) bool
	for i := range m.fields {
		f := &m.fields[i]
		if utf8.ValidString(f.raw) {
			continue
		}
		if begins == nil {
			if begins = doubleOctets[m.charset()]; begins == nil {
				return
			}
		}
		f.raw, f.joined = joinPairs(f.raw, begins), true
	}
}

func joinPairs(text string, begins func(byte) bool) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if c := text[i]; i+1 == len(text) || !begins(c) || text[i+1] < 0x40 || text[i+1] == 0x7f || text[i+1] == 0xff {
			b.WriteByte(c)
			continue
		}
		b.WriteRune(firstPair | rune(text[i])<<8 | rune(text[i+1]))
		i++
	}
	return b.String()
}

// splitPairs undoes joinPairs.
func splitPairs(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if isPair(r) {
			b.Write([]byte{byte(r >> 8), byte(r)})
		} else {
			b.WriteString(text[:size])
		}
		text = text[size:]
	}
	return b.String()
}

func isPair(r rune) bool { return firstPair <= r && r <= lastPair }

// maxCharsetSearch limits the search for the charset of a part, in octets of the body.
const maxCharsetSearch = 256 << 10

// charset returns the charset of the message, or in a multipart that of the first text that
// names one, in lower case. It is empty without one.
func (m *message) charset() string {
	kind := strings.ToLower(m.value("Content-Type"))
	if charset := charsetOf(kind); charset != "" || !strings.HasPrefix(kind, "multipart/") {
		return charset
	}
	body := bytes.ReplaceAll(m.body[:min(len(m.body), maxCharsetSearch)], []byte("\r"), nil)
	for line := range strings.SplitSeq(strings.NewReplacer("\n ", " ", "\n\t", " ").Replace(string(body)), "\n") {
		line = strings.ToLower(line)
		if value, ok := strings.CutPrefix(line, "content-type:"); ok && strings.HasPrefix(strings.TrimSpace(value), "text/") {
			if charset := charsetOf(value); charset != "" {
				return charset
			}
		}
	}
	return ""
}

// charsetOf returns the parameter charset of a Content-Type in lower case.
func charsetOf(value string) string {
	for parameter := range strings.SplitSeq(value, ";") {
		if name, charset, ok := strings.Cut(parameter, "="); ok && strings.TrimSpace(name) == "charset" {
			return strings.Trim(strings.TrimSpace(charset), `"'`)
		}
	}
	return ""
}
