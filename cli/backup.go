package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/config"
	"mailsidecar/service"
)

func newQueueBackup() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "backup FILE|-",
		Short: "Copy the queue to a file, also while the server runs",
		Long: `Copies the queue, contents included, as it is at one moment, to a file or ("-") to
standard output. It reads the store itself, beside the server that works on it or without
one: run it with the server's settings, where it finds the server's files. The server goes
on meanwhile. The file must not exist yet, is private (mode 0600), and appears when it
is whole and on the disk.

The copy has mail in it, and what the server knows of the last days. Logins (OAuth2), the
certificate authority and the keys of MAILSIDECAR_DKIM are other files: see
"Backup and restore" in docs/operating.md.

Exit status: 0 done; 1 the store or the file cannot be used; 64 wrong command
line; 78 wrong configuration.`,
		Example: `  mailsidecar queue backup /backup/queue.db
  docker exec mailsidecar mailsidecar queue backup - > queue.db
  mailsidecar queue backup --force /backup/latest.db && mailsidecar queue check /backup/latest.db`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withSettings(func(c config.Service) error { return backup(cmd, c, args[0], force) })
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace the file if it exists")
	return cmd
}

func backup(cmd *cobra.Command, c config.Service, to string, force bool) error {
	show := progressOn(cmd.ErrOrStderr(), "copied")
	forPeople := c
	forPeople.LogFormat = "text"
	log := service.NewLogger(cmd.ErrOrStderr(), forPeople)
	if to == "-" {
		if isTerminalWriter(cmd.OutOrStdout()) {
			return exit(exitUsage, "a queue is not for a terminal: redirect standard output to a file")
		}
		_, err := service.BackupStoreTo(cmd.Context(), c, cmd.OutOrStdout(), show, log)
		return err
	}
	size, err := service.BackupStore(cmd.Context(), c, to, force, show, log)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; --force replaces it", err)
	}
	if err == nil {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", to, octets(size))
	}
	return err
}

func newQueueRestore() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup in the place of the queue of a stopped server",
		Long: `Puts a backup in the place of the queue. The server must be stopped: else nothing is
done. The backup is copied and looked at as by "mailsidecar queue check"; a file that is
damaged, no queue, or by a newer version is refused. The queue that is there now is kept
beside it, as queue.db.before-restore-TIME; if it is damaged, its log is kept, too, as
queue.db.before-restore-TIME-wal.

The next start sends what waits in the backup. WHAT HAS BEEN DELIVERED SINCE THE BACKUP
WAS MADE IS SENT AGAIN, for the backup cannot know of it: so the number is shown, and asked
whether to go on. What was just being sent when the backup was made is taken for uncertain:
with MAILSIDECAR_UNCERTAIN=hold it is held. After the restore, and before the start,
"mailsidecar queue list" and "queue cancel" work on the restored queue.

Exit status: 0 done; 1 a file or the store cannot be used; 64 wrong command
line, or nobody said yes; 78 wrong configuration.`,
		Example: `  mailsidecar queue restore /backup/queue.db
  mailsidecar queue restore --yes /backup/queue.db`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withSettings(func(c config.Service) error { return restore(cmd, c, args[0], yes) })
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func restore(cmd *cobra.Command, c config.Service, from string, yes bool) error {
	begun := false
	kept, err := service.RestoreStore(cmd.Context(), c, from, progressOn(cmd.ErrOrStderr(), "copied"), func(r service.StoreReport) error {
		printRestore(cmd.OutOrStdout(), from, r)
		if !yes {
			if err := confirmed(cmd, "Restore it?"); err != nil {
				return err
			}
		}
		begun = true
		return nil
	})
	if err != nil {
		return notRestored(err, begun, c.Queue.Path)
	}
	printKept(cmd.OutOrStdout(), cmd.ErrOrStderr(), kept)
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "Restored: %s\n", c.Queue.Path)
	return err
}

// notRestored says which queue is there after an error. The store says of some errors itself that nothing was changed.
func notRestored(err error, begun bool, path string) error {
	switch {
	case strings.Contains(err.Error(), unchanged):
		return err
	case begun:
		return fmt.Errorf("%w. %s may be the queue that was there, or the restored one; each is whole: look with \"mailsidecar queue check\" and \"queue list\" before the start", err, path)
	default:
		return fmt.Errorf("%w; %s", err, unchanged)
	}
}

func printRestore(w io.Writer, from string, r service.StoreReport) {
	fmt.Fprintf(w, "%s holds %s (%s) that are not final, %d of them held.\n", filepath.Base(from), count(r.Usage.Messages, "message"), octets(r.Usage.Bytes), r.Held)
	if r.Leased > 0 {
		fmt.Fprintf(w, "%s were being sent, or about to be, when it was made: the start takes them for uncertain.\n", count(r.Leased, "recipient"))
	}
	if r.Usage.Messages > 0 {
		fmt.Fprintln(w, "Those that were delivered since then are sent again: the backup cannot know which.")
	}
	for _, fault := range r.Faults {
		fmt.Fprintf(w, "Wrong in it: %s\n", fault)
	}
}

