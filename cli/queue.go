package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/api"
	"mailsidecar/units"
)

// queueExits is the same for all the queue's commands.
const queueExits = `
Exit status: 0 done; 1 a file or the store cannot be used; 64 wrong command
line; 65 there is no such message, or nothing to do for it; 69 no answer from
the server; 75 try again later; 76 it broke off, and may have done it; 77 the
server wants another API key; 78 wrong configuration.`

func newQueue() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "List, show, retry, cancel and export messages",
		Long: `Looks at the queue and acts on it: through the server at MAILSIDECAR_URL, which
shows the messages of the key in MAILSIDECAR_API_KEY. Without MAILSIDECAR_URL,
and with no server running on MAILSIDECAR_QUEUE, it works on the store itself and
sees the messages of all keys.`,
		Example: `  mailsidecar queue list --status failed
  mailsidecar queue show 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55
  mailsidecar queue retry --status failed --since 2h
  mailsidecar queue cancel 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55
  mailsidecar queue export 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55 -o message.eml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newQueueList(), newQueueShow(), newQueueRetry(), newQueueCancel(), newQueueExport())
	return cmd
}

// queueFilter is the flags that select messages.
type queueFilter struct {
	status, recipient, sender, messageID, tag, since, until string
}

func (f *queueFilter) define(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.status, "status", "", "message's status: queued, deferred, held, delivered, partial, failed or canceled; bounced or expired: some recipient is")
	flags.StringVar(&f.recipient, "recipient", "", "recipient's address")
	flags.StringVar(&f.sender, "sender", "", "author's address")
	flags.StringVar(&f.messageID, "message-id", "", "Message-ID, with or without its angle brackets")
	flags.StringVar(&f.tag, "tag", "", "tag, \"name\" or \"name=value\"")
	flags.StringVar(&f.since, "since", "", "accepted since then: a time (RFC 3339), or how long ago, such as 2h or 7d")
	flags.StringVar(&f.until, "until", "", "accepted before then, written the same way")
}

// filter is the filter as the server's interface has it.
func (f *queueFilter) filter(now time.Time) (api.Filter, error) {
	since, err := pointInTime("since", f.since, now)
	if err != nil {
		return api.Filter{}, err
	}
	until, err := pointInTime("until", f.until, now)
	if err != nil {
		return api.Filter{}, err
	}
	// The interface has a colon there; a name has neither.
	tag := f.tag
	if i := strings.IndexAny(tag, "=:"); i >= 0 {
		tag = tag[:i] + ":" + tag[i+1:]
	}
	messageID := f.messageID
	if messageID != "" {
		messageID = "<" + strings.TrimSuffix(strings.TrimPrefix(messageID, "<"), ">") + ">"
	}
	return api.Filter{
		Status: f.status, Recipient: f.recipient, Sender: f.sender, MessageID: messageID, Tag: tag, Since: since, Until: until,
	}, nil
}

// pointInTime reads a time, or how long before now it was, and writes it as
// RFC 3339.
func pointInTime(flag, text string, now time.Time) (string, error) {
	if text == "" {
		return "", nil
	}
	if ago, err := units.ParseDuration(strings.TrimSpace(text)); err == nil {
		return now.Add(-ago).UTC().Format(time.RFC3339), nil
	}
	if _, err := time.Parse(time.RFC3339, text); err != nil {
		return "", exit(exitUsage, "--%s %q is neither a time such as 2030-01-31T08:00:00Z nor a duration such as 2h or 7d", flag, text)
	}
	return text, nil
}

func newQueueList() *cobra.Command {
	var f queueFilter
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List messages, the newest first",
		Long: `Lists messages, the newest first. A search by recipient, sender, Message-ID or tag
