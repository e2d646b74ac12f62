package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"mailsidecar/config"
	"mailsidecar/mailer/dkim"
)

func newDKIM() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dkim",
		Short: "Make keys that sign mail (DKIM), print and check their DNS records",
		Long: `For a relay that does not sign mail for your domain. Three steps: make a key
with "dkim new", publish the record that it prints, and set MAILSIDECAR_DKIM to
the line that it prints. docs/dkim.md says what is signed.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDKIMNew(), newDKIMRecord(), newDKIMCheck())
	return cmd
}

func newDKIMRecord() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "record [DOMAIN | DOMAIN:SELECTOR:FILE]...",
		Short: "Print the DNS records of the keys",
		Long: `Prints the TXT record of each key: as most DNS providers want it, and as a line of
a zone file. Without arguments these are the keys of MAILSIDECAR_DKIM, with a
domain those of it; other keys are given as in that setting.

Exit status: 0 printed; 64 wrong usage; 78 wrong configuration, or no such key.`,
		Example: `  mailsidecar dkim record
  mailsidecar dkim record example.com:s202611:./example.com.s202611.pem`,
		RunE: func(cmd *cobra.Command, args []string) error {
			entries, err := dkimEntries(args)
			if err != nil {
				return err
			}
			if asJSON {
				return encodeJSON(cmd.OutOrStdout(), dkimRecords{recordsOf(entries), ""})
			}
			printRecords(cmd.OutOrStdout(), entries)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// dkimEntries returns the keys that the arguments mean, see "dkim record".
func dkimEntries(args []string) ([]dkim.Entry, error) {
	var entries []dkim.Entry
	var domains []string
	for _, arg := range args {
		if !strings.Contains(arg, ":") {
			domains = append(domains, arg)
			continue
		}
		e, err := dkim.ReadEntry(arg)
		if err != nil {
			return nil, exit(exitConfig, "%s %w\n  -> %s", cutArg(arg), err, remedyOf(err))
		}
		entries = append(entries, e)
	}
	if len(domains) == 0 && len(args) > 0 {
		return entries, nil
	}
	s, warnings, err := config.LoadService()
	if err != nil {
		return nil, misconfigured(err, warnings)
	}
	if len(s.DKIMKeys) == 0 {
		return nil, exit(exitConfig, "MAILSIDECAR_DKIM is not set: make a key with mailsidecar dkim new DOMAIN, or name one as DOMAIN:SELECTOR:FILE")
	}
	if len(domains) == 0 {
		return s.DKIMKeys, nil
	}
	for _, domain := range domains {
		found, err := keysOf(s.DKIMKeys, domain)
		if err != nil {
			return nil, err
		}
		entries = append(entries, found...)
	}
	return entries, nil
}

// keysOf returns the keys of a domain.
func keysOf(all []dkim.Entry, domain string) ([]dkim.Entry, error) {
	wanted, err := dkim.NewEntry(domain, "any")
	if err != nil {
		return nil, exit(exitUsage, "%q is no domain", domain)
	}
	var found []dkim.Entry
	for _, e := range all {
		if e.Domain == wanted.Domain {
			found = append(found, e)
		}
	}
	if len(found) == 0 {
		return nil, exit(exitConfig, "MAILSIDECAR_DKIM has no key of %s: name one as DOMAIN:SELECTOR:FILE", wanted.Domain)
	}
	return found, nil
}

// cutArg is the domain and the selector of an argument, without its file.
func cutArg(arg string) string {
	domain, selector, _ := dkim.CutEntry(arg)
	return fmt.Sprintf("%.100q", domain+":"+selector)
}

func remedyOf(err error) string {
	if bad, ok := errors.AsType[*dkim.Error](err); ok {
		return bad.Remedy
	}
	return "name another key"
}

// dkimRecords is what the commands print as JSON.
type dkimRecords struct {
	Records []dkimRecord `json:"records"`
	Setting string       `json:"setting,omitempty"` // the value of MAILSIDECAR_DKIM
}

type dkimRecord struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"`
	Name      string `json:"name"`
	Value     string `json:"value"`
	Zone      string `json:"zone"`
	File      string `json:"file,omitempty"`
}

func recordsOf(entries []dkim.Entry) []dkimRecord {
	records := make([]dkimRecord, len(entries))
	for i, e := range entries {
		records[i] = dkimRecord{Domain: e.Domain, Selector: e.Selector, Algorithm: e.Key.Algorithm(), Name: e.Name(), Value: e.Key.Record(), Zone: zoneLine(e)}
	}
	return records
}

// zoneLine is the record as a line of a zone file.
func zoneLine(e dkim.Entry) string {
	return e.Name() + ". IN TXT " + dkim.ZoneText(e.Key.Record())
}

func printRecords(w io.Writer, entries []dkim.Entry) {
	for i, e := range entries {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "TXT record %s (%s)\n  %s\nin a zone file\n  %s\n", e.Name(), e.Key.Algorithm(), e.Key.Record(), zoneLine(e))
	}
}
