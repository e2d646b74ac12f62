package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
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
		Short: "List, show, retry, cancel and export messages; back up, check and move the queue",
		Long: `Looks at the queue and acts on it: through the server at MAILSIDECAR_URL, which
shows the messages of the key in MAILSIDECAR_API_KEY. Without MAILSIDECAR_URL,
and with no server running on MAILSIDECAR_QUEUE, it works on the store itself and
sees the messages of all keys, where that is a file: a queue in PostgreSQL is looked
at through one of its instances. backup, restore, check and copy work on the store
itself in any case.`,
		Example: `  mailsidecar queue list --status failed
  mailsidecar queue show 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55
  mailsidecar queue retry --status failed --since 2h
  mailsidecar queue cancel --domain example.org --status deferred
  mailsidecar queue export 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55 -o message.eml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newQueueList(), newQueueShow(), newQueueRetry(), newQueueCancel(), newQueueExport(), newQueueBackup(), newQueueRestore(), newQueueCheck(), newQueueMigrate(), newQueueCopy())
	return cmd
}

// queueFilter is the flags that select messages.
type queueFilter struct {
	status, id, recipient, sender, messageID, tag, since, until, key string
	domain, state, relay, enhanced, text, subject                    string
	code                                                             int
}

func (f *queueFilter) define(cmd *cobra.Command) {
	once(cmd, text(&f.status), "status", "message's status: queued, deferred, held, delivered, partial, failed or canceled; waiting: queued or deferred; bounced or expired: some recipient is")
	once(cmd, text(&f.id), "id", "how the id begins, at least 4 digits")
	once(cmd, text(&f.recipient), "recipient", "recipient's address")
	once(cmd, text(&f.domain), "domain", "domain of a recipient's address, exactly")
	once(cmd, text(&f.state), "recipient-state", "state of a recipient: queued, deferred, held, delivered, bounced, expired or canceled")
	once(cmd, text(&f.sender), "sender", "author's address")
	once(cmd, text(&f.subject), "subject", "words of the subject, each of which it has, in upper or lower case")
	once(cmd, text(&f.messageID), "message-id", "Message-ID, with or without its angle brackets")
	once(cmd, text(&f.tag), "tag", "tag, \"name\" or \"name=value\"")
	once(cmd, text(&f.since), "since", "accepted since then, or since that day began: \"yesterday\", \"2026-11-29 14:30\", \"29 Nov\", \"monday\", \"2h ago\" or RFC 3339; local time")
	once(cmd, text(&f.until), "until", "accepted before then, or before that day ended, written the same way")
	once(cmd, text(&f.relay), "relay", "relay at which a recipient's last attempt failed")
	once(cmd, number(&f.code), "code", "reply code of a recipient's last attempt, where that failed, such as 550")
	once(cmd, text(&f.enhanced), "enhanced", "enhanced status code of that failure, such as 5.1.1")
	once(cmd, text(&f.text), "text", "part of the relay's text in that failure, in upper or lower case; * stands for anything; with = in front it is the whole text, and = alone selects replies without text")
	once(cmd, text(&f.key), "key", "name of the API key; others than the own one need the role admin")
}

// filter is the filter as the server's interface has it.
func (f *queueFilter) filter(now time.Time) (api.Filter, error) {
	since, err := pointInTime("since", f.since, now, false)
	if err != nil {
		return api.Filter{}, err
	}
	until, err := pointInTime("until", f.until, now, true)
	if err != nil {
		return api.Filter{}, err
	}
	if from, err := time.Parse(time.RFC3339Nano, since); err == nil {
		if to, err := time.Parse(time.RFC3339Nano, until); err == nil && !from.Before(to) {
			return api.Filter{}, exit(exitUsage, "--until %s is not after --since %s: no message is accepted in between", f.until, f.since)
		}
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
		Status: f.status, ID: f.id, Domain: f.domain, RecipientState: f.state, Recipient: f.recipient, Sender: f.sender, MessageID: messageID, Tag: tag, Since: since, Until: until, Key: f.key,
		Subject: f.subject, Relay: f.relay, ReplyCode: f.code, EnhancedCode: f.enhanced, Text: f.text,
	}, nil
}

// withCode is a text that begins with a reply code, as a line of a log does.
var withCode = regexp.MustCompile(`^=?[45][0-9][0-9][ -]`)

// hint says what may be wrong with flags that select nothing.
func (f *queueFilter) hint(w io.Writer) {
	if withCode.MatchString(f.text) {
		fmt.Fprintln(w, `Note: --text asks for the words alone; the codes before them are asked with --code and --enhanced: --code 550 --enhanced 5.1.1 --text "no such user".`)
	}
}

// pointInTime reads a time as people write it and writes it as RFC 3339. A day is where it
// begins, or with end where it ends.
func pointInTime(flag, text string, now time.Time, end bool) (string, error) {
	if strings.TrimSpace(text) == "" {
		return "", nil
	}
	at, err := units.ParseWhen(text, now, end)
	if err != nil {
		return "", exit(exitUsage, "--%s %w", flag, err)
	}
	return at.UTC().Format(time.RFC3339Nano), nil
}

func newQueueList() *cobra.Command {
	var f queueFilter
	limit := 50
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List messages, the newest first",
		Long: `Lists messages, the newest first. --status, --id, --since, --until and --key are
quick. A search by anything else, also by --status bounced or expired, looks at every
message that these leave until it has found enough.
` + queueExits,
		Example: `  mailsidecar queue list
  mailsidecar queue list --status deferred --since yesterday
  mailsidecar queue list --since "29 Nov 14:30" --until "30 Nov"
  mailsidecar queue list --recipient ana@example.org --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(c *client) error {
				messages, more, err := c.list(cmd.Context(), cmd.ErrOrStderr(), &f, limit)
				if err != nil {
					return err
				}
				if len(messages) == 0 {
					f.hint(cmd.ErrOrStderr())
				}
				if asJSON {
					return encodeJSON(cmd.OutOrStdout(), messages)
				}
				return printList(cmd.OutOrStdout(), messages, more)
			})
		},
	}
	f.define(cmd)
	upTo := number(&limit)
	upTo.value = strconv.Itoa(limit) // the default, for --help
	once(cmd, upTo, "limit", "list up to so many")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func newQueueShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Tell the story of a message",
		Long:  "Tells the story of a message: its envelope, what became of each recipient, and\nevery attempt with the relay's own words.\n" + idHelp + queueExits,
		Example: `  mailsidecar queue show 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55
  mailsidecar queue show 0196a3c27d1e
  mailsidecar queue show 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55 --json`,
		Args: idArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withServer(cmd, func(c *client) error {
				id, err := c.wholeID(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				var raw json.RawMessage
				if err := c.ask(cmd.Context(), http.MethodGet, messagePath(id), nil, &raw); err != nil {
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
	ids, err := c.whole(ctx, ids)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		var m api.Receipt
		if err := c.ask(ctx, method, messagePath(id)+action, nil, &m); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", id, err))
			continue
		}
		printOutcome(w, m)
		printWaits(w, m.Waits)
		if method == http.MethodDelete && waitsForAttempt(m) {
			fmt.Fprintln(w, "It is being tried just now: the outcome of that attempt counts, and no other attempt follows.")
		}
	}
	return errors.Join(errs...)
}

// waitsForAttempt says that a message that was canceled has a recipient which is being tried.
func waitsForAttempt(m api.Receipt) bool {
	return slices.ContainsFunc(m.Recipients, func(r api.Recipient) bool { return r.State == api.StateQueued || r.State == api.StateDeferred })
}
