package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/api"
	"mailsidecar/export"
)

// exportFlags are those of the command.
type exportFlags struct {
	filter        queueFilter
	to, format    string
	force, dryRun bool
}

func newQueueExport() *cobra.Command {
	e := &exportFlags{}
	cmd := &cobra.Command{
		Use:   "export [ID...]",
		Short: "Write messages to files",
		Long: `Writes the messages named, or all those that the flags select, the newest first:

  eml     a file ID.eml for each message, in the directory --to, which is made
  mbox    one file, as mail programs import it (mboxrd)
  csv     a table with a line for each recipient, for spreadsheets
  ndjson  a line for each message, as GET /v1/messages has it

Without --format the name of --to decides: .mbox, .csv, .ndjson, else a directory of
.eml files. eml and mbox have the octets as they go to the relay. Those of a message
that was delivered or canceled are removed at once, unless the server's
MAILSIDECAR_KEEP_BODIES keeps them: where some are gone, the command writes the others,
says how many, and its exit status is 65.

An existing file is not overwritten without --force, and what is no regular file (a
symbolic link, a device) never is. A file gets its name when it is complete, and only its
owner may read it. What a spreadsheet would take for a formula gets an apostrophe in
front, also behind a semicolon, a tab or the end of a line, where some begin a new cell.

A single message goes to ID.eml without --to.
` + idHelp + queueExits,
		Example: `  mailsidecar queue export 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55
  mailsidecar queue export 0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55 -o - | less
  mailsidecar queue export --status failed --since yesterday --to failed/
  mailsidecar queue export --domain example.org --to example.mbox
  mailsidecar queue export --recipient-state bounced --to - --format csv`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, ids []string) error { return e.run(cmd, ids) },
	}
	e.filter.define(cmd)
	flags := cmd.Flags()
	to := text(&e.to) // one value for both names
	flags.Var(&to, "to", "directory or file to write; \"-\" is standard output")
	flags.VarP(&to, "output", "o", "the same as --to")
	flags.StringVar(&e.format, "format", "", "eml, mbox, csv or ndjson (default: as the name of --to says)")
	flags.BoolVar(&e.force, "force", false, "overwrite files")
	flags.BoolVar(&e.dryRun, "dry-run", false, "only say how many messages the flags select")
	return cmd
}

// formats are those of an export, and the ends of file names that stand for them.
var formats = map[string]string{".mbox": "mbox", ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}

func (e *exportFlags) run(cmd *cobra.Command, ids []string) error {
	filter, err := e.filter.filter(time.Now())
	if err != nil {
		return err
	}
	selects := filter != (api.Filter{})
	if e.format == "" {
		e.format = "eml"
		if f := formats[strings.ToLower(filepath.Ext(e.to))]; f != "" && !isDir(e.to) {
			e.format = f
		}
	}
	one := len(ids) == 1 && e.format == "eml" && !isDir(e.to) // to a file
	switch {
	case !slices.Contains([]string{"eml", "mbox", "csv", "ndjson"}, e.format):
		return exit(exitUsage, "--format %q is none of eml, mbox, csv, ndjson", e.format)
	case len(ids) > 0 && (selects || e.dryRun):
		return exit(exitUsage, "name messages by their ids, or select them with flags such as --status failed, not both")
	case len(ids) == 0 && !selects && e.to == "" && !e.dryRun:
		return exit(exitUsage, "name messages by their ids, or select them with flags such as --status failed; --to alone exports all")
	case e.to == "" && !one && !e.dryRun:
		return exit(exitUsage, "--to is missing: a directory for .eml files, a file such as mail.mbox, or - for standard output")
	case e.to == "-" && e.format == "eml" && !one:
		return exit(exitUsage, "standard output takes one message, or --format mbox, csv or ndjson")
	}
	return withServer(cmd, func(c *client) error {
		switch {
		case one:
			return e.single(cmd, c, ids[0])
		case len(ids) > 0:
			all, err := c.whole(cmd.Context(), ids)
			if err != nil {
				return err
			}
			return e.write(cmd, c, len(all), c.named(cmd.Context(), all))
		}
		total, err := c.count(cmd.Context(), filter)
		if err != nil {
			return err
		}
		if total == 0 {
			e.filter.hint(cmd.ErrOrStderr())
		}
		if e.dryRun {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Export: %s. Nothing was written.\n", messagesMatch(total))
			return err
		}
		return e.write(cmd, c, total, c.selected(cmd.Context(), filter))
	})
}

// isDir says that a name is that of a directory, which need not be there yet.
func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir() || name != "" && os.IsPathSeparator(name[len(name)-1])
}