func printKept(w, errOut io.Writer, kept service.KeptStore) {
	for _, damage := range kept.Damage {
		fmt.Fprintf(errOut, "The queue that was there is damaged: %s\n", damage)
	}
	switch {
	case kept.Store != "" && kept.Log != "":
		fmt.Fprintf(w, "The queue that was there is kept as %s, and its log as %s. Its newest commits are in the log: keep the two together.\n", kept.Store, kept.Log)
	case kept.Log != "":
		fmt.Fprintf(w, "A log without its database was there. It is kept as %s.\n", kept.Log)
	case kept.Store != "":
		fmt.Fprintf(w, "The queue that was there is kept as %s.\n", kept.Store)
	}
}

// unchanged ends the error of a command that has done nothing.
const unchanged = "nothing was changed"

// confirmed returns nil when a person says yes.
func confirmed(cmd *cobra.Command, question string) error {
	if !isTerminal(cmd.InOrStdin()) {
		return exit(exitUsage, unchanged+": there is no terminal to ask on, and --yes goes on without asking")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	const longest = 80
	select {
	case answer := <-readLines(ctx, cmd.InOrStdin(), longest):
		if answer = strings.ToLower(strings.TrimSpace(answer)); answer == "y" || answer == "yes" {
			return nil
		}
	case <-ctx.Done():
	}
	return exit(exitUsage, unchanged)
}

func newQueueCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Look for damage in the queue or in a backup",
		Long: `Looks at every page of the queue's file, or of the backup that is named, and at whether
what it holds is consistent: each recipient has its message, each message its content,
numbers are right, nothing is left over. It changes nothing, and the server may run. If it
does not, and a crash has left a damaged log, that is all that is reported.

Exit status: 0 sound; 1 it cannot be read; 64 wrong command line; 65 something is
wrong with it; 78 wrong configuration.`,
		Example: `  mailsidecar queue check
  mailsidecar queue check /backup/queue.db`,
		Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withSettings(func(c config.Service) error { return checkStore(cmd, c, strings.Join(args, "")) })
		},
	}
}

func checkStore(cmd *cobra.Command, c config.Service, file string) error {
	if file != "" {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w: name the file of a backup, or none for the queue itself", err)
		}
	}
	path, r, err := service.CheckStore(cmd.Context(), c, file)
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	for _, damage := range r.Damage {
		fmt.Fprintf(w, "damaged: %s\n", damage)
	}
	for _, fault := range r.Faults {
		fmt.Fprintf(w, "wrong: %s\n", fault)
	}
	if !r.Sound() && file != "" {
		return exit(exitRefused, "%s is no backup to rely on. The queue itself is another file: \"mailsidecar queue backup\" makes a new backup of it", path)
	}
	if !r.Sound() {
		return exit(exitRefused, "%s is not sound: \"When something is wrong\" in docs/operating.md says what to do", path)
	}
	_, err = fmt.Fprintf(w, "%s: sound, schema %d, %s not final (%s), %d held\n", path, r.Schema, count(r.Usage.Messages, "message"), octets(r.Usage.Bytes), r.Held)
	return err
}

// withSettings calls f with the settings of the server that would run here.
func withSettings(f func(config.Service) error) error {
	c, warnings, err := config.LoadService()
	if err != nil {
		return misconfigured(err, warnings)
	}
	return f(c)
}

func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return exit(exitUsage, "%q takes the name of one file", cmd.CommandPath())
	}
	return nil
}

// progressEvery is how often a terminal shows how far something is.
const progressEvery = 200 * time.Millisecond

// progressOn shows on a terminal how far a copy is; elsewhere it shows nothing.
func progressOn(w io.Writer, done string) func(n, total int64) {
	if !isTerminalWriter(w) {
		return func(int64, int64) {}
	}
	return copyProgress(w, done)
}

// copyProgress writes one line, again and again, and ends it once: the store may say more than once
// that all is copied.
func copyProgress(w io.Writer, done string) func(n, total int64) {
	var last time.Time
	ended := false
	return func(n, total int64) {
		if ended || n < total && time.Since(last) < progressEvery {
			return
		}
		last, ended = time.Now(), n == total
		fmt.Fprintf(w, "\r%s %s of %s ", done, octets(n), octets(total))
		if ended {
			fmt.Fprintln(w)
		}
	}
}

// octets writes a number of octets as people read it.
func octets(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d octets", n)
	}
	size, power := float64(n)/unit, 0
	for ; size >= unit && power < 3; power++ {
		size /= unit
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGT"[power])
}

// count is a number with its noun.
func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
