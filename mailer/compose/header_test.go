package compose

import (
	"mime"
	"strings"
	"testing"
	"unicode/utf8"

	"mailsidecar/mailer"
)

// TestAppendHeaderField: lines stay within 78 octets where words allow it, and
// unfolding restores the value.
func TestAppendHeaderField(t *testing.T) {
	for _, value := range []string{
		"", "x", strings.Repeat("word ", 40) + "end", strings.Repeat("x", 200), "a " + strings.Repeat("x", 200) + " b",
		strings.Repeat("y", 70) + " z", "a  b   c" + strings.Repeat(" d", 60),
	} {
		field := string(appendHeaderField(nil, "X-Test", headerWords(value)))
		lines := strings.Split(strings.TrimSuffix(field, "\r\n"), "\r\n")
		for _, line := range lines {
			if len(line) > foldedLine && strings.Contains(strings.TrimPrefix(strings.TrimSpace(line), "X-Test: "), " ") {
				t.Errorf("appendHeaderField(%q): line %q could be folded", value, line)
			}
		}
		if got := strings.TrimPrefix(strings.Join(lines, ""), "X-Test:"); strings.TrimPrefix(got, " ") != value {
			t.Errorf("appendHeaderField(%q) unfolds to %q", value, got)
		}
	}
}

// TestEncodedWords: what is encoded decodes to the same, in words of at most 75
// octets that each hold whole characters.
func TestEncodedWords(t *testing.T) {
	for _, text := range []string{
		"Größe", "日本語", " both sides ", "tab\tesc\x1b", strings.Repeat("é", 300), strings.Repeat("😀", 100), strings.Repeat("long ", 100),
		"\u2028", "=?utf-8?q?x?= ü", "_ ? = \" ( ) < > @ , ; : \\ /",
	} {
		for _, room := range []int{-10, 10, 60, 75, 1000} {
			words := encodedWords("utf-8", text, room)
			for i, w := range words {
				if len(w) > maxEncodedWord+1 || i == 0 && len(w) > max(room, minEncodedWord)+1 {
					t.Errorf("encodedWords(%q, %d): %q has %d octets", text, room, w, len(w)-1)
				}
				one, err := new(mime.WordDecoder).Decode(w[1:])
				if err != nil || !utf8.ValidString(one) {
					t.Errorf("encodedWords(%q): %q decodes to %q, %v", text, w, one, err)
				}
			}
			got, err := new(mime.WordDecoder).DecodeHeader(strings.Join(words, "\r\n"))
			if err != nil || got != " "+text {
				t.Errorf("encodedWords(%q) decodes to %q, %v", text, got, err)
			}
		}
	}
}

func TestPhraseWords(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"Ana", " Ana"},
		{"Ana Maria", " Ana Maria"},
		{"Ana  Maria", ` "Ana  Maria"`},
		{" Ana", ` " Ana"`},
		{"Dr. Ana", ` "Dr. Ana"`},
		{`John "Joe" Doe`, ` "John \"Joe\" Doe"`},
		{`back\slash`, ` "back\\slash"`},
		{"a@b", ` "a@b"`},
		{"Jörg", " =?utf-8?q?J=C3=B6rg?="},
		{"=?utf-8?Q?J=C3=B6rg?=", " =?utf-8?Q?J=C3=B6rg?="},
		{"=?utf-8?Q?a?= =?utf-8?b?YQ==?=", " =?utf-8?Q?a?= =?utf-8?b?YQ==?="},
		{"=?utf-8?Q?a?= b", " =?utf-8?q?=3D=3Futf-8=3FQ=3Fa=3F=3D_b?="},
		{"=?utf-8?Q?a?=, <x@y>", " =?utf-8?q?=3D=3Futf-8=3FQ=3Fa=3F=3D=2C_=3Cx=40y=3E?="},
		{"a\tb", " =?utf-8?q?a=09b?="},
	}
	for _, tt := range tests {
		if got := strings.Join(phraseWords("To", tt.in), ""); got != tt.want {
			t.Errorf("phraseWords(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// TestAppendParam: another parser reads the value back, and no line is long.
func TestAppendParam(t *testing.T) {
	for _, value := range []string{
		"a.pdf", "with blank.pdf", `quo"te\.pdf`, "Übersicht.pdf", "a;b=c.pdf", "100%.pdf", "=?utf-8?q?x?=.pdf", "'x'*.pdf", "\t\x01.pdf",
		strings.Repeat("long-", 40) + ".pdf", strings.Repeat("😀", 90) + ".pdf", strings.Repeat("x", 1000), "\u202egpj.exe",
	} {
		field := string(appendParam([]byte("attachment"), "filename", value))
		for line := range strings.SplitSeq(field, "\r\n") {
			if len(line) > foldedLine {
				t.Errorf("appendParam(%q): line %q has %d octets", value, line, len(line))
			}
		}
		_, params, err := mime.ParseMediaType(strings.ReplaceAll(field, "\r\n", ""))
		if err != nil || params["filename"] != value {
			t.Errorf("appendParam(%q) is read as %q, %v", value, params["filename"], err)
		}
	}
}

func TestAttachmentType(t *testing.T) {
	tests := []struct {
		in   mailer.Attachment
		want string
	}{
		{mailer.Attachment{Filename: "a.pdf"}, "application/pdf"},
		{mailer.Attachment{Filename: "A.PDF", ContentType: "application/octet-stream"}, "application/pdf"},
		{mailer.Attachment{Filename: "a.pdf", ContentType: "image/png"}, "image/png"},
		{mailer.Attachment{Filename: "pdf"}, octetStream},
		{mailer.Attachment{Filename: "a.unknown"}, octetStream},
		{mailer.Attachment{ContentID: "x"}, octetStream},
		{mailer.Attachment{Filename: "a.txt", Content: []byte("ü")}, "text/plain; charset=utf-8"},
		{mailer.Attachment{Filename: "a.txt", Content: []byte("\xfc")}, "text/plain"},
		{mailer.Attachment{Filename: "a.eml", ContentType: "message/rfc822"}, octetStream},
		{mailer.Attachment{Filename: "a", ContentType: "multipart/mixed; boundary=x"}, octetStream},
		{mailer.Attachment{Filename: "a", ContentType: `Text/Calendar; METHOD=request; name="evil.exe"`}, "text/calendar; method=request"},
	}
	for _, tt := range tests {
		mediaType, params := attachmentType(tt.in)
		if got := mime.FormatMediaType(mediaType, params); got != tt.want {
			t.Errorf("attachmentType(%q, %q) = %q, want %q", tt.in.Filename, tt.in.ContentType, got, tt.want)
		}
	}
}
