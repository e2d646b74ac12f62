package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/api"
	"mailsidecar/units"
)

const (
	// drainInterval is how often the server is asked.
	drainInterval = time.Second
	// drainNews is how often progress is written where there is no terminal.
	drainNews = 10 * time.Second
	// drainSilence is how long a server may give no answer: it may be restarted.
	drainSilence = 30 * time.Second
)

func newDrain() *cobra.Command {
	var end bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Accept no more mail, and deliver what is here",
		Long: `Lets the server accept no more mail, and waits until it has delivered what is due. New
mail is answered 503 with Retry-After, /readyz 503. It says how much is left and about how
long that takes, and in the end what waits for a later time: scheduled mail, retries, held
mail. Mail for a relay that is paused is due, and keeps it waiting: see --timeout.

The server goes on refusing mail afterwards, also when the command is interrupted, until
"mailsidecar drain --end" or a restart: a restart always accepts mail. If the server is
restarted while the command waits, it is drained again.

Exit status: 0 nothing is due any more; 64 wrong command line; 69 no answer from
the server; 75 --timeout is over and something is left, or somebody ended the drain;
77 the server wants another API key, or one with the role admin; 78 wrong
configuration.`,
		Example: `  mailsidecar drain
  mailsidecar drain --timeout 5m || mailsidecar queue list --status queued
  mailsidecar drain --end`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd, time.Minute)
			if err != nil {
				return err
			}
			if end {
				var d api.Drain
				if err := c.ask(cmd.Context(), http.MethodDelete, "/v1/drain", nil, &d); err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "The server accepts mail again.")
				return err
			}
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			w := &drainWatch{client: c, out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), timeout: timeout}
			return w.run(ctx)
		},
	}
	cmd.Flags().BoolVar(&end, "end", false, "accept mail again")
	cmd.Flags().Var(duration{&timeout, units.ParseDuration}, "timeout", "give up waiting after this long, such as 5m; 0 never gives up")
	return cmd
}

// drainWatch follows a drain until nothing is due.
type drainWatch struct {
	client   *client
	out, err io.Writer
	timeout  time.Duration

	since     time.Time // of the drain, as the server has it
	progress  []drainPoint
	told      time.Time // when progress was written last
	open      bool      // a line on the terminal is not ended
	explained bool
}

// drainPoint is how much was due at a time.
type drainPoint struct {
	at  time.Time
	due int64
}

func (w *drainWatch) run(ctx context.Context) error {
	var answered time.Time
	var last api.Drain
	method := http.MethodPost
	for {
		var d api.Drain
		err := w.client.ask(ctx, method, "/v1/drain", nil, &d)
		switch {
		case err == nil && !d.Draining && !d.EndedAt.IsZero():
			w.newline()
			return exit(exitTransient, "somebody ended the drain at %s: the server accepts mail again", localTime(d.EndedAt))
		case err == nil && !d.Draining: // it was restarted
			method = http.MethodPost
			continue
		case err == nil:
			answered, last, method = time.Now(), d, http.MethodGet
			if w.note(d); d.Due == 0 {
				return w.finish(d)
			}
		case ctx.Err() != nil:
		case answered.IsZero() || !isSilent(err) || time.Since(answered) > drainSilence:
			return err
		}
		select {
		case <-ctx.Done():
			return w.interrupted(ctx, last)
		case <-time.After(drainInterval):
		}
		w.explain(ctx)
	}
}

// isSilent says that the server gave no answer, as while it is restarted.
func isSilent(err error) bool {
	s, ok := errors.AsType[*statusError](err)
	return ok && (s.status == exitUnavailable || s.status == exitUncertain)
}

// note tells what has changed.
func (w *drainWatch) note(d api.Drain) {
	now := time.Now()
	switch {
	case w.since.IsZero():
		fmt.Fprintln(w.out, "The server accepts no more mail.")
	case !d.Since.Equal(w.since):
		w.newline()
		fmt.Fprintln(w.out, "It was restarted, which made it accept mail again: it is being drained anew.")
		w.progress = nil
	}
	w.since = d.Since
	w.progress = append(w.progress, drainPoint{now, d.Due})
	if most := 30; len(w.progress) > most {
		w.progress = w.progress[1:]
	}
	if d.Due == 0 {
		w.newline()
		return
	}
	text := fmt.Sprintf("%d left%s", d.Due, w.estimate())
	if isTerminalWriter(w.out) {
		fmt.Fprintf(w.out, "\r%-40s", text)
		w.told, w.open = now, true
	} else if now.Sub(w.told) >= drainNews {
		fmt.Fprintln(w.out, text)
		w.told = now
	}
}

