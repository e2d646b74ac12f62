package mailer

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Limits of RFC 5321 §4.5.3.1, in octets. The path of 256 octets counts its
// angle brackets.
const (
	maxLocalPart = 64
	maxAddrSpec  = 254
	maxDomain    = 253
	maxLabel     = 63
)

// AddressError is why a text is not the address, or the list of addresses, that it
// should be.
type AddressError struct {
	// Reason is one clause for the caller; it never repeats the text.
	Reason string
	// Malformed says that the text holds CR, LF, NUL or invalid UTF-8.
	Malformed bool
}

func (e *AddressError) Error() string { return e.Reason }

func addressError(reason string) error { return &AddressError{Reason: reason} }

// ParseAddress reads one mailbox: "a@example.com" or "Name <a@example.com>". The name
// may be quoted, may hold any Unicode, and keeps quotes inside it. The Email of the
// result is canonical: its domain in A-labels, its local part quoted only where that
// is needed. Groups, comments in the place of names and lists are refused; the error
// is an [*AddressError].
func ParseAddress(s string) (Address, error) {
	list, err := ParseAddressList(s)
	if err != nil {
		return Address{}, err
	}
	if len(list) != 1 {
		return Address{}, addressError("one address is wanted, not a list")
	}
	return list[0], nil
}

// ParseAddressList reads one or more mailboxes, separated by commas. Each is as
// [ParseAddress] returns it; the error is an [*AddressError].
func ParseAddressList(s string) ([]Address, error) {
	list, wrong, err := ParseAddressMembers(s)
	for _, memberErr := range wrong {
		if err == nil {
			err = memberErr
		}
	}
	if err != nil {
		return nil, err
	}
	return list, nil
}

// ParseAddressMembers is [ParseAddressList], but tells what is wrong with single
// mailboxes: wrong has as many members as list, nil or an [*AddressError]. err is an
// [*AddressError] where the list cannot be split into mailboxes.
func ParseAddressMembers(s string) (list []Address, wrong []error, err error) {
	if err := checkAddressText(s); err != nil {
		return nil, nil, err
	}
	mailboxes, err := splitMailboxes(s)
	if err != nil {
		return nil, nil, err
	}
	if len(mailboxes) == 0 {
		return nil, nil, addressError("no address")
	}
	list, wrong = make([]Address, len(mailboxes)), make([]error, len(mailboxes))
	for i, m := range mailboxes {
		if m.grouped {
			wrong[i] = addressError("a group is not an address")
			continue
		}
		email, err := canonicalAddrSpec(m.addrSpec)
		list[i], wrong[i] = Address{Name: Unquote(m.name), Email: email}, err
	}
	return list, wrong, nil
}

// checkAddressText refuses characters that no address or name may hold.
func checkAddressText(s string) error {
	if !utf8.ValidString(s) {
		return &AddressError{Reason: "not valid UTF-8", Malformed: true}
	}
	if strings.ContainsAny(s, "\r\n\x00") {
		return &AddressError{Reason: "CR, LF and NUL are not allowed", Malformed: true}
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return addressError("control characters are not allowed")
	}
	return nil
}

// canonicalAddrSpec validates local-part@domain and returns it in a form that is safe
// in an SMTP path and in a header field alike.
func canonicalAddrSpec(s string) (string, error) {
	if err := checkAddressText(s); err != nil {
		return "", err
	}
	local, domain, err := splitAddrSpec(s)
	if err != nil {
		return "", err
	}
	if len(local) > maxLocalPart {
		return "", addressError("the part before the @ is longer than 64 octets")
	}
	domain, err = canonicalDomain(domain)
	if err != nil {
		return "", err
	}
	if len(local)+1+len(domain) > maxAddrSpec {
		return "", addressError("the address is longer than 254 octets")
	}
	return local + "@" + domain, nil
}

// splitAddrSpec parts s at its @. The local part is quoted only where that is
// needed; the domain is not checked.
func splitAddrSpec(s string) (local, domain string, err error) {
	if strings.HasPrefix(s, `"`) {
		return splitQuotedLocal(s)
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return "", "", addressError("an address needs an @")
	}
	local, domain = s[:at], s[at+1:]
	if !isDotAtom(local) {
		return "", "", addressError("the part before the @ is not valid")
	}
	return local, domain, nil
}

