package mailer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"
)

func TestParseAddress(t *testing.T) {
	tests := []struct {
		in   string
		want Address
	}{
		{"a@example.com", Address{Email: "a@example.com"}},
		{" a@example.com ", Address{Email: "a@example.com"}},
		{"<a@example.com>", Address{Email: "a@example.com"}},
		{"Ana <ana@example.org>", Address{"Ana", "ana@example.org"}},
		{`"Doe, John" <j@example.org>`, Address{"Doe, John", "j@example.org"}},
		{`John "Joe" Doe <j@example.org>`, Address{`John "Joe" Doe`, "j@example.org"}},
		{`"John \"Joe\" Doe" <j@example.org>`, Address{`John "Joe" Doe`, "j@example.org"}},
		{`"a \\ b" <j@example.org>`, Address{`a \ b`, "j@example.org"}},
		{"Dr. J. O'Neil (Sales) <j@example.org>", Address{"Dr. J. O'Neil (Sales)", "j@example.org"}},
		{"日本 太郎 <taro@example.jp>", Address{"日本 太郎", "taro@example.jp"}},
		{"=?utf-8?Q?J=C3=B6rg?= <j@example.org>", Address{"=?utf-8?Q?J=C3=B6rg?=", "j@example.org"}},
		{"j@Bücher.example", Address{Email: "j@xn--bcher-kva.example"}},
		{"user@localhost", Address{Email: "user@localhost"}},
		{"a+b!#$%&'*/=?^_`{|}~-@Example.COM", Address{Email: "a+b!#$%&'*/=?^_`{|}~-@Example.COM"}},
		{"jörg@example.org", Address{Email: "jörg@example.org"}},
		{"用户@例子.公司", Address{Email: "用户@xn--fsqu00a.xn--55qx5d"}},
		{"a@[192.0.2.1]", Address{Email: "a@[192.0.2.1]"}},
		{"a@[ipv6:2001:DB8::1]", Address{Email: "a@[IPv6:2001:db8::1]"}},
		{`"plain"@example.org`, Address{Email: "plain@example.org"}},
		{`"a b"@example.org`, Address{Email: `"a b"@example.org`}},
		{`"a> RCPT"@example.org`, Address{Email: `"a> RCPT"@example.org`}},
		{`X <"a,b@c\"d"@example.org>`, Address{"X", `"a,b@c\"d"@example.org`}},
		{"a@x_y.test", Address{Email: "a@x_y.test"}},
		{"a..b@docomo.test", Address{Email: "a..b@docomo.test"}},
		{".a@docomo.test", Address{Email: ".a@docomo.test"}},
		{"Taro <a.@docomo.test>", Address{"Taro", "a.@docomo.test"}},
		{`"a..b"@docomo.test`, Address{Email: "a..b@docomo.test"}},
		{"\u3000a@b\u00a0", Address{Email: "a@b"}},
		{"क्\u200dष@नामक्\u200dष.test", Address{Email: "क्\u200dष@xn--11b1bs1b6a6f215r.test"}},
		{strings.Repeat("l", 242) + "@example.org", Address{Email: strings.Repeat("l", 242) + "@example.org"}},
	}
	for _, tt := range tests {
		got, err := ParseAddress(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseAddress(%q) = %+v, %v, want %+v", tt.in, got, err, tt.want)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	tests := []struct {
		in        string
		malformed bool
	}{
		{"", false},
		{" ", false},
		{"a", false},
		{"@", false},
		{"a@", false},
		{"@b", false},
		{"<>", false},
		{"a@b, c@d", false},
		{"a@b c@d", false},
		{"a b@c", false},
		{"Doe, John <j@example.org>", false},
		{"Group: a@b;", false},
		{"undisclosed-recipients:;", false},
		{"a@b;", false},
		{"a@b\r\nBcc: c@d", true},
		{"A\nB <a@b>", true},
		{"a\x00@b", true},
		{"a@b\xff", true},
		{"A\tB <a@b>", false},
		{"a\x1b@b", false},
		{"a@b\x7f", false},
		{"a@-x.test", false},
		{"a@x-.test", false},
		{"a@.test", false},
		{"a@test.", false},
		{"a@x..test", false},
		{"a@x y.test", false},
		{"a@(c)test", false},
		{"a@xn--\u00fc.test", false},
		{".@b", false},
		{"..@b", false},
		{"a..@", false},
		{"a(b)@c", false},
		{"a,b@c", false},
		{`a"b@c`, false},
		{`"a@b`, false},
		{`"a"b@c`, false},
		{`""@c`, false},
		{"<a@b", false},
		{"a@b>", false},
		{"<a@b> x", false},
		{"<<a@b>>", false},
		{"< a@b >", false},
		{"<@x:a@b>", false},
		{"a@[]", false},
		{"a@[192.0.2.300]", false},
		{"a@[2001:db8::1]", false},
		{"a@[IPv6:192.0.2.1]", false},
		{"a@[IPv6:fe80::1%eth0]", false},
		{"a@[192.0.2.1", false},
		{"a@[x]", false},
		{strings.Repeat("l", 243) + "@example.org", false},
		{"a@" + strings.Repeat("l", 64) + ".org", false},
		{"a@" + strings.Repeat("lll.", 64) + "org", false},
	}
	for _, tt := range tests {
		got, err := ParseAddress(tt.in)
		var bad *AddressError
		if !errors.As(err, &bad) || bad.Malformed != tt.malformed {
			t.Errorf("ParseAddress(%q) = %+v, %#v, want an AddressError with Malformed %v", tt.in, got, err, tt.malformed)
		}
	}
}

// TestParseAddressNamesInvisible: a character that cannot be seen is named, wherever it
// stands in an address. In a name, which is text for people, it may be.
func TestParseAddressNamesInvisible(t *testing.T) {
	for _, r := range []rune{
		0x80, 0x85, 0x9f, 0xa0, 0xad, 0x34f, 0x61c, 0x115f, 0x180e, 0x2003, 0x200b, 0x200c, 0x200d, 0x200e, 0x2028, 0x2029, 0x202a, 0x202e,
		0x2060, 0x2066, 0x206f, 0x2800, 0x3000, 0x3164, 0xfe0f, 0xfeff, 0xfff9, 0xfffd, 0xffff, 0x1d173, 0xe0001, 0xe0041, 0xe0100,
	} {
		name := fmt.Sprintf("U+%04X", r)
		for _, in := range []string{
			"a%sb@example.org", `"a %sb"@example.org`, "ü%s@example.org", "a@ex%sample.org", "a@b%sücher.example", "Ana <a%sa@example.org>", "a@[192.0.2.1%s]",
		} {
			in = fmt.Sprintf(in, string(r))
			if got, err := ParseAddress(in); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("ParseAddress(%+q) = %+v, %v, want an error with %s", in, got, err, name)
			}
		}
		if got, err := ParseAddress("A" + string(r) + "na <a@example.org>"); err != nil || got.Email != "a@example.org" {
			t.Errorf("ParseAddress with %s in the name = %+v, %v", name, got, err)
		}
	}
}

