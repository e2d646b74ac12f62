package problem

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"mailsidecar/api"
)

// TestCodesAreDocumented compares the table in docs/http-api.md with codes.
func TestCodesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| (\\d{3}) \\| `([a-z0-9_]+)` \\| (yes|no) \\|")
	documented := map[api.Code]bool{}
	for _, m := range row.FindAllStringSubmatch(string(doc), -1) {
		c := api.Code(m[2])
		documented[c] = true
		is, ok := codes[c]
		if !ok {
			t.Errorf("%s is documented and does not exist", c)
			continue
		}
		if got := strconv.Itoa(is.status); got != m[1] || is.retryable != (m[3] == "yes") {
			t.Errorf("%s: documented as %s, retryable %s; is %s, %v", c, m[1], m[3], got, is.retryable)
		}
	}
	for _, c := range Codes() {
		if !documented[c] {
			t.Errorf("%s is not documented", c)
		}
	}
}
