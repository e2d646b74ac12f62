package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newHealthcheck() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running server whether it is ready",
		Long: `Asks the server at MAILSIDECAR_URL whether it is ready to take mail; without that
variable, the server that the same configuration would start here. Made for
HEALTHCHECK in an image without a shell, and for scripts that wait for a start.

Exit status: 0 ready; 1 not ready, or nobody answers; 78 wrong configuration.`,
		Example: `  mailsidecar healthcheck
  mailsidecar healthcheck --wait 30s && run-the-tests
  HEALTHCHECK CMD ["/usr/bin/mailsidecar", "healthcheck"]`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd, 5*time.Second)
			if err != nil {
				return err
			}
			if err := awaitReady(cmd.Context(), c, wait); err != nil {
				return &statusError{exitFailure, err}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "ready: %s\n", c.Server())
			return err
		},
	}
	waitFlag(cmd, &wait, "wait", "ask again until it is ready, for up to this long: a duration or seconds")
	return cmd
}

// awaitReady returns nil once the server is ready, and the last reason why it is
// not after wait; with no wait it asks once.
func awaitReady(ctx context.Context, c *client, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		err := ready(ctx, c)
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(200*time.Millisecond, max(time.Until(deadline), time.Millisecond))):
		}
	}
}

func ready(ctx context.Context, c *client) error {
	a, err := c.do(ctx, http.MethodGet, "/readyz", nil, nil)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		why := notReadyWhy(a)
		if why != "" {
			why = ": " + why
		}
		return fmt.Errorf("not ready: %s answers %d %s%s", c.Server(), a.status, http.StatusText(a.status), why)
	}
	return nil
}

// notReadyWhy is the reason in an answer of /readyz; empty where it has none.
func notReadyWhy(a answer) string {
	_, why, _ := strings.Cut(strings.TrimSpace(string(a.body)), "not ready: ")
	return why
}
