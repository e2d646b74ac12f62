package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mailsidecar/queue"
)

// Kept says under which names a restore has kept the store that was there.
type Kept struct {
	// Store is the database; empty where there was none.
	Store string
	// Log is its log; empty where all of it is in the database. SQLite finds it by its name:
	// who moves one of the two moves both.
	Log string
	// Damage is why the log is not in the database.
	Damage []string
}

// Restore puts a copy of the store in the file from in the place of the one at path, which no
// server may use: else the error is [queue.ErrLocked]. confirm is told what the copy holds
// before anything is changed, and its error ends all. A store that was there is kept.
//
// Whenever it is killed, there is one of the two stores at path, whole; where the old one is
// damaged, its log may have only the name under which it is kept.
func Restore(ctx context.Context, path, from string, now time.Time, progress func(done, total int64), confirm func(Report) error) (kept Kept, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return Kept{}, err
	}
	if err := prepareDirectory(filepath.Dir(path)); err != nil {
		return Kept{}, err
	}
	if err := checkFiles(path); err != nil {
		return Kept{}, err
	}
	if same, err := os.Stat(path); err == nil {
		if other, err := os.Stat(from); err == nil && os.SameFile(same, other) {
			return Kept{}, errors.New("the file is the store itself")
		}
	}
	lock, err := lockAsCommand(path)
	if err != nil {
		return Kept{}, err
	}
	defer lock.Close() //nolint:errcheck // the end of the process ends it, too
	unfinished := path + unfinishedSuffix
	defer os.Remove(unfinished) //nolint:errcheck // it is gone where all went well
	report, err := copyChecked(ctx, from, unfinished, ownedAs(path), progress)
	if err != nil {
		return Kept{}, err
	}
	if err := confirm(report); err != nil {
		return Kept{}, err
	}
	return exchange(ctx, path, unfinished, now)
}

// copyChecked copies the store in from, and looks at all of the copy. The copy of root belongs to
// the owner of the file or directory that like names.
func copyChecked(ctx context.Context, from, to, like string, progress func(done, total int64)) (Report, error) {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a restore that was cut short
		return Report{}, err
	}
	s, err := openLooked(ctx, from)
	if err != nil {
		return Report{}, storeError(from, err)
	}
	defer s.close() //nolint:errcheck // it was only read
	if err := roomFor(s, filepath.Dir(to), 0); err != nil {
		return Report{}, err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return Report{}, err
	}
	defer f.Close() //nolint:errcheck // it is synced
	if err := giveToOwner(f, like); err != nil {
		return Report{}, fmt.Errorf("give the restored queue to the user of the service: %w: run the command as that user", err)
	}
	if err := s.copyTo(f, progress); err != nil {
		return Report{}, storeError(from, err)
	}
	report, err := Verify(ctx, to)
	if err == nil && len(report.Damage) > 0 {
		err = fault(from, queue.ErrCorrupt, report.Damage[0])
	}
	return report, err
}
