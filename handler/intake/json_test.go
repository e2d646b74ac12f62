package intake

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/handler/problem"
)

// TestFieldPath: a number is the place of an item where data has a list, and a name where
// it has an object.
func TestFieldPath(t *testing.T) {
	data := `{"to":["a",{"email":1}],"attachments":[{"content":1}],"headers":{"X-Order":1,"5":1,"a/b~c":1},"messages":[0,1,2,{"tags":{"7":[1]},"headers":[{"name":1}]}],"` + long(200) + `":{"a":1},"cut":[{"1":`
	for pointer, want := range map[jsontext.Pointer]string{
		"":                                "",
		"/to/1/email":                     "to[1].email",
		"/to/0":                           "to[0]",
		"/attachments/0":                  "attachments[0]",
		"/attachments/0/content":          "attachments[0].content",
		"/headers/X-Order":                "headers.X-Order",
		"/headers/5":                      "headers.5",
		"/messages/3/tags/7/0":            "messages[3].tags.7[0]",
		"/messages/3/headers/0/name":      "messages[3].headers[0].name",
		"/headers/a~1b~0c":                "headers.a/b~c",
		"/cut/0/1":                        "cut[0].1",
		jsontext.Pointer("/" + long(200)): long(problem.MaxPath) + "…",
	} {
		if got := fieldPath("", []byte(data), pointer); got != want {
			t.Errorf("fieldPath(%q) = %q, want %q", pointer, got, want)
		}
	}
}

// TestFieldPathIsQuick: to find a place takes no work for each item before it, and none for
// each level around that.
func TestFieldPathIsQuick(t *testing.T) {
	const depth, items = 500, 20_000
	deep := strings.Repeat("[", depth) + strings.Repeat("1,", items)
	whole := deep + "1" + strings.Repeat("]", depth)
	for name, tc := range map[string]struct {
		data    string
		pointer jsontext.Pointer
	}{
		"behind deep items": {`{"to":` + whole + `,"x":1}`, "/x"},
		"among deep items":  {`{"to":` + deep, jsontext.Pointer("/to" + strings.Repeat("/0", depth-1) + "/20000")},
	} {
		if got := testing.AllocsPerRun(1, func() { fieldPath("", []byte(tc.data), tc.pointer) }); got > 2*depth {
			t.Errorf("fieldPath %s makes %v allocations, want %d at most", name, got, 2*depth)
		}
	}
}

func long(n int) string { return string(slices.Repeat([]byte("x"), n)) }

// FuzzReadString: a string is read as the library reads it, or refused as there.
func FuzzReadString(f *testing.F) {
	for _, seed := range []string{
		`""`, `"a"`, `"\""`, `"\\\/\b\f\n\r\t"`, `"\u003cp\u003E\u00fc\u20AC\u0000"`, `"a\ud83d\uDE00b"`, `"\ud800"`, `"\ud800\u0041"`,
		`"\udc00"`, `"\u12"`, `"\x"`, `"\`, `"`, "\"\xff\"", "\"\n\"", ` "a" `, `"a"b`, `1`, `["a"]`, `"\uFFFD�"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if string(bytes.TrimSpace(in)) == "null" {
			return // which only we refuse
		}
		var got, want string
		wantErr := json.Unmarshal(in, &want)
		if err := Decode(in, &got, ""); got != want || (err == nil) != (wantErr == nil) {
			t.Errorf("Decode(%q) = %q, %v, want %q, %v", in, got, err, want, wantErr)
		}
	})
}
