package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/mailer/dkim"
)

// newKeyOptions are the flags of "dkim new".
type newKeyOptions struct {
	selector, kind, dir string
	json                bool
}

func newDKIMNew() *cobra.Command {
	o := newKeyOptions{kind: dkim.RSA, dir: "."}
	cmd := &cobra.Command{
		Use:   "new DOMAIN",
		Short: "Make a key for a domain",
		Long: `Makes a private key in a file of its own, which its owner alone may read, and
prints the DNS record to publish and the value of MAILSIDECAR_DKIM. A file that is
there already stays as it is.

The selector is s and the month, such as s202611, unless --selector names another.
Every receiver knows RSA. With --type both there is an Ed25519 key beside it, whose
selector has -ed25519 at its end, and every message has two signatures.

The server must be able to read the file: in a container, put it on a volume, and
let it belong to the user of the server.

Exit status: 0 made; 1 a file is there already, or cannot be written; 64 wrong
usage.`,
		Example: `  mailsidecar dkim new example.com
  mailsidecar dkim new example.com --type both --out /etc/mailsidecar`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit(exitUsage, "%q takes one domain", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) },
	}
	cmd.Flags().StringVar(&o.selector, "selector", "", "name of the key within the domain (default s and the month)")
	cmd.Flags().StringVar(&o.kind, "type", o.kind, "rsa, ed25519 or both")
	cmd.Flags().StringVar(&o.dir, "out", o.dir, "directory for the key")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// madeKey is a key with the file that holds it.
type madeKey struct {
	dkim.Entry
	path string
	file []byte
}

func (o newKeyOptions) run(cmd *cobra.Command, domain string) error {
	keys, err := o.plan(domain)
	if err != nil {
		return err
	}
	for i, k := range keys {
		if _, err := os.Lstat(k.path); !errors.Is(err, fs.ErrNotExist) {
			return exit(exitFailure, "%s is there already: take another --selector, or another directory with --out", k.path)
		}
		kind := dkim.RSA
		if o.kind == dkim.Ed25519 || i > 0 {
			kind = dkim.Ed25519
		}
		if keys[i].Key, keys[i].file, err = dkim.Generate(kind); err != nil {
			return &statusError{exitFailure, err}
		}
	}
	for _, k := range keys {
		if err := k.write(); err != nil {
			return &statusError{exitFailure, fmt.Errorf("the key was not stored: %w", err)}
		}
	}
	return o.print(cmd, keys)
}

// plan returns the keys that are to be made.
func (o newKeyOptions) plan(domain string) ([]madeKey, error) {
	if !slices.Contains([]string{dkim.RSA, dkim.Ed25519, "both"}, o.kind) {
		return nil, exit(exitUsage, "--type is %q: give rsa, ed25519 or both", o.kind)
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil || strings.Contains(dir, ",") {
		return nil, exit(exitUsage, "--out names no directory that MAILSIDECAR_DKIM can name: it must have no comma")
	}
	selectors := []string{o.selector}
	if o.selector == "" {
		selectors[0] = time.Now().UTC().Format("s200601")
	}
	if o.kind == "both" {
		selectors = append(selectors, selectors[0]+"-ed25519")
	}
	if _, err := dkim.NewEntry(domain, "s"); err != nil {
		return nil, exit(exitUsage, "%q is no domain: give one such as example.com", domain)
	}
	var keys []madeKey
	for _, selector := range selectors {
		e, err := dkim.NewEntry(domain, selector)
		if err != nil {
			return nil, exit(exitUsage, "%q, selector %q: %w", domain, selector, err)
		}
		keys = append(keys, madeKey{Entry: e, path: filepath.Join(dir, e.Domain+"."+e.Selector+".pem")})
	}
	return keys, nil
}

// write stores the key for its owner alone. It writes over no file.
func (k madeKey) write() error {
	f, err := os.OpenFile(k.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(k.file)
	return errors.Join(err, f.Sync(), f.Close())
}

func (o newKeyOptions) print(cmd *cobra.Command, keys []madeKey) error {
	var entries []dkim.Entry
	var setting []string
	if before := os.Getenv("MAILSIDECAR_DKIM"); strings.TrimSpace(before) != "" {
		setting = append(setting, before)
	}
	for _, k := range keys {
		entries = append(entries, k.Entry)
		setting = append(setting, k.Domain+":"+k.Selector+":"+k.path)
	}
	w := cmd.OutOrStdout()
	if o.json {
		records := recordsOf(entries)
		for i, k := range keys {
			records[i].File = k.path
		}
		return encodeJSON(w, dkimRecords{records, strings.Join(setting, ",")})
	}
	for _, k := range keys {
		fmt.Fprintf(w, "The private key is in %s\n", k.path)
	}
	fmt.Fprint(w, "\n1. Publish in the DNS:\n\n")
	printRecords(w, entries)
	fmt.Fprintf(w, "\n2. Set:\n\nMAILSIDECAR_DKIM=%s\n\n3. Restart the server, and see whether all is right: mailsidecar dkim check %s\n", strings.Join(setting, ","), entries[0].Domain)
	return nil
}
