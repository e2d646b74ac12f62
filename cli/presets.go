package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"mailsidecar/relays"
)

func newPresets() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "presets [NAME]",
		Short: "Show the relays that SMTP_PROVIDER knows, and what is known of one",
		Long: `Lists the relays that SMTP_PROVIDER knows. With a name it shows one of them: what
to set, what its users get wrong, and what it limits, each with the page that says
so and the month in which it was read. A limit is a default: settings go before it.

The name may be one that people type, such as office365, and may have a region
after a colon: zoho:eu.

Exit status: 0 shown; 64 no relay of that name is known.`,
		Example: `  mailsidecar presets
  mailsidecar presets gmail
  mailsidecar presets zoho:eu
  mailsidecar presets --json ses:eu-west-1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exit(exitUsage, "%q takes one name, but got %q", cmd.CommandPath(), args[1])
			}
			return nil
		},
		ValidArgsFunction: completePreset,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return printPresets(cmd.OutOrStdout(), asJSON)
			}
			p, err := relays.ProviderNamed(args[0])
			if err != nil {
				return unknownPreset(args[0], err)
			}
			if asJSON {
				return printIndented(cmd.OutOrStdout(), newPresetReport(p))
			}
			printPreset(cmd.OutOrStdout(), p)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

// completePreset completes the name of a relay for the shell.
func completePreset(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 {
		for _, p := range relays.Presets() {
			names = append(names, p.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func unknownPreset(name string, err error) error {
	hint := "; \"mailsidecar presets\" lists them"
	if e, ok := errors.AsType[*relays.NameError](err); ok && len(e.Near) > 0 {
		hint = "; did you mean " + strings.Join(e.Near, " or ") + "?"
	}
	return exit(exitUsage, "%q: %w%s", name, err, hint)
}

func printPresets(w io.Writer, asJSON bool) error {
	if asJSON {
		list := []presetReport{}
		for _, p := range relays.Presets() {
			list = append(list, newPresetReport(relays.Provider{Preset: p}))
		}
		return printIndented(w, list)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tRELAY\tHOST\tPORTS")
	for _, p := range relays.Presets() {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.Name, p.Title, hostOf(relays.Provider{Preset: p}), portList(p.Ports.Value))
	}
	return t.Flush()
}

// hostOf returns the relay's host; for one with a host in each region, the pattern.
func hostOf(p relays.Provider) string {
	if p.Host == "" {
		return p.Pattern
	}
	return p.Host
}

func portList(ports []int) string {
	var texts []string
	for _, port := range ports {
		texts = append(texts, strconv.Itoa(port))
	}
	return strings.Join(texts, ",")
}

// printPreset prints all that is known of one relay.
func printPreset(w io.Writer, p relays.Provider) {
	fmt.Fprintf(w, "%s: %s\n%s\n\nSet:\n", p.Title, hostOf(p), p.Docs)
	for _, s := range p.Settings() {
		for _, line := range s.Lines() {
			fmt.Fprintln(w, "  "+line)
		}
	}
	fmt.Fprintln(w, "\nWhat to know:")
	for _, l := range p.Warnings() {
		fmt.Fprintf(w, "  %s.\n", l.Text)
	}
	fmt.Fprintln(w, "\nFacts:")
	for _, l := range p.Lines() {
		fmt.Fprintf(w, "  %s: %s\n      %s (%s)\n", l.Topic, l.Text, l.Source.URL, l.Source.Read)
	}
}

// presetReport is one relay as JSON.
type presetReport struct {
	Name     string            `json:"name"`
	Title    string            `json:"title"`
	Aliases  []string          `json:"aliases"`
	Docs     string            `json:"docs"`
	Host     string            `json:"host"` // with REGION in it where each region has its own
	Ports    []int             `json:"ports"`
	Settings map[string]string `json:"settings"` // the value, or what belongs there
	Warnings []factReport      `json:"warnings"`
	Facts    []factReport      `json:"facts"`
}

type factReport struct {
	Topic  string `json:"topic,omitempty"`
	Text   string `json:"text"`
	Source string `json:"source"`
	Read   string `json:"read"` // the month, such as "2026-11"
}

func newPresetReport(p relays.Provider) presetReport {
	r := presetReport{
		Name: p.Name, Title: p.Title, Aliases: append([]string{}, p.Aliases...), Docs: p.Docs, Host: hostOf(p), Ports: p.Ports.Value,
		Settings: map[string]string{}, Warnings: factReports(p.Warnings()), Facts: factReports(p.Lines()),
	}
	for _, s := range p.Settings() {
		r.Settings["SMTP_"+s.Name] = cmp.Or(s.Value, s.Note)
	}
	return r
}

func factReports(lines []relays.Line) []factReport {
	all := make([]factReport, len(lines))
	for i, l := range lines {
		all[i] = factReport{l.Topic, l.Text, l.Source.URL, l.Source.Read}
	}
	return all
}

func printIndented(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
