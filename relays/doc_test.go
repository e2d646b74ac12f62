package relays

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the pages that are made of the table")

// TestPages compares docs/presets.md and the table of docs/ports.md with the table of
// relays; with -update it rewrites them.
func TestPages(t *testing.T) {
	comparePage(t, "../docs/presets.md", writePresets)
	comparePage(t, "../docs/ports.md", writePorts)
}

// comparePage compares what stands between the marks of a page with what write writes.
func comparePage(t *testing.T, path string, write func(*bytes.Buffer)) {
	t.Helper()
	const begin, end = "<!-- relays:begin -->\n", "<!-- relays:end -->"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	made, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks %s and %s", path, begin, end)
	}
	var want bytes.Buffer
	write(&want)
	if made == want.String() {
		return
	}
	if !*update {
		t.Errorf("%s is not up to date: run go test ./relays -run Pages -update", path)
		return
	}
	if err := os.WriteFile(path, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// writePresets writes a list of the relays, and a section for each.
func writePresets(b *bytes.Buffer) {
	b.WriteString("| relay | `SMTP_PROVIDER` | host | ports |\n|---|---|---|---|\n")
	for _, p := range Presets() {
		fmt.Fprintf(b, "| [%s](#%s) | `%s` | %s | %s |\n", p.Title, anchor(p.Title), providerName(p), hostText(p), numbers(p.Ports.Value))
	}
	for _, p := range Presets() {
		writePreset(b, p)
	}
}

func writePreset(b *bytes.Buffer, p Preset) {
	fmt.Fprintf(b, "\n## %s\n\n[Its own page](%s). ", p.Title, p.Docs)
	if len(p.Aliases) > 0 {
		fmt.Fprintf(b, "`SMTP_PROVIDER` also takes `%s`. ", strings.Join(p.Aliases, "`, `"))
	}
	b.WriteString("Set:\n\n```\n")
	for _, s := range (Provider{Preset: p}).Settings() {
		b.WriteString(strings.Join(s.Lines(), "\n") + "\n")
	}
	b.WriteString("```\n\n")
	for _, l := range p.Warnings() {
		fmt.Fprintf(b, "- %s. %s\n", l.Text, linkTo(l.Source))
	}
	b.WriteString("\n| fact | | source |\n|---|---|---|\n")
	for _, l := range p.Lines() {
		fmt.Fprintf(b, "| %s | %s | %s |\n", l.Topic, strings.ReplaceAll(l.Text, "|", `\|`), linkTo(l.Source))
	}
}

func linkTo(s Source) string { return fmt.Sprintf("[%s](%s)", s.Read, s.URL) }

func providerName(p Preset) string {
	if p.Regional() {
		return p.Name + ":REGION"
	}
	return p.Name
}

func hostText(p Preset) string {
	if p.Host == "" {
		return p.Pattern
	}
	return p.Host
}

// anchor is the address of a heading within its page, as GitHub makes it.
func anchor(title string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == ' ':
			return '-'
		case strings.ContainsRune(".,()", c):
			return -1
		}
		return c
	}, strings.ToLower(title))
}

// writePorts writes which ports each relay listens on, and whether that helps where a host
// blocks the usual ones.
func writePorts(b *bytes.Buffer) {
	b.WriteString("| relay | `SMTP_PROVIDER` | STARTTLS | implicit TLS | gets past a host that blocks 465 and 587 |\n|---|---|---|---|---|\n")
	for _, p := range Presets() {
		var starttls, implicit, others []int
		for _, port := range slices.Sorted(slices.Values(slices.Concat(p.Ports.Value, p.MorePorts.Value))) {
			if ImplicitTLS(port) {
				implicit = append(implicit, port)
			} else {
				starttls = append(starttls, port)
			}
		}
		for _, port := range p.Ports.Value {
			if port != 587 && port != 465 {
				others = append(others, port)
			}
		}
		past := "**no**"
		if len(others) > 0 {
			past = "by " + numbers(others)
		}
		fmt.Fprintf(b, "| %s | `%s` | %s | %s | %s |\n", p.Title, providerName(p), numbers(starttls), numbers(implicit), past)
	}
}
