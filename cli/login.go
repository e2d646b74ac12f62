package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/config"
	"mailsidecar/diagnosis"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/mailer/smtp/token"
	"mailsidecar/mailer/smtp/token/weblogin"
	"mailsidecar/service"
)

// loginOptions are the flags of the command.
type loginOptions struct {
	relay, port     int
	device, replace bool
	timeout         time.Duration
}

func newLogin() *cobra.Command {
	o := loginOptions{timeout: 10 * time.Minute}
	cmd := &cobra.Command{
		Use:   "login [microsoft|google]",
		Short: "Log in to the mailbox with a browser, for OAuth2",
		Long: `Logs a person in at Microsoft or Google and stores the login in the data
directory. A running server takes it within 5 seconds, without a restart. It
needs the settings of the relay, with the client id of an app of your own in
SMTP_OAUTH2_CLIENT_ID: docs/oauth2.md shows how to register one. Servers of a
work account need no person: the same page begins with client credentials.

The browser comes back to a port of this machine. Where it runs on another one,
it ends on an error page: copy the address from its address bar and paste it
here. For SSH there is also a port to forward: --port 8400 here, and there
"ssh -L 8400:localhost:8400 HOST". With --device (Microsoft) a code is typed in
on any other device; many organizations block that.

The new login is tried at the relay, without sending mail, before it is stored.
If the relay does not take it, it is stored all the same, so that no second login
is needed once the cause is mended; only the login of another account that is
stored already then stays, unless --replace is given. A login without the right
to send mail is never stored. SMTP_USERNAME, where it is set, stays the
mailbox: for a shared mailbox it differs from the person's account.

Exit status: 0 logged in, and the relay takes the login; 1 not logged in: it was
interrupted or took too long, or the login could not be stored; 64 wrong usage;
69 logged in, but the relay does not take the login or cannot be reached, or the
OAuth2 provider cannot; 77 the login was refused; 78 wrong configuration.`,
		Example: `  mailsidecar login microsoft
  docker compose exec mailsidecar mailsidecar login google
  mailsidecar login microsoft --device
  mailsidecar login microsoft --relay 2 --port 8400`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exit(exitUsage, "%q takes one argument, but got %q, too", cmd.CommandPath(), args[1])
			}
			return nil
		},
		ValidArgs: []string{"microsoft", "google"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return login(cmd, strings.ToLower(strings.Join(args, "")), o)
		},
	}
	cmd.Flags().IntVar(&o.relay, "relay", 0, "number of the relay: 2 for SMTP2_…; needed where several relays use OAuth2")
	cmd.Flags().IntVar(&o.port, "port", 0, "port of this machine to which the browser comes back (default any)")
	cmd.Flags().BoolVar(&o.device, "device", false, "show a code to type in on another device, instead of a browser that comes back")
	cmd.Flags().BoolVar(&o.replace, "replace", false, "store the login in place of another account's though the relay does not take it")
	durationFlag(cmd, &o.timeout, "timeout", "how long to wait for the browser")
	return cmd
}

// loginSession is one run of the command.
type loginSession struct {
	*service.Login
	relay config.Relay
	opts  loginOptions
	in    io.Reader
	out   io.Writer
}

func login(cmd *cobra.Command, issuer string, o loginOptions) error {
	if o.port < 0 || o.port > 65535 {
		return exit(exitUsage, "--port %d is no port: give one from 1 to 65535", o.port)
	}
	switch {
	case o.timeout <= 0:
		return exit(exitUsage, "--timeout must be longer than 0, such as 10m")
	case o.device && o.port != 0:
		return exit(exitUsage, "--port is for a browser that comes back, and --device has none: leave one of the two out")
	}
	relay, settings, err := loginTarget(issuer, o.relay)
	if err != nil {
		return err
	}
	shared, err := service.OpenLogins(settings)
	if err != nil {
		return err
	}
	defer shared.Close()
	l, err := service.NewLogin(relay, settings.DataDir, shared)
	if err == nil {
		err = l.CheckStore(cmd.Context())
	}
	if err != nil {
		return err
	}
	s := &loginSession{l, relay, o, cmd.InOrStdin(), cmd.OutOrStdout()}
	if o.device {
		err = s.withDevice(cmd.Context())
	} else {
		err = s.withBrowser(cmd.Context())
	}
	return orInterrupted(cmd.Context(), err)
}

