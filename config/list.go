package config

import "strings"

// List is values separated by commas.
type List []string

// Decode implements envconfig's Decoder. Blanks around a value do not count,
// and neither do empty ones.
func (l *List) Decode(value string) error {
	*l = nil
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*l = append(*l, part)
		}
	}
	return nil
}

func (l List) String() string { return strings.Join(l, ",") }
