package compose

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-message"
	"github.com/google/go-cmp/cmp"

	"mailsidecar/mailer"
)

func TestFinishGolden(t *testing.T) {
	files, err := filepath.Glob(goldenDir + "/*.in.eml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden messages: %v", err)
	}
	for _, file := range files {
		stem := strings.TrimSuffix(file, ".in.eml")
		t.Run(filepath.Base(stem), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Finish(t.Context(), raw, FinishOptions{})
			if err != nil {
				t.Fatal(err)
			}
			checkContent(t, c.Content)
			compareGolden(t, stem+".eml", c.Content.Data)
			compareLeaves(t, raw, c.Content.Data)
			checkASCIIHeader(t, stem, c.Content)
			seven, err := SevenBit(t.Context(), c.Content, nil)
			if filepath.Base(stem) == "finish-signed" || filepath.Base(stem) == "finish-two-types" && c.Content.EightBit {
				wantConversionRefused(t, "SevenBit", err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkContent(t, seven)
			if seven.EightBit {
				t.Errorf("SevenBit left 8-bit text:\n%s", seven.Data)
			}
			compareLeaves(t, raw, seven.Data)
		})
	}
}

// checkASCIIHeader compares a message that needs SMTPUTF8 with what a relay without it
// gets.
func checkASCIIHeader(t *testing.T, stem string, c mailer.Content) {
	t.Helper()
	if !c.UTF8Header {
		return
	}
	ascii, err := ASCIIHeader(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkContent(t, ascii)
	if ascii.UTF8Header {
		t.Errorf("ASCIIHeader left raw UTF-8:\n%s", ascii.Data)
	}
	compareGolden(t, stem+".ascii.eml", stableBoundaries(ascii.Data))
	compareLeaves(t, c.Data, ascii.Data)
}

// compareLeaves checks that another parser finds the same contents in two
// messages. Line ends may differ, since transport makes them all CRLF.
func compareLeaves(t *testing.T, before, after []byte) {
	t.Helper()
	if diff := cmp.Diff(leafBodies(t, before), leafBodies(t, after)); diff != "" {
		t.Errorf("contents differ:\n%s", diff)
	}
}

func leafBodies(t *testing.T, raw []byte) []string {
	t.Helper()
	// The parser takes a lone CR for no line end; in a header section that
	// would hide fields.
	header, body, _ := strings.Cut(string(raw), "\n\n")
	if strings.Contains(string(raw), "\r\n\r\n") {
		header, body, _ = strings.Cut(string(raw), "\r\n\r\n")
	}
	raw = []byte(crlfText(header) + "\r\n\r\n" + body)
	e, err := message.Read(bytes.NewReader(raw))
	if err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
		t.Fatal(err)
	}
	var bodies []string
	for _, p := range parsedParts(t, e) {
		if p.Type == "message/rfc822" {
			bodies = append(bodies, leafBodies(t, []byte(p.Body))...)
			continue
		}
		bodies = append(bodies, strings.TrimRight(strings.ReplaceAll(crlfText(p.Body), "\r\n", "\n"), "\n"))
	}
	return bodies
}

func TestFinishBinaryExactly(t *testing.T) {
	content := []byte("\x00\x01\r\x02\n\r\n\xff")
	raw := "From: a@b\r\nTo: c@d\r\nContent-Type: application/x\r\n\r\n" + string(content)
	c, err := Finish(t.Context(), []byte(raw), FinishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, body := splitContent(c.Content.Data)
	got, err := base64.StdEncoding.DecodeString(string(body))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("body = %q, %v, want %q", got, err, content)
	}
}
