package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/diagnosis"
	"mailsidecar/mailer/dkim"
)

func newDKIMCheck() *cobra.Command {
	asJSON, server, timeout := false, "", 20*time.Second
	cmd := &cobra.Command{
		Use:   "check [DOMAIN | DOMAIN:SELECTOR:FILE]...",
		Short: "Compare the keys with the records in the DNS",
		Long: `Asks the DNS for the record of each key and compares the two. Without arguments
these are the keys of MAILSIDECAR_DKIM, with a domain those of it; other keys are
given as in that setting.

A record that was published a moment ago may be unknown to the DNS server of this
machine for up to an hour. --dns asks another one, such as one of the domain.

Exit status: 0 every record is as it should be; 1 one is not; 64 wrong usage;
69 the DNS could not be asked; 78 wrong configuration, or no such key.`,
		Example: `  mailsidecar dkim check
  mailsidecar dkim check example.com --dns ns1.example.com`,
		RunE: func(cmd *cobra.Command, args []string) error {
			entries, err := dkimEntries(args)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			findings := dkim.Check(ctx, entries, lookupAt(server))
			if asJSON {
				err = encodeJSON(cmd.OutOrStdout(), struct {
					DKIM []dkimFinding `json:"dkim"`
				}{dkimFindings(findings)})
			} else {
				printFindings(cmd.OutOrStdout(), findings)
			}
			if err != nil {
				return err
			}
			return exitSilently(dkimStatus(findings))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&server, "dns", "", "ask the DNS `server` of that name or address, also with a port (default that of the system)")
	durationFlag(cmd, &timeout, "timeout", "end the check after this long")
	return cmd
}

// lookupAt returns what asks a DNS server; empty is that of the system.
func lookupAt(server string) dkim.LookupTXT {
	if server == "" {
		return net.DefaultResolver.LookupTXT
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(strings.Trim(server, "[]"), "53")
	}
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, server)
	}}
	return r.LookupTXT
}

// dkimStatus is the exit status for what was found.
func dkimStatus(findings []dkim.Finding) int {
	status := exitOK
	for _, f := range findings {
		switch f.State {
		case dkim.Published:
		case dkim.Unknown:
			if status == exitOK {
				status = exitUnavailable
			}
		default:
			return exitFailure
		}
	}
	return status
}

// dkimFinding is a finding as JSON.
type dkimFinding struct {
	Domain    string     `json:"domain"`
	Selector  string     `json:"selector"`
	Algorithm string     `json:"algorithm"`
	Name      string     `json:"name"`
	State     dkim.State `json:"state"`
	Found     string     `json:"found,omitempty"`
	Do        string     `json:"do,omitempty"`
}

func dkimFindings(findings []dkim.Finding) []dkimFinding {
	list := make([]dkimFinding, len(findings))
	for i, f := range findings {
		a := diagnosis.OfDKIM(f)
		list[i] = dkimFinding{f.Entry.Domain, f.Entry.Selector, f.Entry.Key.Algorithm(), f.Entry.Name(), f.State, a.Found, a.Do}
	}
	return list
}

func printFindings(w io.Writer, findings []dkim.Finding) {
	for i, f := range findings {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if f.State == dkim.Published {
			fmt.Fprintf(w, "DKIM record %s (%s): published, and the key is the same.\n", f.Entry.Name(), f.Entry.Key.Algorithm())
			continue
		}
		printAdvice(w, diagnosis.OfDKIM(f))
	}
}
