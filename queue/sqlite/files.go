package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"mailsidecar/queue"
)

// ownSuffixes make of the database's name those of the files that the store opens, whoever
// made them. The first is the database, SQLite uses the three that follow. The copy of a
// damaged log is not opened: it is made anew in place of what is there.
var ownSuffixes = []string{"", "-wal", "-shm", "-journal", unfinishedSuffix, lockSuffix}

const (
	unfinishedSuffix = ".new"
	lockSuffix       = ".lock"
)

// checkFiles makes sure that each file of the store at path is a regular one, or is not
// there. Through a link, the store would write to a file elsewhere; and two links to one
// database would have two lock files.
func checkFiles(path string) error {
	for _, suffix := range ownSuffixes {
		info, err := os.Lstat(path + suffix)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fault(path+suffix, fmt.Errorf("%w: %w", queue.ErrDirectory, err), "its directory must be readable for this user")
		case !info.Mode().IsRegular():
			return fault(path+suffix, fmt.Errorf("%w, but %s", queue.ErrNotRegular, kindOf(info.Mode())), "the queue makes this file itself: "+
				"remove what is there, or name the file in its place in MAILSIDECAR_QUEUE; the directory may be a link")
		}
	}
	return nil
}

// kindOf names the kind of a file that is not regular.
func kindOf(mode fs.FileMode) string {
	switch mode.Type() {
	case fs.ModeSymlink:
		return "a symbolic link"
	case fs.ModeDir:
		return "a directory"
	case fs.ModeNamedPipe:
		return "a named pipe"
	case fs.ModeSocket:
		return "a socket"
	default:
		return "a device"
	}
}