// TestIsInvisible compares the word with Unicode's own classes, for each character.
func TestIsInvisible(t *testing.T) {
	for r := rune(0x80); r < 0xe1000; r++ {
		if r == 0x40000 {
			r = 0xe0000 // between them Unicode has no character
		}
		seen := unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S, unicode.Mc) && !unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) && r != 0x2800
		unseen := unicode.In(r, unicode.Cc, unicode.Cf, unicode.Z)
		if got := isInvisible(r); got && seen || !got && unseen {
			t.Errorf("isInvisible(%U) = %v", r, got)
		}
	}
}

func TestHeaderAddrSpec(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a@b": "a@b", "a.b@c": "a.b@c", "a..b@c": `"a..b"@c`, ".a@c": `".a"@c`, "a.@c": `"a."@c`, "ü..ü@c": `"ü..ü"@c`, `"a ..b"@c`: `"a ..b"@c`, "a@b.c": "a@b.c",
	} {
		got := HeaderAddrSpec(in)
		if got != want {
			t.Errorf("HeaderAddrSpec(%q) = %q, want %q", in, got, want)
		}
		if again, err := ParseAddress(got); in != "" && (err != nil || again.Email != in) {
			t.Errorf("ParseAddress(%q) = %+v, %v, want %q", got, again, err, in)
		}
	}
}

func TestParseSender(t *testing.T) {
	for in, want := range map[string]string{
		"Shop@Example.com": "shop@example.com", "example.org.": "example.org", "@Example.org": "example.org", "Bücher.example": "xn--bcher-kva.example",
		"A..B@docomo.test": "a..b@docomo.test", `"a..b"@docomo.test`: "a..b@docomo.test", "\u212a@example.org": "\u212a@example.org", "Ä@x": "ä@x",
		"": "", "@": "", "a b@c": "", "a@": "", "a\u200b@c": "", "a@b@c": "", "<a@b>": "",
	} {
		if got, err := ParseSender(in); got != want || (err == nil) != (want != "") {
			t.Errorf("ParseSender(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestParseAddressList(t *testing.T) {
	got, err := ParseAddressList(`a@example.org, "B, b" <b@example.org>,, ü <c@example.org>,`)
	want := []Address{{"", "a@example.org"}, {"B, b", "b@example.org"}, {"ü", "c@example.org"}}
	if err != nil || len(got) != len(want) {
		t.Fatalf("ParseAddressList = %+v, %v, want %+v", got, err, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("ParseAddressList[%d] = %+v, want %+v", i, got[i], want[i])
		}
	}
	if list, err := ParseAddressList(" , "); err == nil {
		t.Errorf(`ParseAddressList(" , ") = %+v, want an error`, list)
	}
}

func TestParseAddressField(t *testing.T) {
	got, err := ParseAddressField(`Ana <a@example.org>, b@example.org (Ben), Team: c@example.org, <@x.test:d@example.org>;, nobody`)
	want := []string{"a@example.org", "b@example.org", "c@example.org", "d@example.org", ""}
	if err != nil || len(got) != len(want) {
		t.Fatalf("ParseAddressField = %+v, %v, want %q", got, err, want)
	}
	for i, email := range want {
		if got[i].Email != email || (got[i].Err == nil) != (email != "") {
			t.Errorf("ParseAddressField[%d] = %q, %v, want %q", i, got[i].Email, got[i].Err, email)
		}
	}
	if list, err := ParseAddressField("a@example.org, (b"); err == nil {
		t.Errorf("ParseAddressField of an open comment = %+v, want an error", list)
	}
}

func TestUniqueEmails(t *testing.T) {
	got := UniqueEmails([]string{"a@example.org", "", "A@example.org", "a@EXAMPLE.org", "b@example.org", "a@example.org"})
	if want := []string{"a@example.org", "A@example.org", "b@example.org"}; !slices.Equal(got, want) {
		t.Errorf("UniqueEmails = %q, want %q", got, want)
	}
}
