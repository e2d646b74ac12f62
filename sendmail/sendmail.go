// Package sendmail takes messages in the place of /usr/sbin/sendmail, from PHP's
// mail(), cron, mutt and git, and hands them to a running server over HTTP. It
// keeps nothing: when it says that a message was accepted the server has it, and
// when it says anything else the caller still does.
//
// It is a command of mailsidecar and a small program of its own, cmd/sendmail,
// that is copied into the images of applications; so it imports api and the
// standard library alone.
package sendmail

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailsidecar/api"
)

// CommandLine returns the arguments for [Program.Run] of a process that was
// started as argv, and whether it was by one of sendmail's names: mailq and
// newaliases are sendmail -bp and -bi. A link at /usr/sbin/sendmail is then all
// that a program needs which expects to find one there.
func CommandLine(argv []string) (args []string, named bool) {
	if len(argv) == 0 {
		return nil, false
	}
	switch filepath.Base(argv[0]) {
	case "sendmail":
		return argv[1:], true
	case "mailq":
		return []string{"-bp"}, true
	case "newaliases":
		return []string{"-bi"}, true
	default:
		return argv[1:], false
	}
}

// Help says how to use the program.
const Help = `Sendmail takes a message on its standard input, as sendmail(8) does, and hands it
to a running mailsidecar over HTTP. It is for PHP's mail(), Symfony, Laravel,
cron, mutt, git send-email and whatever else runs /usr/sbin/sendmail. Called by
the name sendmail, mailq or newaliases, the program is that command.

  sendmail_path = "/usr/local/bin/mailsidecar sendmail -t -i"      (php.ini)
  ln -s /usr/local/bin/mailsidecar /usr/sbin/sendmail

The same as a program of its own, a third of the size, is cmd/sendmail.

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
  0   accepted; of several recipients, each that is wrong or refused is named on stderr
  64  wrong usage, or no recipients      65  the message was refused
  67  the relay refused the recipients   69  no server, or no answer in time
  77  no API key, or a wrong one         78  not configured`

// Program is sendmail with its streams.
type Program struct {
	In       io.Reader
	Out, Err io.Writer
	Version  string // for the server's log
}

// Exit statuses, after sysexits(3). EX_TEMPFAIL (75) is not used: PHP 8.5
// takes it for success, and nothing is kept here that could be tried again.
const (
	exitOK          = 0
	exitUsage       = 64 // the command line is wrong, or has no recipient
	exitRefused     = 65 // the message was refused
	exitNoUser      = 67 // the relay refused the recipients
	exitUnavailable = 69 // no server, or no answer in time
	exitNoPerm      = 77 // no API key, or one that may not do this
	exitConfig      = 78 // the configuration is wrong
)

// failure is an error that decides the exit status.
type failure struct {
	status int
	err    error
}

func (e *failure) Error() string { return e.err.Error() }

func (e *failure) Unwrap() error { return e.err }

func fail(status int, format string, args ...any) error {
	return &failure{status, fmt.Errorf(format, args...)}
}

// exitStatus is the exit status that err decides. An error without one is of a stream,
// which counts as no server.
func exitStatus(err error) int {
	var f *failure
	if errors.As(err, &f) {
		return f.status
	}
	return exitUnavailable
}

// Run runs the program and returns the exit status. What went wrong is one line
// on Err; when nothing did, not an octet is written there or on Out, because
// Symfony takes any for a failure to start.
func (p Program) Run(ctx context.Context, args []string) int {
	if slices.Equal(args, []string{"--help"}) {
		fmt.Fprintln(p.Out, Help)
		return exitOK
	}
	o, err := parseOptions(args)
	if err == nil {
		err = p.run(ctx, o)
	}
	if err == nil {
		return exitOK
	}
	if exitStatus(err) == exitConfig && o.mode == modeSMTP {
		// A program that speaks SMTP reads no other channel (RFC 5321 §3.8).
		fmt.Fprintf(p.Out, "421 4.3.5 mailsidecar: %s\r\n", oneLine(err.Error()))
		return exitConfig
	}
	fmt.Fprintf(p.Err, "mailsidecar sendmail: %s\n", oneLine(err.Error()))
	return exitStatus(err)
}

func (p Program) run(ctx context.Context, o options) error {
	if o.mode == modeNothing {
		return nil
	}
	s, err := p.newSender(o)
	if err != nil {
		return err
	}
	switch o.mode {
	case modeQueue:
		return s.printQueue(ctx, p.Out)
	case modeSMTP:
		return s.serveSMTP(ctx, bufio.NewReader(p.In), p.Out)
	default:
		return s.submitInput(ctx, p.In, p.Err)
	}
}

