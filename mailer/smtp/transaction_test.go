package smtp

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// FuzzAppendStuffed compares with the rule read line by line.
func FuzzAppendStuffed(f *testing.F) {
	f.Add([]byte(".a\r\n..b\r\nc.\r\n.\r\n"), uint8(3))
	f.Add([]byte("\r\n.\r\n"), uint8(2))
	f.Add([]byte("."), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, chunk uint8) {
		var want []byte
		for line := range bytes.SplitAfterSeq(data, []byte("\n")) {
			if bytes.HasPrefix(line, []byte(".")) {
				want = append(want, '.')
			}
			want = append(want, line...)
		}
		var got []byte
		for rest, start := data, true; len(rest) > 0; {
			piece := rest[:min(len(rest), int(chunk)+1)]
			got = appendStuffed(got, piece, start)
			start = piece[len(piece)-1] == '\n'
			rest = rest[len(piece):]
		}
		if !bytes.Equal(got, want) {
			t.Errorf("appendStuffed(%q) in chunks of %d = %q, want %q", data, int(chunk)+1, got, want)
		}
	})
}

func TestIsSpeakable(t *testing.T) {
	tests := []struct {
		in   string
		want bool
	}{
		{"", true},
		{"a@example.org", true},
		{"üser@example.org", true},
		{`"a b"@example.org`, true},
		{`"a>b"@example.org`, true},
		{`"a\"b"@example.org`, true},
		{"a@[IPv6:::1]", true},
		{"a@example.org> SIZE=1", false},
		{"a@example.org\r\nRSET", false},
		{"<a@example.org", false},
		{"a b@example.org", false},
		{`"a@example.org`, false},
		{`"a\`, false},
		{"\"a\\\r\"@example.org", false},
		{"a\x00@example.org", false},
	}
	for _, tt := range tests {
		if got := isSafePath(tt.in); got != tt.want {
			t.Errorf("isSafePath(%q) = %v, want %v", tt.in, got, tt.want)
		}
	}
}

func BenchmarkAppendStuffed(b *testing.B) {
	line := strings.Repeat("x", 76) + "\r\n"
	data := []byte(strings.Repeat(line, 10<<20/len(line)))
	for range len(data) / 1000 {
		data[rand.IntN(len(data)/78)*78] = '.'
	}
	buf := make([]byte, 0, 2*contentChunk)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		for off := 0; off < len(data); off += contentChunk {
			buf = appendStuffed(buf[:0], data[off:min(len(data), off+contentChunk)], false)
		}
	}
}
