package smtp

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"mailsidecar/mailer"
)

func readString(s string) (mailer.Reply, error) {
	return readReply(bufio.NewReader(strings.NewReader(s)))
}

func TestReadReply(t *testing.T) {
	tests := []struct {
		in   string
		want mailer.Reply
		err  error
	}{
		{"250 2.1.0 ok\r\n", mailer.Reply{Code: 250, Enhanced: "2.1.0", Text: "ok"}, nil},
		{"250\r\n", mailer.Reply{Code: 250, Enhanced: "", Text: ""}, nil},
		{"250 \r\n", mailer.Reply{Code: 250, Enhanced: "", Text: ""}, nil},
		{"250 ok\n", mailer.Reply{Code: 250, Enhanced: "", Text: "ok"}, nil},
		{"250-one\r\n250-\r\n250 two\r\n", mailer.Reply{Code: 250, Enhanced: "", Text: "one two"}, nil},
		{"250-one\r\n250\r\n", mailer.Reply{Code: 250, Enhanced: "", Text: "one"}, nil},
		{"550-5.1.1 no such\r\n550 5.1.1 user\r\n", mailer.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"}, nil},
		{"550-5.1.1 no such\r\n550 user 5.1.1\r\n", mailer.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user 5.1.1"}, nil},
		{"550 5.7.139\r\n", mailer.Reply{Code: 550, Enhanced: "5.7.139", Text: ""}, nil},
		{"550 4.7.1 class differs\r\n", mailer.Reply{Code: 550, Enhanced: "", Text: "4.7.1 class differs"}, nil},
		{"550 5.01.1 zero\r\n", mailer.Reply{Code: 550, Enhanced: "", Text: "5.01.1 zero"}, nil},
		{"550 5.1.1111 long\r\n", mailer.Reply{Code: 550, Enhanced: "", Text: "5.1.1111 long"}, nil},
		{"550 5.1 short\r\n", mailer.Reply{Code: 550, Enhanced: "", Text: "5.1 short"}, nil},
		{"550 5.1.1.1 more\r\n", mailer.Reply{Code: 550, Enhanced: "", Text: "5.1.1.1 more"}, nil},
		{"550 5.1.1: colon\r\n", mailer.Reply{Code: 550, Enhanced: "", Text: "5.1.1: colon"}, nil},
		{"250 a\x1b[31m\tb\xffc\u202ed\r\n", mailer.Reply{Code: 250, Enhanced: "", Text: `a\x1b[31m\x09b\xffc\u{202e}d`}, nil},
		{"250 grüße\r\n", mailer.Reply{Code: 250, Enhanced: "", Text: "grüße"}, nil},

		{"", mailer.Reply{}, io.EOF},
		{"250", mailer.Reply{}, io.ErrUnexpectedEOF},
		{"250 ok", mailer.Reply{}, io.ErrUnexpectedEOF},
		{"250-one\r\n", mailer.Reply{}, io.ErrUnexpectedEOF},
		{"250-one\r\n251 two\r\n", mailer.Reply{}, errReplyMalformed},
		{"\r\n", mailer.Reply{}, errReplyMalformed},
		{"25 ok\r\n", mailer.Reply{}, errReplyMalformed},
		{"2500 ok\r\n", mailer.Reply{}, errReplyMalformed},
		{"250ok\r\n", mailer.Reply{}, errReplyMalformed},
		{"150 ok\r\n", mailer.Reply{}, errReplyMalformed},
		{"650 ok\r\n", mailer.Reply{}, errReplyMalformed},
		{"250_ok\r\n", mailer.Reply{}, errReplyMalformed},
		{"250 " + strings.Repeat("a", maxReplyOctets), mailer.Reply{}, errReplyMalformed},
		{strings.Repeat("250-a\r\n", maxReplyLines) + "250 a\r\n", mailer.Reply{}, errReplyMalformed},
		{strings.Repeat("250-"+strings.Repeat("a", 996)+"\r\n", 70), mailer.Reply{}, errReplyMalformed},
	}
	for _, tt := range tests {
		got, err := readString(tt.in)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("readReply(%.60q) = %+v, %v, want %+v, %v", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestReadReplyLeavesTheRest(t *testing.T) {
	br := bufio.NewReaderSize(strings.NewReader("250-a\r\n250 b\r\n354 c\r\n"), 16)
	for _, want := range []int{250, 354} {
		if r, err := readReply(br); r.Code != want || err != nil {
			t.Errorf("readReply() = %d, %v, want %d", r.Code, err, want)
		}
	}
}

func FuzzReadReply(f *testing.F) {
	for _, seed := range []string{
		"250 ok\r\n", "250\n", "250-a\r\n250 b\r\n", "550 5.1.1 no\r\n", "334 dXNlcg==\r\n",
		"250-a\r\n251 b\r\n", "421 4.7.0 \x1b]0;x\x07\xff\r\n", "250-\r\n250-\r\n250", "2\x00\r\n",
	} {
		f.Add([]byte(seed), 16)
	}
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		src := strings.NewReader(string(data))
		w, err := readLines(bufio.NewReaderSize(src, size%4096))
		if err != nil {
			if w.code != 0 {
				t.Errorf("readLines() = %d with error %v", w.code, err)
			}
			return
		}
		if w.code < 200 || w.code > 599 || len(w.lines) == 0 || len(w.lines) > maxReplyLines {
			t.Errorf("readLines() = code %d, %d lines", w.code, len(w.lines))
		}
		r := w.reply()
		if len(r.Text) > maxReplyText || !utf8.ValidString(r.Text) || strings.ContainsAny(r.Text, "\r\n\x00\x1b") {
			t.Errorf("text %q is not fit to be shown", r.Text)
		}
		if r.Enhanced != "" && int(r.Enhanced[0]-'0') != r.Code/100 {
			t.Errorf("enhanced code %s with reply code %d", r.Enhanced, r.Code)
		}
		parseExtensions(w.lines)
	})
}
