package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// lockLook is how often a lock is asked for that another process holds.
const lockLook = 50 * time.Millisecond

// FileStore keeps each relay's login in a file of its own in a directory:
// oauth2-1.json for the first relay, and beside it oauth2-1.lock. Only the owner can
// read them. A new record is written beside the old one, synced to the disk and then
// renamed, so that one of the two is always whole.
type FileStore struct {
	// Careful lets no refresh token be spent whose successor could not be saved, as a
	// diagnosis wants it. Set it before the first use.
	Careful bool

	dir string
}

var _ Store = (*FileStore)(nil)

// NewFileStore returns the store in that directory, which is made when it is first
// needed.
func NewFileStore(dir string) *FileStore { return &FileStore{dir: dir} }

// Path returns the file with the relay's record.
func (s *FileStore) Path(relay int) string {
	return filepath.Join(s.dir, fmt.Sprintf("oauth2-%d.json", relay))
}

func (s *FileStore) lockPath(relay int) string {
	return filepath.Join(s.dir, fmt.Sprintf("oauth2-%d.lock", relay))
}

// Lasting is true.
func (s *FileStore) Lasting() bool { return true }

// Load reads the relay's record. A file that others can read is mended first: it
// gets mode 0600, because Kubernetes lets a group read every file of a volume. A
// symbolic link, and anything else that is no regular file, is an error.
func (s *FileStore) Load(_ context.Context, relay int) (Record, error) {
	path := s.Path(relay)
	data, err := readPrivate(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Record{}, ErrNotStored
	case err != nil:
		return Record{}, err
	}
	r, err := ParseRecord(data)
	if err != nil {
		return Record{}, &DamagedError{path, err}
	}
	return r, nil
}

// readPrivate reads a file that only its owner should be able to read.
func readPrivate(path string) ([]byte, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: a symbolic link or a directory is not followed; remove it", path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|openOwn, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	after, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(before, after) {
		return nil, fmt.Errorf("%s was replaced while it was opened", path)
	}
	if after.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		if err := f.Chmod(0o600); err != nil {
			return nil, fmt.Errorf("%s can be read by other users, and its mode cannot be set to 0600: %w", path, err)
		}
	}
	return io.ReadAll(io.LimitReader(f, maxRecord+1))
}

// Save writes the relay's record and returns when it is on the disk.
func (s *FileStore) Save(_ context.Context, relay int, r Record) error {
	data, err := r.Marshal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	path := s.Path(relay)
	// A process that was killed may have left the file; whoever holds the lock may
	// remove it.
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeSynced(fresh, data); err != nil {
		return errors.Join(err, removeIfThere(fresh))
	}
	if err := os.Rename(fresh, path); err != nil {
		return errors.Join(err, removeIfThere(fresh))
	}
	return syncDir(s.dir)
}

// probeSize is what a probe writes, in octets: about a large record.
const probeSize = 8 << 10

// probe reports why Save would fail, as far as that can be told before. The caller
// holds the relay's lock.
func (s *FileStore) probe(relay int) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	fresh := s.Path(relay) + ".new"
	if err := removeIfThere(fresh); err != nil {
		return err
	}
	return errors.Join(writeSynced(fresh, make([]byte, probeSize)), removeIfThere(fresh))
}

func (s *FileStore) careful() bool { return s.Careful }

// writeSynced makes a file, which must not be there, and syncs it to the disk.
func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, giveToOwner(f), f.Sync(), f.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes a rename in the directory last.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // which cannot sync directories
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock takes the lock of the relay's record, which holds between processes, and
// between the users of this process.
func (s *FileStore) Lock(ctx context.Context, relay int) (unlock func(), err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	lock := flock.New(s.lockPath(relay), flock.SetFlag(os.O_CREATE|os.O_RDWR|openOwn), flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, lockLook); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", lock.Path(), err), lock.Close())
	}
	giveLockToOwner(lock.Path())
	return func() { _ = lock.Close() }, nil
}

// giveLockToOwner lets the service use a lock file that root has made. If that fails,
// the service's own attempt says so.
func giveLockToOwner(path string) {
	f, err := os.OpenFile(path, os.O_RDONLY|openOwn, 0)
	if err != nil {
		return
	}
	_ = giveToOwner(f)
	_ = f.Close()
}
