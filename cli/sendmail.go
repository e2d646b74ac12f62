package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// CommandLine returns the arguments for [Run] of a process that was started as
// argv: without the program's name, unless that is one of sendmail's, in which
// case the arguments are sendmail's. A link at /usr/sbin/sendmail is then all
// that a program needs which expects to find one there.
func CommandLine(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	switch filepath.Base(argv[0]) {
	case "sendmail":
		return append([]string{"sendmail"}, argv[1:]...)
	case "mailq":
		return []string{"sendmail", "-bp"}
	case "newaliases":
		return []string{"sendmail", "-bi"}
	default:
		return argv[1:]
	}
}

const sendmailHelp = `Sendmail takes a message on its standard input, as sendmail(8) does, and hands it
to a running mailsidecar over HTTP. It is for PHP's mail(), Symfony, Laravel,
cron, mutt, git send-email and whatever else runs /usr/sbin/sendmail. Called by
the name sendmail, mailq or newaliases, the program is that command.

  sendmail_path = "/usr/local/bin/mailsidecar sendmail -t -i"      (php.ini)
  ln -s /usr/local/bin/mailsidecar /usr/sbin/sendmail

Options
  -t            recipients from To, Cc and Bcc, besides those in the arguments
  -i, -oi       a line with only a dot does not end the message
  -f X, -r X    envelope sender (reverse-path); <> for the null one
  -F NAME       name for a From field that has to be added
  -bs           speak SMTP on standard input and output
  -bp           show what waits in the queue (also: mailq)
  -bi, -I, -q   nothing, successfully (also: newaliases)
The other options of sendmail(8) are read and ignored; none touches a file.

Settings, from the environment, else as NAME=VALUE lines of
/etc/mailsidecar/sendmail.conf, because PHP-FPM and cron drop the environment
  MAILSIDECAR_URL           the server, such as http://mailsidecar:8587
  MAILSIDECAR_API_KEY       its key, or MAILSIDECAR_API_KEY_FILE
  MAILSIDECAR_WAIT          seconds to wait for the relay's verdict (3; 0: do not wait)
  MAILSIDECAR_FROM          address for a sender that has no domain
  MAILSIDECAR_TLS_CA_FILE   certificates to trust besides the system's (PEM)

Exit status
  0   accepted; a recipient that was refused beside others is named on stderr
  64  wrong usage, or no recipients      65  the message was refused
  67  the relay refused the recipients   69  no server, or no answer in time
  77  no API key, or a wrong one         78  not configured`

// newSendmail is here for the help. [Run] does the command's work before any
// other command is made, because programs wait for it to start.
func newSendmail() *cobra.Command {
	return &cobra.Command{
		Use:                "sendmail [option]... [recipient]...",
		Short:              "Take a message on standard input, in place of /usr/sbin/sendmail",
		Long:               sendmailHelp,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			streams := Streams{In: cmd.InOrStdin(), Out: cmd.OutOrStdout(), Err: cmd.ErrOrStderr()}
			return exitSilently(runSendmail(cmd.Context(), args, streams))
		},
	}
}

// sendmail is one run of the command.
type sendmail struct {
	options  sendmailOptions
	settings sendmailSettings
	client   *client
	now      func() time.Time
}

// exitNoUser is sysexits' EX_NOUSER: the relay refused the recipients. The
// command never uses EX_TEMPFAIL (75): PHP 8.5 takes it for success, and
// nothing is kept here that could be tried again.
const exitNoUser = 67

// runSendmail runs the command and returns the exit status. What went wrong is
// one line on stderr; when nothing did, not an octet is written there or on
// stdout, because Symfony takes any for a failure to start.
func runSendmail(ctx context.Context, args []string, streams Streams) int {
	if slices.Equal(args, []string{"--help"}) {
		fmt.Fprintln(streams.Out, sendmailHelp)
		return exitOK
	}
	err := sendmailMain(ctx, args, streams)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(streams.Err, "mailsidecar sendmail: %s\n", oneLine(err.Error()))
	return exitStatus(err)
}

func sendmailMain(ctx context.Context, args []string, streams Streams) error {
	options, err := parseSendmailOptions(args)
	if err != nil {
		return err
	}
	if options.mode == modeNothing {
		return nil
	}
	settings, err := loadSendmailSettings(sendmailConfigFile)
	if err != nil {
		return err
	}
	api, err := settings.newClient()
	if err != nil {
		return err
	}
	s := &sendmail{options: options, settings: settings, client: api, now: time.Now}
	switch options.mode {
	case modeQueue:
		return s.printQueue(ctx, streams.Out)
	case modeSMTP:
		return s.serveSMTP(ctx, bufio.NewReader(streams.In), streams.Out)
	default:
		return s.submitInput(ctx, streams.In, streams.Err)
	}
}

