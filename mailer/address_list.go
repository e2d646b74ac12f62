package mailer

import (
	"strings"
	"unicode"
)

// mailboxText is one mailbox of a list as it was written, not validated.
type mailboxText struct {
	name     string // before the angle brackets, trimmed, quotes kept
	addrSpec string
	grouped  bool // a member of a group, or an empty group
}

// mailboxScanner splits a mailbox list (RFC 5322 §3.4) into its members. It does not
// split at commas in quotes, comments or angle brackets. It does not validate names
// and addresses.
type mailboxScanner struct {
	text    string
	pos     int
	start   int // of the mailbox being read
	angle   int // position of its "<", or -1
	close   int // position of its ">", or -1
	grouped bool
	found   []mailboxText
}

// maxMailboxes limits the members of one list; a message may have far fewer
// recipients.
const maxMailboxes = 10_000

// splitMailboxes splits s at its commas. Empty members are skipped.
func splitMailboxes(s string) ([]mailboxText, error) {
	sc := mailboxScanner{text: s, angle: -1, close: -1}
	for sc.pos < len(s) {
		if err := sc.step(); err != nil {
			return nil, err
		}
		sc.pos++
	}
	if err := sc.endMailbox(); err != nil {
		return nil, err
	}
	return sc.found, nil
}

func (sc *mailboxScanner) step() error {
	switch sc.text[sc.pos] {
	case '"':
		return sc.skipQuoted()
	case '(':
		if sc.angle < 0 || sc.close >= 0 {
			return sc.skipComment()
		}
	case '<':
		if sc.angle >= 0 {
			return addressError("more than one pair of angle brackets")
		}
		sc.angle = sc.pos
	case '>':
		if sc.angle < 0 || sc.close >= 0 {
			return addressError("angle brackets do not match")
		}
		sc.close = sc.pos
	case '[':
		return sc.skipLiteral()
	case ':':
		return sc.openGroup()
	case ',', ';':
		if sc.angle < 0 || sc.close >= 0 {
			return sc.endMailbox()
		}
	}
	return nil
}

func (sc *mailboxScanner) skipQuoted() error {
	_, rest, ok := CutQuotedString(sc.text[sc.pos:])
	if !ok {
		return addressError("a quote is not closed")
	}
	sc.pos = len(sc.text) - len(rest) - 1
	return nil
}

func (sc *mailboxScanner) skipComment() error {
	depth := 0
	for ; sc.pos < len(sc.text); sc.pos++ {
		switch sc.text[sc.pos] {
		case '\\':
			sc.pos++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return nil
			}
		}
	}
	return addressError("a parenthesis is not closed")
}

// skipLiteral skips [IPv6:...], whose colons do not open a group.
func (sc *mailboxScanner) skipLiteral() error {
	end := strings.IndexByte(sc.text[sc.pos:], ']')
	if end < 0 {
		return addressError("a bracket is not closed")
	}
	sc.pos += end
	return nil
}

// openGroup skips the group's name. A colon in angle brackets belongs to an obsolete
// route, which canonicalAddrSpec refuses.
func (sc *mailboxScanner) openGroup() error {
	if sc.angle >= 0 && sc.close < 0 {
		return nil
	}
	if sc.grouped || sc.angle >= 0 {
		return addressError("a colon is out of place")
	}
	sc.grouped = true
	sc.start = sc.pos + 1
	return nil
}

func (sc *mailboxScanner) endMailbox() error {
	text := sc.text[sc.start:sc.pos]
	m := mailboxText{addrSpec: TrimBlanks(text), grouped: sc.grouped}
	if sc.angle >= 0 {
		if sc.close < 0 {
			return addressError("angle brackets do not match")
		}
		if TrimBlanks(StripComments(sc.text[sc.close+1:sc.pos])) != "" {
			return addressError("text after the address")
		}
		m.name = TrimBlanks(sc.text[sc.start:sc.angle])
		m.addrSpec = sc.text[sc.angle+1 : sc.close]
	}
	if len(sc.found) == maxMailboxes {
		return addressError("more than 10000 addresses")
	}
	if m.addrSpec != "" || m.name != "" || sc.angle >= 0 {
		sc.found = append(sc.found, m)
	}
	if sc.pos < len(sc.text) && sc.text[sc.pos] == ';' {
		if !sc.grouped {
			return addressError("a semicolon is out of place")
		}
		sc.grouped = false
	}
	sc.start, sc.angle, sc.close = sc.pos+1, -1, -1
	return nil
}

// TrimBlanks removes blanks at both ends, those of Unicode too: people paste them with
// an address. Line separators and other characters that cannot be seen stay.
func TrimBlanks(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return r == '\t' || unicode.Is(unicode.Zs, r) })
}

// FieldAddress is one member of an address field: its canonical addr-spec, or why
// it has none.
type FieldAddress struct {
	Email string
	Err   error // an [*AddressError], or nil
}

// ParseAddressField reads the value of an address field of a finished message
// (RFC 5322 §3.4), unfolded, as leniently as mail readers do. Members of groups
// count; names, comments, blanks and obsolete routes (§4.4) are dropped. The error
// is an [*AddressError] where the value cannot be split into members.
func ParseAddressField(value string) ([]FieldAddress, error) {
	mailboxes, err := splitMailboxes(value)
	if err != nil {
		return nil, err
	}
	list := make([]FieldAddress, len(mailboxes))
	for i, m := range mailboxes {
		list[i].Email, list[i].Err = canonicalAddrSpec(plainAddrSpec(m.addrSpec))
	}
	return list, nil
}

// plainAddrSpec drops what old software puts around an address: comments,
// blanks and a route.
func plainAddrSpec(s string) string {
	s = TrimBlanks(StripComments(s))
	if strings.HasPrefix(s, "@") {
		if _, after, found := strings.Cut(s, ":"); found {
			return after
		}
	}
	return s
}
