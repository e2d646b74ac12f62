package sendmail

import (
	"fmt"
	"math/rand/v2"
	"net/mail"
	"slices"
	"strings"
	"testing"
)

func TestParseMailboxes(t *testing.T) {
	authors := addressRules{authors: true}
	for _, tt := range []struct {
		in      string
		rules   addressRules
		want    []mailbox
		unclear []string
	}{
		{in: ""},
		{in: " , ;"},
		{in: "a@x", want: []mailbox{{"", "a@x"}}},
		{in: "A. B. <a@x>, b@x (Bo (the other) B.)", want: []mailbox{{"A. B.", "a@x"}, {"Bo (the other) B.", "b@x"}}},
		{in: `"Doe, \"J\"" <a@x>; c@x`, want: []mailbox{{`Doe, "J"`, "a@x"}, {"", "c@x"}}},
		{in: "a@x <b@x>", want: []mailbox{{"a@x", "b@x"}}},
		{in: "Team: a@x, B <b@x>;, c@x", want: []mailbox{{"", "a@x"}, {"B", "b@x"}, {"", "c@x"}}},
		{in: "undisclosed-recipients:;"},
		{in: "Undisclosed recipients"},
		{in: "Jörg <j@x>", want: []mailbox{{"Jörg", "j@x"}}},
		{in: "J\xf6rg, GmbH <j@x>", want: []mailbox{{"J\xf6rg, GmbH", "j@x"}}},
		{in: `"a b"@x`, want: []mailbox{{"", `"a b"@x`}}},
		{in: "root (Cron Daemon)", want: []mailbox{{"Cron Daemon", "root"}}},
		{in: "Ana <ana>", want: []mailbox{{"Ana", "ana"}}},
		{in: "root, Ana <a@x>", want: []mailbox{{"", "root"}, {"Ana", "a@x"}}},
		{in: "a@[IPv6:2001:db8::1], b@[192.0.2.1]", want: []mailbox{{"", "a@[IPv6:2001:db8::1]"}, {"", "b@[192.0.2.1]"}}},
		{in: "<@one,@two:a@x>", want: []mailbox{{"", "a@x"}}},

		// Display names without the quotes that they need.
		{in: "My Shop, Ltd. <info@my.test>", want: []mailbox{{"My Shop, Ltd.", "info@my.test"}}},
		{in: "Doe, John <j@x>, Roe; Jane <r@x>", want: []mailbox{{"Doe, John", "j@x"}, {"Roe; Jane", "r@x"}}},
		{in: "Shop: Sales <a@x>, b@x", want: []mailbox{{"Shop: Sales", "a@x"}, {"", "b@x"}}},
		{in: "Shop (Online <a@x>", want: []mailbox{{"Shop (Online", "a@x"}}},
		{in: "Shop :-) <a@x>", want: []mailbox{{"Shop :-)", "a@x"}}},
		{in: "[Shop, Inc] <a@x>", want: []mailbox{{"[Shop, Inc]", "a@x"}}},
		{in: `My 5" Shop <a@x>, The 7" Shop <b@x>`, want: []mailbox{{`My 5" Shop`, "a@x"}, {`The 7" Shop`, "b@x"}}},
		{in: `"My Shop <a@x>, "Bo" <b@x>`, want: []mailbox{{`"My Shop`, "a@x"}, {"Bo", "b@x"}}},
		{in: "=?utf-8?Q?My Shop, Ltd?= <a@x>", want: []mailbox{{"=?utf-8?Q?My Shop, Ltd?=", "a@x"}}},

		// Addresses without the brackets and commas that they need, or with too many.
		{in: "Ana Smith ana@x.test", want: []mailbox{{"Ana Smith", "ana@x.test"}}},
		{in: "ana@x.test Ana", want: []mailbox{{"Ana", "ana@x.test"}}},
		{in: "Ana <a@x> Bo <b@x>", want: []mailbox{{"Ana", "a@x"}, {"Bo", "b@x"}}},
		{in: "a@x b@x", want: []mailbox{{"", "a@x"}, {"", "b@x"}}},
		{in: "<a@x, Bo <b@x", want: []mailbox{{"", "a@x"}, {"Bo", "b@x"}}},
		{in: "<<a@x>>, b@x>", want: []mailbox{{"", "a@x"}, {"", "b@x"}}},
		{in: "Ana <a@x> via Shop", want: []mailbox{{"Ana via Shop", "a@x"}}},
		{in: "mailto:a@x, <mailto:b@x>", want: []mailbox{{"", "a@x"}, {"", "b@x"}}},
		{in: `"a@x.test", 'b@x.test', [c@x.test]`, want: []mailbox{{"", "a@x.test"}, {"", "b@x.test"}, {"", "c@x.test"}}},
		{in: `"Ana <a@x>"`, want: []mailbox{{"Ana", "a@x"}}},
		{in: "=?utf-8?q?Ana_=3Ca=40x=2Etest=3E?=", want: []mailbox{{"Ana", "a@x.test"}}},
		{in: "Ana &lt;a@x&gt;, b@x", want: []mailbox{{"Ana", "a@x"}, {"", "b@x"}}},
		{in: "< a @ x >, b@x.test.", want: []mailbox{{"", "a@x"}, {"", "b@x.test"}}},
		{in: "o'neil@x", want: []mailbox{{"", "o'neil@x"}}},

		// What has no address, or more than can be told apart.
		{in: "Ana at x dot test, b@x", want: []mailbox{{"", "b@x"}}, unclear: []string{"Ana at x dot test"}},
		{in: "Ana, b@x", want: []mailbox{{"", "b@x"}}, unclear: []string{"Ana"}},
		{in: "Ana", want: []mailbox{{"", "Ana"}}},
		{in: "Ana a@x.test Bo b@x.test", want: []mailbox{{"Ana", "a@x.test"}, {"Bo", "b@x.test"}}},
		{in: "Ana <a@x> b@x.test", want: []mailbox{{"Ana", "a@x"}, {"", "b@x.test"}}},
		{in: "Doe, John j@x.test", want: []mailbox{{"Doe, John", "j@x.test"}}},
		{in: "A,B ;-) <a@x>", want: []mailbox{{"A,B ;-)", "a@x"}}},
		{in: "Ana <>, b@x", want: []mailbox{{"", "b@x"}}, unclear: []string{"Ana"}},
		{in: "(", unclear: []string{"("}},

		{in: "ana smith@x.org", rules: addressRules{exact: true}, unclear: []string{"ana smith@x.org"}},
		{in: "Ana Smith <ana@x>", rules: addressRules{exact: true}, want: []mailbox{{"Ana Smith", "ana@x"}}},

		{in: "a@x Bcc: eve@x", rules: addressRules{hasCR: true}, unclear: []string{"a@x Bcc: eve@x"}},
		{in: "a@x Bcc: eve@x, mallory@x", rules: addressRules{hasCR: true}, unclear: []string{"a@x Bcc: eve@x, mallory@x"}},
		{in: "a@x Bcc <eve@x>", rules: addressRules{hasCR: true}, unclear: []string{"a@x Bcc <eve@x>"}},
		{in: "Bcc: eve@x", rules: addressRules{hasCR: true}, unclear: []string{"Bcc: eve@x"}},
		{in: "a@x,  b@x", rules: addressRules{hasCR: true}, want: []mailbox{{"", "a@x"}, {"", "b@x"}}},

		{in: "root, Ana <a@x>", rules: authors, want: []mailbox{{"root, Ana", "a@x"}}},
		{in: "My Shop, info@my.test", rules: authors, want: []mailbox{{"My Shop", "info@my.test"}}},
		{in: "My Shop", rules: authors, unclear: []string{"My Shop"}},
		{in: "www-data", rules: authors, want: []mailbox{{"", "www-data"}}},
	} {
		got := parseMailboxes(tt.in, tt.rules)
		if !slices.Equal(got.boxes, tt.want) || !slices.Equal(got.unclear, tt.unclear) {
			t.Errorf("parseMailboxes(%q, %+v) = %q, want %q and unclear %q", tt.in, tt.rules, got, tt.want, tt.unclear)
		}
	}
}

