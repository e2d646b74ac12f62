package markup

import (
	"html/template"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// TestLikeHTMLTemplate: a browser reads the same as of what html/template would have made.
func TestLikeHTMLTemplate(t *testing.T) {
	hostile := []string{
		"", "plain", `<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='x`, "&lt;b&gt; &amp;amp; &#60;", "</title></textarea></pre></script></style>", "<!-- x --> ]]> <![CDATA[",
		"javascript:alert(1)", "data:text/html,<b>", "//evil.example/", "/\\evil.example", "a\tb", "\u202eabc\u2066", "+ADw-script+AD4-", "\x1b(J", "`${x}`", "{{.}} %s %00", "a/../b?c=d#e", "ü😀\u2028", "\xff\xfe<b>\xc0\xbc",
	}
	for _, text := range []string{
		`<p>{{.}}</p>`, `<title>{{.}}</title>`, `<textarea>x{{.}}</textarea>`, `<pre>x{{.}}</pre>`, `<option>{{.}}</option>`, `<p title="{{.}}" data-x="a {{.}} b">x</p>`, `<input value="{{.}}">`,
		`<a href="/ui/?q={{.}}&amp;r={{.}}">x</a>`, `<svg><title>{{.}}</title><text>{{.}}</text></svg>`, `<table><tbody><tr><td>{{.}}</td></tr></tbody></table>`,
	} {
		peer := template.Must(template.New("t").Parse(text))
		for _, value := range hostile {
			if strings.Contains(text, "href") && (strings.Contains(value, "\x1b") || strings.Contains(value, "\xff")) {
				continue // octets are escaped as they are here
			}
			got, err := render(t, text, value)
			if err != nil {
				t.Fatal(err)
			}
			var want strings.Builder
			// Control characters, which it lets through, are none of ours.
			if err := peer.Execute(&want, strings.ReplaceAll(strings.ToValidUTF8(value, "\uFFFD"), "\x1b", "\uFFFD")); err != nil {
				t.Fatal(err)
			}
			if a, b := parsed(t, got), parsed(t, want.String()); a != b {
				t.Errorf("%s of %q:\n got %s\nwant %s", text, value, a, b)
			}
		}
	}
}

// parsed is the text as a browser reads it. An address is compared by what it says, for octets
// that need not be escaped may be.
func parsed(t *testing.T, text string) string {
	t.Helper()
	n, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for n := range n.Descendants() {
		for i := range n.Attr {
			if n.Attr[i].Key == "href" {
				n.Attr[i].Val = strings.NewReplacer("%27", "'", "%28", "(", "%29", ")", "%2a", "*", "%21", "!").Replace(strings.ToLower(n.Attr[i].Val))
			}
		}
	}
	var b strings.Builder
	if err := html.Render(&b, n); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
