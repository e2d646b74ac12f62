package compat_test

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"mailsidecar/handler/compat"
	"mailsidecar/handler/compat/all"
)

var update = flag.Bool("update", false, "rewrite what is generated in the documentation")

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
	case *update:
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
		for _, f := range documented(r.Fields) {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, f.Treatment, f.Note)
		}
	}
	return b.String() + "\n"
}

func documented(fields any) []compat.FormField {
	if list, ok := fields.([]compat.FormField); ok {
		return slices.Clone(list)
	}
	return fieldsOf(reflect.TypeOf(fields), "")
}

// fieldsOf lists the members of a type, those inside it after it.
func fieldsOf(t reflect.Type, path string) []compat.FormField {
	var all []compat.FormField
	for i := range t.NumField() {
		f := t.Field(i)
		name := strings.TrimPrefix(path+"."+f.Tag.Get("json"), ".")
		treatment := compat.Honoured
		if own := compat.OwnTypes[f.Type]; own != "" {
			treatment = own
		}
		all = append(all, compat.FormField{Name: name, Treatment: treatment, Note: f.Tag.Get("note")})
		inner, name := f.Type, name
		if inner.Kind() == reflect.Slice && inner != reflect.TypeFor[compat.Pairs]() {
			inner, name = inner.Elem(), name+"[]"
		}
		if inner.Kind() == reflect.Struct && compat.OwnTypes[inner] == "" && inner != reflect.TypeFor[compat.Person]() {
			all = append(all, fieldsOf(inner, name)...)
		}
	}
	return all
}