// names and frames make address fields as people and programs write them: %s is the
// address.
var (
	names = []string{
		"", "Ana", "My Shop, Ltd.", "Dr. A. Smith", "Doe, John", "Shop: Sales", "Shop (Online)", "Shop (Online", "Shop) Online", "[Shop]", "[Shop", "A & B; C",
		"ana@home", "me@my.test", "@Shop", `My "Best" Shop`, `5" Shop`, `"Shop`, "O'Neil", "Jörg Müller", "J\xf6rg, GmbH", "日本, 太郎", "=?utf-8?q?J=C3=B6rg?=",
		"=?utf-8?Q?My Shop, Ltd?=", "=?gbk?B?ztI=?=", "Re: Fwd: Shop", "12:30 Club", "Shop :-)", "Shop ;-)", "I <3 you", `back\slash`, "a,b,c", "root", ",", ":", "Shop's (new, big) one",
	}
	frames = []string{"%s <%s>", "%s <%s", "%s <<%s>>", "%s < %s >", "%s <mailto:%s>", "%s <%s> (work)", "%s <%s> via Shop", "%s %s", `"%s" <%s>`, "%s, %s", "%s; %s", "Bo <bo@x.test>, %s <%s>", `"%s <%s>"`}
)

// TestAddressesAreKept: whatever the name beside it, an address in a field is in the
// envelope and in the field afterwards, or the message is refused. It never becomes one
// of this host.
func TestAddressesAreKept(t *testing.T) {
	server := newRecordingServer(t, acceptedAnswer)
	random := rand.New(rand.NewPCG(14, 2))
	for i := range 4 * len(names) {
		name, frame := names[i%len(names)], frames[random.IntN(len(frames))]
		mailbox := fmt.Sprintf(frame, name, "info@my.test")
		for _, field := range []string{"From", "To", "Cc", "Bcc", "Reply-To"} {
			server.requests = nil
			head := "Subject: x\n"
			if field != "From" {
				head += "From: shop@example.com\n"
			}
			got := runWith(t, head+field+": "+mailbox+"\n\nx\n", "-t", "list@example.org")
			if field == "From" && got.status == exitRefused {
				continue
			}
			if got.status != 0 || len(server.requests) != 1 {
				t.Fatalf("%s: %q = %+v, want status 0", field, mailbox, got)
			}
			request := server.requests[0]
			envelope := strings.Split(request.header.Get("Envelope-To"), ", ")
			if slices.Contains([]string{"To", "Cc", "Bcc"}, field) && !slices.Contains(envelope, "info@my.test") {
				t.Errorf("%s: %q makes the envelope %q, and says %q", field, mailbox, envelope, got.stderr)
			}
			header, _, _ := strings.Cut(request.body, "\r\n\r\n")
			if field == "Bcc" {
				continue
			}
			value := fieldValue(header, field)
			if !strings.Contains(value, "info@my.test") {
				t.Errorf("%s: %q became %q", field, mailbox, value)
			}
			if field == "From" {
				checkAuthor(t, mailbox, value)
			}
		}
	}
}

