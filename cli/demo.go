package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/config"
	"mailsidecar/mailer"
	"mailsidecar/service"
	"mailsidecar/units"
)

func newDemo() *cobra.Command {
	var d demo
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See the whole way of a message, with no setup at all",
		Long: `Starts a relay of its own, as providers run them, with STARTTLS and AUTH: its
port 587 drops every packet, as behind a firewall, and its port 2525 serves. Then
starts the server, posts one message to it, and shows the way the message took.
All of it stays on this machine and is gone when the demo ends.

It goes on until Ctrl-C and prints every message that you send it. Mail to
nobody@ at any domain is refused by the relay. The dashboard, at /ui/, shows it all.

Exit status: 0 all went as it should; 1 something did not.`,
		Example: `  mailsidecar demo
  mailsidecar demo --once                   end after the first message
  mailsidecar demo --addr 127.0.0.1:8587    take requests at this address`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.out, d.errOut = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&d.once, "once", false, "end after the first message")
	cmd.Flags().StringVar(&d.addr, "addr", "127.0.0.1:0", "address that the server listens on; port 0 is any free one")
	cmd.Flags().BoolVarP(&d.verbose, "verbose", "v", false, "print the server's log, too")
	return cmd
}

// demoKey opens the demo's server, whose relay leads nowhere.
const demoKey = "demo-key"

// demoRequest is the first message, as an app would write it.
const demoRequest = `{
  "from": "Shop <shop@example.com>",
  "to": ["Ana <ana@example.org>"],
  "subject": "Your order 1042 is on its way",
  "text": "Dear Ana,\n\nit left the house today.\n\nYour shop"
}`

// demo is one run of the command.
type demo struct {
	once, verbose bool
	addr          string
	out, errOut   io.Writer

	relay    *demoRelay
	deadPort int
	server   *service.Service
	attempts chan mailer.Attempt
	steps    int
}

func (d *demo) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "mailsidecar-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	release, err := d.startRelay(ctx)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	defer release()

	stop, err := d.startServer(ctx, dir)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	err = d.show(ctx)
	if err == nil && !d.once {
		d.watch(ctx)
	}
	if ctx.Err() != nil {
		d.say("The demo ends; nothing is left of it.")
	}
	return errors.Join(unlessEnded(ctx, err), stop())
}

// unlessEnded is err, but nil once ctx has ended: the user asked for that.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (d *demo) startRelay(ctx context.Context) (release func(), err error) {
	dead, releasePort, err := deadPort(ctx)
	if err != nil {
		return nil, fmt.Errorf("demo relay: %w", err)
	}
	d.deadPort = dead
	d.relay, err = startDemoRelay(ctx)
	if err != nil {
		releasePort()
		return nil, err
	}
	return func() {
		_ = d.relay.close()
		releasePort()
	}, nil
}

// startServer starts what "mailsidecar serve" starts. stop ends it.
func (d *demo) startServer(ctx context.Context, dir string) (stop func() error, err error) {
	log := slog.New(slog.DiscardHandler)
	if d.verbose {
		log = slog.New(slog.NewTextHandler(d.errOut, nil))
	}
	d.attempts = make(chan mailer.Attempt, 64)
	d.server, err = service.Start(ctx, service.Options{
		Config: d.config(dir), Version: buildVersion().version, Logger: log, Observe: d.observe,
	})
	if e, ok := errors.AsType[*service.ListenError](err); ok {
		e.Setting = "--addr" // no variable sets it here
	}
	if err != nil {
		return nil, err
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- d.server.Run(serving) }()
	return func() error {
		cancel()
		return <-done
	}, nil
}

// observe keeps the first attempts; the demo shows no later ones.
func (d *demo) observe(a mailer.Attempt) {
	select {
	case d.attempts <- a:
	default:
	}
}

func (d *demo) config(dir string) config.Config {
	c := config.Default()
	c.Relays[0].Host = "127.0.0.1"
	c.Relays[0].Ports = config.Ladder{{Port: d.deadPort}, {Port: d.relay.port}}
	c.Relays[0].Username, c.Relays[0].Password = d.relay.username, config.NewSecret(d.relay.password)
	c.Relays[0].RootCAs = d.relay.ca.Pool()
	c.Service.Addr = d.addr
	// The dashboard shows all that there is, with the content of what arrived.
	c.Service.Keys = []config.APIKey{{Name: "demo", Secret: config.NewSecret(demoKey), Roles: []string{"admin"}}}
	c.Service.KeepBodies = units.Duration(time.Hour)
	c.Service.Queue = config.Queue{Store: "sqlite", Path: filepath.Join(dir, "queue.db")}
	return c
}

// show sends the first message and explains what happens, step by step.
func (d *demo) show(ctx context.Context) error {
	url := d.server.URL()
	d.step("A relay runs, as providers run them. This machine's port %d stands in for its\n"+
		"port 587, and drops every packet; port %d stands in for 2525, and serves.", d.deadPort, d.relay.port)
	d.step("The server runs at %s.", url)
	d.step("An app posts JSON:\n\nPOST /v1/messages\nAuthorization: Bearer %s\nPrefer: wait=30\n\n%s", demoKey, demoRequest)

	started := time.Now()
	got, err := d.post(ctx, url)
	if err != nil {
		return err
	}
	took := time.Since(started)
	if got.status != http.StatusOK {
		return fmt.Errorf("the answer is %d and not 200: %s", got.status, got.body)
	}
	way, err := d.way(ctx)
	if err != nil {
		return err
	}
	d.step("The server stores the message on disk and hands it to the relay:\n\n%s", way)
	arrived, err := d.arrival(ctx)
	if err != nil {
		return err
	}
	if err := arrived.check(); err != nil {
		return err
	}
	d.step("The app has its answer after %s: 200 OK\n\n%s", took.Round(time.Millisecond), indentJSON(got.body))
	d.step("This arrived at the relay:\n\n%s", arrived)
	if d.once {
		d.say("Without --once the server stays up for messages of your own.")
		return nil
	}
	d.say("Look at it in a browser, with the key %s: %s/ui/", demoKey, url)
	d.say("Send one yourself:\n\n%s", curlLine(url))
	d.say("The relay refuses mail to nobody@example.org: write to that address, too, to see a bounce.")
	return nil
}

