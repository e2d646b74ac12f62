// Package files reads the small files that settings name.
package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Shown is path where it surely is one: absolute, or relative with a leading dot. Any other
// word may be a secret that was set in place of the name of its file, and stays out of
// logs, errors and answers.
func Shown(path string) string {
	if IsPath(path) {
		return path
	}
	return "a file (not shown: it is no absolute path, and may be the secret itself)"
}

// IsPath reports whether a setting that should name a file surely does.
func IsPath(path string) bool {
	return filepath.IsAbs(path) || strings.HasPrefix(path, "./") || strings.HasPrefix(path, "../")
}

// patience is how long a file may take to be read. It is for pipes, such as those that a
// shell makes of <(command), and for file systems that do not answer.
const patience = 5 * time.Second

// Read reads a file of at most limit octets, in 5 s at most. It reads a named pipe, too, and
// waits for a program that writes into it. The error names neither the file nor its content.
// Calls for one file at the same time read it once.
func Read(path string, limit int) ([]byte, error) {
	r := begin(file{path, limit})
	timer := time.NewTimer(patience + time.Second/2) // read ends by itself where it can
	defer timer.Stop()
	select {
	case <-r.done:
		return bytes.Clone(r.data), r.err
	case <-timer.C:
		return nil, errTooSlow
	}
}

// file is what is read.
type file struct {
	path  string
	limit int
}

// reading is a file that is being read. Where a file system does not answer, that goes on
// after the time-out, and some files are read again and again: so the next call waits for
// it, and begins no other.
type reading struct {
	done chan struct{} // closed when data and err are there
	data []byte
	err  error
}

var (
	mu       sync.Mutex
	underWay = map[file]*reading{}
)

func begin(f file) *reading {
	mu.Lock()
	defer mu.Unlock()
	if r := underWay[f]; r != nil {
		return r
	}
	r := &reading{done: make(chan struct{})}
	underWay[f] = r
	go func() {
		r.data, r.err = read(f.path, f.limit, time.Now().Add(patience))
		mu.Lock()
		delete(underWay, f)
		mu.Unlock()
		close(r.done)
	}()
	return r
}

var errTooSlow = fmt.Errorf("its content did not come within %v", patience)

// read is Read, but it waits for what has no deadlines.
func read(path string, limit int, end time.Time) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, withoutPath(err)
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		return nil, errors.New("it is a directory")
	case mode.IsRegular() && info.Size() > int64(limit):
		return nil, tooLong(limit)
	}
	_ = f.SetReadDeadline(end) // a file on a disk has none
	src := io.LimitReader(f, int64(limit)+1)
	for {
		data, err := io.ReadAll(src)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errTooSlow
		case err != nil:
			return nil, withoutPath(err)
		case len(data) > limit:
			return nil, tooLong(limit)
		case len(data) > 0 || info.Mode()&os.ModeNamedPipe == 0:
			return data, nil
		case time.Now().After(end):
			return nil, errTooSlow
		}
		time.Sleep(look) // no program has opened the pipe yet
	}
}

// look is how often a pipe without a writer is looked at again.
const look = 20 * time.Millisecond

func tooLong(limit int) error { return fmt.Errorf("it is over %d octets long", limit) }

// withoutPath is what is wrong, without the name that os puts before it.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}