func (p Program) newSender(o options) (*sender, error) {
	set, err := loadSettings(configFile)
	if err != nil {
		return nil, err
	}
	client, err := set.newClient(p.Version)
	if err != nil {
		return nil, err
	}
	return &sender{options: o, settings: set, client: client, now: time.Now}, nil
}

// sender is one run of the program.
type sender struct {
	options  options
	settings settings
	client   *api.Client
	now      func() time.Time
}

// submitInput is the ordinary mode: one message on stdin.
func (s *sender) submitInput(ctx context.Context, in io.Reader, warn io.Writer) error {
	if !s.options.fromHeader && len(s.options.recipients) == 0 {
		return fail(exitUsage, "no recipient addresses found")
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
	for _, line := range got.refused() {
		fmt.Fprintf(warn, "mailsidecar sendmail: %s\n", oneLine(line))
	}
	return nil
}

// outgoing is a message with its envelope, ready to be posted.
type outgoing struct {
	reversePath  string // "<>" for the null one; empty: the server takes the From
	forwardPaths []string
	// leftOut says of each recipient that cannot be one why, for a line of its own.
	leftOut []string
	data    []byte
}

// prepare makes a finished message of what was read, by the options and the
// message itself.
func (s *sender) prepare(data []byte) (outgoing, error) {
	msg, err := s.readable(data)
	if err != nil {
		return outgoing{}, err
	}
	var out outgoing
	if out.forwardPaths, out.leftOut = s.settings.forwardPaths(s.recipients(&msg)); len(out.forwardPaths) == 0 {
		return outgoing{}, noRecipients(out.leftOut)
	}
	if out.reversePath, err = s.settings.reversePath(s.options); err != nil {
		return outgoing{}, err
	}
	msg.remove("Bcc", "Resent-Bcc", "Return-Path")
	if err := s.complete(&msg); err != nil {
		return outgoing{}, err
	}
	out.data = msg.bytes()
	return out, nil
}

// readable takes a message apart, and refuses what is none.
func (s *sender) readable(data []byte) (message, error) {
	if bytes.IndexByte(data, '\n') < 0 && bytes.IndexByte(data, '\r') >= 0 {
		return message{}, fail(exitRefused, "the message has no line end: its line ends are bare CR; end each line with CRLF or LF")
	}
	msg := parseMessage(data)
	if msg.empty() {
		return message{}, fail(exitRefused, "the message is empty")
	}
	msg.joinPairs()
	return msg, nil
}

// recipients are those of the message with -t, and those in the arguments.
func (s *sender) recipients(msg *message) []addressList {
	var lists []addressList
	if s.options.fromHeader {
		for _, f := range msg.recipients() {
			lists = append(lists, parseMailboxes(f.value(), addressRules{hasCR: f.hasCR}))
		}
	}
	for _, argument := range s.options.recipients {
		lists = append(lists, parseMailboxes(argument, addressRules{exact: true}))
	}
	return lists
}

// noRecipients is the failure of a message without a recipient that could be one.
func noRecipients(leftOut []string) error {
	if len(leftOut) == 0 {
		return fail(exitUsage, "no recipient addresses found")
	}
	return fail(exitRefused, "%s", strings.Join(leftOut[:min(len(leftOut), 3)], "; "))
}

// result is what became of an accepted message.
type result struct {
	api.Receipt
	leftOut []string // see outgoing
}

// refused has a line for each recipient that did not get the message though others do:
// those that were left out, and those that the relay refused.
func (r result) refused() []string { return append(slices.Clone(r.leftOut), refused(r.Receipt)...) }

// maxRounds limits how often a message is posted again without recipients that the
// server refused: each answer names up to 50 of them.
const maxRounds = 20

// submit posts msg. When the server refuses the addresses of some recipients, it posts
// again for the others, as sendmail does: one address that no relay could take does not
// keep the message from all.
func (s *sender) submit(ctx context.Context, msg outgoing) (result, error) {
	for round := 1; ; round++ {
		got, err := s.submitOnce(ctx, msg)
		if err != nil {
			return result{}, err
		}
		wrong := refusedAddresses(got, len(msg.forwardPaths))
		if len(wrong) == 0 || round == maxRounds {
			receipt, err := readAccepted(s.client.Server(), got)
			return result{receipt, msg.leftOut}, s.explain(err)
		}
		if msg = msg.without(wrong); len(msg.forwardPaths) == 0 {
			return result{}, noRecipients(msg.leftOut)
		}
	}
}

// without returns the message for the recipients that are not wrong: by their index,
// what is wrong with them.
func (o outgoing) without(wrong map[int]string) outgoing {
	left := o
	left.forwardPaths, left.leftOut = nil, slices.Clone(o.leftOut)
	for i, path := range o.forwardPaths {
		if reason, ok := wrong[i]; ok {
			left.leftOut = append(left.leftOut, fmt.Sprintf("%s: %s", notRecipient(path), reason))
			continue
		}
		left.forwardPaths = append(left.forwardPaths, path)
	}
	return left
}

// explain adds to a refused key that the settings, which may have the right one, cannot
// be read.
func (s *sender) explain(err error) error {
	if err == nil || s.settings.unreadable == nil || exitStatus(err) != exitNoPerm {
		return err
	}
	return fail(exitNoPerm, "%w; the settings cannot be read as user %s: %w", err, s.settings.user, s.settings.unreadable)
}

// submitOnce posts msg. When a connection could not be made, when it broke, or when the
// server asked for it, it tries once more, and only then: any other retry is the
// server's. The idempotency key is of this submission alone. A Message-ID would be a
// wrong one: a program that gives one to two messages still wants two sent.
func (s *sender) submitOnce(ctx context.Context, msg outgoing) (api.Answer, error) {
	header := http.Header{
		"Content-Type": {"message/rfc822"},
		"Accept":       {"application/json"},
		"Envelope-To":  {strings.Join(msg.forwardPaths, ", ")},
		keyHeader:      {rand.Text()},
	}
	if msg.reversePath != "" {
		header.Set("Envelope-From", msg.reversePath)
	}
	if s.settings.wait > 0 {
		header.Set("Prefer", fmt.Sprintf("wait=%d", s.settings.wait))
	}
	return s.post(ctx, header, msg.data)
}

// retryPause is how long to wait before the one other try: longer than a
// container takes to bind its port, too short for a user to notice.
const retryPause = 250 * time.Millisecond

const keyHeader = "Idempotency-Key"

func (s *sender) post(ctx context.Context, header http.Header, data []byte) (api.Answer, error) {
	var broken error // of a first request that the server may have taken
	for repeated := false; ; {
		got, err := s.client.Do(ctx, http.MethodPost, "/v1/messages", header, data)
		switch {
		case err == nil && broken != nil && refusesKey(got):
			// The server cannot tell what became of the first request: it has no queue,
			// or is still at it.
			return api.Answer{}, unavailable(broken)
		case err == nil && wantsNoKey(got) && header.Get(keyHeader) != "":
			header.Del(keyHeader)
			continue
		case repeated, err == nil && !wantsRepeat(got), err != nil && !mayRepeat(ctx, err, header):
			return got, unavailable(err)
		case err != nil && !neverConnected(err):
			broken = err
		}
		repeated = true
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return api.Answer{}, fail(exitUnavailable, "stopped: %w", context.Cause(ctx))
		}
	}
}

