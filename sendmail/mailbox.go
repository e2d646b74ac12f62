package sendmail

import "strings"

// mailbox is one address of a list with its display name or comment.
type mailbox struct {
	name    string
	address string
}

// parseMailboxes reads the addresses of a header field or an argument. It is
// made for what programs write rather than for RFC 5322: unquoted dots, @ and
// 8-bit text in display names, empty list elements, semicolons, comments with
// the name in them, and groups, whose members count and whose name does not.
// What it cannot make sense of comes out as an address that is not valid, so
// that no recipient is left out silently.
func parseMailboxes(list string) []mailbox {
	var boxes []mailbox
	for _, element := range splitMailboxes(list) {
		if box := element.mailbox(); box.address != "" {
			boxes = append(boxes, box)
		}
	}
	return boxes
}

// mailboxText is one element of an address list by the kinds of its text.
type mailboxText struct {
	plain   string // outside of everything; quoted strings with their quotes
	comment string // between parentheses
	angle   string // between < and >
	inAngle bool   // there was a <
}

func (t mailboxText) mailbox() mailbox {
	plain := strings.TrimSpace(t.plain)
	if t.inAngle {
		return mailbox{name: unquotePhrase(plain), address: strings.TrimSpace(t.angle)}
	}
	return mailbox{name: strings.TrimSpace(t.comment), address: plain}
}

// splitMailboxes cuts list at the commas and semicolons that stand outside of
// quotes, comments and angle brackets.
func splitMailboxes(list string) []mailboxText {
	s := mailboxScanner(list)
	var elements []mailboxText
	var current mailboxText
	for s != "" {
		switch s[0] {
		case '"':
			current.plain += `"` + s.until('"') + `"`
		case '(':
			current.comment += s.comment()
		case '<':
			current.angle, current.inAngle = s.until('>'), true
		case ',', ';':
			elements = append(elements, current)
			current = mailboxText{}
			s = s[1:]
		case ':':
			if !strings.Contains(current.plain, "@") {
				current.plain = "" // the name of a group
			}
			s = s[1:]
		default:
			current.plain += s.plain()
		}
	}
	return append(elements, current)
}

// mailboxScanner is what is still to be read of an address list.
type mailboxScanner string

// plain reads the text up to the next character with a meaning.
func (s *mailboxScanner) plain() string {
	end := strings.IndexAny(string(*s), `"(<,;:`)
	if end < 0 {
		end = len(*s)
	}
	text := (*s)[:end]
	*s = (*s)[end:]
	return string(text)
}

// until reads what follows the first character up to last or to the end, with
// backslashes and what they quote as they are.
func (s *mailboxScanner) until(last byte) string {
	for i := 1; i < len(*s); i++ {
		switch (*s)[i] {
		case '\\':
			i++
		case last:
			text := (*s)[1:i]
			*s = (*s)[i+1:]
			return string(text)
		}
	}
	text := (*s)[1:]
	*s = ""
	return string(text)
}

// comment reads a comment, which may hold others, and returns its text.
func (s *mailboxScanner) comment() string {
	var text strings.Builder
	depth := 0
	for i := 0; i < len(*s); i++ {
		c := (*s)[i]
		switch {
		case c == '\\' && i+1 < len(*s):
			i++
			text.WriteByte((*s)[i])
		case c == '(':
			depth++
		case c == ')':
			depth--
		default:
			text.WriteByte(c)
		}
		if depth == 0 {
			*s = (*s)[i+1:]
			return text.String()
		}
	}
	*s = ""
	return text.String()
}

// unquotePhrase takes the quotes off a display name.
func unquotePhrase(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' && i+1 < len(s)-1 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
