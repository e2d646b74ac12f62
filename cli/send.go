package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"mailsidecar/api"
	"mailsidecar/config"
	"mailsidecar/units"
)

func newSend() *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use:   "send",
		Short: "Send one message through a running server",
		Long: `Sends one message through the server at MAILSIDECAR_URL, with the key in
MAILSIDECAR_API_KEY, and prints what became of it for each recipient.
"Delivered" means that the relay accepted it.

Without --text, --html and --eml the text is read from standard input.

Exit status: 0 delivered, or accepted by the queue, which goes on trying;
64 wrong command line; 65 the message or a recipient was refused; 69 no answer
from the server; 75 try again later; 76 it may or may not have been sent;
77 the server wants another API key; 78 wrong configuration.`,
		Example: `  mailsidecar send --to ana@example.org --subject Hello --text "It works."
  date | mailsidecar send --from cron@example.com --to ops@example.com --subject Clock
  mailsidecar send --to ana@example.org --cc "Bo <bo@example.org>" \
      --subject Invoice --text "See the file." --attach invoice.pdf
  mailsidecar send --eml finished.eml --to ana@example.org --return-path bounce@example.com
  mailsidecar send --eml - < finished.eml     the envelope is read from its own fields`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.send(cmd.Context(), cmd) },
	}
	f.define(cmd)
	return cmd
}

type sendFlags struct {
	from, subject, text, html, returnPath, calendar, eml string
	to, cc, bcc, replyTo                                 []string
	headers, attach, tags                                []string
	idempotencyKey                                       string
	sendAt, priority                                     string
	expiresIn, wait                                      time.Duration
	json                                                 bool
}

func (f *sendFlags) define(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "", "author, such as \"Shop <shop@example.com>\" (default: the server's MAILSIDECAR_FROM)")
	flags.StringArrayVar(&f.to, "to", nil, "recipient; may be repeated, as may --cc and --bcc")
	flags.StringArrayVar(&f.cc, "cc", nil, "recipient of a copy")
	flags.StringArrayVar(&f.bcc, "bcc", nil, "recipient of a copy that the others do not see")
	flags.StringArrayVar(&f.replyTo, "reply-to", nil, "where answers go")
	flags.StringVar(&f.subject, "subject", "", "subject")
	flags.StringVar(&f.text, "text", "", "plain text")
	flags.StringVar(&f.html, "html", "", "HTML")
	flags.StringVar(&f.calendar, "calendar", "", "iCalendar file to send as an invitation, which calendars show in place of the text")
	flags.StringArrayVar(&f.attach, "attach", nil, "file to attach; may be repeated")
	flags.StringArrayVar(&f.headers, "header", nil, "further header field, \"Name: value\"; may be repeated")
	flags.StringVar(&f.returnPath, "return-path", "", "reverse-path, where bounces go; \"<>\" for none (default: the author's address)")
	flags.StringVar(&f.eml, "eml", "", "send this finished message (RFC 5322) as it is; \"-\" reads it from standard input")
	flags.StringArrayVar(&f.tags, "tag", nil, "tag kept with the message, \"name=value\"; may be repeated")
	flags.StringVar(&f.priority, "priority", "", "high, normal or bulk: whose turn it is where messages wait (default: normal, or by the message's Precedence)")
	flags.StringVar(&f.idempotencyKey, "idempotency-key", "", "sends the message once however often the command is repeated")
	flags.StringVar(&f.sendAt, "send-at", "", "hold the message until then (RFC 3339)")
	durationFlag(cmd, &f.expiresIn, "expires-in", "how long to keep trying, such as 1d12h (default: the server's)")
	waitFlag(cmd, &f.wait, "wait", "wait this long for the relay's answer, a duration or seconds, up to 1m; 0 does not wait (default: MAILSIDECAR_WAIT, 10s)")
	flags.BoolVar(&f.json, "json", false, "print the server's answer as it is")
}

// composing are the flags that a finished message leaves nothing to do for.
var composing = []string{
	"from", "subject", "text", "html", "calendar", "attach", "header", "cc", "bcc", "reply-to", "tag", "send-at", "expires-in",
}

func (f *sendFlags) send(ctx context.Context, cmd *cobra.Command) error {
	cfg, err := config.LoadClient()
	if err != nil {
		return misconfigured(err, nil)
	}
	if !cmd.Flags().Changed("wait") {
		f.wait = time.Duration(cfg.Wait)
	}
	if f.wait > api.MaxWait {
		return exit(exitUsage, "--wait %s is longer than the server waits: %d s at most", units.Duration(f.wait), int(api.MaxWait.Seconds()))
	}
	header, body, err := f.request(cmd)
	if err != nil {
		return err
	}
	// A server without a queue answers with the relay's verdict, which may take
	// as long as its MAILSIDECAR_REQUEST_TIMEOUT, up to 15 minutes.
	c, err := configuredClient(cmd, cfg, 16*time.Minute)
	if err != nil {
		return err
	}
	a, err := c.do(ctx, http.MethodPost, "/v1/messages", header, body)
	if err != nil {
		return err
	}
	if f.json {
		err := printJSON(cmd.OutOrStdout(), a)
		if f.unknown(a) {
			err = exitSilently(exitUncertain)
		}
		return err
	}
	if f.unknown(a) {
		return exit(exitUncertain, "the database of the server's queue does not answer: the message may or may not have been stored, and to send it again may deliver it twice.\n"+
			"Look with \"mailsidecar queue list\" when the database is back. With --idempotency-key the same command can simply be repeated")
	}
	if a.status != http.StatusOK && a.status != http.StatusAccepted {
		return refusal(cmd.OutOrStdout(), a)
	}
	var m api.Receipt
	if err := json.Unmarshal(a.body, &m); err != nil || m.ID == "" {
		return exit(exitUncertain, "the answer of %s cannot be read (HTTP %d): it may or may not have taken the message", c.Server(), a.status)
	}
	printOutcome(cmd.OutOrStdout(), m)
	if waits(m) {
		c.printTrouble(ctx, cmd.OutOrStdout())
	}
	return exitSilently(exitStatusOf(m))
}

