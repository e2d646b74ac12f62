package problem

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"mailsidecar/api"
	"mailsidecar/mailer"
)

// TestCodesAreDocumented compares docs/http-api.md with codes: the table under
// Errors has each of them once, and no row of any table says anything else.
func TestCodesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "\n## Errors\n")
	if !ok {
		t.Fatal("docs/http-api.md has no section Errors")
	}
	for _, r := range documentedCodes(string(doc)) {
		is, ok := codes[r.code]
		switch {
		case !ok:
			t.Errorf("%s is documented and does not exist", r.code)
		case r.status != strconv.Itoa(is.status) || r.retryable != is.retryable:
			t.Errorf("%s: documented as %s, retryable %v; is %d, %v", r.code, r.status, r.retryable, is.status, is.retryable)
		}
	}
	times := map[api.Code]int{}
	for _, r := range documentedCodes(table) {
		times[r.code]++
	}
	for _, c := range Codes() {
		if times[c] != 1 {
			t.Errorf("%s has %d rows under Errors, want 1", c, times[c])
		}
	}
}

// documented is a row about a code in the documentation.
type documented struct {
	status    string
	code      api.Code
	retryable bool
}

func documentedCodes(doc string) []documented {
	var rows []documented
	row := regexp.MustCompile("(?m)^\\| (\\d{3}) \\| `([a-z0-9_]+)` \\| (yes|no) \\|")
	for _, m := range row.FindAllStringSubmatch(doc, -1) {
		rows = append(rows, documented{m[1], api.Code(m[2]), m[3] == "yes"})
	}
	return rows
}

// TestDescribe: what is wrong with the message itself is told without words about a relay.
func TestDescribe(t *testing.T) {
	for _, tt := range []struct {
		failure mailer.Failure
		want    string
	}{
		{mailer.Failure{Stage: mailer.StageCompose, Text: "the message is signed"}, "the message is signed"},
		{mailer.Failure{Stage: mailer.StageConnect, Text: "no turn"}, "before a relay was asked: connect: no turn"},
		{mailer.Failure{Stage: mailer.StageRcpt, Relay: "a", Port: 587, Reply: mailer.Reply{Code: 550, Text: "no"}}, "relay a, port 587: rcpt: 550 no"},
	} {
		if got := Describe(&tt.failure); got != tt.want {
			t.Errorf("Describe(%+v) = %q, want %q", tt.failure, got, tt.want)
		}
	}
}

// TestDescribeUnstored: nobody is told that mail waits which nothing holds.
func TestDescribeUnstored(t *testing.T) {
	const again = "The message was not stored: send it again after the time in Retry-After."
	for remedy, want := range map[string]string{
		"Mail waits; mailsidecar asks once an hour, because the limit is a moving window.": again,
		"Mail waits, and goes on when the relay takes it again. Set SMTP_RATE.":            again + " Set SMTP_RATE.",
		"Ask its support. Mail waits, and goes out once it may.":                           again + " Ask its support.",
		"Write another address.": "Write another address.",
	} {
		f := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageContent, Reply: mailer.Reply{Code: 550, Text: "limit"}, Relay: "r", Cause: "Used up.", Remedy: remedy}
		if got := DescribeUnstored(f); !strings.HasSuffix(got, ". Used up. "+want) || f.Remedy != remedy {
			t.Errorf("DescribeUnstored of %q = %q, want %q at its end", remedy, got, want)
		}
	}
	if got := DescribeUnstored(nil); got != Describe(nil) {
		t.Errorf("DescribeUnstored(nil) = %q", got)
	}
}