// newline ends the line that is written again and again on a terminal.
func (w *drainWatch) newline() {
	if w.open {
		fmt.Fprintln(w.out)
		w.open = false
	}
}

// estimate says how long it takes at the pace of the last half minute; nothing where that is
// not known.
func (w *drainWatch) estimate() string {
	first, last := w.progress[0], w.progress[len(w.progress)-1]
	done, took := first.due-last.due, last.at.Sub(first.at)
	if done <= 0 || took < 2*drainInterval {
		return ""
	}
	left := time.Duration(float64(took) / float64(done) * float64(last.due))
	return fmt.Sprintf(", about %s", roughly(left))
}

// roughly is a duration as one would say it.
func roughly(d time.Duration) string {
	switch {
	case d < 90*time.Second:
		return fmt.Sprintf("%d s", max(1, int(d.Round(time.Second).Seconds())))
	case d < 90*time.Minute:
		return fmt.Sprintf("%d min", int(d.Round(time.Minute).Minutes()))
	default:
		return fmt.Sprintf("%d h", int(d.Round(time.Hour).Hours()))
	}
}

// explain says once which relays are paused, where nothing goes out.
func (w *drainWatch) explain(ctx context.Context) {
	const patience = 5 * time.Second
	if w.explained || len(w.progress) == 0 {
		return
	}
	first, last := w.progress[0], w.progress[len(w.progress)-1]
	if last.at.Sub(first.at) < patience || last.due < first.due {
		return
	}
	relays, err := w.client.relays(ctx)
	if err != nil {
		return
	}
	for _, r := range relays {
		if r.Status != api.RelayPaused {
			continue
		}
		w.newline()
		fmt.Fprintf(w.out, "%s is paused%s\n", r.Name, pausedBecause(r))
		w.explained = true
	}
}

// pausedBecause says until when and why a relay is paused.
func pausedBecause(r api.Relay) string {
	var words []string
	until := r.PausedUntil
	if p := r.PausedByOperator; p != nil {
		words = append(words, " by an operator")
		if until = p.Until; p.Reason != "" {
			words = append(words, " ("+p.Reason+")")
		}
	}
	if !until.IsZero() {
		words = append(words, " until "+localTime(until))
	}
	if r.PausedByOperator == nil {
		words = append(words, failedBecause(r))
	}
	return strings.Join(words, "")
}

// failedBecause says what was the matter with a relay last.
func failedBecause(r api.Relay) string {
	if r.Failure == nil {
		return ""
	}
	return fmt.Sprintf(": %s: %s", r.Failure.Stage, r.Failure)
}

func (w *drainWatch) finish(d api.Drain) error {
	_, err := fmt.Fprintln(w.out, "Drained: nothing is due."+laterWords(d))
	return err
}

// laterWords says what does not end a drain.
func laterWords(d api.Drain) string {
	var words string
	if d.Later > 0 {
		words += fmt.Sprintf(" %s for a later time, the first until %s.", waiting(d.Later, "recipient"), localTime(d.NextAt))
	}
	if d.Held > 0 {
		words += fmt.Sprintf(" %s for a person (held).", waiting(d.Held, "message"))
	}
	return words
}

func waiting(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun + " waits"
	}
	return fmt.Sprintf("%d %ss wait", n, noun)
}

// interrupted says what is left when --timeout is over, or a person has had enough.
func (w *drainWatch) interrupted(ctx context.Context, d api.Drain) error {
	w.newline()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return exit(exitTransient, "%d left after %v; the server still accepts no mail: \"mailsidecar drain --end\" ends that.%s", d.Due, w.timeout, laterWords(d))
	}
	fmt.Fprintln(w.err, "The server still accepts no mail: \"mailsidecar drain --end\" ends that.")
	return exitSilently(exitTransient)
}