// splitQuotedLocal reads a quoted local part. Its quotes are dropped where they
// are not needed, so that "a"@x and a@x are one recipient.
func splitQuotedLocal(s string) (local, domain string, err error) {
	content, rest, ok := CutQuotedString(s)
	if !ok || content == "" || !strings.HasPrefix(rest, "@") {
		return "", "", addressError("the quoted part before the @ is not valid")
	}
	for _, r := range content {
		if r >= utf8.RuneSelf && !isAddressRune(r) {
			return "", "", addressError("the quoted part before the @ is not valid")
		}
	}
	if !isDotAtom(content) {
		content = Quote(content)
	}
	return content, rest[1:], nil
}

// isDotAtom reports whether s is a dot-atom-text (RFC 5322 §3.2.3, RFC 6532
// §3.2): atoms of ASCII atext or any other Unicode letter, joined by dots.
func isDotAtom(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" {
			return false
		}
		for _, r := range atom {
			if r < utf8.RuneSelf && !IsAtext(byte(r)) || r >= utf8.RuneSelf && !isAddressRune(r) {
				return false
			}
		}
	}
	return true
}

// isAddressRune reports whether r may be in a local part: not Unicode's controls and
// blanks, U+2028 among them, which people cannot see or type.
func isAddressRune(r rune) bool {
	return r != utf8.RuneError && !unicode.IsControl(r) && !unicode.IsSpace(r) && !unicode.Is(unicode.Z, r)
}

// canonicalDomain validates a domain or an address literal (RFC 5321 §4.1.2,
// §4.1.3) and turns Unicode labels into A-labels (RFC 5891).
func canonicalDomain(domain string) (string, error) {
	if strings.HasPrefix(domain, "[") {
		return canonicalLiteral(domain)
	}
	if !IsASCII(domain) {
		// The conversion takes time that grows with the square of a label, and makes at
		// least one octet of each character.
		if len(domain) > utf8.UTFMax*maxDomain {
			return "", addressError("the domain is longer than 253 octets")
		}
		ascii, err := idna.Lookup.ToASCII(domain)
		if err != nil {
			return "", addressError("the domain is not a valid international domain name")
		}
		domain = ascii
	}
	if len(domain) > maxDomain {
		return "", addressError("the domain is longer than 253 octets")
	}
	for label := range strings.SplitSeq(domain, ".") {
		if !isLabel(label) {
			return "", addressError("the domain is not valid")
		}
	}
	return domain, nil
}

func isLabel(label string) bool {
	if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		if c := label[i]; c != '-' && (!IsAtext(c) || strings.IndexByte("!#$%&'*+/=?^_`{|}~", c) >= 0) {
			return false
		}
	}
	return true
}

// canonicalLiteral validates an address literal, [192.0.2.1] or [IPv6:2001:db8::1].
func canonicalLiteral(domain string) (string, error) {
	text, closed := strings.CutSuffix(domain[1:], "]")
	v6 := len(text) > 5 && strings.EqualFold(text[:5], "IPv6:")
	if v6 {
		text = text[5:]
	}
	ip, err := netip.ParseAddr(text)
	if !closed || err != nil || ip.Zone() != "" || ip.Is4() == v6 {
		return "", addressError("the address literal after the @ is not valid")
	}
	if v6 {
		return "[IPv6:" + ip.String() + "]", nil
	}
	return "[" + ip.String() + "]", nil
}

// Canonical returns the address with its Email in the form of [ParseAddress]. The
// name is not looked at. The error is an [*AddressError], and Email is then empty.
func (a Address) Canonical() (Address, error) {
	email, err := canonicalAddrSpec(a.Email)
	return Address{Name: a.Name, Email: email}, err
}

// UniqueEmails drops from canonical addresses each that names the mailbox of an
// earlier one, and empty ones. The case of a domain does not matter, that of a
// local part may (RFC 5321 §2.4).
func UniqueEmails(all []string) []string {
	var unique []string
	seen := map[string]bool{}
	for _, email := range all {
		if email == "" {
			continue
		}
		at := strings.LastIndexByte(email, '@')
		if key := email[:at] + strings.ToLower(email[at:]); !seen[key] {
			seen[key] = true
			unique = append(unique, email)
		}
	}
	return unique
}
