package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/api"
)

// bulk is a command for messages that are named by their ids or selected by a filter.
type bulk struct {
	filter        queueFilter
	dryRun, yes   bool
	to, insteadOf string // of a retry to another address

	paused []api.PausedRelay // relays that a retry does not get asked

	route string // for a filter
	asks  bool   // a person must say yes to it
	// The words: "Cancel 12 messages?", "Canceled 3 of 12".
	do, did string
	upTo    bool               // what is counted before may have nothing to do for the command
	result  func(n int) string // the last line
	again   string             // what the same command does after it was stopped
}

func newQueueRetry() *cobra.Command {
	b := &bulk{
		route: "/v1/messages/retry", do: "Retry", did: "Retried", upTo: true,
		result: func(n int) string { return fmt.Sprintf("messages to be tried again: %d", n) },
		again:  "begins at the newest again",
	}
	cmd := &cobra.Command{
		Use:   "retry [ID...]",
		Short: "Try messages again now",
		Long: `Makes every deferred, held, bounced or expired recipient due now: of the messages
named, or of all those that the flags select. Relays that are paused are asked at
once, also for messages that were not tried yet, and a try that fails makes no pause
longer. Not asked are relays that an operator has paused, and those that refused the login:
the command says which, until when, and why.

--status failed selects messages that were delivered to no recipient. A message is
partial that was delivered to some: --status bounced or expired selects these, too.
Without --status, messages that were not tried yet are left out.

--to sends one message to another address, for a recipient whose address was wrong: as
a new message with the same content, whose id is printed. Where it went to that address
before, and is delivered there or may be, the command says as which id, and asks; --yes
sends another copy. The message itself stays as it is. Its content must be there still, as it is while it waits and after it bounced.
` + bulkHelp + `The same command again begins at the newest message: what it has retried, and still
matches, is tried once more.
` + queueExits,
		Example: `  mailsidecar queue retry 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55
  mailsidecar queue retry --status failed --since 2h
  mailsidecar queue retry --domain example.org --recipient-state bounced --dry-run
  mailsidecar queue retry --status held
  mailsidecar queue retry 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55 --to new@example.org --instead-of old@example.org`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, ids []string) error {
			return b.run(cmd, ids, http.MethodPost, "/retry")
		},
	}
	b.define(cmd)
	once(cmd, text(&b.to), "to", "send the message to this address, as a new message")
	once(cmd, text(&b.insteadOf), "instead-of", "with --to: the recipient that did not get it")
	cmd.Flags().BoolVar(&b.yes, "yes", false, "with --to: do not ask where the message went to that address before")
	return cmd
}

func newQueueCancel() *cobra.Command {
	b := &bulk{
		route: "/v1/messages/cancel", do: "Cancel", did: "Canceled", asks: true, again: "goes on with the rest",
		result: func(n int) string {
			if n == 0 {
				return "messages canceled: 0"
			}
			return fmt.Sprintf("messages canceled: %d. One that is being tried just now keeps the outcome of that attempt", n)
		},
	}
	cmd := &cobra.Command{
		Use:   "cancel [ID...]",
		Short: "Cancel what is not delivered yet",
		Long: `Ends every recipient that is not in a final state yet: of the messages named, or of
all those that the flags select. One that is being tried just now keeps the outcome of
that attempt, and is canceled where it would have waited for another. What is canceled
cannot be taken back: with flags, the command says how many messages match and asks.
Messages that are accepted after that are not canceled. An older one is, also if it begins to
match only then: one that is deferred meanwhile, with --status deferred.
` + bulkHelp + `The same command again does the rest.
` + queueExits,
		Example: `  mailsidecar queue cancel 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55
  mailsidecar queue cancel --domain example.org --status deferred --dry-run
  mailsidecar queue cancel --tag list=news --yes`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, ids []string) error {
			return b.run(cmd, ids, http.MethodDelete, "")
		},
	}
	b.define(cmd)
	cmd.Flags().BoolVar(&b.yes, "yes", false, "do not ask")
	return cmd
}

const bulkHelp = `
--dry-run only says how many messages the flags select. Flags take effect in small
steps, with progress on standard error. Ctrl-C ends the command after a step and says
what was done.
` + idHelp

func (b *bulk) define(cmd *cobra.Command) {
	b.filter.define(cmd)
	cmd.Flags().BoolVar(&b.dryRun, "dry-run", false, "only say how many messages the flags select")
}

