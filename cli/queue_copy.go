package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"mailsidecar/config"
	"mailsidecar/service"
)

func newQueueCopy() *cobra.Command {
	var toFile string
	var undo, yes bool
	cmd := &cobra.Command{
		Use:   "copy {--to-file FILE | --undo}",
		Short: "Move the queue to another store, such as from a file to PostgreSQL",
		Long: `Copies all that the queue in MAILSIDECAR_QUEUE has to another store: what waits, with its
schedule and its attempts, what is held, what is finished and still kept, idempotency keys,
pauses that a person made, and statistics. FILE holds what MAILSIDECAR_QUEUE will be,
postgres://... or sqlite:PATH: a URL with a password does not belong on a command line.

No server may work on either store: stop all instances first. The other store must be
empty. At the end the two are compared. From its begin on, the copy locks both: neither
can be started before it is whole, and the old one not afterwards. What is copied is
sent from the new store alone.

A copy that broke off, by Ctrl-C, a crash or a lost connection, goes on where it was when
the same command is run again. --undo gives up a copy, or lets the old store be used
again: see that nothing is sent from the new one then.

Exit status: 0 done; 1 a store cannot be used, or a server works on it; 64 wrong command
line, or nobody said yes; 75 stopped by Ctrl-C: run it again; 78 wrong configuration.`,
		Example: `  mailsidecar queue copy --to-file /run/secrets/queue-url
  mailsidecar queue copy --undo`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case undo == (toFile != ""):
				return exit(exitUsage, "give --to-file with the name of a file that holds the address of the new store, or --undo")
			case yes && !undo:
				return exit(exitUsage, "--yes goes with --undo")
			}
			return withSettings(func(c config.Service) error {
				c.LogFormat = "text"
				if undo {
					return undoCopy(cmd, c, yes)
				}
				return copyQueue(cmd, c, toFile)
			})
		},
	}
	once(cmd, text(&toFile), "to-file", "file with the address of the new store")
	cmd.Flags().BoolVar(&undo, "undo", false, "let the queue be used again that was copied")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "with --undo: do not ask")
	return cmd
}

func copyQueue(cmd *cobra.Command, c config.Service, toFile string) error {
	to, err := config.ReadQueueFile(toFile)
	if err != nil {
		return &service.ConfigError{Setting: "--to-file", Err: err}
	}
	var p *progress
	r, err := service.CopyStore(cmd.Context(), c, to, func(at service.CopyProgress) {
		if p == nil || p.did != at.Step {
			if p != nil {
				p.end()
			}
			p = newProgress(cmd.ErrOrStderr(), at.Step, int(at.Total))
		}
		p.add(int(at.Done) - p.n)
	}, service.NewLogger(cmd.ErrOrStderr(), c))
	if p != nil {
		p.end()
	}
	switch {
	case errors.Is(err, context.Canceled) && cmd.Context().Err() != nil && !errors.Is(err, service.ErrOldLocked):
		return exit(exitTransient, "stopped: nothing was changed")
	case errors.Is(err, context.Canceled) && cmd.Context().Err() != nil:
		return exit(exitTransient, "stopped: neither store can be used yet; the same command goes on, and --undo gives the copy up")
	case err != nil:
		return err
	}
	w := cmd.OutOrStdout()
	if r.Before {
		fmt.Fprintf(w, "%s was copied to %s before; nothing to do.\n", r.From, r.To)
	} else {
		fmt.Fprintf(w, "Copied and compared: %s (%d not final), %s, %s.\nSHA-256 of all rows: %s\n",
			count(r.Messages, "message"), r.Unfinished, count(r.Attempts, "attempt"), count(r.Keys, "idempotency key"), r.Digest)
	}
	_, err = fmt.Fprintf(w, "Set MAILSIDECAR_QUEUE_FILE to %s in place of MAILSIDECAR_QUEUE, and start: it names %s. %s cannot be started any more.\n", toFile, to, c.Queue)
	return err
}

func undoCopy(cmd *cobra.Command, c config.Service, yes bool) error {
	err := service.UndoCopy(cmd.Context(), c, func(m service.CopyMark) error {
		switch {
		case !m.Done:
			fmt.Fprintf(cmd.OutOrStdout(), "The copy to %s is not whole. What it has there is never used: remove it.\n", m.Peer)
		default:
			fmt.Fprintf(cmd.OutOrStdout(), "This queue was copied to %s. Its mail waits there, too: IF BOTH ARE STARTED, IT IS SENT TWICE.\n", m.Peer)
			fmt.Fprintln(cmd.OutOrStdout(), "What the new one has accepted or delivered meanwhile is not known here.")
		}
		if yes {
			return nil
		}
		return confirmed(cmd, "Use this queue again?")
	}, service.NewLogger(cmd.ErrOrStderr(), c))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s can be started again.\n", c.Queue)
	return err
}
