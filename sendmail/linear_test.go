package sendmail

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestLongHeaderSections: the memory that a message takes grows with its size alone, however
// many lines and fields it has.
func TestLongHeaderSections(t *testing.T) {
	for name, header := range map[string]string{
		"folds":         "To: ana@example.org" + strings.Repeat("\n ", 200_000),
		"lists":         "To: ana@example.org" + strings.Repeat("\nTo: ana@example.org", 20_000),
		"empty fields":  strings.Repeat("Subject:\n", 40_000) + "To: ana@example.org",
		"other fields":  "To: ana@example.org" + strings.Repeat("\nX-A: b", 40_000),
		"mailbox lines": strings.Repeat("From ana\n", 40_000) + "To: ana@example.org",
	} {
		s := &sender{options: options{fromHeader: true}, settings: settings{domain: "x.test", user: "shop"}, now: time.Now}
		data := []byte(header + "\n\nx\n")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		out, err := s.prepare(data)
		runtime.ReadMemStats(&after)
		if err != nil || out.forwardPaths[0] != "ana@example.org" {
			t.Errorf("%s: %v to %q", name, err, out.forwardPaths[:min(len(out.forwardPaths), 3)])
		}
		if took, most := after.TotalAlloc-before.TotalAlloc, uint64(500*len(data)); took > most {
			t.Errorf("%s: a message of %d octets took %d, want at most %d", name, len(data), took, most)
		}
	}
}

// TestByteOrderMark: an editor's mark in front, and the lines of a mailbox file, hide no
// recipient and show no Bcc.
func TestByteOrderMark(t *testing.T) {
	for _, front := range []string{"\uFEFF", "From ana Mon Nov 30\n", "From ana\n>From bob\n", "\uFEFFFrom ana\r\n"} {
		m := parseMessage([]byte(front + "To: ana@example.org\r\nBcc: bob@example.org\n\nhi\n"))
		if len(m.fields) != 2 || m.value("Bcc") != "bob@example.org" || !bytes.Equal(m.body, []byte("hi\n")) {
			t.Errorf("parseMessage with %q in front = %+v, %q", front, m.fields, m.body)
		}
	}
}
