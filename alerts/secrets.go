package alerts

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strings"
)

// masked is what is shown of a URL that holds secrets, under every verb and in every encoding.
// The zero value is none.
type masked struct{ shown string }

var (
	_ fmt.Formatter  = masked{}
	_ slog.LogValuer = masked{}
)

// String is the URL without what is secret.
func (m masked) String() string { return m.shown }

// Format redacts under every verb.
func (m masked) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, m.shown) }

// LogValue is what String returns.
func (m masked) LogValue() slog.Value { return slog.StringValue(m.shown) }

// MarshalText is what String returns: JSON uses it, too.
func (m masked) MarshalText() ([]byte, error) { return []byte(m.shown), nil }

// leastPart is the length from which a part of a path is a secret: shorter ones, such as
// "api", are words.
const leastPart = 6

// secretsOf are the secrets of a URL, in all the forms in which a server may repeat them.
func secretsOf(u *url.URL) []string {
	path, query := strings.Trim(u.EscapedPath(), "/"), u.RawQuery
	all := []string{path, strings.Trim(u.Path, "/"), query}
	if u.User != nil {
		user := u.User.Username()
		password, _ := u.User.Password()
		all = append(all, user, password, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	for _, part := range append(strings.Split(path, "/"), strings.Split(u.Path, "/")...) {
		for _, p := range []string{part, unescaped(part, url.PathUnescape)} {
			if len(p) >= leastPart {
				all = append(all, p)
			}
		}
	}
	pairs := append(strings.Split(query, "&"), strings.FieldsFunc(query, func(c rune) bool { return c == '&' || c == ';' })...)
	for _, pair := range pairs {
		_, value, named := strings.Cut(pair, "=")
		if !named {
			value = pair
		}
		all = append(all, value, unescaped(value, url.QueryUnescape), unescaped(value, url.PathUnescape))
	}
	return written(all)
}

// unescaped is s as it is where it cannot be unescaped.
func unescaped(s string, by func(string) (string, error)) string {
	if plain, err := by(s); err == nil {
		return plain
	}
	return s
}

// written are the texts as they are, in a URL, and in a JSON string.
func written(texts []string) []string {
	var all []string
	for _, s := range texts {
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s), inJSON(s)} {
			all = append(all, form, lowerEscapes(form))
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(s string) bool { return s == "" })
}

func inJSON(s string) string {
	data, _ := json.Marshal(s) // a string can be written always
	return string(data[1 : len(data)-1])
}

// lowerEscapes has %2f in place of %2F.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}
