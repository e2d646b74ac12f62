package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
)

// diskWords are what a person reads of the errors that a system has for a disk.
var diskWords = map[error]string{
	syscall.ENOSPC: "disk full: no space is left on the file system of DIR",
	syscall.EDQUOT: "disk full: the disk quota for DIR is used up",
	syscall.EROFS:  "DIR is on a read-only file system",
	syscall.EMFILE: "too many open files",
	syscall.ENFILE: "too many open files",
	syscall.EIO:    "the disk reports errors",
}

// TestDiskFault: each error has its words, and those that mean a full disk are one.
func TestDiskFault(t *testing.T) {
	for errno, want := range diskWords {
		err := diskFault("DIR", fmt.Errorf("store: %w", &fs.PathError{Op: "write", Path: "DIR/x", Err: errno}))
		full := strings.HasPrefix(want, "disk full")
		var e *queue.StoreError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || errors.Is(err, queue.ErrDiskFull) != full || e.Remedy == "" {
			t.Errorf("%v: %v, want %q, and a remedy", errno, err, want)
		}
	}
	for _, err := range []error{nil, syscall.EACCES, errors.New("x")} {
		if got := diskFault("DIR", err); got != nil {
			t.Errorf("diskFault(%v) = %v, want nil", err, got)
		}
	}
}

// TestDiskFaultWhileWriting: SQLite keeps to itself why it cannot write. The answer, and
// why the store is not ready, say so, and the disk is not asked for each write.
func TestDiskFaultWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, dbPath(t))
		for errno, want := range diskWords {
			asked := 0
			s.writer.probes = probes{ask: func(string) error { asked++; return errno }}
			limit(t, s, 20)
			for range 10 {
				_, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{largeEntry()}})
				for what, err := range map[string]error{"Insert": err, "Check": s.Check(t.Context())} {
					if dir := s.opts.Path[:strings.LastIndex(s.opts.Path, "/")]; err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(want, "DIR", dir)) {
						t.Errorf("%v: %s = %v, want %q", errno, what, err, want)
					}
				}
			}
			if asked != 1 {
				t.Errorf("%v: the disk was asked %d times, want once", errno, asked)
			}
			limit(t, s, 100_000)
			time.Sleep(probeInterval + time.Millisecond)
			synctest.Wait()
			if err := s.Check(t.Context()); err != nil {
				t.Errorf("%v: Check when there is room = %v", errno, err)
			}
		}
	})
}

func largeEntry() queue.Entry {
	e := randomEntry(0, time.Now())
	e.Content.Data = make([]byte, 1<<20)
	return e
}

// limit makes SQLite take so many pages for all that there are.
func limit(t *testing.T, s *Store, pages int) {
	t.Helper()
	synctest.Wait() // the writer waits for work
	if _, err := s.writer.conn.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
		t.Fatal(err)
	}
}
