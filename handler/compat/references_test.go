package compat

import (
	"slices"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

// TestReferences: what HTML refers to is compared whole, in whatever way it is written.
func TestReferences(t *testing.T) {
	for _, tt := range []struct {
		html, id string
		refers   bool
		changed  string // the HTML with another id in place of id
	}{
		{`<img src="cid:logo@x">`, "logo@x", true, `<img src="cid:other">`},
		{`<img src="cid:logo%40x">`, "logo@x", true, `<img src="cid:other">`},
		{`<IMG SRC='CID:logo'>`, "logo", true, `<img src="cid:other">`},
		{`<img src=cid:logo>`, "logo", true, `<img src="cid:other">`},
		{`<img src="cid:a&amp;b">`, "a&b", true, `<img src="cid:other">`},
		{`<img src=" cid:mein logo.png ">`, "mein logo.png", true, `<img src="cid:other">`},
		{`<img src="cid:mein%20logo.png">`, "mein logo.png", true, `<img src="cid:other">`},
		{`<img src="cid:m%C3%BCnchen">`, "münchen", true, `<img src="cid:other">`},
		{`<img src="cid:50%">`, "50%", true, `<img src="cid:other">`},
		{`<td background="cid:bg">x</td>`, "bg", true, `<td background="cid:other">x</td>`},
		{`<p style="background:url('cid:bg')">x`, "bg", true, `<p style="background:url(&#39;cid:other&#39;)">x`},
		{`<style>p { background: url(cid:bg) }</style>`, "bg", true, `<style>p { background: url(cid:other) }</style>`},
		{`<img srcset="cid:a 1x, cid:b 2x">`, "b", true, `<img srcset="cid:a 1x, cid:other 2x">`},
		{`<!--[if mso]><v:fill src="cid:bg"/><![endif]-->`, "bg", true, `<!--[if mso]><v:fill src="cid:other"/><![endif]-->`},
		{`<img src="cid:invoice-logo">`, "invoice", false, ""},
		{`<img src="cid:logo">`, "LOGO", false, ""},
		{`<p>see cid:logo</p>`, "logo", false, ""},
		{`<img alt="not cid:logo">`, "logo", false, ""},
		{`<a href="https://x.example/?cid:logo">`, "logo", false, ""},
		{`<img src="cid:logo`, "logo", false, ""},
		{`<p>&amp; < a <b`, "logo", false, ""},
	} {
		o := &Message{Message: mailer.Message{HTML: tt.html}, Limit: NewExpansion(t.Context())}
		if got := o.refersTo(tt.id); got != tt.refers {
			t.Errorf("%s refers to %q = %t, want %t", tt.html, tt.id, got, tt.refers)
		}
		o.referTo(tt.id, "other")
		if want := map[bool]string{true: tt.changed, false: tt.html}[tt.refers]; o.HTML != want {
			t.Errorf("%s with other for %q = %s, want %s", tt.html, tt.id, o.HTML, want)
		}
	}
}

// FuzzReferences: HTML that refers to nothing stays as it is, and a changed reference is
// found again.
func FuzzReferences(f *testing.F) {
	for _, seed := range []string{
		`<img src="cid:logo">`, `<p style="background:url(cid:a)">`, `<!--[if mso]><img src=cid:a><![endif]-->`, `<style>cid:a`, "<img src='cid:\x00'>",
		`<script>"<img src=cid:a>"</script>`, `<textarea><img src=cid:a>`, `<img src=cid:a src=cid:b>`, "<!-", "</", "<a b=c&", "\xff<img src=cid:\xfe>",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		var ids []string
		same := changeReferences(doc, func(id string) string {
			ids = append(ids, id)
			return id
		})
		if same != doc {
			t.Fatalf("changeReferences(%q) without a change = %q", doc, same)
		}
		changed := changeReferences(doc, func(string) string { return "other" })
		var found []string
		changeReferences(changed, func(id string) string {
			found = append(found, id)
			return id
		})
		if len(found) != len(ids) || slices.ContainsFunc(found, func(id string) bool { return id != "other" }) {
			t.Fatalf("changeReferences(%q) = %q: refers to %q, want %d times other", doc, changed, found, len(ids))
		}
	})
}

// BenchmarkReferences shows that the time is linear in the HTML.
func BenchmarkReferences(b *testing.B) {
	for _, size := range []int{1, 64} {
		doc := strings.Repeat(`<td background="cid:bg"><img src="cid:logo%40x" alt="&amp;"></td>`, 1000*size)
		b.Run(map[int]string{1: "once", 64: "64 times"}[size], func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			for b.Loop() {
				changeReferences(doc, func(id string) string { return id })
			}
		})
	}
}