func (b *bulk) run(cmd *cobra.Command, ids []string, method, action string) error {
	now := time.Now()
	filter, err := b.filter.filter(now)
	if err != nil {
		return err
	}
	if b.to == "" && b.insteadOf != "" {
		return exit(exitUsage, "--instead-of goes with --to, which says to which address the message is sent")
	}
	if b.to != "" {
		if len(ids) != 1 || filter != (api.Filter{}) || b.dryRun {
			return exit(exitUsage, "--to takes the id of one message and no flag but --instead-of and --yes")
		}
		return withServer(cmd, func(c *client) error {
			return c.resend(cmd, ids[0], api.Resend{To: b.to, InsteadOf: b.insteadOf, Again: b.yes})
		})
	}
	if b.yes && !b.asks {
		return exit(exitUsage, "--yes goes with --to: a retry does not ask")
	}
	byIDs, byFilter := len(ids) > 0, filter != (api.Filter{})
	switch {
	case byIDs && byFilter:
		return exit(exitUsage, "name messages by their ids, or select them with flags such as --status failed, not both")
	case !byIDs && !byFilter:
		return exit(exitUsage, "name messages by their ids, or select them with flags such as --status failed")
	case byIDs && b.dryRun:
		return exit(exitUsage, "--dry-run says how many messages flags select, and takes no ids")
	}
	return withServer(cmd, func(c *client) error {
		if byIDs {
			return c.forEach(cmd.Context(), cmd.OutOrStdout(), ids, method, action)
		}
		if b.asks { // then the person has agreed to a number
			filter.Until = notAfter(filter.Until, now)
		}
		return b.matching(cmd, c, filter)
	})
}

// notAfter is until, or now where that is empty or later.
func notAfter(until string, now time.Time) string {
	if at, err := time.Parse(time.RFC3339Nano, until); err == nil && at.Before(now) {
		return until
	}
	return now.UTC().Format(time.RFC3339Nano)
}

// resend sends a message to another address.
func (c *client) resend(cmd *cobra.Command, id string, r api.Resend) error {
	ctx := cmd.Context()
	if c.offline {
		return exit(exitUnavailable, "no server uses the store, and only a server takes new mail, as this is: start it first")
	}
	id, err := c.wholeID(ctx, id)
	if err != nil {
		return err
	}
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	a, err := c.do(ctx, http.MethodPost, messagePath(id)+"/resend", header, body)
	if err != nil {
		return err
	}
	if a.status != http.StatusAccepted {
		p := a.problem()
		if p.Code != api.CodeAlreadyResent || !isTerminal(cmd.InOrStdin()) {
			return p.err()
		}
		if err := confirmed(cmd, p.Detail+" Send it?"); err != nil {
			return err
		}
		r.Again = true
		return c.resend(cmd, id, r)
	}
	var m api.Receipt
	if err := json.Unmarshal(a.body, &m); err != nil || m.ID == "" {
		return exit(exitUncertain, "the answer has no message in it: it may or may not have been taken")
	}
	printOutcome(cmd.OutOrStdout(), m)
	return nil
}

// matching counts what the filter selects, asks where that is the rule, and does it.
func (b *bulk) matching(cmd *cobra.Command, c *client, filter api.Filter) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	total, err := c.countMatching(ctx, b.route, filter)
	if err == nil && total == 0 {
		b.filter.hint(cmd.ErrOrStderr())
	}
	switch {
	case err != nil:
		return err
	case b.dryRun:
		_, err = fmt.Fprintf(out, "%s: %s. Nothing was changed.\n", b.do, b.matchWords(total))
		return err
	case total > 0 && b.asks && !b.yes:
		if err := confirmed(cmd, fmt.Sprintf("%s %s?", b.do, messages(total))); err != nil {
			return err
		}
	}
	p := newProgress(cmd.ErrOrStderr(), b.did, total)
	p.upTo = b.upTo
	done, err := b.steps(ctx, c, filter, p)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, b.result(done))
	printPaused(out, b.paused)
	if b.route == "/v1/messages/retry" && filter.Status == api.StatusFailed {
		fmt.Fprintln(out, "Messages that were delivered to some recipients are not among them: --status bounced or expired selects these, too.")
	}
	return nil
}