looks at every message until it has found enough: --since and --until make it
quick.
` + queueExits,
		Example: `  mailsidecar queue list
  mailsidecar queue list --status deferred --since 24h
  mailsidecar queue list --recipient ana@example.org --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(c *client) error {
				messages, more, err := c.list(cmd.Context(), cmd.ErrOrStderr(), &f, limit)
				if err != nil {
					return err
				}
				if asJSON {
					return encodeJSON(cmd.OutOrStdout(), messages)
				}
				return printList(cmd.OutOrStdout(), messages, more)
			})
		},
	}
	f.define(cmd)
	cmd.Flags().IntVar(&limit, "limit", 50, "list up to so many")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func newQueueShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Tell the story of a message",
		Long:  "Tells the story of a message: its envelope, what became of each recipient, and\nevery attempt with the relay's own words.\n" + queueExits,
		Example: `  mailsidecar queue show 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55
  mailsidecar queue show 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55 --json`,
		Args: idArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withServer(cmd, func(c *client) error {
				var raw json.RawMessage
				if err := c.ask(cmd.Context(), http.MethodGet, messagePath(args[0]), nil, &raw); err != nil {
					return err
				}
				if asJSON {
					return encodeJSON(cmd.OutOrStdout(), raw)
				}
				var m api.Message
				if err := json.Unmarshal(raw, &m); err != nil {
					return fmt.Errorf("the answer cannot be read: %w", err)
				}
				printStory(cmd.OutOrStdout(), m)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer")
	return cmd
}

func newQueueRetry() *cobra.Command {
	var f queueFilter
	cmd := &cobra.Command{
		Use:   "retry [ID...]",
		Short: "Try messages again now",
		Long: `Makes every deferred, held, bounced or expired recipient due now: of the messages
named, or of all those that the flags select. Relays that are paused are asked at
once, also for messages that were not tried yet.

--status failed selects messages that were delivered to no recipient. A message is
partial that was delivered to some: --status bounced or expired selects these, too.
` + queueExits,
		Example: `  mailsidecar queue retry 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55
  mailsidecar queue retry --status failed --since 2h
  mailsidecar queue retry --status bounced --since 2h
  mailsidecar queue retry --status held`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, ids []string) error {
			filter, err := f.filter(time.Now())
			if err != nil {
				return err
			}
			if (len(ids) == 0) == (filter == (api.Filter{})) {
				return exit(exitUsage, "name messages by their ids, or select them with flags such as --status failed")
			}
			return withServer(cmd, func(c *client) error {
				if len(ids) > 0 {
					return c.forEach(cmd.Context(), cmd.OutOrStdout(), ids, http.MethodPost, "/retry")
				}
				return c.retryMatching(cmd.Context(), cmd.OutOrStdout(), filter)
			})
		},
	}
	f.define(cmd)
	return cmd
}

func newQueueCancel() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID...",
		Short: "Cancel what is not delivered yet",
		Long: `Ends every recipient that is not in a final state yet. One that is being tried
just now keeps the outcome of that attempt. Up to 100 messages are named at a time:
what is canceled cannot be taken back, so there are no flags that select them.
` + queueExits,
		Example: `  mailsidecar queue cancel 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55
  mailsidecar queue list --status deferred --tag list=news --limit 10000 --json |
    jq -r '.[].id' | xargs -r -n 100 mailsidecar queue cancel`,
		Args: idArgs(100),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return withServer(cmd, func(c *client) error {
				return c.forEach(cmd.Context(), cmd.OutOrStdout(), ids, http.MethodDelete, "")
			})
		},
	}
}

func newQueueExport() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "export ID",
		Short: "Write a message as an .eml file",
		Long:  "Writes the message's octets as they go to the relay, to ID.eml or to the file\nnamed, which must not exist yet.\n" + queueExits,
		Example: `  mailsidecar queue export 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55
  mailsidecar queue export 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55 -o - | less`,
		Args: idArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withServer(cmd, func(c *client) error {
				a, err := c.do(cmd.Context(), http.MethodGet, messagePath(args[0])+"/content", nil, nil)
				if err != nil {
					return err
				}
				if a.status != http.StatusOK {
					return a.problem().err()
				}
				return export(cmd.OutOrStdout(), output, args[0], a.body)
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write; \"-\" is standard output (default: ID.eml)")
	return cmd
}

