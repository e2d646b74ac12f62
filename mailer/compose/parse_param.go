package compose

import (
	"strings"

	"mailsidecar/mailer"
)

// mimeParam is one parameter of a MIME field as it was written.
type mimeParam struct {
	name  string // in lower case
	value string // unquoted
	raw   string // name=value, trimmed
}

// parseParams reads the value of Content-Type or Content-Disposition as leniently
// as mail readers do: an unquoted boundary may hold any character but a
// semicolon and blanks, which mime.ParseMediaType refuses.
func parseParams(value string) (mediaType string, params []mimeParam) {
	pieces := splitParams(mailer.StripComments(value))
	mediaType = strings.ToLower(strings.Trim(pieces[0], " \t"))
	for _, piece := range pieces[1:] {
		piece = strings.Trim(piece, " \t")
		name, text, found := strings.Cut(piece, "=")
		if !found {
			continue
		}
		text = strings.TrimLeft(text, " \t")
		if strings.HasPrefix(text, `"`) {
			if content, _, ok := mailer.CutQuoted(text); ok {
				text = content
			}
		}
		name = strings.ToLower(strings.TrimRight(name, " \t"))
		params = append(params, mimeParam{name: name, value: text, raw: piece})
	}
	return mediaType, params
}

// splitParams splits value at semicolons outside quoted strings.
func splitParams(value string) []string {
	var pieces []string
	start, quoted := 0, false
	for i := 0; i < len(value); i++ {
		switch {
		case value[i] == '\\' && quoted:
			i++
		case value[i] == '"':
			quoted = !quoted
		case value[i] == ';' && !quoted:
			pieces = append(pieces, value[start:i])
			start = i + 1
		}
	}
	return append(pieces, value[start:])
}
