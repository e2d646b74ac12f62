package compose

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

// TestHeaderTextIsLimited: the texts of a header section are limited one by one and all
// together, in whatever field they stand.
func TestHeaderTextIsLimited(t *testing.T) {
	text := func(octets int) string { return strings.Repeat("é", octets/2) }
	fields := func(n, octets int) (list []mailer.Field) {
		for i := range n {
			list = append(list, mailer.Field{Name: fmt.Sprint("X-", i), Value: text(octets)})
		}
		return list
	}
	names := func(n, octets int) (list []mailer.Address) {
		for i := range n {
			list = append(list, mailer.Address{Name: text(octets), Email: fmt.Sprint("a", i, "@example.org")})
		}
		return list
	}
	for _, tt := range []struct {
		name   string
		change func(*mailer.Message)
		field  string // empty: it is sent
	}{
		{"subject of 1 MiB", func(m *mailer.Message) { m.Subject = text(1 << 20) }, ""},
		{"subject over 1 MiB", func(m *mailer.Message) { m.Subject = text(1<<20 + 2) }, "subject"},
		{"name over 1 MiB", func(m *mailer.Message) { m.From.Name = text(1<<20 + 2) }, "from"},
		{"field over 1 MiB", func(m *mailer.Message) { m.Header = fields(1, 1<<20+2) }, "headers"},
		{"fields of 4 MiB", func(m *mailer.Message) { m.Header = fields(63, 1<<16) }, ""},
		{"fields over 4 MiB", func(m *mailer.Message) { m.Header = fields(65, 1<<16) }, "headers"},
		{"names over 4 MiB", func(m *mailer.Message) { m.Cc = names(65, 1<<16) }, "cc"},
		{"names and fields", func(m *mailer.Message) { m.Cc, m.Header = names(40, 1<<16), fields(40, 1<<16) }, "headers"},
	} {
		m := mailer.Message{
			From: mailer.Address{Email: "shop@example.com"}, To: []mailer.Address{{Email: "ana@example.org"}}, Subject: "S", Text: "x",
		}
		tt.change(&m)
		_, err := Compose(t.Context(), m, Options{})
		invalid, ok := errors.AsType[*mailer.InvalidError](err)
		switch {
		case tt.field == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.field != "" && (!ok || len(invalid.Fields) != 1 || invalid.Fields[0].Field != tt.field || !strings.Contains(invalid.Fields[0].Message, "MiB")):
			t.Errorf("%s: %v, want one problem of the field %s", tt.name, err, tt.field)
		}
	}
}
