package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/api"
	"mailsidecar/config"
	"mailsidecar/diagnosis"
	"mailsidecar/mailer/smtp"
	"mailsidecar/service"
)

func newCheck() *cobra.Command {
	var asJSON bool
	timeout := 20 * time.Second
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find out which ports of the relay answer, and what is wrong",
		Long: `Tries every port of every configured relay at the same time, without sending
mail: name, connection, greeting, TLS and its certificate, and login, once for
each relay. Then says in plain words what is wrong and what to do. It needs the
configuration of the relays and no running server.

Exit status: 0 every relay can take mail; 69 some relay cannot; 78 wrong
configuration.`,
		Example: `  mailsidecar check
  SMTP_HOST=smtp.example.com SMTP_PORTS=587,465,2525 mailsidecar check
  mailsidecar check --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return check(cmd, timeout, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything found out as JSON")
	durationFlag(cmd, &timeout, "timeout", "end the check after this long")
	return cmd
}

// checked is the result of checking one relay.
type checked struct {
	smtp.Report
	Advice []diagnosis.Advice `json:"advice"`
	OAuth2 *api.OAuth2        `json:"oauth2,omitempty"`
}

func check(cmd *cobra.Command, timeout time.Duration, asJSON bool) error {
	relays, warnings, err := config.LoadRelays()
	if err != nil {
		return misconfigured(err, warnings)
	}
	for _, w := range warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
	}
	results, err := checkAll(cmd.Context(), relays, timeout)
	if err != nil {
		return err
	}
	if asJSON {
		err = printResultsJSON(cmd.OutOrStdout(), results)
	} else {
		printResults(cmd.OutOrStdout(), results)
	}
	if err == nil && slices.ContainsFunc(results, func(c checked) bool { return !c.OK }) {
		err = exitSilently(exitUnavailable)
	}
	return err
}

// checkAll checks the relays configured. Every rung is followed up to the login
// before there is one login, and some of the time is left for that.
func checkAll(ctx context.Context, configs []config.Relay, timeout time.Duration) ([]checked, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// Only the data directory counts here: faults of other settings are the server's.
	s, _, _ := config.LoadService()
	built, err := service.NewRelays(configs, service.RelayOptions{
		Timeouts: smtp.Timeouts{Connect: timeout / 4, Hello: timeout / 3}, DataDir: s.DataDir, Diagnosis: true,
	})
	if err != nil {
		return nil, err
	}
	results := make([]checked, len(built))
	for i, report := range service.CheckRelays(ctx, built) {
		results[i] = checked{report, service.CheckAdvice(adviceSettings(configs[i]), built[i], report), service.OAuth2Status(built[i])}
		built[i].Close()
	}
	return results, nil
}

func printResults(w io.Writer, results []checked) {
	for i, c := range results {
		if i > 0 {
			fmt.Fprintln(w)
		}
		printReport(w, c)
	}
}

func printResultsJSON(w io.Writer, results []checked) error {
	return encodeJSON(w, struct {
		Relays []checked `json:"relays"`
	}{results})
}
