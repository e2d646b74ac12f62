package sendmail

import (
	"mime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// mailbox is one address of a list with its display name or comment.
type mailbox struct {
	name    string // without quotes; raw 8-bit text stays
	address string // without a domain: the name of a local user
}

// addressList is what an address field, or an argument, says.
type addressList struct {
	boxes []mailbox
	// unclear are the texts without an address, or with more than can be told apart.
	// No recipient is left out silently.
	unclear []string
}

// addressRules say how to read an address list.
type addressRules struct {
	// authors says that the list is of authors: each text without an address belongs
	// to a name.
	authors bool
	// exact says that an address without angle brackets stands alone, as on the command
	// line.
	exact bool
	// hasCR says that a bare CR was in the field. It may separate what a visitor wrote
	// from what he smuggled in, so that only a list without any doubt counts.
	hasCR bool
}

// parseMailboxes reads the addresses of a header field or an argument. It is made for
// what programs and people write rather than for RFC 5322: in display names unquoted
// commas, colons, dots, @, brackets, quotes and 8-bit text; missing commas and angle
// brackets; groups, whose members count and whose name does not. An address that is
// there is never left out: it is in boxes, or its text in unclear.
func parseMailboxes(list string, rules addressRules) addressList {
	return parseNested(list, rules, maxNested)
}

// maxNested limits how deep addresses may be hidden in quotes, comments and
// encoded-words.
const maxNested = 2

func parseNested(list string, rules addressRules, depth int) addressList {
	p := listParser{rules: rules, depth: depth}
	if rules.exact && strings.ContainsFunc(list, unicode.IsControl) {
		return addressList{unclear: []string{list}}
	}
	elements := splitElements(unescapeAngles(list))
	lastGroup := -1
	for i, e := range elements {
		if e.separator == ';' {
			lastGroup = i
		}
	}
	for i, e := range elements {
		if rules.hasCR && slices.ContainsFunc(e.tokens, func(t listToken) bool { return t.kind == ':' }) {
			p.found.unclear = append(p.found.unclear, e.text()) // "ana@example.org\rBcc: eve@example.net"
			continue
		}
		p.element(e.withoutGroupName(i <= lastGroup))
	}
	p.flush()
	return p.result(list)
}

// unescapeAngles undoes what a program for web pages did to angle brackets.
func unescapeAngles(list string) string {
	if strings.Contains(list, "&lt;") && strings.Contains(list, "&gt;") {
		return strings.NewReplacer("&lt;", "<", "&gt;", ">", "&quot;", `"`, "&amp;", "&").Replace(list)
	}
	return list
}

// listParser reads the elements of a list in turn.
type listParser struct {
	rules addressRules
	depth int
	found addressList
	// waiting are elements without an address, until it is clear whether they begin the
	// name of the next one: "My Shop, Ltd. <info@my.test>".
	waiting []element
	// doubtful are indexes into found.boxes of words that count as local users only in a
	// list without any address.
	doubtful []int
}

func (p *listParser) element(e element) {
	r := e.read(p.rules, p.depth)
	switch {
	case r.kind == isNothing:
	case r.kind == isUnclear:
		p.flush()
		p.found.unclear = append(p.found.unclear, e.text())
	case r.kind == isText || r.kind == isWord && !r.named:
		p.waiting = append(p.waiting, e)
	default:
		if r.named {
			r.boxes[0].name = p.longName(r.boxes[0].name)
		}
		p.flush()
		p.found.boxes = append(p.found.boxes, r.boxes...)
	}
}

// longName takes from waiting what belongs to the name in front of angle brackets, and
// returns the whole name.
func (p *listParser) longName(name string) string {
	start := len(p.waiting)
	for start > 0 && (p.rules.authors || !isUserName(p.waiting[start-1].text())) {
		start--
	}
	var b strings.Builder
	for _, e := range p.waiting[start:] {
		b.WriteString(e.text() + e.separatorText)
	}
	p.waiting = p.waiting[:start]
	return strings.TrimSpace(b.String() + name)
}

// flush ends the wait: a word is the name of a local user, other text is unclear.
func (p *listParser) flush() {
	for _, e := range p.waiting {
		r := e.read(p.rules, p.depth)
		if r.kind != isWord || p.rules.authors && len(p.found.boxes) > 0 {
			p.found.unclear = append(p.found.unclear, e.text())
			continue
		}
		if !isUserName(r.boxes[0].address) || p.rules.authors {
			p.doubtful = append(p.doubtful, len(p.found.boxes))
		}
		p.found.boxes = append(p.found.boxes, r.boxes...)
	}
	p.waiting = nil
}

func (p *listParser) result(list string) addressList {
	found := addressList{unclear: p.found.unclear}
	certain := slices.ContainsFunc(p.found.boxes, hasDomain)
	for i, box := range p.found.boxes {
		if _, doubtful := slices.BinarySearch(p.doubtful, i); doubtful && certain {
			found.unclear = append(found.unclear, box.address)
			continue
		}
		found.boxes = append(found.boxes, box)
	}
	if p.rules.hasCR && len(found.unclear) > 0 {
		return addressList{unclear: []string{list}}
	}
	if p.rules.authors && len(found.boxes) > 0 {
		found.useAsName()
	}
	return found
}

// useAsName makes the name of the first author of texts without an address.
func (l *addressList) useAsName() {
	texts := strings.Join(l.unclear, ", ")
	if mayHoldAddress(texts) {
		return
	}
	if first := &l.boxes[0]; first.name == "" {
		first.name = texts
	}
	l.unclear = nil
}

// mayHoldAddress says that text has an address in it, or what may be one.
func mayHoldAddress(text string) bool {
	at := strings.IndexByte(text, '@')
	return at > 0 && !isBlank(text[at-1]) && at < len(text)-1 && !isBlank(text[at+1])
}

func hasDomain(box mailbox) bool {
	_, _, ok := cutAddress(box.address)
	return ok
}

// element is what stands between two separators of a list.
type element struct {
	tokens    []listToken
	separator byte // behind it: a comma, a semicolon, or zero at the end
	// separatorText is the separator with a blank where there is one beside it.
	separatorText string
}

// splitElements cuts list at the commas and semicolons that stand outside of quotes,
// comments and angle brackets.
func splitElements(list string) []element {
	var elements []element
	tokens, start := scanList(list), 0
	for i, t := range tokens {
		if t.kind != ',' && t.kind != ';' {
			continue
		}
		text := t.text
		if t.spaced {
			text = " " + text
		}
		if i+1 < len(tokens) && tokens[i+1].spaced {
			text += " "
		}
		elements = append(elements, element{tokens[start:i], t.kind, text})
		start = i + 1
	}
	return append(elements, element{tokens: tokens[start:]})
}

// withoutGroupName takes off what stands before a colon, unless it holds an address or
// belongs to a display name: "Shop: Sales <sales@my.test>" has no semicolon that ends a
// group. A colon without angle brackets behind it is that of "mailto:a@b". groupEnds says
// that a semicolon follows.
func (e element) withoutGroupName(groupEnds bool) element {
	start, lastAngle := 0, -1
	for i, t := range e.tokens {
		if t.isAngleAddress() {
			lastAngle = i
		}
	}
	for i, t := range e.tokens {
		if t.mayHoldAddress() {
			break
		}
		if t.kind == ':' && (groupEnds || lastAngle < i) {
			start = i + 1
		}
	}
	e.tokens = e.tokens[start:]
	return e
}

// text is the element as it was written, without quotes.
func (e element) text() string { return phrase(e.tokens) }

// reading is what one element was understood as.
type reading struct {
	kind  readingKind
	boxes []mailbox
	// named says that the first address has a name, or angle brackets to have one before
	// them.
	named bool
}

type readingKind int

const (
	isNothing readingKind = iota
	isText                // no address, but maybe the beginning of a name
	isWord                // maybe the name of a local user
	isAddress
	isUnclear
)

func (e element) read(rules addressRules, depth int) reading {
	marked, rest := e.angleAddresses()
	bare, others := bareAddresses(rest)
	boxes := append(marked, bare...)
	switch {
	case rules.hasCR && countAddresses(e.tokens) > 1:
		return reading{kind: isUnclear}
	case rules.exact && len(marked) == 0 && len(bare) > 0 && slices.ContainsFunc(others, func(t listToken) bool { return t.kind == wordToken }):
		return reading{kind: isUnclear}
	case len(boxes) > 0:
		return reading{kind: isAddress, boxes: boxes, named: len(marked) > 0 || boxes[0].name != ""}
	}
	if boxes := e.hiddenAddresses(rules, depth); len(boxes) > 0 {
		return reading{kind: isAddress, boxes: boxes}
	}
	return e.readText()
}

// angleAddresses returns the addresses in angle brackets, each with the text before it
// as its name. What stands behind the last one is added to that name; addresses there
// are in rest, as are all tokens of an element without angle brackets.
func (e element) angleAddresses() (boxes []mailbox, rest []listToken) {
	start := 0
	for i, t := range e.tokens {
		if address, ok := t.angleAddress(); ok {
			boxes = append(boxes, mailbox{name: phrase(e.tokens[start:i]), address: address})
			start = i + 1
		}
	}
	if rest = e.tokens[start:]; len(boxes) == 0 || countAddresses(rest) > 0 {
		return boxes, rest
	}
	last := &boxes[len(boxes)-1]
	last.name = strings.TrimSpace(last.name + " " + nameBeside(rest))
	return boxes, nil
}

// bareAddresses returns the addresses without angle brackets, each with the text before
// it as its name, and the last one with the text behind it, too. others are the tokens
// of the names.
func bareAddresses(tokens []listToken) (boxes []mailbox, others []listToken) {
	start := 0
	for i := 0; i < len(tokens); i++ {
		if address, n := addressAt(tokens[i:]); n > 0 {
			boxes = append(boxes, mailbox{name: nameBeside(tokens[start:i]), address: address})
			i += n - 1
			start = i + 1
			continue
		}
		others = append(others, tokens[i])
	}
	if len(boxes) > 0 && start < len(tokens) {
		last := &boxes[len(boxes)-1]
		last.name = strings.TrimSpace(last.name + " " + nameBeside(tokens[start:]))
	}
	return boxes, others
}

// addressAt returns the address without angle brackets that tokens begin with, and how
// many of them it is.
func addressAt(tokens []listToken) (string, int) {
	if len(tokens) > 1 && tokens[1].isDomainOf(tokens[0]) {
		return tokens[0].raw + tokens[1].text, 2
	}
	if address, ok := tokens[0].bareAddress(); ok {
		return address, 1
	}
	return "", 0
}

// countAddresses returns how many addresses there are, in names and elsewhere.
func countAddresses(tokens []listToken) int {
	count := 0
	for i, t := range tokens {
		if _, n := addressAt(tokens[i:]); n > 0 || t.isAngleAddress() {
			count++
		}
	}
	return count
}

// nameBeside returns the name that stands behind an address, or around one without
// angle brackets: a comment without its parentheses, or other text.
func nameBeside(tokens []listToken) string {
	if len(tokens) == 1 && tokens[0].kind == commentToken {
		return strings.TrimSpace(tokens[0].text)
	}
	return phrase(tokens)
}

// hiddenAddresses looks for addresses in quotes, comments and encoded-words, into which
// programs put the whole of a mailbox.
func (e element) hiddenAddresses(rules addressRules, depth int) []mailbox {
	if depth == 0 {
		return nil
	}
	texts := []string{decodeWords(e.text())}
	for _, t := range e.tokens {
		if t.kind == quotedToken || t.kind == commentToken {
			texts = append(texts, t.text)
		}
	}
	for i, text := range texts {
		if i == 0 && text == e.text() || !strings.Contains(text, "@") {
			continue
		}
		found := parseNested(text, rules, depth-1)
		if boxes := slices.DeleteFunc(found.boxes, func(b mailbox) bool { return !hasDomain(b) }); len(boxes) > 0 {
			return boxes
		}
	}
	return nil
}

// decodeWords decodes encoded-words in the charsets that need no table.
func decodeWords(text string) string {
	if decoded, err := new(mime.WordDecoder).DecodeHeader(text); err == nil {
		return decoded
	}
	return text
}

// readText reads an element without an address that has a domain.
func (e element) readText() reading {
	text := e.text()
	words := slices.DeleteFunc(slices.Clone(e.tokens), func(t listToken) bool { return t.kind == commentToken })
	switch {
	case text == "" || isUndisclosed(text):
		return reading{kind: isNothing}
	case len(words) > 0 && words[len(words)-1].kind == angleToken:
		if user := strings.TrimSpace(words[len(words)-1].text); isLocalPart(user) {
			return reading{kind: isWord, boxes: []mailbox{{name: phrase(words[:len(words)-1]), address: user}}, named: true}
		}
	case len(words) == 1 && words[0].kind == wordToken && isLocalPart(words[0].text):
		comments := slices.DeleteFunc(slices.Clone(e.tokens), func(t listToken) bool { return t.kind != commentToken })
		return reading{kind: isWord, boxes: []mailbox{{name: nameBeside(comments), address: words[0].text}}}
	}
	return reading{kind: isText}
}

// isUndisclosed says that text stands for recipients that the message does not name.
func isUndisclosed(text string) bool {
	text = strings.ToLower(strings.Trim(strings.ReplaceAll(text, "-", " "), " :"))
	return text == "undisclosed recipients" || text == "undisclosed recipient"
}

// isLocalPart says that text may be the name of a local user.
func isLocalPart(text string) bool {
	if text == "" || strings.Contains(text, "=?") {
		return false
	}
	return !strings.ContainsFunc(text, func(r rune) bool {
		return r <= ' ' || r >= utf8.RuneSelf-1 || strings.ContainsRune(`()<>[]:;@\,"`, r)
	})
}

// isUserName says that text has the form of a user's name on Unix, such as www-data.
func isUserName(text string) bool {
	for i := range len(text) {
		c := text[i]
		if (c < 'a' || c > 'z') && c != '_' && (i == 0 || (c < '0' || c > '9') && c != '-') {
			return false
		}
	}
	return text != ""
}
