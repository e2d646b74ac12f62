package ui

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
)

func crlf(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

const mixed = `From: Shop <shop@example.com>
To: ana@example.org
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
 =?iso-8859-1?q?_an_Andr=E9?=
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=outer

--outer
Content-Type: multipart/related; boundary=inner

--inner
Content-Type: multipart/alternative; boundary=alt

--alt
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Sch=F6n =80
--alt
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: base64

PHA+U2Now7ZuPC9wPjxpbWcgc3JjPSJjaWQ6bG9nb0BleGFtcGxlIj4=
--alt--

--inner
Content-Type: image/png; name="logo.png"
Content-ID: <logo@example>
Content-Disposition: inline
Content-Transfer-Encoding: base64

iVBORw0KGgo=
--inner--

--outer
Content-Type: application/pdf
Content-Disposition: attachment; filename*=utf-8''Rechnung%20%C3%BC.pdf
Content-Transfer-Encoding: base64

JVBERi0=
--outer
Content-Type: text/plain
Content-Disposition: attachment; filename=note.txt

a note
--outer--
`

func TestPreview(t *testing.T) {
	p := readPreview(strings.NewReader(crlf(mixed)))
	if p.Trouble != "" || p.TextCut || p.HTMLCut || p.SourceCut {
		t.Errorf("trouble %q, cut %t %t %t", p.Trouble, p.TextCut, p.HTMLCut, p.SourceCut)
	}
	if want := "Schön €"; p.Text != want { // browsers take windows-1252 for iso-8859-1
		t.Errorf("text = %q, want %q", p.Text, want)
	}
	if want := `<p>Schön</p><img src="data:image/png;base64,iVBORw0KGgo=">`; p.HTML != want {
		t.Errorf("HTML = %q, want %q", p.HTML, want)
	}
	if len(p.Header) != 5 || p.Header[2] != (headerField{"Subject", "Grüße an André"}) {
		t.Errorf("header = %q", p.Header)
	}
	want := "[3 logo.png image/png 8 true] [4 Rechnung ü.pdf application/pdf 5 false] [5 note.txt text/plain 6 false] "
	var got string
	for _, a := range p.Attachments {
		got += fmt.Sprintf("[%d %s %s %d %t] ", a.N, a.Name, a.Type, a.Size, a.Inline)
	}
	if got != want {
		t.Errorf("attachments = %s, want %s", got, want)
	}
	if p.Source != mixed {
		t.Errorf("source = %q", p.Source)
	}
	for n, want := range map[int]string{3: "logo.png \x89PNG\r\n\x1a\n", 4: "Rechnung ü.pdf %PDF-", 5: "note.txt a note", 1: "part-1.txt Sch\xf6n \x80"} {
		var b bytes.Buffer
		ok, err := copyPart(strings.NewReader(crlf(mixed)), n, func(name string) io.Writer { b.WriteString(name + " "); return &b })
		if !ok || err != nil || b.String() != want {
			t.Errorf("copyPart(%d) = %q, %t, %v, want %q", n, b.String(), ok, err, want)
		}
	}
	if ok, err := copyPart(strings.NewReader(crlf(mixed)), 6, nil); ok || err != nil {
		t.Errorf("copyPart(6) = %t, %v, want none", ok, err)
	}
}

// TestPreviewOdd: what is broken is shown as far as it can be read, and told.
func TestPreviewOdd(t *testing.T) {
	deep := "Content-Type: text/plain\n\nbottom\n"
	for i := range 12 {
		deep = fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n%s\n--b%d--\n", i, i, deep, i)
	}
	for name, tc := range map[string]struct{ message, text, html, trouble string }{
		"empty":              {"", "", "", ""},
		"no header":          {"\nhello", "hello", "", ""},
		"no colon":           {"hello\n\nworld", "", "", "malformed"},
		"broken base64":      {"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\naGVsbG8gd29ybGQh$$$$", "hello world!", "", "illegal base64"},
		"unknown encoding":   {"Content-Type: text/plain\nContent-Transfer-Encoding: x-uue\n\nabc", "abc", "", ""},
		"unknown charset":    {"Content-Type: text/plain; charset=x-klingon\n\nabc\xff", "abc\uFFFD", "", ""},
		"utf-16":             {"Content-Type: text/plain; charset=utf-16le\nContent-Transfer-Encoding: base64\n\naADkAA==", "hä", "", ""},
		"no boundary":        {"Content-Type: multipart/mixed\n\nabc", "", "", ""},
		"never closed":       {"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nabc", "abc", "", "ends too early"},
		"wrong type":         {"Content-Type: ;;;\n\nabc", "abc", "", ""},
		"deep":               {deep, "", "", "within parts"},
		"many":               {"Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\nContent-Type: x/y\n\n\n", 200) + "--b--\n", "", "", "more than 100 parts"},
		"control characters": {"Subject: a\n\na\x00b\x1b[31m\tc\rd", "a\uFFFDb\uFFFD[31m\tc\nd", "", ""},
		"html alone":         {"Content-Type: TEXT/HTML\n\n<b>x</b>", "", "<b>x</b>", ""},
		"second broken": {
			"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: x/y\nContent-Transfer-Encoding: base64\n\n$$\n--b\n\nabc\n--b--\n",
			"abc", "", "ends too early",
		},
	} {
		p := readPreview(strings.NewReader(crlf(tc.message)))
		if p.Text != tc.text || p.HTML != tc.html || !strings.Contains(p.Trouble, tc.trouble) || (tc.trouble == "") != (p.Trouble == "") {
			t.Errorf("%s: text %q, HTML %q, trouble %q, want %q, %q, %q", name, p.Text, p.HTML, p.Trouble, tc.text, tc.html, tc.trouble)
		}
		if want := printable(crlf(tc.message)); p.Source != want {
			t.Errorf("%s: source = %q, want %q", name, p.Source, want)
		}
	}
	p := readPreview(io.MultiReader(strings.NewReader("Subject: a\r\n\r\nabc"), iotest.ErrReader(errors.New("the store is gone"))))
	if p.Text != "abc" || !strings.Contains(p.Trouble, "the store is gone") {
		t.Errorf("a content that breaks off: text %q, trouble %q", p.Text, p.Trouble)
	}
}