func (d *demo) post(ctx context.Context, url string) (answer, error) {
	c, err := newClient(url, demoKey, time.Minute)
	if err != nil {
		return answer{}, err
	}
	header := http.Header{"Content-Type": {"application/json"}, "Prefer": {"wait=30"}}
	return c.do(ctx, http.MethodPost, "/v1/messages", header, []byte(demoRequest))
}

// way says how the first message went to the relay; it is an error if that is
// not the way it should have gone.
func (d *demo) way(ctx context.Context) (string, error) {
	var a mailer.Attempt
	select {
	case a = <-d.attempts:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	var b strings.Builder
	served := false
	for _, rung := range a.Ladder {
		switch {
		case rung.Rung.Port == d.deadPort && !rung.Won:
			fmt.Fprintf(&b, "port 587    no answer after %s: on to the next one, without waiting for it\n", rung.Duration.Round(time.Millisecond))
		case rung.Rung.Port == d.relay.port && rung.Won:
			served = true
			fmt.Fprintf(&b, "port 2525   connected, STARTTLS: %s with a valid certificate (%s)\n", a.TLS, rung.Duration.Round(time.Millisecond))
		}
	}
	if !served || a.TLS != "TLS 1.3" || a.Auth == "" || len(a.Results) != 1 || a.Results[0].Failure != nil {
		return "", fmt.Errorf("the message did not go as it should have: %+v", a)
	}
	fmt.Fprintf(&b, "            AUTH %s accepted\n", a.Auth)
	fmt.Fprintf(&b, "            %s (%s in all)", a.Results[0].Reply, a.Duration.Round(time.Millisecond))
	return b.String(), nil
}

func (d *demo) arrival(ctx context.Context) (demoMessage, error) {
	select {
	case m := <-d.relay.arrived:
		return m, nil
	case <-time.After(30 * time.Second):
		return demoMessage{}, errors.New("nothing arrived at the relay")
	case <-ctx.Done():
		return demoMessage{}, ctx.Err()
	}
}

// watch prints the messages that arrive until ctx ends.
func (d *demo) watch(ctx context.Context) {
	d.say("Ctrl-C ends the demo. Until then, what arrives is printed here.")
	for {
		select {
		case m := <-d.relay.arrived:
			d.say("Arrived at %s:\n\n%s", time.Now().Format(time.TimeOnly), m)
		case <-ctx.Done():
			return
		}
	}
}

// step prints one numbered part of the story, say one without a number. The
// first line is at the margin of the text, and so are the others.
func (d *demo) step(format string, args ...any) {
	d.steps++
	d.print(fmt.Sprintf("%d. ", d.steps), fmt.Sprintf(format, args...))
}

func (d *demo) say(format string, args ...any) { d.print("", fmt.Sprintf(format, args...)) }

func (d *demo) print(mark, text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n\n") {
		fmt.Fprintln(d.out, strings.TrimRight(fmt.Sprintf("%-3s%s", mark, line), " \n"))
		mark = ""
	}
}

// check says what is wrong with the first message; nil when it is as it was
// sent.
func (m demoMessage) check() error {
	wrong := func(what, got, want string) error {
		return fmt.Errorf("the relay got %s %q, want %q", what, got, want)
	}
	if m.reversePath != "shop@example.com" {
		return wrong("the reverse-path", m.reversePath, "shop@example.com")
	}
	if got := strings.Join(m.forwardPaths, ","); got != "ana@example.org" {
		return wrong("the forward-path", got, "ana@example.org")
	}
	for _, part := range []string{"Subject: Your order 1042 is on its way\r\n", "\r\n\r\nDear Ana,", "it left the house today."} {
		if !strings.Contains(m.data, part) {
			return wrong("the message", m.data, part)
		}
	}
	return nil
}

// String is the message as the relay got it, envelope first.
func (m demoMessage) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "MAIL FROM:<%s>      (over %s, logged in as %s)\n", m.reversePath, m.tls, m.user)
	for _, path := range m.forwardPaths {
		fmt.Fprintf(&b, "RCPT TO:<%s>\n", path)
	}
	for line := range strings.Lines(strings.ReplaceAll(m.data, "\r\n", "\n")) {
		b.WriteString("| " + line)
	}
	return b.String()
}

func indentJSON(data []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, bytes.TrimSpace(data), "", "  ") != nil {
		return string(data)
	}
	return b.String()
}

func curlLine(url string) string {
	return fmt.Sprintf(`curl %s/v1/messages -H "Authorization: Bearer %s" -H "Prefer: wait=30" \
     -H "Content-Type: application/json" -d '{"from": "me@example.com",
     "to": "you@example.org", "subject": "Hello", "text": "It works."}'`, url, demoKey)
}
