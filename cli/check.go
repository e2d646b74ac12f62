package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/api"
	"mailsidecar/config"
	"mailsidecar/diagnosis"
	"mailsidecar/mailer/dkim"
	"mailsidecar/mailer/smtp"
	"mailsidecar/service"
)

// checkOptions are the flags of check.
type checkOptions struct {
	timeout time.Duration
	from    string // empty: the default of the settings
	json    bool
}

func newCheck() *cobra.Command {
	o := checkOptions{timeout: 20 * time.Second}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find out which ports of the relay answer, and what is wrong",
		Long: `Tries every port of every configured relay at the same time, without sending
mail: name, connection, greeting, TLS and its certificate, then the login and the
sender (MAIL, which is taken back), once for each relay. Where no port takes mail,
it looks which other port does. Then says in plain words what is wrong and what to
do.

It needs the settings of the relays (SMTP_...) and no running server. Without them
it asks the server at MAILSIDECAR_URL to check its own relays.

It also compares the keys of MAILSIDECAR_DKIM with their DNS records, which does
not change the exit status: "mailsidecar dkim check" has one for that. Where the queue
is in PostgreSQL, it looks at the database, too.

A name server and a port have 5 seconds to answer. What has connected has until
--timeout.

Exit status: 0 every relay can take mail, as far as that was tried; 69 some relay
cannot, or the database cannot be used; 77 the server wants another API key; 78 wrong configuration, or neither
relays nor a server.`,
		Example: `  mailsidecar check
  mailsidecar check --from shop@example.com
  SMTP_HOST=smtp.example.com SMTP_PORTS=587,465,2525 mailsidecar check
  mailsidecar check --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return check(cmd, o)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print everything found out as JSON")
	cmd.Flags().StringVar(&o.from, "from", "", "try whether the relay takes mail of this `address` (default MAILSIDECAR_FORCE_FROM, else MAILSIDECAR_FROM)")
	durationFlag(cmd, &o.timeout, "timeout", "end the check after this long")
	return cmd
}

// checked is the result of checking one relay.
type checked struct {
	smtp.Report
	Advice []diagnosis.Advice `json:"advice"`
	OAuth2 *api.OAuth2        `json:"oauth2,omitempty"`
}

func check(cmd *cobra.Command, o checkOptions) error {
	if o.from != "" && service.SenderOf(o.from) == "" {
		return exit(exitUsage, "--from is no address: write one such as shop@example.com")
	}
	records, queued := beginRecords(cmd.Context(), o.timeout), beginDatabase(cmd.Context(), o.timeout)
	results, err := checkHereOrThere(cmd, o)
	if err != nil {
		return err
	}
	database := <-queued
	if o.json {
		err = printResultsJSON(cmd.OutOrStdout(), results, dkimFindings(<-records), database)
	} else {
		printResults(cmd.OutOrStdout(), results)
		printRecordFindings(cmd.OutOrStdout(), <-records)
		printDatabase(cmd.OutOrStdout(), database)
	}
	if err == nil && database != nil && !database.OK {
		err = exitSilently(exitUnavailable)
	}
	if err == nil && slices.ContainsFunc(results, func(c checked) bool { return !c.OK }) {
		err = exitSilently(exitUnavailable)
	}
	return err
}

// checkHereOrThere checks the relays that are configured, or has the server check its
// own.
func checkHereOrThere(cmd *cobra.Command, o checkOptions) ([]checked, error) {
	if !config.HasRelays() {
		if err := config.CheckQueue(); err != nil {
			return nil, misconfigured(err, nil)
		}
		return askServer(cmd, o)
	}
	relays, warnings, err := config.LoadCheck()
	if err != nil {
		return nil, misconfigured(err, warnings)
	}
	printNotes(cmd.ErrOrStderr(), warnings, relays)
	return checkAll(cmd.Context(), relays, o)
}

// printNotes prints what the configuration is warned about, and what is known of the
// relays at its hosts.
func printNotes(w io.Writer, warnings []string, relays []config.Relay) {
	for _, warning := range warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
	for _, relay := range relays {
		for _, hint := range relay.Hints {
			fmt.Fprintf(w, "hint: %s\n", hint)
		}
	}
}

// checkAll checks the relays configured.
func checkAll(ctx context.Context, configs []config.Relay, o checkOptions) ([]checked, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	// Only the data directory and the sender count here: faults of other settings are
	// the server's.
	s, _, _ := config.LoadService()
	logins, err := service.OpenLogins(s)
	if err != nil {
		return nil, err
	}
	defer logins.Close()
	built, err := service.NewRelays(configs, service.RelayOptions{Timeouts: service.CheckTimeouts(o.timeout), DataDir: s.DataDir, Logins: logins, Diagnosis: true})
	if err != nil {
		return nil, err
	}
	from := cmp.Or(service.SenderOf(o.from), service.DefaultSender(s))
	results := make([]checked, len(built))
	for i, report := range service.CheckRelays(ctx, configs, built, from) {
		results[i] = checked{report, service.CheckAdvice(adviceSettings(configs[i]), built[i], report), service.OAuth2Status(built[i])}
		built[i].Close()
	}
	return results, nil
}

// serverTime is what a server has for a check, and to answer.
const serverTime = 70 * time.Second

// askServer has the running server check its relays.
func askServer(cmd *cobra.Command, o checkOptions) ([]checked, error) {
	timeout := serverTime
	if cmd.Flags().Changed("timeout") {
		timeout = o.timeout
	}
	c, err := connect(cmd, timeout)
	if err != nil {
		return nil, err
	}
	path := "/v1/relays/check"
	if from := service.SenderOf(o.from); from != "" {
		path += "?from=" + url.QueryEscape(from)
	}
	got, err := c.do(cmd.Context(), http.MethodPost, path, nil, nil)
	if err != nil {
		_, warnings, _ := config.LoadService() // of misspelt names
		for _, w := range warnings {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
		}
		return nil, exit(exitConfig, "SMTP_HOST is not set, so the server was asked to check its relays: %w\n"+
			"  -> set SMTP_HOST and the other settings of the relay, or MAILSIDECAR_URL to the server's address", err)
	}
	if got.status != http.StatusOK {
		return nil, got.problem().err()
	}
	var answer struct {
		Relays []checked `json:"relays"`
	}
	if err := json.Unmarshal(got.body, &answer); err != nil {
		return nil, exit(exitUnavailable, "the server's answer cannot be read: %w", err)
	}
	told := cmd.OutOrStdout()
	if o.json {
		told = cmd.ErrOrStderr()
	}
	fmt.Fprintf(told, "SMTP_HOST is not set here: the server at %s has checked its relays.\n\n", c.Server())
	return answer.Relays, nil
}

func printResults(w io.Writer, results []checked) {
	for i, c := range results {
		if i > 0 {
			fmt.Fprintln(w)
		}
		printReport(w, c)
	}
}

func printResultsJSON(w io.Writer, results []checked, records []dkimFinding, database *checkedDatabase) error {
	return encodeJSON(w, struct {
		Relays []checked        `json:"relays"`
		DKIM   []dkimFinding    `json:"dkim,omitempty"`
		Queue  *checkedDatabase `json:"queue,omitempty"`
	}{results, records, database})
}

// beginRecords checks the DKIM records, if keys are set, while the relays are checked.
// Faults of the setting are the server's.
func beginRecords(ctx context.Context, timeout time.Duration) <-chan []dkim.Finding {
	found := make(chan []dkim.Finding, 1)
	s, _, _ := config.LoadService()
	go func() {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		found <- dkim.Check(ctx, s.DKIMKeys, net.DefaultResolver.LookupTXT)
	}()
	return found
}

func printRecordFindings(w io.Writer, findings []dkim.Finding) {
	if len(findings) > 0 {
		fmt.Fprintln(w)
		printFindings(w, findings)
	}
}
