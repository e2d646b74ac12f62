package compose

import (
	"bytes"
	"mime/quotedprintable"
	"strings"
	"testing"
)

// standardQuotedPrintable encodes by the standard library.
func standardQuotedPrintable(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	if _, err := w.Write(appendCRLF(nil, text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func FuzzAppendQuotedPrintable(f *testing.F) {
	for _, s := range []string{
		"", "a", " ", "\t\r\n", "a \nb\t\rc", "\r\r\n\n\r", "=\r=\n", "Größe\x00\x7f", "From \n.\n..\r\n",
		strings.Repeat("x", 75), strings.Repeat("x", 76) + "\n", strings.Repeat("x", 74) + " ", strings.Repeat("x", 75) + " \nx",
		strings.Repeat("x", 73) + "=", strings.Repeat("x", 72) + "=\t", strings.Repeat("ü", 40), strings.Repeat("x ", 100),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want := "before" + string(standardQuotedPrintable(t, text))
		if got := appendQuotedPrintable([]byte("before"), text); string(got) != want {
			t.Errorf("appendQuotedPrintable(%q) = %q, want %q", text, got, want)
		}
		if got := quotedSize(text); got != len(want)-len("before") {
			t.Errorf("quotedSize(%q) = %d, want %d", text, got, len(want)-len("before"))
		}
		if got := appendQuotedPrintable([]byte("before"), string(text)); string(got) != want {
			t.Errorf("appendQuotedPrintable(string %q) = %q, want %q", text, got, want)
		}
	})
}

func BenchmarkAppendQuotedPrintable(b *testing.B) {
	for name, line := range map[string]string{
		"html":  "<p style=\"color:#333\">Größe und Menge finden Sie in der Übersicht; it ships within two days.</p>\n",
		"ascii": "Your order 1042 is on its way, and will be with you in two days.\n",
	} {
		b.Run(name, func(b *testing.B) {
			text := strings.Repeat(line, 10_000/len(line))
			b.SetBytes(int64(len(text)))
			var dst []byte
			for b.Loop() {
				dst = appendQuotedPrintable(dst[:0], text)
			}
		})
	}
}
