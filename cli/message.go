package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"mailsidecar/api"
)

// story says what happened to the recipient, besides its state.
func story(r api.Recipient) string {
	words := r.String()
	if r.Kind == api.OutcomeUncertain {
		words = "may or may not have been accepted: " + words
	}
	if r.Relay != "" {
		words += " (" + r.Relay
		if r.Port != 0 {
			words += fmt.Sprintf(", port %d", r.Port)
		}
		words += ")"
	}
	if !r.NextAttemptAt.IsZero() {
		words += "; next attempt " + localTime(r.NextAttemptAt)
	}
	return strings.TrimPrefix(strings.TrimSpace(words), "; ")
}

func localTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// printOutcome prints what became of a message that was just submitted.
func printOutcome(w io.Writer, m api.Receipt) {
	fmt.Fprintf(w, "message %s: %s\n", cmp.Or(m.ID, m.MessageID), m.Status)
	printRecipients(w, m.Recipients)
}

func printRecipients(w io.Writer, recipients []api.Recipient) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, r := range recipients {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", r.Email, r.State, story(r))
	}
	flush(t)
}

// flush writes a table. An error is that of the writer below, which a command
// that only prints has no better place to report.
func flush(t *tabwriter.Writer) { _ = t.Flush() }

// exitStatusOf is for the answer to a submission: a recipient that was refused is
// not to be tried again.
func exitStatusOf(m api.Receipt) int {
	for _, r := range m.Recipients {
		if r.State == api.StateBounced {
			return exitRefused
		}
	}
	return exitOK
}

// waits says that some recipient waits and the answer does not say why.
func waits(m api.Receipt) bool {
	return slices.ContainsFunc(m.Recipients, func(r api.Recipient) bool { return r.State == api.StateQueued && r.String() == "" })
}

// printTrouble prints why messages may wait: the relays that cannot be used now.
// Without an answer it prints nothing, because the message is safe all the same.
func (c *client) printTrouble(ctx context.Context, w io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var known api.Relays
	if c.ask(ctx, http.MethodGet, "/v1/relays", nil, &known) != nil {
		return
	}
	for _, r := range known.Relays {
		switch r.Status {
		case api.RelayPaused:
			fmt.Fprintf(w, "The relay %s is paused%s\n", r.Name, pausedBecause(r))
		case api.RelayFailing:
			fmt.Fprintf(w, "The relay %s is failing%s\n", r.Name, failedBecause(r))
		}
	}
}

// refusal reports an answer that is an error: the message's id and the
// recipients' states, where the server gives any, and the error itself.
func refusal(w io.Writer, a answer) error {
	p := a.problem()
	if id := cmp.Or(p.ID, p.MessageID); id != "" {
		status := string(p.Code)
		if len(p.Recipients) > 0 {
			status = api.StatusOf(p.Recipients)
		}
		fmt.Fprintf(w, "message %s: %s\n", id, status)
	}
	if len(p.Recipients) > 0 {
		printRecipients(w, p.Recipients)
	}
	return p.err()
}

// printJSON prints the answer's body as it is; the exit status is as without
// --json.
func printJSON(w io.Writer, a answer) error {
	if _, err := fmt.Fprintln(w, strings.TrimSpace(indentJSON(a.body))); err != nil {
		return err
	}
	if a.status != http.StatusOK && a.status != http.StatusAccepted {
		return exitSilently(a.problem().exitStatus())
	}
	var m api.Receipt
	if err := json.Unmarshal(a.body, &m); err != nil || m.ID == "" {
		return exit(exitUncertain, "the answer has no message in it: it may or may not have been taken")
	}
	return exitSilently(exitStatusOf(m))
}