// single writes one message to a file, or to standard output.
func (e *exportFlags) single(cmd *cobra.Command, c *client, id string) error {
	id, err := c.wholeID(cmd.Context(), id)
	if err != nil {
		return err
	}
	content, err := c.content(cmd.Context(), id)
	if err != nil {
		return err
	}
	if e.to == "-" {
		_, err := cmd.OutOrStdout().Write(content)
		return err
	}
	file := e.to
	if file == "" {
		file = id + ".eml"
	}
	if err := e.save(file, func(w io.Writer) error { _, err := w.Write(content); return err }); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d octets\n", file, len(content))
	return err
}

// save writes a file. It gets its name when it is complete: what is there by that name is
// not overwritten without --force, and no part of it is left behind. Until then it has a name that
// nobody could have put there before: mail is private.
func (e *exportFlags) save(file string, write func(io.Writer) error) (err error) {
	if err := e.mayWrite(file); err != nil {
		return err // before all is read
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".export-*")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("export to %s: there is no directory %s", file, filepath.Dir(file))
	case err != nil:
		return fmt.Errorf("export to %s: %w", file, errors.Unwrap(err))
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is gone where it was renamed
	b := bufio.NewWriter(f)
	if err := errors.Join(write(b), b.Flush(), f.Close()); err != nil {
		return fmt.Errorf("export to %s: %w", file, err)
	}
	return e.publish(f.Name(), file, os.Link)
}

