package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/api"
)

const operatorExits = `
It asks the server at MAILSIDECAR_URL, or the one that the same configuration would
start here, with the key in MAILSIDECAR_API_KEY, which needs the role admin
(MAILSIDECAR_KEY_ROLES).

Exit status: 0 done; 64 wrong command line; 65 there is no such relay; 69 no
answer from the server; 75 try again later; 77 the server wants another API key,
or one with the role admin; 78 wrong configuration.`

func newRelay() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Pause a relay, or resume it",
		Long:  "Keeps mail from a relay for a while, and lets it go there again.\n" + operatorExits,
		Example: `  mailsidecar relay pause smtp.example.com --for 2h --reason "moves to new servers"
  mailsidecar relay resume smtp.example.com`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRelayPause(), newRelayResume())
	return cmd
}

func newRelayPause() *cobra.Command {
	var p api.Pause
	cmd := &cobra.Command{
		Use:   "pause [NAME]",
		Short: "Let no attempt begin at a relay",
		Long: `Lets no attempt begin at the relay any more, until "mailsidecar relay resume" or the
end of --for, also after a restart. Attempts under way end. Other relays that may take
the mail get it; without any, it waits. New mail is accepted as ever, but with
MAILSIDECAR_QUEUE=none it is refused where no other relay may take it, and the pause ends
with the server.

Without a name the only relay is meant, or all where there are several.
` + operatorExits,
		Example: `  mailsidecar relay pause
  mailsidecar relay pause smtp.example.com --for 2h --reason "moves to new servers"`,
		Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := json.Marshal(p)
			if err != nil {
				return err
			}
			return eachRelay(cmd, args, "/pause", body)
		},
	}
	cmd.Flags().StringVar(&p.For, "for", "", "how long, such as 2h or 90m (default: until it is resumed)")
	cmd.Flags().StringVar(&p.Reason, "reason", "", "a line for those who see the pause")
	return cmd
}

func newRelayResume() *cobra.Command {
	return &cobra.Command{
		Use:   "resume [NAME]",
		Short: "End the pause of a relay",
		Long: `Ends what "mailsidecar relay pause" began. A relay that rests because of its own
trouble goes on resting: "mailsidecar queue retry" asks it now.

Without a name the only relay is meant, or all where there are several.
` + operatorExits,
		Example: `  mailsidecar relay resume
  mailsidecar relay resume smtp.example.com`,
		Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error { return eachRelay(cmd, args, "/resume", nil) },
	}
}

// eachRelay does one thing to the relay that is named, or to all.
func eachRelay(cmd *cobra.Command, args []string, action string, body []byte) error {
	c, err := connect(cmd, time.Minute)
	if err != nil {
		return err
	}
	names := args
	if len(names) == 0 {
		if names, err = c.relayNames(cmd.Context()); err != nil {
			return err
		}
		if len(names) > 1 {
			fmt.Fprintf(cmd.ErrOrStderr(), "No relay is named: this is about all %d, %s.\n", len(names), strings.Join(names, ", "))
		}
	}
	for _, name := range names {
		var r api.Relay
		if err := c.ask(cmd.Context(), http.MethodPost, "/v1/relays/"+url.PathEscape(name)+action, body, &r); err != nil {
			return err
		}
		printRelayState(cmd.OutOrStdout(), r)
	}
	return nil
}

func (c *client) relayNames(ctx context.Context) ([]string, error) {
	relays, err := c.relays(ctx)
	var names []string
	for _, r := range relays {
		names = append(names, r.Name)
	}
	return names, err
}

func (c *client) relays(ctx context.Context) ([]api.Relay, error) {
	var known api.Relays
	err := c.ask(ctx, http.MethodGet, "/v1/relays", nil, &known)
	return known.Relays, err
}

func printRelayState(w io.Writer, r api.Relay) {
	switch p := r.PausedByOperator; {
	case p != nil && p.Until.IsZero():
		fmt.Fprintf(w, "%s: paused, until \"mailsidecar relay resume\"\n", r.Name)
	case p != nil:
		fmt.Fprintf(w, "%s: paused until %s\n", r.Name, localTime(p.Until))
	case r.Status == api.RelayPaused && !r.PausedUntil.IsZero():
		fmt.Fprintf(w, "%s: resumed, but it rests because of its own trouble until %s\n", r.Name, localTime(r.PausedUntil))
	default:
		fmt.Fprintf(w, "%s: resumed\n", r.Name)
	}
}