// checkAuthor reads the From field as another program does.
func checkAuthor(t *testing.T, was, value string) {
	t.Helper()
	list, err := mail.ParseAddressList(strings.ToValidUTF8(value, "?"))
	if err != nil && !strings.Contains(err.Error(), "charset") {
		t.Errorf("From: %q became %q: %v", was, value, err)
	}
	for _, a := range list {
		if a.Address != "info@my.test" && !strings.Contains(was, a.Address) {
			t.Errorf("From: %q became %q, which %s did not write", was, value, a.Address)
		}
	}
}

func fieldValue(header, name string) string {
	for _, f := range parseMessage([]byte(header)).fields {
		if f.name == name {
			return f.value()
		}
	}
	return ""
}

// TestRightFieldsStay: what RFC 5322 reads as it is meant is not written anew.
func TestRightFieldsStay(t *testing.T) {
	server := newRecordingServer(t, acceptedAnswer)
	for _, value := range []string{
		"ana@example.org", "Ana <ana@example.org>", `"Doe, John" <j@example.org>, Team: a@x.test, b@x.test;`, "ana@example.org (Ana Smith)",
		`"a b"@example.org`, "=?gbk?B?ztI=?= <a@example.org>", "Jörg <j@example.org>", "J\xf6rg <j@example.org>", "Dr. J. O'Neil (Sales) <j@example.org>", "a@[192.0.2.1]",
	} {
		for _, field := range []string{"From", "To", "Cc", "Reply-To"} {
			server.requests = nil
			head := "From: shop@example.com\r\n"
			if field == "From" {
				head = ""
			}
			head += field + ": " + value + "\r\n"
			if got := runWith(t, head+"\r\nx\r\n", "ana@example.org"); got != (outcome{}) {
				t.Fatalf("%s: %q = %+v, want status 0 and silence", field, value, got)
			}
			if !strings.HasPrefix(server.requests[0].body, head) {
				t.Errorf("%s: %q became %q", field, value, server.requests[0].body)
			}
		}
	}
}

