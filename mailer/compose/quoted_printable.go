package compose

import "slices"

// maxQuotedLine is the length of a line of quoted-printable (RFC 2045 §6.7) without
// the "=" of a soft line break, in octets.
const maxQuotedLine = 75

// appendQuotedPrintable appends text as quoted-printable, in one pass. Every CRLF, LF,
// CR CR LF and CR ends a line. Blanks before a line end, or at the end of the text, are
// encoded, because relays strip them.
//
// It writes the same as mime/quotedprintable (a fuzz target compares them), which
// takes four times as long and needs line ends that are CRLF already.
func appendQuotedPrintable[T string | []byte](dst []byte, text T) []byte {
	return appendQuoted(slices.Grow(dst, len(text)+len(text)/8), text)
}

// appendQuoted is appendQuotedPrintable into a buffer that has room.
func appendQuoted[T string | []byte](dst []byte, text T) []byte {
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
			text = text[lineEndSize(text):]
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

// quotedSize returns the octets that appendQuotedPrintable appends.
func quotedSize[T string | []byte](text T) int {
	size, col, endsBlank := 0, 0, false
	for len(text) > 0 {
		n, room := 0, text[:min(len(text), maxQuotedLine-col)]
		for n < len(room) && isQuotedPlain[room[n]] {
			n++
		}
		if n > 0 {
			size, col, endsBlank = size+n, col+n, isBlank(room[n-1])
		}
		if text = text[n:]; len(text) == 0 {
			break
		}
		switch c := text[0]; {
		case c == '\r' || c == '\n':
			size += quotedEnd(col, endsBlank) + len("\r\n")
			col = 0
			text = text[lineEndSize(text):]
		case isQuotedPlain[c]: // no room for it
			size += len("=\r\n")
			col = 0
		default:
			if col+len("=XX") > maxQuotedLine {
				size += len("=\r\n")
				col = 0
			}
			size, col, endsBlank = size+len("=XX"), col+len("=XX"), false
			text = text[1:]
		}
	}
	return size + quotedEnd(col, endsBlank)
}

// quotedEnd returns the octets that endQuotedLine adds.
func quotedEnd(col int, endsBlank bool) int {
	switch {
	case col == 0 || !endsBlank:
		return 0
	case col-1+len("=XX") > maxQuotedLine:
		return len("=\r\n") + len("=XX") - 1
	default:
		return len("=XX") - 1
	}
}

// lineEndSize returns the octets of the line end that text begins with.
func lineEndSize[T string | []byte](text T) int {
	switch {
	case text[0] == '\r' && len(text) > 2 && text[1] == '\r' && text[2] == '\n':
		return 3
	case text[0] == '\r' && len(text) > 1 && text[1] == '\n':
		return 2
	default:
		return 1
	}
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