func TestPreviewBounds(t *testing.T) {
	long := strings.Repeat("ä", maxPreviewHTML)
	p := readPreview(strings.NewReader("Subject: " + long[:50000] + "\r\n" + strings.Repeat("X: y\r\n", 300) +
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + long + "\r\n--b\r\nContent-Type: text/html\r\n\r\n" + long + "\r\n--b--\r\n"))
	if !p.TextCut || !p.HTMLCut || !p.SourceCut || len(p.Text) > maxPreviewText+3 || len(p.HTML) > maxPreviewHTML+3 || len(p.Source) > maxPreviewText+3 {
		t.Errorf("text of %d octets, HTML %d, source %d, want them cut", len(p.Text), len(p.HTML), len(p.Source))
	}
	if len(p.Header) != maxPreviewFields+1 || utf8.RuneCountInString(p.Header[0].Value) > maxPreviewField+1 {
		t.Errorf("%d fields, the first of %d octets", len(p.Header), len(p.Header[0].Value))
	}
}

func TestFileName(t *testing.T) {
	for name, want := range map[string]string{
		"a.pdf": "a.pdf", "": "", "../../etc/passwd": "passwd", `C:\x\y.doc`: "y.doc", "a\r\nb.txt": "ab.txt", "a\x00b": "ab", "..": "", "/": "", " .a. ": "a",
		"invoice\u202Efdp.exe": "invoicefdp.exe", "\u200Ba\uFEFFb": "ab", "a\u2028b": "ab", `a"b;c`: "ab;c", "=?utf-8?q?=C3=BC?=.pdf": "ü.pdf", "a\u00A0b": "a b", "ä.pdf": "ä.pdf", "a\xffb": "ab",
		strings.Repeat("x", 300) + ".pdf": strings.Repeat("x", 116) + ".pdf", strings.Repeat("ü", 300): strings.Repeat("ü", 120),
	} {
		if got := fileName(name); got != want {
			t.Errorf("fileName(%q) = %q, want %q", name, got, want)
		}
	}
	if got := fileName("", "b.txt"); got != "b.txt" {
		t.Errorf(`fileName("", "b.txt") = %q`, got)
	}
}