// orInterrupted is err, but in other words where the end of ctx caused it: then nothing
// was stored.
func orInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return exit(exitFailure, "interrupted: not logged in, and nothing was stored")
	}
	return err
}

// loginTarget reads the configuration and returns the relay that is meant, and the
// settings that say where its login is stored.
func loginTarget(issuer string, number int) (relay config.Relay, s config.Service, err error) {
	if issuer != "" && issuer != "microsoft" && issuer != "google" {
		return relay, s, exit(exitUsage, "%q is neither microsoft nor google; for another provider leave the argument out", issuer)
	}
	all, warnings, wrong := config.LoadRelays()
	relay, err = pickRelay(all, issuer, number)
	if err != nil {
		return relay, s, err
	}
	s, more, wrongToo := config.LoadService()
	if err := errors.Join(wrong, wrongToo); err != nil {
		return relay, s, misconfigured(err, append(warnings, more...))
	}
	return relay, s, nil
}

// pickRelay returns the relay with that number, or the only one that uses OAuth2,
// with that issuer where one is named.
func pickRelay(all []config.Relay, issuer string, number int) (config.Relay, error) {
	var found []config.Relay
	for _, r := range all {
		if number == r.Number || number == 0 && r.OAuth2.Grant() == config.GrantLogin && (issuer == "" || issuer == service.IssuerName(r.OAuth2)) {
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 0 && number != 0:
		return config.Relay{}, exit(exitUsage, "--relay %d: no setting begins with %s", number, config.Relay{Number: number}.Variable(""))
	case len(found) == 0:
		found = all[max(0, slices.IndexFunc(all, func(r config.Relay) bool { return r.OAuth2.Configured() })):]
	case len(found) > 1:
		return config.Relay{}, exit(exitUsage, "%d relays use OAuth2: say which with --relay, such as --relay %d", len(found), found[0].Number)
	}
	r := found[0]
	switch o := r.OAuth2; {
	case !o.Configured():
		return r, exit(exitConfig, "%s is not set: register an app of your own as docs/oauth2.md shows, and set its client id", r.Variable("OAUTH2_CLIENT_ID"))
	case o.Grant() == config.GrantClient && o.ClientID == "": // a problem that the configuration tells
	case o.Grant() != config.GrantLogin:
		return r, exit(exitConfig, "no person has to log in for the relay %s: %s gives its tokens; to log in, leave that out", r.Host, r.Variable(tokenSetting(o)))
	case issuer != "" && issuer != service.IssuerName(o):
		return r, exit(exitUsage, "%s names another OAuth2 provider than %s, here or by its preset", r.Variable("OAUTH2_PROVIDER"), issuer)
	}
	return r, nil
}

// tokenSetting is the setting without which a person would have to log in.
func tokenSetting(o config.OAuth2) string {
	switch {
	case o.ServiceAccountFile != "":
		return "OAUTH2_SERVICE_ACCOUNT_FILE"
	case o.CertFile != "":
		return "OAUTH2_CERT_FILE"
	case o.AssertionFile != "":
		return "OAUTH2_ASSERTION_FILE"
	case o.ClientSecret.IsSet():
		return "OAUTH2_CLIENT_SECRET"
	case o.AccessToken.IsSet():
		return "OAUTH2_ACCESS_TOKEN"
	default:
		return "OAUTH2_ACCESS_TOKEN_FILE"
	}
}

// finish ends a login that succeeded at the issuer: the new login is tried at the
// relay, and stored.
func (s *loginSession) finish(ctx context.Context, a token.Answer) error {
	if err := s.Complete(a); err != nil {
		return &statusError{exitNoPerm, fmt.Errorf("nothing was stored: %w", err)}
	}
	s.say("Logged in%s.", s.asWhom(a))
	for _, w := range s.Warnings(a, time.Now()) {
		printAdvice(s.out, diagnosis.OfWarning(w, adviceSettings(s.relay)))
	}
	report, err := s.Try(ctx, a, 20*time.Second)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.sayReport(report)
	kept, err := s.Keep(ctx, a, report.OK, s.opts.replace)
	if err != nil {
		return &statusError{exitFailure, err}
	}
	s.sayKept(kept)
	if !report.OK {
		return exit(exitUnavailable, "no mail can go to the relay %s yet; once the cause is mended, \"mailsidecar check\" tries it again", report.Host)
	}
	return nil
}

// adviceSettings are the settings of a relay for the advice of a command.
func adviceSettings(c config.Relay) diagnosis.Settings {
	s := service.AdviceSettings(c)
	s.Ends = true
	return s
}

// sayReport says what the relay made of the login.
func (s *loginSession) sayReport(r smtp.Report) {
	if r.OK {
		s.say("The relay takes the login on port %d.", diagnosis.ServingPort(r))
		return
	}
	for _, advice := range diagnosis.OfReport(r, adviceSettings(s.relay)) {
		printAdvice(s.out, advice)
	}
}

// asWhom names the account, and the mailbox where that is another one.
func (s *loginSession) asWhom(a token.Answer) string {
	account, mailbox := printable(a.ID.Account()), s.Mailbox(a)
	switch {
	case account == "":
		return ""
	case strings.EqualFold(a.ID.Account(), mailbox):
		return " as " + account
	default:
		return fmt.Sprintf(" as %s, for the mailbox %s of %s", account, mailbox, s.relay.Variable("USERNAME"))
	}
}

func (s *loginSession) sayKept(k service.Kept) {
	switch {
	case k.Stays != "":
		s.say("The login of %s, stored before, stays. To store this one in its place all the same: --replace.", printable(k.Stays))
		return
	case k.Replaced != "":
		s.say("Stored in %s, in place of the login of %s.", k.Path, printable(k.Replaced))
	default:
		s.say("Stored in %s.", k.Path)
	}
	if s.relay.OAuth2.RefreshToken.IsSet() {
		s.say("%s is not used any more, until it changes: remove it.", s.relay.Variable("OAUTH2_REFRESH_TOKEN"))
	}
	s.say("A running server takes the login within 5 seconds.")
}

// printable is an account's name as the issuer gives it, fit for a terminal.
func printable(account string) string { return mailer.Printable(account, 320) }

// say prints a paragraph.
func (s *loginSession) say(format string, args ...any) {
	fmt.Fprintln(s.out, wrap(fmt.Sprintf(format, args...), ""))
}

// refusal is an error of the issuer with the words for it, and the exit status.
func (s *loginSession) refusal(err error) error {
	cause := err
	if refused, ok := errors.AsType[*weblogin.RefusedError](err); ok {
		cause = &token.Error{Status: http.StatusBadRequest, Code: refused.Code, Description: refused.Description, Numbers: refused.Numbers}
	}
	told := &loginRefused{err: err, advice: diagnosis.OfToken(cause, adviceSettings(s.relay))}
	switch token.KindOf(cause) {
	case token.KindClient:
		return &statusError{exitConfig, told}
	case token.KindLogin:
		told.consent = s.ConsentURL()
		return &statusError{exitNoPerm, told}
	default:
		return &statusError{exitUnavailable, told}
	}
}

// loginRefused is a login that the issuer did not let pass.
type loginRefused struct {
	err     error // its own words
	advice  diagnosis.Advice
	consent string // where an administrator approves the app; empty for nowhere
}

func (e *loginRefused) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n", e.err)
	printAdvice(&b, e.advice)
	if e.consent != "" {
		fmt.Fprintf(&b, "If an administrator has to approve the app, this is where:\n  %s\n", e.consent)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (e *loginRefused) Unwrap() error { return e.err }

func portOption(port int) string { return "--port " + strconv.Itoa(port) }