// submitInput is the ordinary mode: one message on stdin.
func (s *sendmail) submitInput(ctx context.Context, in io.Reader, warn io.Writer) error {
	if !s.options.fromHeader && len(s.options.recipients) == 0 {
		return exit(exitUsage, "no recipient addresses found")
	}
	data, err := readMessage(bufio.NewReader(in), s.options.ignoreDots)
	if err != nil {
		return err
	}
	msg, err := s.prepare(data)
	if err != nil {
		return err
	}
	got, err := s.submit(ctx, msg)
	if err != nil {
		return err
	}
	for _, refused := range got.refused() {
		fmt.Fprintf(warn, "mailsidecar sendmail: %s\n", oneLine(refused))
	}
	return nil
}

// outgoing is a message with its envelope, ready to be posted.
type outgoing struct {
	reversePath  string // "<>" for the null one; empty: the server takes the From
	forwardPaths []string
	data         []byte
	// messageID is what the caller's own Message-ID field says, with its angle
	// brackets; empty when the field was added here.
	messageID string
}

// prepare makes a finished message of what was read, by the options and the
// message itself.
func (s *sendmail) prepare(data []byte) (outgoing, error) {
	msg := parseSendmailMessage(data)
	if msg.empty() {
		return outgoing{}, exit(exitRefused, "the message is empty")
	}
	recipients := s.options.recipients
	if s.options.fromHeader {
		recipients = append(msg.recipients(), recipients...)
	}
	out := outgoing{messageID: msg.value("Message-ID")}
	var err error
	if out.forwardPaths, err = s.settings.forwardPaths(recipients); err != nil {
		return outgoing{}, err
	}
	if out.reversePath, err = s.settings.reversePath(s.options); err != nil {
		return outgoing{}, err
	}
	msg.remove("Bcc", "Resent-Bcc", "Return-Path")
	s.complete(&msg)
	out.data = msg.bytes()
	return out, nil
}

// submit posts msg. When a connection could not be made at all, or the server
// asked for it, it tries once more, and only then: whatever else there is to
// try again is the server's business.
func (s *sendmail) submit(ctx context.Context, msg outgoing) (accepted, error) {
	header := http.Header{
		"Content-Type": {"message/rfc822"},
		"Accept":       {"application/json"},
		"Envelope-To":  {strings.Join(msg.forwardPaths, ", ")},
	}
	if msg.reversePath != "" {
		header.Set("Envelope-From", msg.reversePath)
	}
	if s.settings.wait > 0 {
		header.Set("Prefer", fmt.Sprintf("wait=%d", s.settings.wait))
	}
	if msg.messageID != "" {
		header.Set("Idempotency-Key", idempotencyKey(msg.messageID))
	}
	got, err := s.post(ctx, header, msg.data)
	if err != nil {
		return accepted{}, err
	}
	return readAccepted(got)
}

// retryPause is how long to wait before the one other try: longer than a
// container takes to bind its port, too short for anybody to notice.
const retryPause = 250 * time.Millisecond

func (s *sendmail) post(ctx context.Context, header http.Header, data []byte) (answer, error) {
	got, err := s.client.do(ctx, http.MethodPost, "/v1/messages", header, data)
	switch {
	case err != nil && neverConnected(err), err == nil && wantsRepeat(got):
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return answer{}, exit(exitUnavailable, "stopped: %w", context.Cause(ctx))
		}
	case err == nil && wantsNoKey(got):
		header.Del("Idempotency-Key")
	default:
		return got, statusUnavailable(err)
	}
	got, err = s.client.do(ctx, http.MethodPost, "/v1/messages", header, data)
	return got, statusUnavailable(err)
}

// wantsRepeat says that the server took nothing and asks to be asked again now.
func wantsRepeat(a answer) bool {
	return a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "0"
}

// wantsNoKey says that only the idempotency key stands in the way: without a
// queue the server cannot keep one, and two messages with one Message-ID
// (mutt's bounce, a program that numbers its threads so) are still two.
func wantsNoKey(a answer) bool {
	if a.status != http.StatusUnprocessableEntity {
		return false
	}
	code := a.problem().Code
	return code == "queue_required" || strings.HasPrefix(code, "idempotency_")
}

// statusUnavailable gives err, that there was no answer, this command's status:
// EX_UNAVAILABLE whatever is known of the message, because the caller is told
// that it failed.
func statusUnavailable(err error) error {
	if err == nil {
		return nil
	}
	var s *statusError
	if errors.As(err, &s) && s.err != nil {
		err = s.err
	}
	return &statusError{exitUnavailable, err}
}

// idempotencyKey makes a key of a Message-ID field: printable ASCII, and of a
// length that the server takes.
func idempotencyKey(messageID string) string {
	key := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, messageID)
	return key[:min(len(key), 200)]
}
