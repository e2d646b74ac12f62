package compose

import (
	"mime"
	"regexp"
	"strings"
	"unicode/utf8"

	"mailsidecar/mailer"
)

// calendarToken is a name of iCalendar (RFC 5545 §3.1).
var calendarToken = regexp.MustCompile(`^[A-Za-z0-9-]{1,40}$`)

// calendar checks an invitation and records its method.
func (v *validMessage) calendar(c mailer.Calendar) {
	content, method := mailer.Position{Field: "calendar", Member: "content"}, mailer.Position{Field: "calendar", Member: "method"}
	if c == (mailer.Calendar{}) {
		return
	}
	own, twice, isCalendar := calendarMethod(c.Content)
	switch {
	case c.Content == "":
		v.invalid(content, "is required")
	case !utf8.ValidString(c.Content):
		v.malformed(content, "not valid UTF-8")
	case strings.Contains(c.Content, "\x00"):
		v.invalid(content, "has a NUL octet, which programs read in several ways")
	case !isCalendar:
		v.invalid(content, "not an iCalendar object of RFC 5545: it begins with BEGIN:VCALENDAR")
	case twice:
		v.invalid(content, "has several METHOD lines: leave one")
	case own != "" && !calendarToken.MatchString(own):
		v.invalid(content, "its METHOD is no method of RFC 5546, such as REQUEST")
	case c.Method != "" && !calendarToken.MatchString(c.Method):
		v.invalid(method, "no method of RFC 5546, such as REQUEST")
	case own != "" && c.Method != "" && !strings.EqualFold(own, c.Method):
		v.invalid(method, "the calendar's METHOD is "+strings.ToUpper(own))
	}
	if v.method = strings.ToUpper(own); own == "" {
		v.method = strings.ToUpper(c.Method)
	}
}

// calendarMethod returns the first METHOD of an iCalendar object, which is empty where it
// has none, and whether it has two, or the text has objects of different methods. It
// returns false where the text is no such object.
func calendarMethod(text string) (method string, twice, isCalendar bool) {
	depth, first, has := 0, true, false
	for line := range calendarLines(strings.TrimPrefix(text, "\uFEFF")) {
		name, value, _ := strings.Cut(line, ":")
		name, _, _ = strings.Cut(name, ";")
		value = strings.TrimSpace(value)
		switch name = strings.ToUpper(strings.TrimSpace(name)); {
		case name == "" && depth == 0:
		case name == "BEGIN":
			if depth++; depth == 1 && !strings.EqualFold(value, "VCALENDAR") {
				return "", false, false
			}
		case depth == 0:
			return "", twice, isCalendar
		case name == "END":
			depth--
			has = has && depth > 0
			isCalendar = isCalendar || depth == 0
		case name == "METHOD" && depth == 1:
			if twice = twice || has || !first && !strings.EqualFold(value, method); first {
				method = value
			}
			first, has = false, true
		}
	}
	return method, twice, isCalendar
}

// calendarLines yields the lines of an iCalendar object, unfolded (RFC 5545 §3.1) as far
// as a name and a method reach.
func calendarLines(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		const enough = 256
		line := ""
		for text != "" {
			n := strings.IndexAny(text, "\r\n")
			if n < 0 {
				n = len(text)
			}
			piece := text[:min(n, enough)]
			if text = strings.TrimLeft(text[n:], "\r\n"); piece != "" && isBlank(piece[0]) {
				if len(line) < enough {
					line += piece[1:]
				}
				continue
			}
			if line != "" && !yield(line) {
				return
			}
			line = piece
		}
		if line != "" {
			yield(line)
		}
	}
}

// calendarType is the media type of an invitation's part, without the charset (RFC 6047
// §2.4).
func calendarType(method string) string {
	if method == "" {
		return "text/calendar"
	}
	return mime.FormatMediaType("text/calendar", map[string]string{"method": method})
}
