package handler

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mailsidecar/api"
)

// TestVerdictCodesAreDocumented: the table under "Without a queue" in
// docs/http-api.md has the codes of a relay's verdict, and that of a server which stops
// before there is one.
func TestVerdictCodesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "\n### Without a queue\n")
	if !ok {
		t.Fatal("docs/http-api.md has no section Without a queue")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	want := []string{string(api.CodeShuttingDown)}
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| \\d{3} \\| `([a-z_]+)`").FindAllStringSubmatch(section, -1) {
		got = append(got, m[1])
	}
	for code := range maps.Values(verdictCodes) {
		want = append(want, string(code))
	}
	if slices.Sort(want); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("documented codes = %v, want %v", got, want)
	}
}
