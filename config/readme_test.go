package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"mailsidecar/relays"
)

var update = flag.Bool("update", false, "rewrite the table in README.md")

// TestREADME compares the configuration table in README.md with the structs;
// with -update it rewrites the table.
func TestREADME(t *testing.T) {
	const path, begin, end = "../README.md", "<!-- config:begin -->\n", "<!-- config:end -->"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks %s and %s", path, begin, end)
	}
	var want bytes.Buffer
	writeMarkdown(&want)
	if table == want.String() {
		return
	}
	if !*update {
		t.Fatalf("the configuration table in %s is not up to date: run go test ./config -run README -update", path)
	}
	if err := os.WriteFile(path, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// writeMarkdown writes every variable and every preset as tables, for the README.
func writeMarkdown(b *bytes.Buffer) {
	for _, g := range groups() {
		b.WriteString("### " + g.title + "\n\n")
		if g.intro != "" {
			b.WriteString(g.intro + "\n\n")
		}
		b.WriteString("| Variable | Default | Meaning |\n|---|---|---|\n")
		for _, v := range g.variables {
			fmt.Fprintf(b, "| %s | %s | %s |\n", v.markdownName(), v.markdownDefault(), v.markdownMeaning())
		}
		b.WriteByte('\n')
	}
	b.WriteString("### Providers\n\n| `SMTP_PROVIDER` | Host | Ports | What to know |\n|---|---|---|---|\n")
	for _, p := range relays.Presets() {
		name := p.Name
		if p.Regional() {
			name, p = name+":REGION", p.InRegion("REGION")
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", name, p.Host, portsText(p.Ports), p.Advice)
	}
}

func (v variable) markdownName() string {
	name := "`" + v.name + "`"
	if v.alias != "" {
		name += " (or `" + v.alias + "`)"
	}
	if v.twin() != "" {
		name += " (or `…_FILE`)"
	}
	return name
}

func (v variable) markdownDefault() string {
	if d := v.tag("default"); d != "" {
		return "`" + d + "`"
	}
	return v.tag("unset")
}

func (v variable) markdownMeaning() string {
	text := strings.TrimSpace(v.tag("desc") + " " + v.tag("note"))
	return strings.NewReplacer("{providers}", "the names in the table below", "{apis}", strings.Join(compatAPIs, ", "), "|", `\|`, "<", `\<`).Replace(text)
}