// unknown says that the message may be stored, and that there is no key with which the command
// could be repeated.
func (f *sendFlags) unknown(a answer) bool {
	p := a.problem()
	return a.status == http.StatusServiceUnavailable && p.Code == api.CodeQueueUnavailable && f.idempotencyKey == "" && !strings.Contains(p.Detail, api.NothingDone)
}

// request makes the HTTP request's header and body.
func (f *sendFlags) request(cmd *cobra.Command) (http.Header, []byte, error) {
	header := http.Header{"Accept": {"application/json"}}
	if f.wait > 0 {
		header.Set("Prefer", "wait="+strconv.Itoa(int(f.wait.Seconds())))
	}
	if f.idempotencyKey != "" {
		header.Set("Idempotency-Key", strconv.Quote(f.idempotencyKey))
	}
	if f.eml != "" {
		for _, name := range composing {
			if cmd.Flags().Changed(name) {
				return nil, nil, exit(exitUsage, "--eml sends a finished message as it is, and --%s would change it", name)
			}
		}
		data, err := f.finished(cmd.InOrStdin(), header)
		return header, data, err
	}
	data, err := f.composed(cmd)
	header.Set("Content-Type", "application/json")
	return header, data, err
}

// finished reads a finished message; the envelope goes into header.
func (f *sendFlags) finished(stdin io.Reader, header http.Header) ([]byte, error) {
	header.Set("Content-Type", "message/rfc822")
	if f.returnPath != "" {
		header.Set("Envelope-From", f.returnPath)
	}
	if len(f.to) > 0 {
		header.Set("Envelope-To", strings.Join(f.to, ", "))
	}
	if f.priority != "" {
		header.Set("Envelope-Priority", f.priority)
	}
	if f.eml == "-" {
		data, err := io.ReadAll(stdin)
		if err != nil {
			return nil, exit(exitFailure, "standard input: %w", err)
		}
		return data, nil
	}
	data, err := os.ReadFile(f.eml)
	if err != nil {
		return nil, exit(exitUsage, "--eml: %w", err)
	}
	return data, nil
}

func (f *sendFlags) composed(cmd *cobra.Command) ([]byte, error) {
	r := api.Request{
		From: f.from, To: f.to, Cc: f.cc, Bcc: f.bcc, ReplyTo: f.replyTo,
		Subject: f.subject, Text: f.text, HTML: f.html, ReturnPath: f.returnPath, SendAt: f.sendAt, Priority: f.priority,
	}
	if f.expiresIn > 0 {
		r.ExpiresIn = f.expiresIn.String()
	}
	if f.calendar != "" {
		content, err := os.ReadFile(f.calendar)
		if err != nil {
			return nil, exit(exitUsage, "--calendar: %w", err)
		}
		r.Calendar = &api.Calendar{Content: string(content)}
	}
	errs := make([]error, 3)
	r.Headers, errs[0] = pairs("header", ":", f.headers)
	r.Tags, errs[1] = pairs("tag", "=:", f.tags)
	r.Attachments, errs[2] = attachments(f.attach)
	if err := errors.Join(errs...); err != nil {
		return nil, &statusError{exitUsage, err}
	}
	if len(f.to)+len(f.cc)+len(f.bcc) == 0 {
		return nil, exit(exitUsage, "nobody to send to: --to is missing")
	}
	if !cmd.Flags().Changed("text") && !cmd.Flags().Changed("html") {
		if isTerminal(cmd.InOrStdin()) {
			fmt.Fprintln(cmd.ErrOrStderr(), "Type the text and end it with Ctrl-D on a line of its own.")
		}
		text, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			return nil, exit(exitFailure, "standard input: %w", err)
		}
		r.Text = string(text)
	}
	return json.Marshal(r)
}

// isTerminal reports whether r is a terminal.
func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// isTerminalWriter is isTerminal for what a command writes to.
func isTerminalWriter(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// pairs splits flags such as "name: value" at the first of the separators.
func pairs(flag, separators string, list []string) (map[string]string, error) {
	var all map[string]string
	for _, item := range list {
		i := strings.IndexAny(item, separators)
		if i < 1 {
			return nil, fmt.Errorf("--%s %q is not of the form name%cvalue", flag, item, separators[0])
		}
		name, value := item[:i], item[i+1:]
		if _, twice := all[name]; twice {
			return nil, fmt.Errorf("--%s %s is given twice", flag, name)
		}
		if all == nil {
			all = map[string]string{}
		}
		all[name] = strings.TrimSpace(value)
	}
	return all, nil
}

func attachments(files []string) ([]api.Attachment, error) {
	var all []api.Attachment
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--attach: %w", err)
		}
		all = append(all, api.Attachment{Filename: filepath.Base(file), Content: content})
	}
	return all, nil
}