// publish gives the complete file its name. Neither a link nor a rename follows a symbolic link there.
func (e *exportFlags) publish(complete, file string, link func(from, to string) error) error {
	if err := e.mayWrite(file); err != nil {
		return err
	}
	if !e.force {
		err := link(complete, file)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrExist):
			return exists(file)
		}
		// A file system without links: what the rename replaces is our own.
		own, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		switch {
		case errors.Is(err, fs.ErrExist):
			return exists(file)
		case err != nil:
			return fmt.Errorf("export: %w", err)
		}
		_ = own.Close() // nothing was written
	}
	if err := os.Rename(complete, file); err != nil {
		if !e.force {
			_ = os.Remove(file)
		}
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

func exists(file string) error {
	return exit(exitFailure, "export: %s exists; --force overwrites it", file)
}

// mayWrite refuses a name that is taken. With --force only that of a file is not: a device or a
// symbolic link would be lost.
func (e *exportFlags) mayWrite(file string) error {
	info, err := os.Lstat(file)
	switch {
	case err != nil:
		return nil // creating it tells
	case !info.Mode().IsRegular():
		return exit(exitFailure, "export: %s is there and no regular file, so that it is not replaced; --to - writes to standard output", file)
	case !e.force:
		return exists(file)
	}
	return nil
}

// source calls f with message after message.
type source func(f func(raw json.RawMessage, m api.Message) error) error

// write writes all messages, of which there are about total.
func (e *exportFlags) write(cmd *cobra.Command, c *client, total int, source source) error {
	ctx := cmd.Context()
	tell := newProgress(cmd.ErrOrStderr(), "Exported", total)
	var gone int
	var err error
	count := func(left bool) error {
		tell.add(1)
		if left {
			gone++
		}
		return ctx.Err()
	}
	switch {
	case e.format == "eml":
		if err = os.MkdirAll(e.to, 0o700); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		err = e.emls(ctx, c, source, count)
	case e.to == "-":
		b := bufio.NewWriter(cmd.OutOrStdout())
		err = errors.Join(e.all(ctx, c, b, source, count), b.Flush())
	default:
		err = e.save(e.to, func(w io.Writer) error { return e.all(ctx, c, w, source, count) })
	}
	tell.end()
	written := grouped(tell.n - gone)
	switch {
	case ctx.Err() != nil && e.format == "eml":
		return exit(exitTransient, "stopped: the %s .eml files in %s are complete; the others were not written", written, e.to)
	case ctx.Err() != nil && e.to == "-":
		return exit(exitTransient, "stopped: what was written is not complete")
	case ctx.Err() != nil:
		return exit(exitTransient, "stopped: %s was not written", e.to)
	case err != nil && tell.n == 0:
		return err
	case err != nil:
		return fmt.Errorf("after %s messages: %w", written, err)
	}
	w := cmd.OutOrStdout()
	if e.to == "-" {
		w = cmd.ErrOrStderr()
	}
	fmt.Fprintf(w, "messages exported: %s\n", written)
	if gone > 0 {
		return exit(exitRefused, "%s left out: the content is gone, as it is when a message is delivered or canceled, "+
			"unless the server's MAILSIDECAR_KEEP_BODIES keeps it. --format csv and ndjson do not need it", messages(gone))
	}
	return nil
}

// emls writes a file for each message.
func (e *exportFlags) emls(ctx context.Context, c *client, messages source, count func(gone bool) error) error {
	return messages(func(_ json.RawMessage, m api.Message) error {
		if m.ID == "" || m.ID != filepath.Base(m.ID) || !filepath.IsLocal(m.ID) {
			return fmt.Errorf("%q, the id of a message, is no name of a file", m.ID)
		}
		content, gone, err := c.contentIfAny(ctx, m.ID)
		if err == nil && !gone {
			err = e.save(filepath.Join(e.to, m.ID+".eml"), func(w io.Writer) error { _, err := w.Write(content); return err })
		}
		if err != nil {
			return err
		}
		return count(gone)
	})
}

// all writes the messages to one file.
func (e *exportFlags) all(ctx context.Context, c *client, w io.Writer, messages source, count func(gone bool) error) error {
	table := export.NewTable(w)
	err := messages(func(raw json.RawMessage, m api.Message) error {
		gone := false
		var err error
		switch e.format {
		case "csv":
			err = table.Write(m)
		case "ndjson":
			var line bytes.Buffer
			if err = json.Compact(&line, raw); err == nil {
				line.WriteByte('\n')
				_, err = w.Write(line.Bytes())
			}
		default:
			var content []byte
			if content, gone, err = c.contentIfAny(ctx, m.ID); err == nil && !gone {
				err = export.WriteMbox(w, m, bytes.NewReader(content))
			}
		}
		if err != nil {
			return err
		}
		return count(gone)
	})
	if err == nil && e.format == "csv" {
		err = table.End()
	}
	return err
}

// content returns the octets of a message.
func (c *client) content(ctx context.Context, id string) ([]byte, error) {
	content, _, err := c.tryContent(ctx, id)
	return content, err
}

// contentIfAny is content where it is no error that it is gone, or the message is.
func (c *client) contentIfAny(ctx context.Context, id string) (content []byte, gone bool, err error) {
	content, code, err := c.tryContent(ctx, id)
	if gone = code == api.CodeContentGone || code == api.CodeNotFound; gone {
		err = nil
	}
	return content, gone, err
}

func (c *client) tryContent(ctx context.Context, id string) ([]byte, api.Code, error) {
	a, err := c.do(ctx, http.MethodGet, messagePath(id)+"/content", nil, nil)
	if err != nil {
		return nil, "", err
	}
	if a.status != http.StatusOK {
		p := a.problem()
		return nil, p.Code, p.err()
	}
	return a.body, "", nil
}

// exportPage is how many messages an export holds at a time.
const exportPage = 100

// selected are the messages that the filter selects. Those that are accepted while it
// goes on are not among them: it goes from the newest to older ones.
func (c *client) selected(ctx context.Context, filter api.Filter) source {
	return func(f func(json.RawMessage, api.Message) error) error {
		query := filter.Query()
		query.Set("limit", strconv.Itoa(exportPage))
		for {
			var page struct {
				Messages []json.RawMessage `json:"messages"`
				Next     string            `json:"next"`
			}
			if err := c.ask(ctx, http.MethodGet, "/v1/messages?"+query.Encode(), nil, &page); err != nil {
				return err
			}
			for _, raw := range page.Messages {
				if err := each(raw, f); err != nil {
					return err
				}
			}
			if page.Next == "" {
				return nil
			}
			query.Set("cursor", page.Next)
		}
	}
}

// named are the messages with these ids.
func (c *client) named(ctx context.Context, ids []string) source {
	return func(f func(json.RawMessage, api.Message) error) error {
		for _, id := range ids {
			var raw json.RawMessage
			if err := c.ask(ctx, http.MethodGet, messagePath(id), nil, &raw); err != nil {
				return err
			}
			if err := each(raw, f); err != nil {
				return err
			}
		}
		return nil
	}
}

func each(raw json.RawMessage, f func(json.RawMessage, api.Message) error) error {
	var m api.Message
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	return f(raw, m)
}

// count returns how many messages the filter selects.
func (c *client) count(ctx context.Context, filter api.Filter) (total int, err error) {
	query := filter.Query()
	for {
		var n api.Matching
		if err := c.ask(ctx, http.MethodGet, "/v1/messages/count?"+query.Encode(), nil, &n); err != nil {
			return 0, err
		}
		total += n.Matching
		if n.Next == "" {
			return total, nil
		}
		query.Set("cursor", n.Next)
	}
}
