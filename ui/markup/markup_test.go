package markup

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func render(t *testing.T, text string, data any) (string, error) {
	t.Helper()
	s, err := Parse(fstest.MapFS{"t.html": {Data: []byte(text)}}, "*.html", Funcs{
		"link": func(s string) URL { return URL(s) }, "fail": func() (string, error) { return "", errors.New("failed") }, "join": func(parts ...string) string { return strings.Join(parts, "+") },
	})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = s.Execute(&b, "t.html", data)
	return b.String(), err
}

type item struct {
	Name  string
	N     int64
	Tags  map[string]string
	Next  *item
	List  []item
	When  time.Time
	Words []string
	Zero  *int
}

func TestExecute(t *testing.T) {
	data := item{Name: "a<b>&\"'", N: 3, Tags: map[string]string{"order": "<1>"}, Next: &item{Name: "next"}, List: []item{{Name: "x", N: 1}, {Name: "y", N: 2}}, Words: []string{"p", "q"}, Zero: new(int)}
	for text, want := range map[string]string{
		`{{.Name}}`:             "a&lt;b&gt;&amp;&#34;&#39;",
		`<p title="{{.Name}}">`: `<p title="a&lt;b&gt;&amp;&#34;&#39;">`,
		`<a href="{{link "/x"}}?q={{.Name}}&amp;n={{.N}}">`:                   `<a href="/x?q=a%3Cb%3E%26%22%27&amp;n=3">`,
		`<a href="/x/{{.Name}}">`:                                             `<a href="/x/a%3Cb%3E%26%22%27">`,
		`{{.Tags.order}}{{.Tags.none}}{{index .Tags "order"}}`:                "&lt;1&gt;&lt;1&gt;",
		`{{range .List}}{{.Name}}{{.N}},{{else}}none{{end}}`:                  "x1,y2,",
		`{{range $i, $e := .List}}{{$i}}{{$e.Name}}{{$.N}} {{end}}`:           "0x3 1y3 ",
		`{{range .Next.List}}x{{else}}none{{end}}`:                            "none",
		`{{with .Next}}{{.Name}}{{else}}none{{end}}`:                          "next",
		`{{with .Next.Next}}{{.Name}}{{else}}none{{end}}`:                     "none",
		`{{if .When}}when{{else}}never{{end}}`:                                "never",
		`{{if and .Next .Next.Next .Next.Next.Next}}x{{else}}y{{end}}`:        "y",
		`{{if or (eq .N 1 3) (fail)}}x{{end}}`:                                "x",
		`{{with .Zero}}{{.}}{{end}}{{if .Next.Zero}}x{{end}}`:                 "0",
		`{{if not (gt .N 3)}}le{{end}}{{if ge .N 3}}ge{{end}}`:                "lege",
		`{{$n := 1}}{{range .List}}{{$n = .N}}{{end}}{{$n}}`:                  "2",
		`{{len .List}}{{add 1 2}}{{printf "%03d" .N}}`:                        "23003",
		`{{.Name | printf "%s!"}}{{join "a" .Name}}`:                          "a&lt;b&gt;&amp;&#34;&#39;!a+a&lt;b&gt;&amp;&#34;&#39;",
		`{{define "other"}}<b>{{.}}</b>{{end}}{{template "other" .Name}}`:     "<b>a&lt;b&gt;&amp;&#34;&#39;</b>",
		`<input{{if .N}} checked{{end}} value="{{.N}}">`:                      `<input checked value="3">`,
		`<!-- a > b --><script src="/x.js"></script>{{.N}}`:                   `<!-- a > b --><script src="/x.js"></script>3`,
		`{{range .Words}}{{if eq . "p"}}P{{else if eq . "q"}}Q{{end}}{{end}}`: "PQ",
	} {
		if got, err := render(t, text, data); err != nil || got != want {
			t.Errorf("%s = %q, %v, want %q", text, got, err, want)
		}
	}
	if got := Escape("a\x00\x1b[2J\xff\r\n\tü\u202e"); got != "a\uFFFD\uFFFD[2J\uFFFD\r\n\tü\u202e" {
		t.Errorf("Escape() = %q", got)
	}
}

// TestRefuse: a template with a value where it could not be escaped is an error, and so is
// what the pages may not have.
func TestRefuse(t *testing.T) {
	for _, text := range []string{
		`<a {{.Name}}>`, `<{{.Name}}>`, `<a href={{.Name}}>`, `<a href='{{.Name}}'>`, `<a onclick="{{.Name}}">`, `<p onclick="x()">`, `<p style="color:red">`, `<p title=x>`,
		`<script>{{.Name}}</script>`, `<script>x()</script>`, `<style>p{}</style>`, `<!-- {{.Name}} -->`, `<iframe srcdoc="x">`, `a < b`,
		`{{if .N}}<p title="{{end}}">`, `{{range .List}}<p title="{{end}}">`, `<p title="{{template "x"}}">{{define "x"}}{{end}}`, `<p `, `{{template "none"}}`, `{{none}}`,
	} {
		if got, err := render(t, text, item{}); err == nil {
			t.Errorf("%s = %q, want an error", text, got)
		}
	}
	for _, text := range []string{`<a href="{{.Name}}">`, `{{.None}}`, `{{.Next.Name}}`, `{{fail}}`, `{{eq .Name 1}}`, `{{range .Tags}}{{end}}`, `{{.List}}`, `{{link .N}}`, `{{index .List 9}}`, `{{template "t.html" .}}`} {
		if got, err := render(t, text, item{Name: "javascript:alert(1)"}); err == nil || got != "" {
			t.Errorf("%s = %q, %v, want an error and no page", text, got, err)
		}
	}
}
