package mailer

import (
	"mime"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestReadFrom(t *testing.T) {
	for _, tt := range []struct{ in, authors, named string }{
		{"From: x@a.example\r\n", "x@a.example", ""},
		{"FROM:x@A.example", "x@A.example", ""},
		{"From: Shop <x@a.example>", "x@a.example", ""},
		{"From: Dr. J. O'Neil <x@a.example>", "x@a.example", ""},
		{"From: \"Shop, Ltd. \\\"A\\\"\" of 'B' < x@a.example >\r\n", "x@a.example", ""},
		{"From:\r\n Shop\r\n\t<x@a.example>\r\n", "x@a.example", ""},
		{"From: root@a.example (Cron Daemon)", "root@a.example", ""},
		{"From: (a) Shop (b, <c>) <x@a.example> (d)", "x@a.example", ""},
		{"From: x@a.example, Y <y@b.example>,\r\n z@c.example", "x@a.example y@b.example z@c.example", ""},
		{"From: =?utf-8?q?J=C3=B6rg?= =?utf-8?b?R8O2w59l?= <x@a.example>", "x@a.example", ""},
		{"From: =?iso-2022-jp?b?GyRCOzNALxsoQg==?= <x@a.example>", "x@a.example", ""},
		{"From: =?big5?b?suSkQKX4t34=?= <x@a.example>", "x@a.example", ""},
		{"From: =?gb18030?b?gUCBMIEw?= =?shift_jis?b?g0CxQA==?= <x@a.example>", "x@a.example", ""},
		{"From: <\"a..b\"@a.example>, a..b@a.example, \"c.\"@a.example", "a..b@a.example a..b@a.example c.@a.example", ""},
		{"From: x@[192.0.2.1], <x@[IPv6:2001:db8::1]>", "x@[192.0.2.1] x@[IPv6:2001:db8::1]", ""},
		{"From: 用户@a.example", "用户@a.example", ""},
		{"From: \"Yoga @ Home\" <x@a.example>", "x@a.example", ""},
		{"From: \"Follow @shop!\" <x@a.example>", "x@a.example", ""},
		{"From: \"Ana\u200d\" <x@a.example>", "x@a.example", ""},

		{"From: \"b@b.example\" <x@a.example>", "x@a.example", "b@b.example"},
		{"From: \"Shop <b@b.example>, 'c@c.example' via d@d\" <x@a.example>", "x@a.example", "b@b.example c@c.example d@d"},
		{"From: x@a.example (b@b.example)", "x@a.example", "b@b.example"},
		{"From: =?utf-8?q?b=40b=2Eexample?= <x@a.example>", "x@a.example", "b@b.example"},
		{"From: \"=?utf-8?q?b=40b=2Eexample?=\" <x@a.example>", "x@a.example", "b@b.example"},
		{"From: =?utf-8?q?b=40b?= =?utf-8?q?=2Eexample?= <x@a.example>", "x@a.example", "b@b.example"},
		{"From: =?windows-1252*en?q?=E4b=40b.example?= <x@a.example>", "x@a.example", "\ufffdb@b.example"},
		{"From: =?iso-2022-jp?b?GyRCOzMbKEIgYkBiLmV4YW1wbGU=?= <x@a.example>", "x@a.example", "b@b.example"},
		{"From: =?euc-jp?q?b=A4=40b.example?= <x@a.example>", "x@a.example", "b\ufffd@b.example"},
		{"From: =?ks_c_5601-1987?q?b=B0=40b.example?= <x@a.example>", "x@a.example", "b\ufffd@b.example"},
		{"From: \"b\" \"@\" \"b.example\" <x@a.example>", "x@a.example", "b@b.example"},
		{"From: \"b@\" (b.example) <x@a.example>", "x@a.example", "b@b.example"},
		{"From: \"b\uff20b.example\" <x@a.example>", "x@a.example", "b@b.example"},
		{"From: \"b@c@b.example\" <x@a.example>", "x@a.example", "b@c c@b.example"},
		{"From: \"b\\@b.example\" <x@a.example>", "x@a.example", "b@b.example"},
		{"From: \"b(c)@b.example\" <x@a.example>", "x@a.example", "b@b.example"},
		{"From: \"b@(c)b.example\" <x@a.example>", "x@a.example", "b@b.example"},
		{"From: =?utf-8?q?b=28c=29=40b.example?= <x@a.example>", "x@a.example", "b@b.example"},
		{"From: \"b@[192.0.2.1]\" <x@a.example>", "x@a.example", "b@[192.0.2.1]"},
		{"From: \"Joe (@joe)\" <x@a.example>", "x@a.example", ""},
		{"From: =?iso-2022-jp?b?GyhJYkBiLmV4YW1wbGU=?= <x@a.example>", "x@a.example", "Ib@b.example"},
	} {
		got, err := ReadFrom(tt.in)
		if authors, named := strings.Join(got.Authors, " "), strings.Join(got.Named, " "); err != nil || authors != tt.authors || named != tt.named {
			t.Errorf("ReadFrom(%q) = %q, named %q, %v, want %q, named %q", tt.in, authors, named, err, tt.authors, tt.named)
		}
	}
}

// ambiguousFrom are From fields of which some program reads another author than others
// do, or none.
var ambiguousFrom = []string{
	"From: [<b@b.example>] <x@a.example>",
	"From: b@b.example <x@a.example>",
	"From: b@b.example: x@a.example;",
	"From : x@a.example",
	"From\t: x@a.example",
	"Sender: x@a.example",
	"From",
	"From: ",
	"From: Shop",
	"From: <>",
	"From: x@a.example b@b.example",
	"From: x@a.example <b@b.example>",
	"From: <x@a.example> b@b.example",
	"From: <x@a.example> <b@b.example>",
	"From: <b@b.example> x@a.example",
	"From: <<b@b.example>x@a.example>",
	"From: <b@b.example:x@a.example>",
	"From: <@b.example:x@a.example>",
	"From: <@b.example,@c.example:x@a.example>",
	"From: <x@a.example",
	"From: x@a.example>",
	"From: x@a.example;",
	"From: Shop: x@a.example;",
	"From: Shop:;, x@a.example",
	"From: ,x@a.example",
	"From: x@a.example,",
	"From: x@a.example,,y@a.example",
	"From: x @ a.example",
	"From: x@a.example .b.example",
	"From: x@a. example",
	"From: x@(b@b.example)a.example",
	"From: x(b@b.example)@a.example",
	"From: <x(c)@a.example>",
	"From: <x@a.example(c)>",
	"From: x@a.example (a (<b@b.example>) c)",
	"From: x@a.example (a\\) b@b.example",
	"From: x@a.example (a",
	"From: x@a.example(.b.example)",
	"From: (b.)x@a.example",
	"From: \"b@b\".example <x@a.example>",
	"From: (b@)b.example <x@a.example>",
	"From: x@a.example a)",
	"From: \"x@a.example",
	"From: \"b@b.example> x\"@a.example",
	"From: \"b@b.example\"@a.example",
	"From: \"b b\"@a.example",
	"From: <\"b@b.example x\"@a.example>",
	"From: \"b\"@b.example\"@a.example",
	"From: b@b.example@a.example",
	"From: b@b.example\\@a.example",
	"From: =?utf-8?q?b=40b.example?=@a.example",
	"From: =?utf-8?b?YkBiLmV4YW1wbGUA?==?utf-8?q?=00?=@a.example",
	"From: =?utf-8?q?b=40b.example=00?= <x@a.example>",
	"From: =?utf-8?q?b=0D=0AFrom:_b=40b.example?= <x@a.example>",
	"From: =?iso-2022-jp?b?GyRCCmJAYi5leGFtcGxl?= <x@a.example>",
	"From: b\uff20b.example@a.example",
	"From: =?utf-7?q?b+AEA-b.example?= <x@a.example>",
	"From: =?utf-16?b?AGIAQABiAC4AZQB4AGEAbQBwAGwAZQ==?= <x@a.example>",
	"From: =?cp037?b?gnyCSw==?= <x@a.example>",
	"From: =?utf-8?q?b=4?= <x@a.example>",
	"From: =?utf-8?x?b?= <x@a.example>",
	"From: =?utf-8?q?=3D=3Futf-8=3Fq=3Fb=3D40b=3F=3D?= <x@a.example>",
	"From: \"=?utf-8?q?b=40b.example\" <x@a.example>",
	"From: x@a.example\r\n \r\n <b@b.example>",
	"From: x@a.example\r\n\t\r\n",
	"From: Shop\r <x@a.example>",
	"From: Shop\n <x@a.example>",
	"From: Shop\x00 <x@a.example>",
	"From: Shop\x1b <x@a.example>",
	"From: Shop\xff <x@a.example>",
	"From: Sh\u202eop <x@a.example>",
	"From: =?utf-8?q?=E2=80=AEelpmaxe?= <x@a.example>",
	"From: x@faß.example",
	"From: x@ａ.example",
	"From: x@a\u200b.example",
	"From: x\u2060@a.example",
	"From: x\u00a0@a.example",
	"From: Shop; Ltd <x@a.example>",
	"From: Shop, Ltd <x@a.example>",
	"From: Shop [Ltd] <x@a.example>",
	"From: Shop \\<b@b.example> <x@a.example>",
	"From: x@a.example (\r\n \r\n)",
}

func TestReadFromRefuses(t *testing.T) {
	for _, in := range ambiguousFrom {
		if got, err := ReadFrom(in); err == nil {
			t.Errorf("ReadFrom(%q) = %+v, want an error", in, got)
		}
	}
}

// looseReaders are ways in which programs find addresses in a field: the one that they
// show as the author is among those.
var looseReaders = map[string]func(string) []string{
	"all": func(s string) []string {
		return regexp.MustCompile(`[^\s<>()\[\],;:\\"@]+@[^\s<>()\[\],;:\\"@]+`).FindAllString(s, -1)
	},
	"in angle brackets": func(s string) []string {
		var found []string
		for _, m := range regexp.MustCompile(`<([^>\s]+@[^>]+)>`).FindAllStringSubmatch(s, -1) {
			found = append(found, strings.Trim(m[1], " \t"))
		}
		return found
	},
	"before the bracket": func(s string) []string {
		before, _, _ := strings.Cut(s, "<")
		return regexp.MustCompile(`[^\s"(),]+@[^\s"(),]+`).FindAllString(before, 1)
	},
	"without quotes and comments": func(s string) []string {
		s = regexp.MustCompile(`"(\\.|[^"\\])*"|\([^()]*\)`).ReplaceAllString(s, "")
		return regexp.MustCompile(`[^\s<>,;:]+@[^\s<>,;:]+`).FindAllString(s, -1)
	},
	"net/mail": func(s string) []string {
		list, _ := mail.ParseAddressList(s)
		var found []string
		for _, a := range list {
			found = append(found, a.Address)
		}
		return found
	},
}

// checkLooseReaders: no program finds an author in the field whose domain is not that of
// an address in from.
func checkLooseReaders(t *testing.T, field string, from FromField) {
	t.Helper()
	domains := map[string]bool{}
	for _, address := range slices.Concat(from.Authors, from.Named) {
		domains[domainOf(address)] = true
	}
	_, value, _ := strings.Cut(strings.ReplaceAll(field, "\r\n", ""), ":")
	decoded, err := new(mime.WordDecoder).DecodeHeader(value)
	if err != nil {
		decoded = value
	}
	for name, read := range looseReaders {
		for _, text := range []string{value, decoded, strings.NewReplacer(`"`, "", `\`, "").Replace(decoded)} {
			for _, found := range read(text) {
				if domain := domainOf(found); strings.Contains(found, "@") && domain != "" && !domains[domain] {
					t.Errorf("a program that reads %s finds %q in %q, not in %q", name, found, text, from)
				}
			}
		}
	}
}

func domainOf(address string) string {
	return strings.ToLower(strings.Trim(address[strings.LastIndexByte(address, '@')+1:], `'".!?`))
}

func FuzzReadFrom(f *testing.F) {
	for _, s := range ambiguousFrom {
		f.Add(s)
	}
	for _, s := range []string{
		"From: \"Shop, Ltd\" <x@a.example>, =?utf-8?q?b=40b.example?= (c@d.example) <y@a.example>\r\n", "From: \"a..b\"@a.example (x)",
		"From: =?big5?b?suSkQKX4t34=?= <x@a.example>",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		from, err := ReadFrom(field)
		if err != nil {
			return
		}
		if len(from.Authors) == 0 {
			t.Errorf("ReadFrom(%q) has no author", field)
		}
		checkLooseReaders(t, field, from)
	})
}