// TestMendedFields checks what hand-made fields become.
func TestMendedFields(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"From: My Shop, Ltd. <info@my.test>", `From: "My Shop, Ltd." <info@my.test>`},
		{"From: Jörg, GmbH <info@my.test>", "From: =?utf-8?b?SsO2cmcsIEdtYkg=?= <info@my.test>"},
		{"From: J\xf6rg, GmbH <info@my.test>", "From: \"J\xf6rg, GmbH\" <info@my.test>"},
		{"From: =?utf-8?Q?My Shop, Ltd?= <info@my.test>", "From: =?utf-8?Q?My_Shop=2C_Ltd?= <info@my.test>"},
		{"From: info@my.test, My Shop", `From: "My Shop" <info@my.test>`},
		{"From: My Shop", `From: "My Shop" <app@example.com>`},
		{"From: root@web_1", `From: "root@web_1" <app@example.com>`},
		{"From: Cron <root@web_1>", `From: "Cron" <app@example.com>`},
		{"From: shop@", `From: "shop@" <app@example.com>`},
		{"From: a@my.test\nSender: www-data", "From: a@my.test"},
		{"From: a@my.test\nSender: root@web_1", "From: a@my.test"},
		{"From: a@my.test\nSender: Shop, Ltd. <b@my.test>", "From: a@my.test\r\nSender: \"Shop, Ltd.\" <b@my.test>"},
		{"From: a@my.test\nTo: root", "From: a@my.test\r\nTo: <root@example.com>"},
		{"From: a@my.test\nReply-To: Doe, John <j@x.test>; b@x.test", "From: a@my.test\r\nReply-To: \"Doe, John\" <j@x.test>,\r\n <b@x.test>"},
		{"From: a@my.test\nTo:", "From: a@my.test"},
	} {
		server := newRecordingServer(t, acceptedAnswer)
		if got := runWith(t, tt.in+"\n\nx\n", "ana@example.org"); got != (outcome{}) {
			t.Fatalf("run(%q) = %+v, want status 0 and silence", tt.in, got)
		}
		if body := server.only(t).body; !strings.HasPrefix(body, tt.want+"\r\nDate: ") {
			t.Errorf("%q became %q, want %q", tt.in, body, tt.want)
		}
	}
}

// TestUnusableAuthor: an author that no relay takes is refused, and never replaced by a local
// user, unless MAILSIDECAR_FROM says by whom.
func TestUnusableAuthor(t *testing.T) {
	for _, from := range []string{"root@web_1", "Shop <root@web_1>", "shop@", "@my.test", "Shop <shop@>", "Shop <@my.test>"} {
		server := newRecordingServer(t, acceptedAnswer)
		t.Setenv("MAILSIDECAR_FROM", "")
		if got := runWith(t, "From: "+from+"\n\nx\n", "ana@example.org"); got.status != 65 || len(server.requests) > 0 {
			t.Errorf("From: %s = %+v with %d requests, want status 65 and nothing sent", from, got, len(server.requests))
		}
	}
}

func TestQuotePhrase(t *testing.T) {
	for in, want := range map[string]string{
		"Ana": `"Ana"`, `a "b" \c`: `"a \"b\" \\c"`, "=?utf-8?Q?A B, C?= =?utf-8?b?QQ==?=": "=?utf-8?Q?A_B=2C_C?= =?utf-8?b?QQ==?=",
		"=?utf-8?q?A(b)?=": "=?utf-8?q?A=28b=29?=", "=?": `=?`, "=?utf-8?q?A": "=?utf-8?q?A", "a =?x?q? (b": `"a =?x?q? (b"`, "=?x?q?a?b?=": "=?x?q?a?b?=",
	} {
		if got := quotePhrase(in); got != want {
			t.Errorf("quotePhrase(%q) = %s, want %s", in, got, want)
		}
	}
}

// TestLongListsAreLinear: the time that a list takes does not grow with its square.
func TestLongListsAreLinear(t *testing.T) {
	for _, piece := range []string{"a,", `"`, "(", "<", ":", "a:", ";", "\\", "@", "a@x ", "a@x:", `"a" `, "=?", "A,", "[", "a@[", "(a) ", "<a@x>", "=?x?q?", "=?a?q?b?= "} {
		list := strings.Repeat(piece, (1<<16)/len(piece))
		for _, rules := range []addressRules{{}, {authors: true}} {
			parseMailboxes(list+" b@x.test", rules)
			parseMailboxes(list+" <b@x.test>", rules)
			quotePhrase(list)
		}
	}
}

func FuzzMailboxes(f *testing.F) {
	for i, name := range names {
		f.Add(fmt.Sprintf(frames[i%len(frames)], name, "info@my.test"), i%3 == 0, i%5 == 0)
	}
	f.Add("Team: a@x, B <b@x>;, root (Cron)", false, false)
	f.Fuzz(func(t *testing.T, value string, authors, hasCR bool) {
		list := parseMailboxes(value, addressRules{authors: authors, hasCR: hasCR})
		field := headerField{name: "To", raw: "To: x"}
		var written []mailbox
		for _, box := range list.boxes {
			if box.address == "" {
				t.Errorf("no address in %+v", list)
			}
			if validAddress(box.address) {
				written = append(written, box)
			}
		}
		if len(written) == 0 {
			return
		}
		field.setBoxes(written)
		again := parseMailboxes(field.value(), addressRules{authors: authors})
		if len(again.unclear) > 0 || len(again.boxes) != len(written) {
			t.Fatalf("%q was written as %q, which is read as %q", value, field.raw, again)
		}
		for i, box := range again.boxes {
			if box.address != written[i].address {
				t.Errorf("%q was written as %q, which is read as %q", value, field.raw, again)
			}
		}
	})
}