// mayRepeat says that a request without an answer is worth another try: the server was
// not reached, or the connection broke and the key keeps the message from being taken
// twice. A time-out is not, for another try would take as long.
func mayRepeat(ctx context.Context, err error, header http.Header) bool {
	var none *api.NoAnswerError
	if ctx.Err() != nil || !errors.As(err, &none) {
		return false
	}
	var late net.Error
	return neverConnected(err) || header.Get(keyHeader) != "" && (!errors.As(none.Err, &late) || !late.Timeout())
}

// wantsRepeat says that the server took nothing and asks to be asked again now.
func wantsRepeat(a api.Answer) bool {
	return a.Status == http.StatusServiceUnavailable && a.Header.Get("Retry-After") == "0"
}

// wantsNoKey says that the server has no queue, and so cannot keep a key.
func wantsNoKey(a api.Answer) bool {
	return a.Status == http.StatusUnprocessableEntity && readProblem(a).Code == api.CodeQueueRequired
}

// refusesKey says that the server refused the idempotency key of a repeat.
func refusesKey(a api.Answer) bool {
	return wantsNoKey(a) || a.Status == http.StatusConflict
}

// unavailable gives err, that there was no answer, its exit status. The caller learns of
// a failure even where the message may have been sent.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return &failure{exitUnavailable, err}
}
