package dkim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"mailsidecar/files"
	"mailsidecar/mailer"
)

// Entry is a key of a domain, under a selector (RFC 6376 §3.1).
type Entry struct {
	Domain   string // in A-labels and lower case
	Selector string
	Key      PrivateKey
}

// Name is the name of the DNS record with the public key.
func (e Entry) Name() string { return e.Selector + "._domainkey." + e.Domain }

// entryForm is the remedy for an entry that is written in another way.
const entryForm = "write domain:selector:FILE, such as example.com:s202611:/etc/mailsidecar/example.com.s202611.pem"

// maxDomain limits a name in the DNS, in octets.
const maxDomain = 253

// CutEntry splits an entry domain:selector:FILE without a look at its parts.
func CutEntry(text string) (domain, selector, file string) {
	domain, rest, _ := strings.Cut(text, ":")
	selector, file, _ = strings.Cut(rest, ":")
	return strings.TrimSpace(domain), strings.TrimSpace(selector), strings.TrimSpace(file)
}

// ReadEntry reads an entry domain:selector:FILE and its key. The error is an [*Error].
func ReadEntry(text string) (Entry, error) {
	domain, selector, file := CutEntry(text)
	e, err := NewEntry(domain, selector)
	if err != nil {
		return Entry{}, err
	}
	if file == "" {
		return Entry{}, &Error{"names no file", entryForm}
	}
	if e.Key, err = ReadPrivateKey(file); err == nil {
		return e, nil
	}
	what := "names " + files.Shown(file) + ", which cannot be used: " + err.Error()
	if bad, ok := errors.AsType[*Error](err); ok {
		return Entry{}, &Error{what, bad.Remedy}
	}
	return Entry{}, &Error{what, readRemedy(file, err)}
}

// readRemedy says what to do about a file that cannot be read. Where it may not be, there
// most likely is a key, and another user owns it.
func readRemedy(file string, err error) string {
	if !errors.Is(err, fs.ErrPermission) || !files.IsPath(file) || os.Getuid() < 0 {
		return "name a file that the server can read: " + newKey
	}
	return fmt.Sprintf("give it to the user that mailsidecar runs as: chown %d %s && chmod 600 %s", os.Getuid(), file, file)
}

// NewEntry returns an entry without a key. The error is an [*Error].
func NewEntry(domain, selector string) (Entry, error) {
	canonical, err := mailer.CanonicalDomain(strings.TrimSuffix(domain, "."))
	switch {
	case err != nil || strings.HasPrefix(canonical, "["):
		return Entry{}, &Error{"has no domain at its beginning", entryForm}
	case !isSelector(selector):
		return Entry{}, &Error{"has no selector: that is of letters, digits and hyphens, with dots between them", entryForm}
	}
	e := Entry{Domain: strings.ToLower(canonical), Selector: strings.ToLower(selector)}
	if len(e.Name()) > maxDomain {
		return Entry{}, &Error{"has a domain and a selector that are too long together", "take a shorter selector"}
	}
	return e, nil
}

// isSelector reports whether s is one (RFC 6376 §3.1).
func isSelector(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}

// IsOpen reports whether every user of this machine may read the file.
func IsOpen(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().Perm()&0o004 != 0 && runtime.GOOS != "windows"
}
