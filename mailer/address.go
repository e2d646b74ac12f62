package mailer

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Limits in octets. A path has 256, its angle brackets included (RFC 5321 §4.5.3.1.3).
// The local part has no limit of its own: the 64 octets of §4.5.3.1.1 are what each
// relay must take at least, and relays take the longer ones of VERP and SRS.
const (
	maxAddrSpec = 254
	maxDomain   = 253
	maxLabel    = 63
)

// AddressError is why a text is not the address, or the list of addresses, that it
// should be.
type AddressError struct {
	// Reason is one clause for the caller; it never repeats the text.
	Reason string
	// Character is one that people cannot see, and that the text must not hold; else zero.
	Character rune
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
	if i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		return &AddressError{Reason: fmt.Sprintf("control characters are not allowed, and U+%04X is one", s[i]), Character: rune(s[i])}
	}
	return nil
}

// canonicalAddrSpec validates local-part@domain and returns it in canonical form: its
// local part as people write it, quoted only where it would not be safe without, and
// its domain in A-labels. In a header field it needs [HeaderAddrSpec].
func canonicalAddrSpec(s string) (string, error) {
	if err := checkAddressText(s); err != nil {
		return "", err
	}
	if len(s) > utf8.UTFMax*maxAddrSpec { // IDNA makes at least one octet of each character
		return "", addressError("the address is longer than 254 octets")
	}
	if err := checkVisible(s); err != nil {
		return "", err
	}
	local, domain, err := splitAddrSpec(s)
	if err != nil {
		return "", err
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
	if !isPlainLocal(local) {
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
	if !isPlainLocal(content) {
		content = Quote(content)
	}
	return content, rest[1:], nil
}

// isPlainLocal reports whether s may be a local part without quotes: atext of ASCII or
// any other Unicode (RFC 5322 §3.2.3, RFC 6532 §3.2), and dots. Beyond the RFC, the
// dots may stand anywhere: Japanese carriers gave out a..b@ and a.@, and Postfix and Exim
// take them.
func isPlainLocal(s string) bool {
	for _, r := range s {
		if r != '.' && r < utf8.RuneSelf && !IsAtext(byte(r)) {
			return false
		}
	}
	return strings.Trim(s, ".") != ""
}

// HeaderAddrSpec returns a canonical addr-spec as it must be written in a header field,
// and where a server takes no other form: with quotes around a local part whose dots are
// not between atoms (RFC 5322 §3.4.1). To SMTP both forms are one mailbox (RFC 5321
// §4.1.2).
func HeaderAddrSpec(email string) string {
	at := strings.LastIndexByte(email, '@')
	if at <= 0 || email[0] == '"' {
		return email
	}
	if local := email[:at]; local[0] == '.' || local[at-1] == '.' || strings.Contains(local, "..") {
		return Quote(local) + email[at:]
	}
	return email
}

// checkVisible refuses characters that people cannot see or type.
func checkVisible(s string) error {
	if IsASCII(s) {
		return nil
	}
	for _, r := range s {
		switch {
		case r == utf8.RuneError:
			return addressError("U+FFFD is not allowed in an address: it is in the place of a character that was lost")
		case r != zeroWidthNonJoiner && r != zeroWidthJoiner && isInvisible(r):
			return invisibleError(r)
		}
	}
	return checkJoiners(s)
}

func invisibleError(r rune) error {
	return &AddressError{Reason: fmt.Sprintf("the invisible character U+%04X is not allowed in an address", r), Character: r}
}

const (
	zeroWidthNonJoiner = '\u200c'
	zeroWidthJoiner    = '\u200d'
	brailleBlank       = '\u2800' // a symbol to Unicode, and as empty as a blank
)

// isInvisible reports whether nothing is seen of a character beyond ASCII: controls,
// format characters such as the bidirectional ones and the tags, blanks, line and
// paragraph separators, fillers and variation selectors.
func isInvisible(r rune) bool {
	return r >= utf8.RuneSelf && (r == brailleBlank || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Z,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Noncharacter_Code_Point))
}

// joinersAlone is a profile that checks no more than where joiners stand.
var joinersAlone = idna.New(idna.CheckJoiners(true))

// checkJoiners refuses U+200C and U+200D where they make no difference that can be seen.
// Some scripts need them (RFC 5892, Appendix A.1 and A.2): for a local part there is no
// other rule than that of domains. s has a limited length.
func checkJoiners(s string) error {
	i := strings.IndexAny(s, string(zeroWidthNonJoiner)+string(zeroWidthJoiner))
	if i < 0 {
		return nil
	}
	if _, err := joinersAlone.ToUnicode(s); err != nil {
		r, _ := utf8.DecodeRuneInString(s[i:])
		return invisibleError(r)
	}
	return nil
}

// CanonicalDomain returns a domain in the form of [ParseAddress]: a Unicode one in
// A-labels. The error is an [*AddressError].
func CanonicalDomain(domain string) (string, error) {
	email, err := canonicalAddrSpec("any@" + domain)
	return strings.TrimPrefix(email, "any@"), err
}

// canonicalDomain validates a domain or an address literal (RFC 5321 §4.1.2,
// §4.1.3) and turns Unicode labels into A-labels (RFC 5891).
func canonicalDomain(domain string) (string, error) {
	if strings.HasPrefix(domain, "[") {
		return canonicalLiteral(domain)
	}
	if !IsASCII(domain) {
		// The conversion takes time that grows with the square of a label.
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

// isLabel reports whether label may be part of a domain. Underscores may: no host name
// of RFC 952 has them, but domains do, and Postfix takes them.
func isLabel(label string) bool {
	if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		if c := label[i]; !IsAtext(c) || strings.IndexByte("!#$%&'*+/=?^`{|}~", c) >= 0 {
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
		if key := email[:at] + Lower(email[at:]); !seen[key] {
			seen[key] = true
			unique = append(unique, email)
		}
	}
	return unique
}

// ParseSender reads who may send: an address, or a domain with or without an @ before
// it. The result is in the form in which senders are compared: canonical, in
// lower case. The error is an [*AddressError].
func ParseSender(s string) (string, error) {
	s = strings.TrimSuffix(strings.TrimPrefix(s, "@"), ".")
	anyone := ""
	if !strings.Contains(s, "@") {
		anyone = "any@"
	}
	email, err := canonicalAddrSpec(anyone + s)
	return Lower(strings.TrimPrefix(email, anyone)), err
}
