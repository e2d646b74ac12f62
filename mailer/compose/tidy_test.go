package compose

import (
	"strings"
	"testing"
)

// TestFinishBlankBeforeColon: some readers take a field with a blank before its colon for
// the beginning of the body. The blank goes, unless a signature covers the field.
func TestFinishBlankBeforeColon(t *testing.T) {
	const rest = "Content-Type : multipart/mixed; boundary=b\r\nDate: Mon, 02 Feb 2026 15:04:05 +0100\r\nMessage-ID: <1@x.test>\r\n\r\n--b\r\nContent-Type \t: text/html\r\nX-A\t: " +
		"one\r\n : two\r\n\r\nx : y\r\n--b--\r\n"
	c, err := Finish(t.Context(), []byte("From : a@x.test\r\nTO\t : b@x.test\r\nBCC : c@x.test\r\n"+rest), FinishOptions{})
	want := "From: a@x.test\r\nTO: b@x.test\r\n" + strings.NewReplacer("Type :", "Type:", "Type \t:", "Type:", "X-A\t:", "X-A:").Replace(rest)
	if got := string(c.Content.Data); err != nil || got != want {
		t.Errorf("Finish = %q, %v, want %q", got, err, want)
	}
}

func TestFinishBlankBeforeColonSigned(t *testing.T) {
	for _, message := range []string{
		"DKIM-Signature: v=1; d=x.test; h=from:to; b=x\r\nFrom : a@x.test\r\nTo : b@x.test\r\nDate: Mon, 02 Feb 2026 15:04:05 +0100\r\nMessage-ID: <1@x.test>\r\n\r\nx\r\n",
		"From: a@x.test\r\nTo: b@x.test\r\nDate: Mon, 02 Feb 2026 15:04:05 +0100\r\nMessage-ID: <1@x.test>\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\nContent-Type : text/plain\r\n\r\nx\r\n--b\r\n\r\ny\r\n--b--\r\n",
	} {
		if c, err := Finish(t.Context(), []byte(message), FinishOptions{}); err != nil || string(c.Content.Data) != message {
			t.Errorf("Finish(%q) = %q, %v, want no change", message, c.Content.Data, err)
		}
	}
}

// TestFinishFilenameInParentheses: what stands in parentheses without a blank before them
// is part of a file's name, not a comment.
func TestFinishFilenameInParentheses(t *testing.T) {
	for _, tt := range []struct{ value, want string }{
		{"attachment; filename=\u00e9t\u00e9(1).pdf", "filename*=UTF-8''%C3%A9t%C3%A9%281%29.pdf"},
		{"attachment; filename=\u00e9t\u00e9.pdf (the file)", "filename*=UTF-8''%C3%A9t%C3%A9.pdf;"},
		{"attachment (a \\) \"b); filename=\u00e9t\u00e9.pdf", "filename*=UTF-8''%C3%A9t%C3%A9.pdf;"},
		{"attachment; filename=\"\u00e9 (1).pdf\"", "filename*=UTF-8''%C3%A9%20%281%29.pdf"},
	} {
		c, err := Finish(t.Context(), []byte("From: a@x.test\r\nTo: b@x.test\r\nContent-Disposition: "+tt.value+"\r\n\r\nx\r\n"), FinishOptions{})
		if err != nil || !strings.Contains(string(c.Content.Data), tt.want) {
			t.Errorf("Content-Disposition: %s became %q, %v, want %s", tt.value, c.Content.Data, err, tt.want)
		}
	}
}