// TestFramed: elements that make a browser connect somewhere in advance, whatever the policy says, are none any more.
func TestFramed(t *testing.T) {
	for _, text := range []string{
		`<link rel=preconnect href="//evil.example">`, `<LiNk rel="dns-prefetch" href=//evil.example>`, `<meta http-equiv=refresh content="0;url=//evil.example">`, `<base href="//evil.example">`,
		`<<link rel=preconnect href=x>`, `<p><link/rel=preconnect>`, "<link\nrel=preconnect>", `<svg><link rel=preconnect href=x></svg>`, `<x-<link rel=preconnect>`, `<lin<link rel=preconnect>k>`,
		`<noscript><link rel=preconnect href=x></noscript>`, `<!--><link rel=preconnect href=x>-->`, "<li\x00nk rel=preconnect>",
	} {
		p := preview{HTML: text}
		root, err := html.Parse(strings.NewReader(p.framed()))
		if err != nil {
			t.Fatal(err)
		}
		for n := range root.Descendants() {
			if n.Type == html.ElementNode && (n.Data == "link" || n.Data == "meta" || n.Data == "base") {
				t.Errorf("%s still has <%s>: %s", text, n.Data, p.framed())
			}
		}
	}
	if p := (preview{HTML: "<p>a < b</p>"}); p.framed() != "<!doctype html><p>a < b</p>" {
		t.Errorf("framed = %q", p.framed())
	}
}

// FuzzPreview: whatever the content is, its source is shown, within bounds, and what is for pages is printable.
func FuzzPreview(f *testing.F) {
	f.Add([]byte(crlf(mixed)))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\n--\r\n"))
	f.Add([]byte("Subject: =?utf-16?b?//4=?=\r\nContent-Type: text/plain; charset=gb18030\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=81=30=\r\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		p := readPreview(bytes.NewReader(content))
		texts := []string{p.Text, p.Source, p.Trouble}
		for _, h := range p.Header {
			texts = append(texts, h.Name, h.Value)
		}
		for _, a := range p.Attachments {
			texts = append(texts, a.Name, a.Type)
			ok, _ := copyPart(bytes.NewReader(content), a.N, func(name string) io.Writer {
				if name != a.Name {
					t.Errorf("copyPart(%d) of %q is named %q, and in the preview %q", a.N, content, name, a.Name)
				}
				return io.Discard
			})
			if !ok && p.Trouble == "" {
				t.Errorf("copyPart(%d) of %q finds no such part", a.N, content)
			}
		}
		for _, text := range texts {
			if !utf8.ValidString(text) || strings.IndexFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) >= 0 {
				t.Errorf("readPreview(%q) has %q", content, text)
			}
		}
		if len(content) < maxPreviewText && p.SourceCut {
			t.Errorf("readPreview(%q) has cut the source", content)
		}
	})
}

// TestPreviewPictures: the address of a picture may begin as that of another one.
func TestPreviewPictures(t *testing.T) {
	for name, tc := range map[string]struct{ html, want string }{
		"two":       {`<img src="cid:a"><img src='cid:ab'><img src=cid:a>`, `<img src="A"><img src='cid:ab'><img src=A>`},
		"at an end": {`url(cid:a) cid:a`, `url(A) A`},
		"many":      {`"cid:a" "cid:a" "cid:a" "cid:a"`, `"cid:a" "cid:a" "cid:a" "cid:a"`},
		"none":      {`cid:abc cid:b`, `cid:abc cid:b`},
	} {
		if got, _ := replaceAddress(tc.html, "cid:a", "A", 3); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
	const message = "Content-Type: multipart/related; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/html\r\n\r\n<img src=\"cid:logo\"><img src=\"cid:logo2\">\r\n" +
		"--b\r\nContent-Type: image/png\r\nContent-ID: <logo>\r\n\r\none\r\n" +
		"--b\r\nContent-Type: image/gif\r\nContent-ID: <logo2>\r\n\r\ntwo\r\n--b--\r\n"
	if p := readPreview(strings.NewReader(message)); p.HTML != `<img src="data:image/png;base64,b25l"><img src="data:image/gif;base64,dHdv">` {
		t.Errorf("HTML = %s", p.HTML)
	}
}

// TestPreviewFolded: a field in very many lines costs no more than its octets.
func TestPreviewFolded(t *testing.T) {
	source := []byte("X-Long: begin\n" + strings.Repeat(" a\n", maxPreviewText/3))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fields := headerOf(source)
	runtime.ReadMemStats(&after)
	if len(fields) != 1 || !strings.HasPrefix(fields[0].Value, "begin a a a") || utf8.RuneCountInString(fields[0].Value) != maxPreviewField+1 {
		t.Errorf("%d fields, want one that is cut", len(fields))
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 64<<20 {
		t.Errorf("%d octets were allocated", allocated)
	}
}
