package relays

import "strings"

// A reply often has words in it that are not the relay's: the address that a client of
// ours wrote to, a subject, a name of a host, or what another server said. They must not
// pause the relay for everybody.

// withoutQuoted returns the text, which is in lower case, with "@" in place of each
// address, and without URLs, subjects and what stands between double quotes.
func withoutQuoted(text string) string {
	text, _, _ = strings.Cut(text, "subject: ")
	var b strings.Builder
	b.Grow(len(text))
	open := "" // the signs of those that do not end, so that each is looked for once
	for i := 0; i < len(text); {
		end := 0
		switch {
		case strings.IndexByte(open, text[i]) >= 0:
		case text[i] == '<':
			end = endOfPath(text[i:])
		case text[i] == '"':
			end = endOfString(text[i:])
		case text[i] == '\'' && (i == 0 || text[i-1] == ' '):
			end = endOfAddress(text[i:])
		}
		if end == 0 && (text[i] == '<' || text[i] == '"') {
			open += text[i : i+1]
		}
		if end == 0 {
			b.WriteByte(text[i])
			i++
			continue
		}
		b.WriteString(instead(text, i, i+end))
		i += end
	}
	return withoutAddresses(b.String())
}

// instead returns what stands in place of text[from:to], which is in angle brackets or
// double quotes. The name of a command is no quotation, nor is the whole of a text.
func instead(text string, from, to int) string {
	unit := text[from:to]
	inner := strings.Trim(unit, `<>"`)
	switch {
	case unit[0] == '<' && strings.Contains(unit, "@"), unit[0] == '\'':
		return " @ "
	case strings.HasPrefix(text[to:], "@"):
		return " local" // the domain follows
	case unit[0] == '<':
		return " " + inner + " "
	case inner == "mail from", inner == "rcpt to", from == 0 && to == len(text):
		return " " + inner + " "
	default:
		return " "
	}
}

// endOfString returns where the quoted string ends that text begins with (RFC 5321
// §4.1.2); 0 where it does not end.
func endOfString(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}

// endOfPath returns where the path in angle brackets ends that text begins with; 0 where
// it does not end.
func endOfPath(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '"':
			if n := endOfString(text[i:]); n > 0 {
				i += n - 1
			}
		case '>':
			return i + 1
		}
	}
	return 0
}

// endOfAddress returns where the address between single quotes ends that text begins
// with; 0 where there is none.
func endOfAddress(text string) int {
	if i := strings.IndexByte(text[1:], '\''); i >= 0 && strings.Contains(text[1:1+i], "@") {
		return i + 2
	}
	return 0
}

// withoutAddresses returns the text with "@" in place of each token that is an address,
// and without those that are URLs.
func withoutAddresses(text string) string {
	var b strings.Builder
	b.Grow(len(text))
	for token := range strings.FieldsSeq(text) {
		switch {
		case strings.Contains(token, "://"), strings.Contains(token, "www."):
			continue
		case strings.Contains(token, "@"):
			token = "@"
		}
		b.WriteString(token)
		b.WriteByte(' ')
	}
	return b.String()
}

// lists are the domains of lists of spammers, by the word that rules know them by. Of
// other hosts the name says nothing.
var lists = [...]struct{ domain, word string }{
	{"spamhaus.org", "spamhaus"},
	{"sorbs.net", "sorbs"},
	{"spamcop.net", "spamcop"},
	{"barracudacentral.org", "barracuda"},
	{"uceprotect.net", "uceprotect"},
	{"cloudmark.com", "cloudmark"},
	{"surbl.org", "surbl"},
	{"uribl.com", "uri"},
	{"abuseat.org", "rbl"},
}

// hostIn returns the name of a host that the token begins with, which ends where a port
// or an address follows; empty where it is none.
func hostIn(token string) string {
	name := token
	if i := strings.IndexAny(token, "[]:()/,;'"); i >= 0 {
		name = token[:i]
	}
	name = strings.TrimRight(name, ".!?")
	last := name[strings.LastIndexByte(name, '.')+1:]
	dots := strings.Count(name, ".")
	switch {
	case dots == 0 || len(last) < 2 || strings.Trim(last, "abcdefghijklmnopqrstuvwxyz") != "" || strings.Contains(name, ".."):
		return ""
	case dots == 1 && !strings.ContainsAny(name, "-_0123456789") && goesOn[last]:
		return "" // two sentences, without a blank between them
	}
	for _, prefix := range labels {
		if strings.HasPrefix(name, prefix) {
			return ""
		}
	}
	return name
}

// goesOn has words that a sentence begins with in replies. labels are what names of
// errors begin with at Microsoft: they look like hosts.
var (
	goesOn = map[string]bool{
		"try": true, "please": true, "see": true, "visit": true, "this": true, "you": true, "your": true, "if": true,
		"message": true, "for": true, "error": true, "the": true, "go": true, "retry": true, "check": true, "learn": true,
	}
	labels = [...]string{"storedrv.", "resolver.", "transport.", "routing.", "smtpsend.", "queue.", "agent."}
)

// writeHost writes what the name of a host says: the list of spammers that it is of, or
// nothing.
func writeHost(b *strings.Builder, host string) {
	for _, l := range lists {
		if host == l.domain || strings.HasSuffix(host, "."+l.domain) {
			b.WriteString(l.word)
			b.WriteByte(' ')
		}
	}
}
