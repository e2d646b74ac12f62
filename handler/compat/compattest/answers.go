package compattest

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/handler/compat"
)

// Update rewrites what is expected, answers and documentation, instead of comparing with it.
var Update = flag.Bool("update", false, "rewrite what is expected")

// shown are the header fields of an answer that a golden file has.
var shown = []string{"Content-Type", "X-Message-Id", "X-Amzn-Errortype"}

// madeID is an id that differs from run to run.
var madeID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)

// Answers compares the answers to the requests with testdata/answers.txt, octet by
// octet: the provider's clients depend on them. With -update it rewrites the file.
func Answers(t *testing.T, a *compat.API, requests []*http.Request) {
	t.Helper()
	var b strings.Builder
	for i, r := range requests {
		w := new(Desk).Serve(t, a, r)
		fmt.Fprintf(&b, "# %d\n%d\n", i, w.Code)
		for _, name := range shown {
			for _, value := range w.Header().Values(name) {
				fmt.Fprintf(&b, "%s: %s\n", name, value)
			}
		}
		fmt.Fprintf(&b, "%s\n", indented(w.Body.Bytes()))
	}
	answers := madeID.ReplaceAllString(b.String(), "(id)")
	path := filepath.Join("testdata", "answers.txt")
	if *Update {
		if err := os.WriteFile(path, []byte(answers), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, wanted := strings.Split(answers, "\n# "), strings.Split(string(want), "\n# ")
	if len(got) != len(wanted) {
		t.Fatalf("%s has %d answers, want %d", path, len(wanted), len(got))
	}
	for i, answer := range got {
		if answer != wanted[i] {
			t.Errorf("%s: answer %d is\n%s\nwant\n%s", path, i, answer, wanted[i])
		}
	}
}

// indented writes each member on a line of its own, in the order of the answer.
func indented(body []byte) []byte {
	v := jsontext.Value(body)
	if err := v.Indent(jsontext.WithIndent("  ")); err != nil {
		return body
	}
	return append(v, '\n')
}

// With puts members into a JSON object, whose own of the same names they replace.
func With(object, members string) string {
	var own, more map[string]any
	if err := json.Unmarshal([]byte(object), &own); err != nil {
		panic(err)
	}
	if err := json.Unmarshal([]byte("{"+members+"}"), &more); err != nil {
		panic(fmt.Sprintf("%v in %s", err, members))
	}
	for name, value := range more {
		own[name] = value
	}
	b, err := json.Marshal(own, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	return string(b)
}
