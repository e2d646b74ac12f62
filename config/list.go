package config

import (
	"strings"

	"github.com/kelseyhightower/envconfig"
)

// List is values separated by commas.
type List []string

var _ envconfig.Decoder = (*List)(nil)

// Decode splits the value. Blanks around a part do not count, nor do empty parts.
func (l *List) Decode(value string) error {
	*l = nil
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*l = append(*l, part)
		}
	}
	return requireListed(len(*l), value)
}

// requireListed refuses a value without an entry, such as that of "${A},${B}" where neither
// is set. Most lists restrict something: without an entry they would allow all.
func requireListed(entries int, value string) error {
	if entries == 0 && strings.TrimSpace(value) != "" {
		return &invalid{"lists nothing", "write an entry, or leave it out"}
	}
	return nil
}

func (l List) String() string { return strings.Join(l, ",") }
