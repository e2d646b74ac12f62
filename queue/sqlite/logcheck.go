package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mailsidecar/queue"
)

// maxLogCopy is how many octets of a damaged log are kept.
const maxLogCopy = 64 << 20

// checkLog looks at the log that a crash has left, before SQLite does. SQLite uses what
// is before the first bad frame, and forgets the rest without a word: after a crash it
// is of a transaction that was being written. Where more is lost, this says so, and
// keeps a copy. It does so for a log whose database is gone, too: a new database begins
// a new log.
func (s *Store) checkLog() error {
	info, err := os.Stat(s.opts.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil // creating the database tells
	}
	gone := err != nil || info.Size() == 0
	path := logPath(s.opts.Path)
	f, err := os.OpenFile(path, os.O_RDWR|openOwn, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault(path, fmt.Errorf("%w: %w", queue.ErrDirectory, err), "the log must be readable and writable for this user")
	}
	defer f.Close() //nolint:errcheck // what was written is synced
	report, err := inspectLog(f, s.opts.Path, gone)
	if err != nil {
		return err
	}
	if report.lost || gone && report.frames > 0 {
		if err := s.keepLog(f, path, report, gone); err != nil {
			return err
		}
	}
	if gone {
		return nil
	}
	return cutLog(f, report)
}

// inspectLog reads the log of the database at path, which may be gone.
func inspectLog(f *os.File, path string, gone bool) (logReport, error) {
	report, err := readLog(f, pageSize(path))
	if err != nil {
		return report, fault(f.Name(), fmt.Errorf("read the log: %w", err), "the disk reports errors: see the kernel's log (dmesg), and move the queue to a sound disk")
	}
	if report.lost && !gone && wasEnd(f, f.Name(), report) {
		report.lost = false
	}
	return report, nil
}

// keepLog copies a log of which SQLite will not use all, and logs what is wrong with it.
func (s *Store) keepLog(f *os.File, path string, report logReport, gone bool) error {
	kept, wrong := path+".damaged", "damaged"
	if gone {
		wrong = "without its database"
	}
	if err := copyLog(f, kept); err != nil {
		return fault(path, fmt.Errorf("%s, and its copy %s cannot be written: %w", wrong, kept, err),
			"the start would make it impossible to find out what was lost: free space for the copy, or move the log away")
	}
	if gone {
		s.opts.Logger.Error("queue log without its database", "path", path, "frames", report.frames+report.behind, "copy", kept,
			"meaning", "the database was deleted after a crash, and its last commits were in the log: they may hold accepted mail",
			"do", `where it was not deleted on purpose, see "A damaged log" in docs/operating.md`)
		return nil
	}
	s.opts.Logger.Error("queue log damaged", "path", path, "header_damaged", report.header, "frames_used", report.frames,
		"frames_behind", report.behind, "copy", kept,
		"meaning", "the frames behind the damage are not used: they may hold accepted mail, or mail that was being accepted",
		"do", `see "A damaged log" in docs/operating.md, and test the disk and the memory`)
	return nil
}

// wasEnd says that the last commit which SQLite uses is the last one that happened. The
// end of a large one changes frames in the log: a kill just then looks like damage. But
// SQLite has an index of the log, in a file that outlives a kill, and notes there what
// was committed.
func wasEnd(log io.ReaderAt, path string, report logReport) bool {
	const size = 48 // of its header, which is there twice (https://www.sqlite.org/walformat.html#the_wal_index_file_format)
	f, err := os.OpenFile(strings.TrimSuffix(path, "-wal")+"-shm", os.O_RDONLY|openOwn, 0)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // it was only read
	header, salt := make([]byte, 2*size), make([]byte, 8)
	if _, err := f.ReadAt(header, 0); err != nil {
		return false
	}
	if _, err := log.ReadAt(salt, 16); err != nil {
		return false
	}
	return bytes.Equal(header[:size], header[size:]) && bytes.Equal(header[32:40], salt) &&
		int64(binary.NativeEndian.Uint32(header[16:])) == int64(report.frames)
}

// copyLog replaces the copy of an earlier damaged log: one is kept.
func copyLog(f *os.File, kept string) error {
	if err := os.Remove(kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return errors.Join(writeCopy(f, kept, maxLogCopy), syncDirectory(filepath.Dir(kept)))
}

// writeCopy writes what r yields, up to that many octets, to a new file.
func writeCopy(r io.Reader, kept string, most int64) error {
	c, err := os.OpenFile(kept, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = io.Copy(c, io.LimitReader(r, most)); err == nil {
		err = c.Sync()
	}
	return errors.Join(err, c.Close())
}

// cutLog removes what SQLite will not use. Left in place, it would be behind what is
// written next, and after another crash look like damage.
func cutLog(f *os.File, report logReport) error {
	if report.behind == 0 && !report.tail {
		return nil
	}
	if err := f.Truncate(report.length); err != nil {
		return err
	}
	return f.Sync()
}

// pageSize is that of the database at path.
func pageSize(path string) int {
	const usual = 4096
	f, err := os.Open(path)
	if err != nil {
		return usual
	}
	defer f.Close() //nolint:errcheck // it was only read
	header := make([]byte, 18)
	if _, err := io.ReadFull(f, header); err != nil {
		return usual
	}
	n := int(binary.BigEndian.Uint16(header[16:]))
	if n == 1 {
		n = maxPageSize // 65536 has no room in two octets
	}
	if n < 512 {
		return usual
	}
	return n
}
