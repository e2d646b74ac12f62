package compat_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"mailsidecar/handler/compat"
	"mailsidecar/handler/compat/all"
	"mailsidecar/handler/compat/compattest"
)

// TestProviderDocs compares the tables in docs/provider-apis.md with the types of
// the requests; with -update it rewrites them.
func TestProviderDocs(t *testing.T) {
	const path = "../../docs/provider-apis.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	for _, p := range apis(t) {
		begin, end := "<!-- fields:"+p.Name+" -->\n", "<!-- end:"+p.Name+" -->"
		before, rest, ok := strings.Cut(doc, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Errorf("%s lacks %s and %s", path, begin, end)
			continue
		}
		doc = before + begin + tables(p) + end + after
	}
	switch {
	case doc == string(data):
	case *compattest.Update:
		if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not up to date: run go test ./handler/compat -run ProviderDocs -update", path)
	}
}

func apis(t *testing.T) []*compat.API {
	chosen, err := all.Choose(all.Names())
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(chosen, func(a *compat.API) bool { return a.Name == "" })
}

func tables(p *compat.API) string {
	var b strings.Builder
	for _, r := range p.Requests {
		fmt.Fprintf(&b, "\n`%s`\n", r.Path)
		if r.Fields == nil {
			continue
		}
		b.WriteString("\n| field | | |\n|---|---|---|\n")
		for _, f := range compattest.Documented(r) {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, f.Treatment, f.Note)
		}
	}
	return b.String() + "\n"
}
