package smtp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"mailsidecar/mailer"
)

// Limits of one reply, because a relay may never end a line or a reply.
const (
	maxReplyOctets = 64 << 10
	maxReplyLines  = 1000
	maxReplyText   = 500 // octets of Reply.Text
)

// errReplyMalformed is the error of text that is no SMTP reply. The dialogue is
// broken then, and the connection useless.
var errReplyMalformed = errors.New("not an SMTP reply")

// readReply reads one reply, see [readLines].
func readReply(br *bufio.Reader) (mailer.Reply, error) {
	w, err := readLines(br)
	return w.reply(), err
}

// wireReply is a reply as it was read: the code, and each line without it. Only
// EHLO and AUTH, whose replies hold data, look at the lines.
type wireReply struct {
	code  int
	lines []string
}

// readLines reads one reply, of one or more lines (RFC 5321 §4.2). It accepts a
// code without text and lines that end in a bare LF; a line without an end, or
// lines whose codes differ, make the reply malformed. An error other than
// errReplyMalformed is the connection's; a connection that ends within a reply
// is io.ErrUnexpectedEOF.
func readLines(br *bufio.Reader) (wireReply, error) {
	var w wireReply
	budget := maxReplyOctets
	for range maxReplyLines {
		line, err := readReplyLine(br, &budget)
		if err != nil {
			if errors.Is(err, io.EOF) && w.code != 0 {
				err = io.ErrUnexpectedEOF
			}
			return wireReply{}, err
		}
		code, text, more, ok := parseReplyLine(line)
		if !ok {
			return wireReply{}, fmt.Errorf("%w: %s", errReplyMalformed, mailer.Printable(string(line), 80))
		}
		if w.code != 0 && w.code != code {
			return wireReply{}, fmt.Errorf("%w: code %d continued as %d", errReplyMalformed, w.code, code)
		}
		w.code = code
		w.lines = append(w.lines, text)
		if !more {
			return w, nil
		}
	}
	return wireReply{}, fmt.Errorf("%w: over %d lines", errReplyMalformed, maxReplyLines)
}

// readReplyLine reads up to the next LF and returns the line without its end,
// valid until the next read. It takes what it reads from budget.
func readReplyLine(br *bufio.Reader, budget *int) ([]byte, error) {
	var long []byte // only for a line over the reader's buffer
	for {
		part, err := br.ReadSlice('\n')
		*budget -= len(part)
		switch {
		case *budget < 0:
			return nil, fmt.Errorf("%w: over %d octets", errReplyMalformed, maxReplyOctets)
		case err == nil:
			if long != nil {
				part = append(long, part...)
			}
			return bytes.TrimSuffix(part[:len(part)-1], []byte{'\r'}), nil
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, part...)
		case errors.Is(err, io.EOF) && len(part)+len(long) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// parseReplyLine splits "250-text", "250 text" or "250".
func parseReplyLine(line []byte) (code int, text string, more, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return 0, "", false, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, "", false, true
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, "", false, false
	}
	return code, string(line[4:]), line[3] == '-', true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// reply returns the value that is stored and shown. The enhanced status code is cut
// off the first line, and off each further line that repeats it.
func (w wireReply) reply() mailer.Reply {
	if w.code == 0 {
		return mailer.Reply{}
	}
	r := mailer.Reply{Code: w.code}
	texts := make([]string, 0, 8) // on the stack, mostly
	for i, line := range w.lines {
		enhanced, rest := cutEnhanced(line, w.code)
		if i == 0 {
			r.Enhanced = enhanced
		}
		if enhanced != r.Enhanced {
			rest = line
		}
		if rest = strings.TrimSpace(rest); rest != "" {
			texts = append(texts, rest)
		}
	}
	r.Text = mailer.Printable(strings.Join(texts, " "), maxReplyText)
	return r
}

// cutEnhanced cuts an enhanced status code off the front of text: "class.
// subject.detail" as in RFC 3463 §2, of the same class as the reply code (RFC
// 2034 §4). Where there is none it returns text as it is.
func cutEnhanced(text string, code int) (enhanced, rest string) {
	word, rest, _ := strings.Cut(text, " ")
	class, numbers, ok := strings.Cut(word, ".")
	if !ok || len(class) != 1 || int(class[0]-'0') != code/100 || class == "3" {
		return "", text
	}
	subject, detail, ok := strings.Cut(numbers, ".")
	if !ok || !isSubcode(subject) || !isSubcode(detail) {
		return "", text
	}
	return word, rest
}

// isSubcode reports whether s is one to three digits without a leading zero.
func isSubcode(s string) bool {
	if len(s) == 0 || len(s) > 3 || (s[0] == '0' && len(s) > 1) {
		return false
	}
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return true
}
