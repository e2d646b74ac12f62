package mailer

import (
	"errors"
	"slices"
	"strings"
	"testing"
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
		{strings.Repeat("l", 64) + "@example.org", Address{Email: strings.Repeat("l", 64) + "@example.org"}},
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
		{"a@x_y.test", false},
		{"a@x y.test", false},
		{"a@(c)test", false},
		{"a@xn--\u00fc.test", false},
		{".a@b", false},
		{"a.@b", false},
		{"a..b@c", false},
		{"a(b)@c", false},
		{"a,b@c", false},
		{`a"b@c`, false},
		{`"a@b`, false},
		{`"a"b@c`, false},
		{`""@c`, false},
		{"\"a\u2028b\"@c", false},
		{"a\u2028b@c", false},
		{"a\u00a0b@c", false},
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
		{strings.Repeat("l", 65) + "@example.org", false},
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
