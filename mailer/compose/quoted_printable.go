package compose

import "slices"

// maxQuotedLine is the length of a line of quoted-printable (RFC 2045 §6.7) without
// the "=" of a soft line break, in octets.
const maxQuotedLine = 75

// appendQuotedPrintable appends text as quoted-printable, in one pass. Every CRLF, LF
// and CR ends a line. Blanks before a line end, or at the end of the text, are
// encoded, because relays strip them.
//
// It writes the same as mime/quotedprintable (a fuzz target compares them), which
// takes four times as long and needs line ends that are CRLF already.
func appendQuotedPrintable[T string | []byte](dst []byte, text T) []byte {
	dst = slices.Grow(dst, len(text)+len(text)/8)
	col := 0
	for len(text) > 0 {
		n, room := 0, text[:min(len(text), maxQuotedLine-col)]
		for n < len(room) && isQuotedPlain[room[n]] {
			n++
		}
		dst = append(dst, room[:n]...)
		col += n
		if text = text[n:]; len(text) == 0 {
			break
		}
		switch c := text[0]; {
		case c == '\r' || c == '\n':
			dst = append(endQuotedLine(dst, col), '\r', '\n')
			col = 0
			if c == '\r' && len(text) > 1 && text[1] == '\n' {
				text = text[1:]
			}
			text = text[1:]
		case isQuotedPlain[c]: // no room for it
			dst = append(dst, '=', '\r', '\n')
			col = 0
		default:
			dst, col = appendQuotedOctet(dst, col, c)
			text = text[1:]
		}
	}
	return endQuotedLine(dst, col)
}

// isQuotedPlain holds the octets that are not encoded, except blanks at a line's end.
var isQuotedPlain = func() (plain [256]bool) {
	for c := ' '; c <= '~'; c++ {
		plain[c] = c != '='
	}
	plain['\t'] = true
	return plain
}()

func appendQuotedOctet(dst []byte, col int, c byte) ([]byte, int) {
	if col+len("=XX") > maxQuotedLine {
		dst = append(dst, '=', '\r', '\n')
		col = 0
	}
	return append(dst, '=', upperHex[c>>4], upperHex[c&15]), col + len("=XX")
}

// endQuotedLine encodes the last octet of a line of col octets if it is a blank.
func endQuotedLine(dst []byte, col int) []byte {
	last := len(dst) - 1
	if col == 0 || !isBlank(dst[last]) {
		return dst
	}
	dst, _ = appendQuotedOctet(dst[:last], col-1, dst[last])
	return dst
}
