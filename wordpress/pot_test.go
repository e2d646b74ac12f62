// Package wordpress has no code in Go: it is the mu-plugin's folder. Its tests
// keep the template for translators current and the plugin small.
package wordpress

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite languages/mailsidecar.pot")

const (
	plugin   = "mailsidecar.php"
	template = "languages/mailsidecar.pot"
)

// TestTemplate holds the template to the plugin: every text that the plugin
// translates, in the order in which it stands there, with the comments that
// explain its placeholders.
func TestTemplate(t *testing.T) {
	source, err := os.ReadFile(plugin)
	if err != nil {
		t.Fatal(err)
	}
	want := makeTemplate(t, string(source))
	if *update {
		if err := os.WriteFile(template, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what %s asks for: run go test ./wordpress -update", template, plugin)
	}
}

// TestSize: PHP without an opcode cache reads the plugin for each page of a site.
func TestSize(t *testing.T) {
	const limit = 128 << 10
	info, err := os.Stat(plugin)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > limit {
		t.Errorf("%s has %d octets, and may have %d", plugin, info.Size(), limit)
	}
}

// WordPress's functions that translate one text, and the one for a number of things.
var (
	plural     = regexp.MustCompile(`\b_n\(\s*'((?:[^'\\]|\\.)*)',\s*'((?:[^'\\]|\\.)*)',\s*.*?,\s*'mailsidecar'\s*\)`)
	translated = regexp.MustCompile(`\b(?:__|_e|esc_html__|esc_html_e|esc_attr__|esc_attr_e)\(\s*'((?:[^'\\]|\\.)*)',\s*'mailsidecar'\s*\)`)
	anyCall    = regexp.MustCompile(`\b(?:__|_e|_x|_n|_nx|_ex|esc_(?:html|attr)_(?:_|e|x))\(`)
	comment    = regexp.MustCompile(`/\* (translators: .*?) \*/`)
)

func makeTemplate(t *testing.T, source string) string {
	t.Helper()
	lines := strings.Split(source, "\n")
	var ids []string
	about, plurals := map[string]string{}, map[string]string{}
	unquote := strings.NewReplacer(`\'`, `'`, `\\`, `\`)
	hint := ""
	for i, line := range lines {
		if found := comment.FindStringSubmatch(line); found != nil {
			hint = found[1]
		}
		found := translated.FindAllStringSubmatch(line, -1)
		for _, call := range plural.FindAllStringSubmatch(line, -1) {
			found = append(found, call)
			plurals[unquote.Replace(call[1])] = unquote.Replace(call[2])
		}
		if calls := anyCall.FindAllString(line, -1); len(calls) != len(found) {
			t.Errorf("%s:%d: a text that is not 'text', 'mailsidecar' on one line", plugin, i+1)
		}
		for _, call := range found {
			id := unquote.Replace(call[1])
			if strings.Contains(id, "%") != (hint != "") {
				t.Errorf("%s:%d: %q has placeholders without a comment for translators, or a comment without any", plugin, i+1, id)
			}
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
			about[id] = hint
			hint = ""
		}
	}
	var b strings.Builder
	b.WriteString(templateHead)
	for _, id := range ids {
		b.WriteString("\n")
		if about[id] != "" {
			fmt.Fprintf(&b, "#. %s\n", about[id])
		}
		if strings.Contains(id, "%") {
			b.WriteString("#, php-format\n")
		}
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
		if more, ok := plurals[id]; ok {
			fmt.Fprintf(&b, "msgid \"%s\"\nmsgid_plural \"%s\"\nmsgstr[0] \"\"\nmsgstr[1] \"\"\n", quoted.Replace(id), quoted.Replace(more))
			continue
		}
		fmt.Fprintf(&b, "msgid \"%s\"\nmsgstr \"\"\n", quoted.Replace(id))
	}
	return b.String()
}

const templateHead = `# Template for translations of the mailsidecar mu-plugin.
# MIT license
msgid ""
msgstr ""
"Project-Id-Version: mailsidecar\n"
"MIME-Version: 1.0\n"
"Content-Type: text/plain; charset=UTF-8\n"
"Content-Transfer-Encoding: 8bit\n"
"X-Domain: mailsidecar\n"
`
