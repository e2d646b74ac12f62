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
)

// message is a message as the server's answers show it. The answer to a
// submission has the first four fields only; a list has no attempts.
type message struct {
	ID         string            `json:"id"`
	Status     string            `json:"status"`
	MessageID  string            `json:"message_id"`
	Recipients []recipient       `json:"recipients"`
	Sender     string            `json:"sender"`
	Subject    string            `json:"subject"`
	Size       int64             `json:"size"`
	Priority   string            `json:"priority"`
	Tags       map[string]string `json:"tags"`
	Envelope   struct {
		ReversePath  string   `json:"reverse_path"`
		ForwardPaths []string `json:"forward_paths"`
	} `json:"envelope"`
	CreatedAt time.Time `json:"created_at"`
	SendAt    time.Time `json:"send_at"`
	ExpiresAt time.Time `json:"expires_at"`
	Attempts  []attempt `json:"attempts"`
}

type recipient struct {
	Email string `json:"email"`
	State string `json:"state"`
	outcome
	Relay         string    `json:"relay"`
	Port          int       `json:"port"`
	NextAttemptAt time.Time `json:"next_attempt_at"`
}

// outcome is what an attempt came to for one recipient.
type outcome struct {
	Outcome      string `json:"outcome"` // delivered, deferred, bounced, uncertain, or empty
	Class        string `json:"class"`
	Stage        string `json:"stage"`
	ReplyCode    int    `json:"reply_code"`
	EnhancedCode string `json:"enhanced_code"`
	Text         string `json:"text"`
}

type attempt struct {
	Relay      string    `json:"relay"`
	Port       int       `json:"port"`
	TLS        string    `json:"tls"`
	Auth       string    `json:"auth"`
	StartedAt  time.Time `json:"started_at"`
	DurationMS int64     `json:"duration_ms"`
	Ladder     []struct {
		Port       int    `json:"port"`
		Mode       string `json:"mode"`
		Won        bool   `json:"won"`
		DurationMS int64  `json:"duration_ms"`
		Stage      string `json:"stage"`
		Text       string `json:"text"`
	} `json:"ladder"`
	Results []struct {
		Email string `json:"email"`
		outcome
	} `json:"results"`
}

// String is the relay's own words with their codes where it gave any.
func (o outcome) String() string {
	if o.ReplyCode == 0 {
		return o.Text
	}
	return strings.Join(strings.Fields(fmt.Sprintf("%d %s %s", o.ReplyCode, o.EnhancedCode, o.Text)), " ")
}

// story is what there is to say of the recipient besides its state.
func (r recipient) story() string {
	words := r.String()
	if r.Outcome == "uncertain" {
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
func printOutcome(w io.Writer, m message) {
	fmt.Fprintf(w, "message %s: %s\n", cmp.Or(m.ID, m.MessageID), m.Status)
	printRecipients(w, m.Recipients)
}

func printRecipients(w io.Writer, recipients []recipient) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, r := range recipients {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", r.Email, r.State, r.story())
	}
	flush(t)
}

// flush writes a table. An error is that of the writer below, which a command
// that only prints has no better place to report.
func flush(t *tabwriter.Writer) { _ = t.Flush() }

// exitStatus is for the answer to a submission: a recipient that was refused is
// not to be tried again.
func (m message) exitStatus() int {
	for _, r := range m.Recipients {
		if r.State == "bounced" {
			return exitRefused
		}
	}
	return exitOK
}

// waits says that some recipient waits and the answer does not say why.
func (m message) waits() bool {
	return slices.ContainsFunc(m.Recipients, func(r recipient) bool { return r.State == "queued" && r.String() == "" })
}

// printTrouble tells why messages may wait: the relays that cannot be used just
// now. Without an answer it tells nothing, for the message is safe all the same.
func (c *client) printTrouble(ctx context.Context, w io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var known struct {
		Relays []struct {
			Name        string    `json:"name"`
			Status      string    `json:"status"`
			PausedUntil time.Time `json:"paused_until"`
			Failure     outcome   `json:"failure"`
		} `json:"relays"`
	}
	if c.ask(ctx, http.MethodGet, "/v1/relays", nil, &known) != nil {
		return
	}
	for _, r := range known.Relays {
		state := r.Status
		switch state {
		case "paused":
			state += " until " + localTime(r.PausedUntil)
		case "failing":
		default:
			continue
		}
		fmt.Fprintf(w, "The relay %s is %s: %s: %s\n", r.Name, state, r.Failure.Stage, r.Failure)
	}
}

// refusal reports an answer that is an error: the message's id and the
// recipients' states, where the server gives any, and the error itself.
func refusal(w io.Writer, a answer) error {
	p := a.problem()
	if id := cmp.Or(p.ID, p.MessageID); id != "" {
		fmt.Fprintf(w, "message %s: %s\n", id, p.Code)
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
	var m message
	if err := json.Unmarshal(a.body, &m); err != nil {
		return exit(exitUncertain, "the answer cannot be read: %w", err)
	}
	return exitSilently(m.exitStatus())
}
