package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"mailsidecar/queue"
)

// prepareDirectory creates dir and tries there everything that the store needs,
// so that what does not work is told at the start and not at the first message.
func prepareDirectory(dir string) error {
	err := makeDirectory(dir)
	if named := diskFault(dir, err); named != nil {
		return named
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return fault(dir, fmt.Errorf("%w: %w", queue.ErrDirectory, err), "a file stands where a directory is needed: set MAILSIDECAR_DATA_DIR to a directory")
	}
	if err != nil {
		return fault(dir, fmt.Errorf("%w: %w", queue.ErrDirectory, err), "create it, or set MAILSIDECAR_DATA_DIR to a directory that this user may write to")
	}
	if name := unsuitableFileSystem(dir); name != "" {
		return fault(dir, fmt.Errorf("%w: %s", queue.ErrFileSystem, name), "SQLite's write-ahead log needs a local disk: locks and shared memory "+
			"do not work reliably there; set MAILSIDECAR_DATA_DIR to a local volume")
	}
	if err := probeDirectory(dir); err != nil {
		if named := diskFault(dir, err); named != nil {
			return named
		}
		return fault(dir, fmt.Errorf("%w: %w", queue.ErrDirectory, err), "the queue must be able to create, sync, rename and delete files there: "+
			"check owner, mode, read-only mounts and free space, or set MAILSIDECAR_DATA_DIR to another directory")
	}
	return nil
}

// makeDirectory creates dir, private, and makes its name durable.
func makeDirectory(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return syscall.ENOTDIR
		}
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(dir))
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // it was only read
	return syncOpenDirectory(d)
}

// probeDirectory creates, syncs, renames and deletes a file.
func probeDirectory(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	name, renamed := f.Name(), f.Name()+"-renamed"
	_, err = f.WriteString("probe")
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(name, renamed)
	}
	if err != nil {
		_ = os.Remove(name) // the first error is the one to tell
		return err
	}
	if err := os.Remove(renamed); err != nil {
		return err
	}
	return syncDirectory(dir)
}
