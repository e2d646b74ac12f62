package relays

import (
	"strconv"
	"strings"

	"mailsidecar/mailer"
)

// fromPHPMailer reads a message of PHPMailer, which takes a reply apart: "DATA END
// command failed Detail: … SMTP code: 554 Additional SMTP info: 5.7.1", or in older
// ones "MAIL FROM command failed,…,553,5.7.1".
func fromPHPMailer(text string) (Pasted, bool) {
	if before, said, ok := strings.Cut(text, "Detail: "); ok {
		return fromDetail(before, said)
	}
	if before, said, ok := strings.Cut(text, " command failed,"); ok {
		return fromList(before+" command", said)
	}
	return Pasted{}, false
}

// fromDetail reads what stands behind "Detail: ".
func fromDetail(before, said string) (Pasted, bool) {
	detail, rest, ok := strings.Cut(said, "SMTP code: ")
	number, info, _ := strings.Cut(rest, " ")
	number = strings.TrimRight(number, ".,;\n")
	if !ok || len(number) != 3 || !isCode(number) {
		return Pasted{}, false
	}
	_, info, _ = strings.Cut(info, "Additional SMTP info: ")
	return phpReply(before, detail, number, info), true
}

// fromList reads a text, a code and perhaps an enhanced status code between commas.
func fromList(before, said string) (Pasted, bool) {
	for end := len(said); end > 0; {
		comma := strings.LastIndexByte(said[:end], ',')
		if comma < 0 {
			break
		}
		if field := strings.TrimSpace(said[comma+1 : end]); len(field) == 3 && isCode(field) {
			return phpReply(before, said[:comma], field, strings.TrimPrefix(said[end:], ",")), true
		}
		end = comma
	}
	return Pasted{}, false
}

// phpReply puts the parts of a reply together. info begins with the enhanced status code
// where there is one.
func phpReply(before, said, number, info string) Pasted {
	code, _ := strconv.Atoi(number)
	p := Pasted{Reply: mailer.Reply{Code: code}, Stage: stageSaid(before)}
	p.Reply.Enhanced, p.Reply.Text = joined(said, code)
	if first, _, _ := strings.Cut(strings.TrimSpace(info), " "); p.Reply.Enhanced == "" && isEnhanced(first, code) {
		p.Reply.Enhanced = first
	}
	return p
}

// HidesReply reports whether a text without a reply is one of PHPMailer's that may stand
// for one: it did not get as far, or does not show it.
func HidesReply(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, "smtp error: could not authenticate") || strings.Contains(text, "smtp connect() failed")
}

// IsAccepted reports whether a text begins with a reply by which a relay accepts
// something.
func IsAccepted(text string) bool {
	code, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	switch code {
	case "220", "221", "235", "250", "251", "252":
		first, _, _ := strings.Cut(strings.ToLower(rest), " ")
		number, _ := strconv.Atoi(code)
		return rest == "" || strings.HasPrefix(first, "ok") || isEnhanced(first, number)
	default:
		return false
	}
}

// maxNames limits the names in a line that are looked up.
const maxNames = 100

// hostNamed returns the first name in a line that is the host of a known relay; empty
// where there is none.
func hostNamed(line string) string {
	names := 0
	for name := range strings.FieldsFuncSeq(line, func(c rune) bool {
		return c != '.' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	}) {
		name = strings.Trim(name, ".-")
		if strings.Count(name, ".") < 2 {
			continue
		}
		if _, ok := PresetAt(name); ok {
			return normalHost(name)
		}
		if names++; names == maxNames {
			break
		}
	}
	return ""
}
