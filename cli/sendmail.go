package cli

import (
	"context"

	"github.com/spf13/cobra"

	"mailsidecar/sendmail"
)

// CommandLine returns the arguments for [Run] of a process that was started as
// argv: without the program's name, unless that is one of sendmail's, in which
// case the arguments are sendmail's.
func CommandLine(argv []string) []string {
	args, named := sendmail.CommandLine(argv)
	if named {
		return append([]string{"sendmail"}, args...)
	}
	return args
}

// newSendmail is here for the help. [Run] does the command's work before any
// other command is made, because programs wait for it to start.
func newSendmail() *cobra.Command {
	return &cobra.Command{
		Use:                "sendmail [option]... [recipient]...",
		Short:              "Take a message on standard input, in place of /usr/sbin/sendmail",
		Long:               sendmail.Help,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			streams := Streams{In: cmd.InOrStdin(), Out: cmd.OutOrStdout(), Err: cmd.ErrOrStderr()}
			return exitSilently(runSendmail(cmd.Context(), args, streams))
		},
	}
}

func runSendmail(ctx context.Context, args []string, s Streams) int {
	return sendmail.Program{In: s.In, Out: s.Out, Err: s.Err, Version: buildVersion().version}.Run(ctx, args)
}
