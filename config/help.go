package config

import (
	"bufio"
	"io"
	"slices"
	"strings"
)

// group is a part of the documentation.
type group struct {
	title, intro string
	variables    []variable
}

func groups() []group {
	return []group{
		{"Relay", "The same names with SMTP2_ to SMTP9_ configure further relays, in order of preference.", slices.Collect(variables(Relay{}.prefix(), &Relay{}))},
		{"Service", "", slices.Collect(variables(servicePrefix, &Service{}))},
		{"Clients", "What send, queue, healthcheck and other clients of a running server read.", slices.Collect(variables(servicePrefix, &Client{}))},
	}
}

// WriteHelp writes every variable for --help, wrapped to 80 columns.
func WriteHelp(w io.Writer) error {
	b := bufio.NewWriter(w)
	names := lists()
	for i, g := range groups() {
		if i > 0 {
			_ = b.WriteByte('\n')
		}
		_, _ = b.WriteString(g.title + "\n")
		if g.intro != "" {
			writeWrapped(b, "", g.intro)
		}
		for _, v := range g.variables {
			_, _ = b.WriteString("\n  " + strings.Join(v.names(), ", ") + "\n")
			writeWrapped(b, "      ", names.Replace(v.help()))
		}
	}
	return b.Flush()
}

// lists replaces what the tags name in braces.
func lists() *strings.Replacer {
	return strings.NewReplacer("{providers}", "the names that \"mailsidecar presets\" lists", "{apis}", strings.Join(compatAPIs, ", "))
}

// help is the documentation in its fixed order: what and unit, default, why
// change it and caveat.
func (v variable) help() string {
	parts := []string{v.tag("desc")}
	switch {
	case v.tag("default") != "":
		parts = append(parts, "Default: "+v.tag("default")+".")
	case v.tag("unset") != "":
		parts = append(parts, "Unset: "+v.tag("unset")+".")
	}
	if v.tag("note") != "" {
		parts = append(parts, v.tag("note"))
	}
	return strings.Join(parts, " ")
}

func writeWrapped(b *bufio.Writer, indent, text string) {
	const columns = 80
	line := indent
	for word := range strings.FieldsSeq(text) {
		if line != indent && len(line)+1+len(word) > columns {
			_, _ = b.WriteString(line + "\n")
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	_, _ = b.WriteString(line + "\n")
}
