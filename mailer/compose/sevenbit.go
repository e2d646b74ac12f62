package compose

import (
	"bytes"
	"context"
	"errors"
	"unicode/utf8"

	"mailsidecar/mailer"
)

// SevenBit returns the content for a relay that does not offer 8BITMIME (RFC 6152 §3).
// It encodes parts that hold octets over 127: text as quoted-printable, other parts as
// base64. It leaves raw UTF-8 in addresses of the header section, which needs
// SMTPUTF8, and so another relay. Content that is 7-bit already is returned as it is.
// Content that cannot be converted, such as a signed part, is a permanent
// [*mailer.Failure] with 5.6.3; so is one that would become larger than four times its
// size and 64 KiB. When ctx ends, the error is that of the context. It asks reserve
// before it makes the octets.
func SevenBit(ctx context.Context, c mailer.Content, reserve Reserve) (mailer.Content, error) {
	return Convert(ctx, c, Form{SevenBit: true}, reserve)
}

// The faults that [checkLines] finds.
var (
	errNUL      = errors.New("NUL")
	errLineEnd  = errors.New("bare CR or LF")
	errLongLine = errors.New("line over 998 octets")
	errNoEnd    = errors.New("no line end at the end")
)

// checkLines checks that data is as [mailer.Content.Data] promises.
func checkLines(data []byte) error {
	if bytes.IndexByte(data, 0) >= 0 {
		return errNUL
	}
	for len(data) > 0 {
		n := bytes.IndexByte(data, '\n')
		switch {
		case n < 0:
			return errNoEnd
		case n == 0 || data[n-1] != '\r' || bytes.IndexByte(data[:n-1], '\r') >= 0:
			return errLineEnd
		case n-1 > maxLine:
			return errLongLine
		}
		data = data[n+1:]
	}
	return nil
}

// splitContent returns the header section, with its last line end, and the body.
func splitContent(data []byte) (header, body []byte) {
	if i := bytes.Index(data, []byte("\r\n\r\n")); i >= 0 {
		return data[:i+2], data[i+4:]
	}
	return data, nil
}

func validHeaderText(header []byte) bool { return utf8.Valid(header) }
