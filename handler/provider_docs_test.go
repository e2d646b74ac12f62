package handler

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite what is generated in the documentation")

// TestProviderDocs compares the tables in docs/provider-apis.md with the types of
// the requests; with -update it rewrites them.
func TestProviderDocs(t *testing.T) {
	const path = "../docs/provider-apis.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	for _, p := range providers {
		begin, end := "<!-- fields:"+p.name+" -->\n", "<!-- end:"+p.name+" -->"
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
		t.Errorf("%s is not up to date: run go test ./handler -run ProviderDocs -update", path)
	}
}

func tables(p *provider) string {
	var b strings.Builder
	for _, r := range p.requests {
		fmt.Fprintf(&b, "\n`%s`\n", r.path)
		if r.fields == nil {
			continue
		}
		b.WriteString("\n| field | | |\n|---|---|---|\n")
		for _, f := range documented(r.fields) {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.name, f.treatment, f.note)
		}
	}
	return b.String() + "\n"
}

func documented(fields any) []formField {
	if list, ok := fields.([]formField); ok {
		return slices.Clone(list)
	}
	return fieldsOf(reflect.TypeOf(fields), "")
}

// fieldsOf lists the members of a type, those inside it after it.
func fieldsOf(t reflect.Type, path string) []formField {
	var all []formField
	for i := range t.NumField() {
		f := t.Field(i)
		name := strings.TrimPrefix(path+"."+f.Tag.Get("json"), ".")
		treatment := honoured
		if own := ownTypes[f.Type]; own != "" {
			treatment = own
		}
		all = append(all, formField{name, treatment, f.Tag.Get("note")})
		inner, name := f.Type, name
		if inner.Kind() == reflect.Slice && inner != reflect.TypeFor[pairs]() {
			inner, name = inner.Elem(), name+"[]"
		}
		if inner.Kind() == reflect.Struct && ownTypes[inner] == "" && inner != reflect.TypeFor[person]() {
			all = append(all, fieldsOf(inner, name)...)
		}
	}
	return all
}
