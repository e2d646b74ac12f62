package cli

import (
	"context"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"mailsidecar/alerts"
	"mailsidecar/config"
	"mailsidecar/service"
)

func newAlert() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "alert",
		Short:   "Try where alerts go",
		Long:    "Alerts tell people that something is wrong, by MAILSIDECAR_ALERTS: docs/alerts.md\nsays what is told, and how to make each URL.",
		Example: "  mailsidecar alert test",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAlertTest())
	return cmd
}

func newAlertTest() *cobra.Command {
	return &cobra.Command{
		Use:   "test",
		Short: "Send a test to each URL of MAILSIDECAR_ALERTS, and to the heartbeat's",
		Long: `Sends a message to each URL of MAILSIDECAR_ALERTS, and tells the one of
MAILSIDECAR_HEARTBEAT_URL that mail flows. Prints a line for each: whether it was
taken, else why not and what to do. What is secret in a URL is not shown. It needs
no running server, and tries each URL once, for 10 seconds.

Exit status: 0 all were taken; 1 some were not; 64 wrong command line; 78 wrong
configuration, or no URL is set.`,
		Example: `  mailsidecar alert test
  MAILSIDECAR_ALERTS=https://ntfy.sh/my-secret-topic mailsidecar alert test
  docker exec mailsidecar mailsidecar alert test`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, warnings, err := config.LoadAlerts()
			if err != nil {
				return misconfigured(err, warnings)
			}
			printNotes(cmd.ErrOrStderr(), warnings, nil)
			tries := alertTries(c)
			if len(tries) == 0 {
				return misconfigured(fmt.Errorf("neither MAILSIDECAR_ALERTS nor MAILSIDECAR_HEARTBEAT_URL is set; set one of them: docs/alerts.md says how"), warnings)
			}
			failed := 0
			for i, err := range tryAll(cmd.Context(), tries) {
				result := "taken"
				if err != nil {
					failed++
					result = "NOT TAKEN: " + err.Error()
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", tries[i].name, result)
			}
			if failed > 0 {
				return exitSilently(exitFailure)
			}
			return nil
		},
	}
}

// alertTry is one URL to try.
type alertTry struct {
	name string
	send func(context.Context) error
}

func alertTries(c config.Service) []alertTry {
	client := alerts.NewClient(alerts.ClientOptions{AllowPrivate: c.AlertsAllowPrivate, UserAgent: "mailsidecar/" + buildVersion().version})
	var tries []alertTry
	for _, t := range c.AlertTargets {
		tries = append(tries, alertTry{t.String(), func(ctx context.Context) error {
			return client.Send(ctx, t, alerts.Message{State: alerts.Test, Instance: service.Instance()})
		}})
	}
	if h := c.Heartbeat; h.Set() {
		tries = append(tries, alertTry{"heartbeat " + h.String(), func(ctx context.Context) error { return client.Beat(ctx, h, "") }})
	}
	return tries
}

// tryAll tries all at the same time.
func tryAll(ctx context.Context, tries []alertTry) []error {
	errs := make([]error, len(tries))
	var wg sync.WaitGroup
	for i, t := range tries {
		wg.Go(func() { errs[i] = t.send(ctx) })
	}
	wg.Wait()
	return errs
}
