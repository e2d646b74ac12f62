package export

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"mailsidecar/api"
)

// TestNoFormula: no cell begins as a formula does, nor one of a spreadsheet that splits at semicolons.
func TestNoFormula(t *testing.T) {
	for cell, want := range map[string]string{
		"=1": "'=1", "+1": "'+1", "-1": "'-1", "@x": "'@x", "\tx": "'\tx", "\rx": "'\rx", "\nx": "'\nx", "-)": "'-)", "\t=1": "'\t'=1",
		"a;=1": "a;'=1", "a;-;=1;+2": "a;'-;'=1;'+2", "a;\"=1": "a;'\"=1", "a\t@x": "a\t'@x", "a\r\n-1": "a\r\n'-1", "ä;=1": "ä;'=1",
		"": "", "1": "1", "a=1": "a=1", "'=1": "'=1", " =1": " =1", "a; b": "a; b", "hello ;-)": "hello ;-)", "a;": "a;", "a;\"": "a;\"",
	} {
		if got := noFormula(cell); got != want {
			t.Errorf("noFormula(%q) = %q, want %q", cell, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := NewTable(&b).End(); err != nil || b.String() != strings.Join(columns, ",")+"\n" {
		t.Errorf("a table without messages = %q, %v, want the names of the columns", b.String(), err)
	}
	b.Reset()
	table := NewTable(&b)
	m := api.Message{ID: "1", Subject: "=1, \"x\"", Recipients: []api.Recipient{{Email: "a@example.org"}, {Email: "b@example.org"}}}
	for range 2 {
		if err := table.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.End(); err != nil || strings.Count(b.String(), "\n") != 5 || strings.Count(b.String(), `"'=1, ""x"""`) != 4 {
		t.Errorf("table = %s, %v", b.String(), err)
	}
}

func TestWriteMbox(t *testing.T) {
	at := time.Date(2026, 11, 29, 15, 4, 5, 0, time.UTC)
	const head = "From a@example.org Sun Nov 29 15:04:05 2026\n"
	long := strings.Repeat("x", 64<<10-1)
	for content, want := range map[string]string{
		"":                                       "\n",
		"a":                                      "a\n\n",
		"a\r\n\r\nb\nc\r":                        "a\n\nb\nc\n\n",
		"From x\r\n>From y\r\n From z\r\n>>From": ">From x\n>>From y\n From z\n>>From\n\n",
		long + "\r\nFrom x\r\n":                  long + "\n>From x\n\n",
		long + "\rFrom y\r\n":                    long + "\rFrom y\n\n",
		long + "From x":                          long + "From x\n\n",
		long + "x" + long + "\r\n\r\n":           long + "x" + long + "\n\n\n",
		"a\r\r\nb":                               "a\r\nb\n\n",
	} {
		for _, content := range []*strings.Reader{strings.NewReader(content)} {
			var b bytes.Buffer
			m := api.Message{CreatedAt: at, Envelope: api.Envelope{ReversePath: "a@example.org"}}
			if err := WriteMbox(&b, m, iotest.HalfReader(content)); err != nil || b.String() != head+want {
				t.Errorf("WriteMbox = %.200q, %v, want %.200q", b.String(), err, head+want)
			}
		}
	}
	for _, path := range []string{"", `"a b"@example.org`, "a b", "a\nFrom b"} {
		var b bytes.Buffer
		if err := WriteMbox(&b, api.Message{CreatedAt: at, Envelope: api.Envelope{ReversePath: path}}, strings.NewReader("a")); err != nil || !strings.HasPrefix(b.String(), "From MAILER-DAEMON Sun") {
			t.Errorf("WriteMbox from %q = %q, %v", path, b.String(), err)
		}
	}
	if err := WriteMbox(&bytes.Buffer{}, api.Message{}, iotest.ErrReader(iotest.ErrTimeout)); err == nil {
		t.Error("WriteMbox of a content that breaks off = nil, want an error")
	}
}
