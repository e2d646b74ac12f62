package dkim

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
)

const (
	signatureName = "DKIM-Signature"
	signatureKey  = "dkim-signature"
	// lineLength is where a line of the field ends at the latest, but for one long word.
	lineLength = 76
)

// unsignedField is the field up to the place of the signature.
func (e Entry) unsignedField(names []string, bodyHash string, at int64) []byte {
	w := fieldWriter{text: []byte(signatureName + ":"), column: len(signatureName) + 1}
	for _, tag := range []string{"v=1;", "a=" + e.Key.algorithm + ";", "c=relaxed/relaxed;", "d=" + e.Domain + ";", "s=" + e.Selector + ";"} {
		w.word(" ", tag)
	}
	if at > 0 {
		w.word(" ", "t="+strconv.FormatInt(at, 10)+";")
	}
	for i, name := range names {
		first, last := i == 0, i == len(names)-1
		switch {
		case first && last:
			w.word(" ", "h="+name+";")
		case first:
			w.word(" ", "h="+name+":")
		case last:
			w.word("", name+";")
		default:
			w.word("", name+":")
		}
	}
	w.word(" ", "bh="+bodyHash+";")
	return append(w.text, "\r\n b="...)
}

// fieldWriter writes words, and ends a line before the word that does not fit in it.
type fieldWriter struct {
	text   []byte
	column int
}

func (w *fieldWriter) word(blank, word string) {
	if w.column+len(blank)+len(word) > lineLength {
		w.text, w.column, blank = append(w.text, "\r\n"...), 0, " "
	}
	w.text = append(append(w.text, blank...), word...)
	w.column += len(blank) + len(word)
}

// withSignature is the whole field, with its line end.
func withSignature(unsigned, signature []byte) []byte {
	const width = 72
	field := slices.Clone(unsigned)
	for text := base64.StdEncoding.EncodeToString(signature); ; {
		n := min(width, len(text))
		field = append(field, text[:n]...)
		if text = text[n:]; text == "" {
			return append(field, "\r\n"...)
		}
		field = append(field, "\r\n "...)
	}
}

// room is how many octets the field takes at most.
func (e Entry) room() int {
	const fixed = len(signatureName+": v=1; a=ed25519-sha256; c=relaxed/relaxed; d=; s=; t=9223372036854775807; h=; bh=; b=\r\n") + 44
	text := fixed + len(e.Domain) + len(e.Selector) + maxListed + e.Key.signatureSize()
	return text + len("\r\n ")*(text/(lineLength-maxName)+len("vacdsthb"))
}

// signatureField is a DKIM-Signature field of the form that this package writes.
type signatureField struct {
	algorithm, domain, selector string
	names                       []string // of h=
	bodyHash                    string
	signature                   []byte
	unsigned                    []byte // up to the place of the signature
}

// parseSignature reads a field that this package may have written. It returns false where
// it has not.
func parseSignature(raw []byte) (f signatureField, ok bool) {
	_, value, _ := bytes.Cut(raw, []byte(":"))
	end := bytes.LastIndexByte(value, ';')
	if end < 0 || len(raw) > maxSignature {
		return f, false
	}
	tags := map[string]string{}
	for tag := range strings.SplitSeq(string(value[:end]), ";") {
		name, text, _ := strings.Cut(tag, "=")
		tags[strings.Trim(name, blanks)] = removeBlanks(text)
	}
	name, signature, _ := strings.Cut(string(value[end+1:]), "=")
	f.signature, _ = base64.StdEncoding.DecodeString(removeBlanks(signature))
	f.unsigned = raw[:bytes.LastIndexByte(raw, ';')+1+len(name)+1]
	f.algorithm, f.domain, f.selector, f.bodyHash = tags["a"], tags["d"], tags["s"], tags["bh"]
	f.names = strings.Split(tags["h"], ":")
	ok = strings.Trim(name, blanks) == "b" && tags["v"] == "1" && tags["c"] == "relaxed/relaxed" && tags["l"] == "" && tags["x"] == ""
	return f, ok && len(f.names) <= maxListed
}

// maxSignature limits a field that is read, in octets.
const maxSignature = 4 << 10

const blanks = " \t\r\n"

func removeBlanks(s string) string { return strings.Join(strings.Fields(s), "") }
