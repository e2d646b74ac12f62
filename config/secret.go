package config

import (
	"encoding"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kelseyhightower/envconfig"

	"mailsidecar/files"
)

const (
	redacted = "[redacted]"
	// maxSecretFile is far over any secret and far under /dev/zero.
	maxSecretFile = 1 << 20
)

// Secret is a value that prints as [redacted] wherever it is printed: by every
// verb of fmt, in slog, JSON and text. The zero value is no secret at all and
// prints as nothing. [Secret.Reveal] is the only way to the value.
type Secret struct {
	// A pointer, because fmt prints a Secret in an unexported field without
	// calling its methods: it then shows an address.
	value *string
}

// NewSecret returns s as a Secret.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{&s}
}

// Reveal returns the value itself; empty when there is none.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsSet reports whether there is a value.
func (s Secret) IsSet() bool { return s.value != nil }

func (s Secret) String() string {
	if !s.IsSet() {
		return ""
	}
	return redacted
}

var (
	_ encoding.TextMarshaler = Secret{}
	_ envconfig.Decoder      = (*Secret)(nil)
	_ fmt.Formatter          = Secret{}
	_ slog.LogValuer         = Secret{}
)

// Format redacts under every verb, %#v and %x included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue is the redacted value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is the redacted value: JSON uses it, too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Decode takes the value as it is. It never fails, because the error would carry
// the value. One line end after the value is not part of it: files and
// Kubernetes secrets often end in one.
func (s *Secret) Decode(value string) error {
	*s = NewSecret(strings.TrimSuffix(strings.TrimSuffix(value, "\n"), "\r"))
	return nil
}

// readSecretFile reads what a _FILE variable names. Its problem has the path
// and the reason.
func readSecretFile(path string) (Secret, *invalid) {
	text, err := readAll(path)
	if err != nil {
		return Secret{}, &invalid{
			"names " + shownPath(path) + ", which cannot be read: " + err.Error(),
			"name a file that this process may read",
		}
	}
	var s Secret
	_ = s.Decode(text)
	if !s.IsSet() {
		return Secret{}, &invalid{
			"names " + shownPath(path) + ", which is empty",
			"write the secret into that file",
		}
	}
	return s, nil
}

func readAll(path string) (string, error) {
	data, err := files.Read(path, maxSecretFile)
	return string(data), err
}

// shownPath is path in quotes where it surely is one, see [files.Shown].
func shownPath(path string) string {
	if files.IsPath(path) {
		return strconv.Quote(path)
	}
	return files.Shown(path)
}

// checkName refuses the content of a file where the setting called key names one.
func checkName(key, value string) *invalid {
	if !strings.HasSuffix(key, "_FILE") || !strings.ContainsAny(strings.TrimSpace(value), "\r\n") {
		return nil
	}
	return &invalid{"holds several lines, and wants the name of a file", "write the text into a file, and set the name of that"}
}

// checkText returns what is wrong with the characters of s, or nil. Line ends
// are allowed where a value may have several lines.
func checkText(s string, lines bool) *invalid {
	if !utf8.ValidString(s) {
		return &invalid{"is not valid UTF-8", "write it in UTF-8"}
	}
	for _, c := range s {
		if c < ' ' || c == 0x7f {
			if lines && (c == '\n' || c == '\r') {
				continue
			}
			return &invalid{
				"holds a control character",
				"remove it (a line break, or the line ends of a file made on Windows?)",
			}
		}
	}
	return nil
}