func export(stdout io.Writer, file, id string, content []byte) error {
	if file == "-" {
		_, err := stdout.Write(content)
		return err
	}
	if file == "" {
		file = id + ".eml"
	}
	// Mail is private, and an existing file must not be overwritten.
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	_, err = fmt.Fprintf(stdout, "%s: %d octets\n", file, len(content))
	return err
}

// idArgs asks for one to most ids of messages.
func idArgs(most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 || len(args) > most {
			return exit(exitUsage, "%q takes the id of a message: \"mailsidecar queue list\" shows them", cmd.CommandPath())
		}
		return nil
	}
}

func messagePath(id string) string { return "/v1/messages/" + url.PathEscape(id) }

// ask sends a request and reads the answer into v; a refusal becomes an error.
func (c *client) ask(ctx context.Context, method, path string, body []byte, v any) error {
	var header http.Header
	if body != nil {
		header = http.Header{"Content-Type": {"application/json"}}
	}
	a, err := c.do(ctx, method, path, header, body)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return a.problem().err()
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	return nil
}

// list returns up to limit messages, as the server wrote them, and whether there
// are more. It tells on w how far a long search is.
func (c *client) list(ctx context.Context, w io.Writer, f *queueFilter, limit int) (all []json.RawMessage, more bool, err error) {
	if limit < 1 {
		return nil, false, exit(exitUsage, "--limit must be 1 or more")
	}
	filter, err := f.filter(time.Now())
	if err != nil {
		return nil, false, err
	}
	query := filter.Query()
	all = []json.RawMessage{}
	for {
		query.Set("limit", strconv.Itoa(min(limit-len(all), api.MaxPage)))
		var page struct {
			Messages       []json.RawMessage `json:"messages"`
			Next           string            `json:"next"`
			SearchedBackTo time.Time         `json:"searched_back_to"`
		}
		if err := c.ask(ctx, http.MethodGet, "/v1/messages?"+query.Encode(), nil, &page); err != nil {
			return nil, false, err
		}
		all = append(all, page.Messages...)
		if page.Next == "" || len(all) >= limit {
			return all, page.Next != "", nil
		}
		if !page.SearchedBackTo.IsZero() {
			fmt.Fprintf(w, "Searched back to %s, %d found; going on. --since and --until make a search quick.\n", localTime(page.SearchedBackTo), len(all))
		}
		query.Set("cursor", page.Next)
	}
}

// forEach does one thing to each message; it goes on after a failure and
// returns all of them.
func (c *client) forEach(ctx context.Context, w io.Writer, ids []string, method, action string) error {
	var errs []error
	for _, id := range ids {
		var m api.Receipt
		if err := c.ask(ctx, method, messagePath(id)+action, nil, &m); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", id, err))
			continue
		}
		printOutcome(w, m)
	}
	return errors.Join(errs...)
}

func (c *client) retryMatching(ctx context.Context, w io.Writer, filter api.Filter) error {
	request, total := api.Retry{Filter: filter}, 0
	for more := true; more; more = request.Cursor != "" {
		body, err := json.Marshal(request)
		if err != nil {
			return err
		}
		var done api.Retried
		if err := c.ask(ctx, http.MethodPost, "/v1/messages/retry", body, &done); err != nil {
			return err
		}
		total, request.Cursor = total+done.Retried, done.Next
		fmt.Fprintf(w, "messages to be tried again: %d\n", total)
	}
	if filter.Status == api.StatusFailed {
		fmt.Fprintln(w, "Messages that were delivered to some recipients are not among them: --status bounced or expired selects these, too.")
	}
	return nil
}
