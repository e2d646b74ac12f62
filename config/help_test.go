package config

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestEveryVariableIsDocumented(t *testing.T) {
	var help bytes.Buffer
	if err := WriteHelp(&help); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(help.String()) {
		if len([]rune(line)) > 81 {
			t.Errorf("over 80 columns: %s", line)
		}
	}
	for _, g := range groups() {
		for _, v := range g.variables {
			for _, name := range v.names() {
				if !slices.Contains(strings.Fields(strings.ReplaceAll(help.String(), ",", " ")), name) {
					t.Errorf("--help lacks %s", name)
				}
			}
			for _, text := range []string{v.tag("desc"), v.tag("note")} {
				if text != "" && !strings.HasSuffix(text, ".") || v.tag("desc") == "" {
					t.Errorf("%s: %q is no sentence", v.name, text)
				}
			}
		}
	}
}

// TestTags reads every default, choice and limit: all must be valid.
func TestTags(t *testing.T) {
	known := []string{"env", "alias", "group", "default", "unset", "oneof", "min", "max", "lines", "twin", "desc", "note"}
	for _, g := range groups() {
		for _, v := range g.variables {
			for _, key := range []string{"default", "min", "max"} {
				if text := v.tag(key); text != "" {
					if err := v.decode(nowhere, text); err != nil {
						t.Errorf("%s: %s: %v", v.name, key, err)
					}
				}
			}
			if text := v.tag("default"); text != "" {
				_ = v.decode(nowhere, text)
				if bad := v.checkBounds(); bad != nil {
					t.Errorf("%s: the default %v", v.name, bad)
				}
				if choices := v.tag("oneof"); choices != "" && !oneOf(choices, text) {
					t.Errorf("%s: the default is none of %s", v.name, choices)
				}
			}
			for part := range strings.SplitSeq(string(v.field.Tag), `" `) {
				if key, _, _ := strings.Cut(part, ":"); !slices.Contains(known, key) {
					t.Errorf("%s: unknown tag %s", v.name, key)
				}
			}
		}
	}
}
