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

// writeMarkdown writes every variable as tables, and the names of the presets, for the README.
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
	var names []string
	for _, p := range relays.Presets() {
		name := p.Name
		if p.Regional() {
			name += ":REGION"
		}
		names = append(names, "`"+name+"`")
	}
	b.WriteString("### Providers\n\n" + strings.Join(names, ", ") + ": [docs/presets.md](docs/presets.md) says for each " +
		"what to set, what its users get wrong, and what it limits. `mailsidecar presets NAME` prints the same.\n")
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
	return strings.NewReplacer("{providers}", "[these names](docs/presets.md)", "{apis}", strings.Join(compatAPIs, ", "), "|", `\|`, "<", `\<`).Replace(text)
}
