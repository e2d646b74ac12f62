package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/api"
	"mailsidecar/units"
)

// Exit statuses of status, as monitoring systems of Nagios' kind read them.
const (
	statusWaits    = 1
	statusPaused   = 2 // or new mail is refused
	statusNoServer = 3
)

// watchInterval is how often --watch asks.
const watchInterval = 2 * time.Second

func newStatus() *cobra.Command {
	maxAge := 15 * time.Minute
	var watch, asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell whether mail flows, and why some does not",
		Long: `Asks the server at MAILSIDECAR_URL what waits, what happened in the last hour and
day, how the relays are and why mail failed. With the key in MAILSIDECAR_API_KEY it
shows that key's mail, and with the role admin that of all keys. The first line is the
verdict, which goes with the exit status; --json has both.

Exit status: 0 mail flows; 1 something has been due for longer than --max-age;
2 a relay is paused, or new mail is refused, as while the database of the queue is away;
3 no answer from the server, or none that helps; 64 wrong command line; 77 the server wants
another API key, with the role read or admin; 78 wrong configuration.`,
		Example: `  mailsidecar status
  mailsidecar status --watch
  mailsidecar status --max-age 5m >/dev/null || echo "mail does not flow"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd, 10*time.Second)
			if err != nil {
				return err
			}
			v := statusView{client: c, w: cmd.OutOrStdout(), maxAge: maxAge, asJSON: asJSON}
			if watch {
				return v.watch(cmd.Context())
			}
			status, err := v.show(cmd.Context(), "")
			if err != nil {
				return err
			}
			return exitSilently(status)
		},
	}
	durationFlag(cmd, &maxAge, "max-age", "how long mail may have been due")
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again every two seconds, until interrupted")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON, with the members verdict and exit_status in front")
	return cmd
}

// statusView shows how a server is.
type statusView struct {
	client *client
	w      io.Writer
	maxAge time.Duration
	asJSON bool
}

func (v *statusView) watch(ctx context.Context) error {
	const clearScreen = "\x1b[H\x1b[2J\x1b[3J"
	for {
		before := clearScreen
		if v.asJSON {
			before = ""
		}
		if _, err := v.show(ctx, before); err != nil && ctx.Err() == nil {
			if exitStatus(err) != statusNoServer {
				return err
			}
			if !v.asJSON {
				fmt.Fprintf(v.w, "%s%v\n", before, err) // it may start again
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchInterval):
		}
	}
}

// show prints how it is now, after before, and returns the exit status.
func (v *statusView) show(ctx context.Context, before string) (int, error) {
	var stats api.Stats
	a, err := v.client.do(ctx, http.MethodGet, "/v1/stats", nil, nil)
	if err != nil {
		return 0, v.noServer(err)
	}
	if a.status != http.StatusOK {
		switch p := a.problem(); {
		case p.Code == api.CodeQueueRequired:
			return v.showRelays(ctx, before, noQueue, exitOK)
		case p.Code == api.CodeQueueUnavailable:
			return v.showRelays(ctx, before, "What waits is not known: the queue's store does not work. "+p.Detail, statusPaused)
		case p.Status >= http.StatusInternalServerError:
			return 0, v.noServer(p.err())
		default:
			return 0, p.err()
		}
	}
	if err := json.Unmarshal(a.body, &stats); err != nil {
		return 0, fmt.Errorf("the answer cannot be read: %w", err)
	}
	now := time.Now()
	status := v.judge(stats, now)
	verdict := []string{headline(stats, status, now)}
	if refused := v.refused(ctx); refused != "" {
		status, verdict = statusPaused, append([]string{refused}, verdict...)
	}
	if v.asJSON {
		return status, v.encode(a.body, status, verdict)
	}
	fmt.Fprint(v.w, before)
	printStatus(v.w, stats, verdict)
	return status, nil
}

// refused says that the server takes no new mail, and why where it tells; empty where it does.
func (v *statusView) refused(ctx context.Context) string {
	a, err := v.client.do(ctx, http.MethodGet, "/readyz", nil, nil)
	if err != nil || a.status == http.StatusOK {
		return ""
	}
	var d api.Drain
	if err := v.client.ask(ctx, http.MethodGet, "/v1/drain", nil, &d); err == nil && d.Draining {
		return "New mail is refused: an operator drains the server since " + localTime(d.Since) + `; "mailsidecar drain --end" ends that.`
	}
	if why := notReadyWhy(a); why != "" {
		return "New mail is refused: " + why + "."
	}
	return "New mail is refused: the server is not ready. Its log says why."
}

// noServer gives a failure to reach the server its status.
func (v *statusView) noServer(err error) error {
	s, ok := errors.AsType[*statusError](err)
	if !ok || s.status == exitConfig {
		return err
	}
	if v.asJSON {
		if err := v.encode(nil, statusNoServer, []string{s.Error()}); err != nil {
			return err
		}
	}
	return &statusError{statusNoServer, s.err}
}

// encode prints the server's answer, a JSON object, with the verdict in front: the words and the exit status
// that the command has without --json.
func (v *statusView) encode(answer []byte, status int, verdict []string) error {
	front, err := json.Marshal(struct {
		Verdict string `json:"verdict"`
		Status  int    `json:"exit_status"`
	}{strings.Join(verdict, " "), status})
	if err != nil {
		return err
	}
	members := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(string(answer)), "{"))
	if members == "" || members == "}" {
		return encodeJSON(v.w, json.RawMessage(front))
	}
	return encodeJSON(v.w, json.RawMessage(string(front[:len(front)-1])+","+members))
}

const noQueue = "The server has no queue (MAILSIDECAR_QUEUE=none): nothing waits, and nothing is counted."

// showRelays is for a server that has no numbers, and why is the reason. The exit status is at
// least least.
func (v *statusView) showRelays(ctx context.Context, before, why string, least int) (int, error) {
	var raw json.RawMessage
	if err := v.client.ask(ctx, http.MethodGet, "/v1/relays", nil, &raw); err != nil {
		return 0, v.noServer(err)
	}
	var relays api.Relays
	if err := json.Unmarshal(raw, &relays); err != nil {
		return 0, fmt.Errorf("the answer cannot be read: %w", err)
	}
	status := least
	var stats api.Stats
	for _, r := range relays.Relays {
		stats.Relays = append(stats.Relays, api.StatsRelay{Name: r.Name, Status: r.Status, PausedUntil: r.PausedUntil, PausedByOperator: r.PausedByOperator, Advice: r.Advice})
		if r.Status == api.RelayPaused || r.Status == api.RelayFailing {
			status = statusPaused
		}
	}
	verdict := []string{why}
	if trouble := troubled(relays.Relays); trouble != "" {
		verdict = append(verdict, trouble)
	}
	if refused := v.refused(ctx); refused != "" {
		status, verdict = statusPaused, append([]string{refused}, verdict...)
	}
	if v.asJSON {
		return status, v.encode(raw, status, verdict)
	}
	fmt.Fprintln(v.w, before+strings.Join(verdict, "\n"))
	for _, r := range stats.Relays {
		fmt.Fprintf(v.w, "relay %s: %s\n", r.Name, relayState(r))
		printRelayAdvice(v.w, r)
	}
	return status, nil
}

// troubled names the relays that cannot be used; it is empty where all can.
func troubled(relays []api.Relay) string {
	var all []string
	for _, r := range relays {
		if r.Status == api.RelayPaused || r.Status == api.RelayFailing {
			all = append(all, r.Name+" ("+r.Status+")")
		}
	}
	if len(all) == 0 {
		return ""
	}
	return "A relay cannot be used: " + strings.Join(all, ", ") + "."
}

func (v *statusView) judge(s api.Stats, now time.Time) int {
	for _, r := range s.Relays {
		if r.Status == api.RelayPaused {
			return statusPaused
		}
	}
	if !s.OldestDue.IsZero() && now.Sub(s.OldestDue) > v.maxAge {
		return statusWaits
	}
	return exitOK
}

// Lines of what may be many.
const (
	statusReplies = 5
	statusKeys    = 5
	statusAdvice  = 2 // of one relay
	statusWidth   = 60
)

func printStatus(w io.Writer, s api.Stats, verdict []string) {
	fmt.Fprintln(w, strings.Join(verdict, "\n"))
	if s.Counting {
		fmt.Fprintln(w, "The numbers are being counted anew, and may be wrong by a little.")
	}
	if s.Key != "" { // zeros would look as if no mail waited at all
		fmt.Fprintf(w, "These numbers are of the mail of the key %s alone; a key with the role admin sees all mail.\n", s.Key)
	}
	waiting := s.Statuses[api.StatusQueued] + s.Statuses[api.StatusDeferred]
	fmt.Fprintf(w, "Messages waiting: %d (%d queued, %d deferred). Held: %d. Failed: %d, in part: %d.\n\n", waiting, s.Statuses[api.StatusQueued],
		s.Statuses[api.StatusDeferred], s.Statuses[api.StatusHeld], s.Statuses[api.StatusFailed], s.Statuses[api.StatusPartial])
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "recipients\taccepted\tdelivered\tdeferred\tbounced\tuncertain\t")
	row := func(name string, c api.StatsCounts) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t\n", name, c.Accepted, c.Delivered, c.Deferred, c.Bounced, c.Uncertain)
	}
	row("last hour", s.Hour.StatsCounts)
	row("last day", s.Day.StatsCounts)
	if len(s.Keys) > 1 {
		for _, k := range s.Keys[:min(len(s.Keys), statusKeys)] {
			row("key "+cmp.Or(k.Name, "(none)")+", day", k.Day)
		}
	}
	flush(t)
	fmt.Fprintln(w)
	for _, r := range s.Relays {
		fmt.Fprintf(w, "relay %s: %s, %d delivered and %d bounced in the last hour\n", r.Name, relayState(r), r.Hour.Delivered, r.Hour.Bounced)
		printRelayAdvice(w, r)
	}
	if len(s.Replies) > 0 {
		fmt.Fprintln(w, "\nWhy mail failed within a day")
	}
	for _, r := range s.Replies[:min(len(s.Replies), statusReplies)] {
		fmt.Fprintf(w, "  %6d  %s (%s, %s), last %s\n", r.Count, replyLine(r), cmp.Or(r.Relay, "no relay"), r.Class, localTime(r.Last))
	}
}

// printRelayAdvice says what is wrong with a relay. What an operator did stands in its own line.
func printRelayAdvice(w io.Writer, r api.StatsRelay) {
	if r.PausedByOperator != nil {
		return
	}
	for _, a := range r.Advice[:min(len(r.Advice), statusAdvice)] {
		fmt.Fprintf(w, "  %s\n", a.Found)
		if a.Do != "" {
			fmt.Fprintf(w, "  -> %s\n", a.Do)
		}
	}
}

// headline is one sentence for it all.
func headline(s api.Stats, status int, now time.Time) string {
	var paused []string
	for _, r := range s.Relays {
		if r.Status == api.RelayPaused {
			paused = append(paused, r.Name)
		}
	}
	oldest := "nothing is due"
	switch age := now.Sub(s.OldestDue).Truncate(time.Second); {
	case s.OldestDue.IsZero():
	case age <= 0:
		oldest = "the oldest is due now"
	default:
		oldest = "the oldest has been due for " + units.Duration(age).String()
	}
	switch status {
	case statusPaused:
		return "A relay is paused: " + strings.Join(paused, ", ") + "; " + oldest + "."
	case statusWaits:
		return "Mail waits: " + oldest + "."
	default:
		return "Mail flows: " + oldest + "."
	}
}

func relayState(r api.StatsRelay) string {
	state := cmp.Or(r.Status, "not configured any more")
	if r.PausedByOperator != nil {
		return state + pausedBecause(api.Relay{PausedByOperator: r.PausedByOperator})
	}
	if !r.PausedUntil.IsZero() {
		state += " until " + localTime(r.PausedUntil)
	}
	return state
}

func replyLine(r api.StatsReply) string {
	code := ""
	if r.ReplyCode > 0 {
		code = fmt.Sprint(r.ReplyCode)
	}
	return shorten(strings.Join(strings.Fields(code+" "+r.EnhancedCode+" "+r.Text), " "), statusWidth)
}
