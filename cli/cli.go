// Package cli is the command line: one file for each subcommand. serve and demo
// start package service; the other commands are clients of a running server, or
// need nothing but the configuration.
//
// Every command says in its help what its exit status means. The numbers are
// those of sysexits(3), which mail programs have always used.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"mailsidecar/service"
)

// Streams are what a command reads from and writes to.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Run runs the command that args name, serve when they name none, and returns
// the exit status. Ending ctx asks for an orderly stop.
func Run(ctx context.Context, args []string, streams Streams) int {
	if len(args) > 0 && args[0] == "sendmail" {
		// Its options are not cobra's, and programs wait for it.
		return runSendmail(ctx, args[1:], streams)
	}
	root := newRoot() // cobra hands ctx to the command
	root.SetArgs(args)
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	report(streams.Err, cmd, err)
	return exitStatus(err)
}

// Exit statuses, after sysexits(3).
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 64 // the command line is wrong
	exitRefused     = 65 // the message was refused
	exitUnavailable = 69 // no server, or no relay
	exitUncertain   = 76 // the message may or may not have been accepted
	exitTransient   = 75 // try again later
	exitNoPerm      = 77 // no API key, or one that may not do this
	exitConfig      = 78 // the configuration is wrong
)

// statusError is an error that decides the exit status.
type statusError struct {
	status int
	err    error // nil: the command has said what there is to say
}

func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// exit ends a command with status; format and args make the error printed.
func exit(status int, format string, args ...any) error {
	return &statusError{status, fmt.Errorf(format, args...)}
}

// exitSilently ends a command that has printed its outcome with status.
func exitSilently(status int) error {
	if status == exitOK {
		return nil
	}
	return &statusError{status: status}
}

func exitStatus(err error) int {
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.status
	}
	if errors.As(err, new(*service.ConfigError)) {
		return exitConfig
	}
	return exitFailure
}

// report formats err for a terminal user.
func report(w io.Writer, cmd *cobra.Command, err error) {
	if s, ok := errors.AsType[*statusError](err); ok && s.err == nil {
		return
	}
	fmt.Fprintf(w, "mailsidecar: %v\n", err)
	if exitStatus(err) == exitUsage {
		fmt.Fprintf(w, "Run \"%s --help\" for how to use it.\n", cmd.CommandPath())
	}
}

func newRoot() *cobra.Command {
	serve := newServe()
	root := &cobra.Command{
		Use:   "mailsidecar",
		Short: "Takes mail over HTTP and hands it to a relay by authenticated SMTP",
		Long: `Mailsidecar runs beside an app, takes its mail over HTTP as JSON, and hands it to
an upstream relay by authenticated SMTP: on port 587 with STARTTLS, or on the
next port that answers.

Without a command it serves: "mailsidecar" is "mailsidecar serve".
Configuration comes from the environment: "mailsidecar serve --help" lists it.`,
		Example: `  mailsidecar demo                      see it work, with no setup at all
  mailsidecar check                     find out which ports of your relay answer
  SMTP_HOST=smtp.example.com mailsidecar
  mailsidecar send --to ana@example.org --subject Hello --text "It works."`,
		Args:              noArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	// Cobra's own --version has another text, unless it is given a template: that would
	// link text/template, and make the binary 3 MB larger.
	version := root.Flags().BoolP("version", "v", false, "version for mailsidecar")
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if *version {
			fmt.Fprintln(cmd.OutOrStdout(), "mailsidecar", buildVersion())
			return nil
		}
		return serve.RunE(cmd, args)
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit(exitUsage, "%w", err) })
	root.AddCommand(serve, newSend(), newSendmail(), newCheck(), newPresets(), newDKIM(), newLogin(), newQueue(), newRelay(), newDrain(), newStatus(), newHealthcheck(), newAlert(), newDemo(), newExplain(), newCA(), newVersion())
	return root
}

// atMostOne refuses a second argument.
func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) <= 1 {
		return nil
	}
	return exit(exitUsage, "%q takes one argument at most, but got %q, too", cmd.CommandPath(), args[1])
}

// noArgs refuses arguments, and for a mistyped command suggests the nearest.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasSubCommands() {
		return exit(exitUsage, "%q takes no argument, but got %q", cmd.CommandPath(), args[0])
	}
	hint := ""
	cmd.SuggestionsMinimumDistance = 2 // letters
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return exit(exitUsage, "unknown command %q%s", args[0], hint)
}
