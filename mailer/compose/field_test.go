package compose

import (
	"errors"
	"strings"
	"testing"
)

// TestAddressFieldWords: only names and comments are encoded, and only domains become
// A-labels.
func TestAddressFieldWords(t *testing.T) {
	tests := []struct{ in, want string }{
		{"Jörg Bär <j@b>, a@b", "=?utf-8?q?J=C3=B6rg_B=C3=A4r?= <j@b>, a@b"},
		{`"Bär, Jörg" "x" <j@b>`, "=?utf-8?q?B=C3=A4r=2C_J=C3=B6rg_x?= <j@b>"},
		{`Jörg Bär <"ü> \" x"@b>`, `=?utf-8?q?J=C3=B6rg_B=C3=A4r?= <"ü> \" x"@b>`},
		{"jörg@bär.example, Ana <ana@b>", "jörg@xn--br-via.example, Ana <ana@b>"},
		{"j@Bär.example", "j@xn--br-via.example"},
		{"J <j@bär.example>,k@BÄR.example", "J <j@xn--br-via.example>, k@xn--br-via.example"},
		{"Bär <j@bär.example> (@bär.example)", "=?utf-8?q?B=C3=A4r?= <j@xn--br-via.example> (=?utf-8?q?=40b=C3=A4r=2Eexample?=)"},
		{"Alle: j@bär.example, <k@bär.example>;", "Alle : j@xn--br-via.example, <k@xn--br-via.example>;"},
		{`"a@bär b"@bär.example, <"a@bär"@bär.example>`, `"a@bär b"@xn--br-via.example, <"a@bär"@xn--br-via.example>`},
		{"<@bär.example:j@bär.example>", "<@xn--br-via.example:j@xn--br-via.example>"},
		{"<j@bär.example (ö)>", "<j@xn--br-via.example (ö)>"},
		{"\u00a0j@bär.example\u3000, <\u2003k@x\u00a0>", "j@xn--br-via.example, <k@x>"},
		{"j@bär。example, j@" + strings.Repeat("bär", 400), "j@xn--br-via.example, j@" + strings.Repeat("bär", 400)},
		{"j@bä\u200br.example, j@-bär.example, j@bär..example, j@", "j@bä\u200br.example, j@-bär.example, j@bär..example, j@"},
		{`"j ö"@b, c@d`, `"j ö"@b, c@d`},
		{`"j ö"@b`, `"j ö"@b`},
		{"j@b (Jörg (Bär) und so)", "j@b (=?utf-8?q?J=C3=B6rg_=28B=C3=A4r=29_und_so?=)"},
		{`j@b (plain \) text), <c@d> (ö unendlich langer Text`, `j@b (plain \) text), <c@d> (=?utf-8?q?=C3=B6_unendlich_langer_Text?=)`},
		{"Größe aller: a@b, c@d;", "=?utf-8?q?Gr=C3=B6=C3=9Fe_aller?= : a@b, c@d;"},
		{`Jörg "offen <a@b`, `=?utf-8?q?J=C3=B6rg_=22offen?= <a@b`},
		{", ü@b", ", ü@b"},
	}
	for _, tt := range tests {
		words, _ := (&rawField{name: "To"}).addressWords(headerText{text: tt.in, charset: utf8Charset})
		if got := strings.TrimPrefix(strings.Join(words, ""), " "); got != tt.want {
			t.Errorf("addressWords(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestCheckLines(t *testing.T) {
	tests := []struct {
		in   string
		want error
	}{
		{"", nil},
		{"a\r\n\r\n", nil},
		{strings.Repeat("x", 998) + "\r\n", nil},
		{strings.Repeat("x", 999) + "\r\n", errLongLine},
		{"a\x00\r\n", errNUL},
		{"a\n", errLineEnd},
		{"\n", errLineEnd},
		{"a\rb\r\n", errLineEnd},
		{"a\r\r\n", errLineEnd},
		{"a\r\nb", errNoEnd},
		{"a\r\nb\r", errNoEnd},
	}
	for _, tt := range tests {
		if got := checkLines([]byte(tt.in)); !errors.Is(got, tt.want) {
			t.Errorf("checkLines(%.20q) = %v, want %v", tt.in, got, tt.want)
		}
	}
}

func TestParseParams(t *testing.T) {
	tests := []struct{ in, mediaType, params string }{
		{"text/plain", "text/plain", ""},
		{"Text/HTML; Charset=UTF-8;", "text/html", "charset=UTF-8 "},
		{`multipart/mixed; boundary="a; b\"c" ; x = y`, "multipart/mixed", `boundary=a; b"c x=y `},
		{"multipart/mixed; boundary=----=_Part_2; type", "multipart/mixed", "boundary=----=_Part_2 "},
		{`a/b (comment; x=1); y="open`, "a/b", `y="open `},
		{"", "", ""},
	}
	for _, tt := range tests {
		mediaType, params, _ := parseParams(tt.in)
		got := ""
		for _, p := range params {
			got += p.name + "=" + p.value + " "
		}
		if mediaType != tt.mediaType || got != tt.params {
			t.Errorf("parseParams(%q) = %q, %q, want %q, %q", tt.in, mediaType, got, tt.mediaType, tt.params)
		}
	}
}