// printPaused says which relays a retry does not get asked. Mail that others may take, too, need not wait for them.
func printPaused(w io.Writer, relays []api.PausedRelay) {
	for _, r := range relays {
		until := ""
		if !r.Until.IsZero() {
			until = " until " + localTime(r.Until)
		}
		fmt.Fprintf(w, "Relay %s is not asked%s: %s\n", r.Relay, until, shorten(r.Found, 500))
		if r.Do != "" {
			fmt.Fprintf(w, "  -> %s\n", r.Do)
		}
	}
}

// bulkStep is how many messages one request changes: so often progress is told, and Ctrl-C
// heard.
const bulkStep = 1000

// steps does it step by step, and returns how many messages were changed.
func (b *bulk) steps(ctx context.Context, c *client, filter api.Filter, p *progress) (done int, err error) {
	request := api.Bulk{Filter: filter, Limit: bulkStep}
	for {
		if ctx.Err() != nil {
			p.end()
			return done, exit(exitTransient, "stopped: %s %s, and no other was changed; the same command %s", strings.ToLower(b.did), messages(done), b.again)
		}
		var did struct {
			Retried, Canceled, Matched int
			Next                       string
			Paused                     []api.PausedRelay `json:"paused_relays"`
		}
		// What a step does must be known: it is not cut short.
		if err := c.post(context.WithoutCancel(ctx), b.route, request, &did); err != nil {
			p.end()
			return done, fmt.Errorf("%s %s before this: %w", strings.ToLower(b.did), messages(done), err)
		}
		done += did.Retried + did.Canceled
		if did.Retried > 0 { // else the answer does not name them
			b.paused = did.Paused
		}
		p.add(did.Retried + did.Canceled)
		if request.Cursor = did.Next; request.Cursor == "" {
			p.end()
			return done, nil
		}
	}
}

// countMatching returns how many messages a command by filter would meet.
func (c *client) countMatching(ctx context.Context, route string, filter api.Filter) (total int, err error) {
	request := api.Bulk{Filter: filter, DryRun: true}
	for {
		var count api.Matching
		if err := c.post(ctx, route, request, &count); err != nil {
			return 0, err
		}
		total += count.Matching
		if request.Cursor = count.Next; request.Cursor == "" {
			return total, nil
		}
	}
}

// post sends v as JSON and reads the answer into answer.
func (c *client) post(ctx context.Context, path string, v, answer any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.ask(ctx, http.MethodPost, path, body, answer)
}

// matchWords says how many messages match. Of what a retry counts, some may have nothing to retry: the content of a
// message may be gone, or it may be delivered by then.
func (b *bulk) matchWords(n int) string {
	if b.upTo && n > 0 {
		return "up to " + messages(n) + ", for so many match, and one that has nothing to retry by then is left as it is"
	}
	return messagesMatch(n)
}

func messages(n int) string {
	if n == 1 {
		return "1 message"
	}
	return grouped(n) + " messages"
}

func messagesMatch(n int) string {
	if n == 1 {
		return "1 message matches"
	}
	return messages(n) + " match"
}

// grouped writes a number as people read it: 10,501.
func grouped(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// progress says how far a command is: on a terminal in one line that is written again and
// again, elsewhere in a line from time to time, where it takes long.
type progress struct {
	w        io.Writer
	terminal bool
	did      string
	n, total int
	upTo     bool // total is the most that n may become
	told     time.Time
	shown    bool // a line is open on the terminal
}

// progressNews is how often progress is written where there is no terminal.
const progressNews = 10 * time.Second

func newProgress(w io.Writer, did string, total int) *progress {
	return &progress{w: w, terminal: isTerminalWriter(w), did: did, total: total, told: time.Now()}
}

func (p *progress) line() string {
	of := " of "
	if p.upTo {
		of = " of up to "
	}
	return p.did + " " + grouped(p.n) + of + grouped(p.total)
}

func (p *progress) add(n int) {
	p.n += n
	p.total = max(p.total, p.n) // more may match by now
	switch {
	case p.terminal && (time.Since(p.told) >= progressEvery || !p.shown):
		fmt.Fprintf(p.w, "\r%s ", p.line())
	case !p.terminal && time.Since(p.told) >= progressNews:
		fmt.Fprintln(p.w, p.line())
	default:
		return
	}
	p.told, p.shown = time.Now(), true
}

// end ends the line. Nothing is written where none is open.
func (p *progress) end() {
	if p.terminal && p.shown {
		fmt.Fprintf(p.w, "\r%s \n", p.line())
		p.shown = false
	}
}
