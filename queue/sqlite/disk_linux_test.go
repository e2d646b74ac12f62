package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mailsidecar/queue"
)

// smallDisk mounts a file system of its own. That takes root.
func smallDisk(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	switch {
	case err == nil:
	case os.Geteuid() == 0 && os.Getenv("CI") == "true":
		t.Fatalf("mount a small disk: %v", err)
	default:
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// leaveFree fills the disk but for so many octets.
func leaveFree(t *testing.T, disk string, free int64) {
	t.Helper()
	has, err := freeDisk(disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(disk, "filler"), make([]byte, has-free), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSmallDisk: however much room a full disk has left when a store is made or opened on
// it, what fails says that there is no space on it. Once there is room the store opens.
func TestSmallDisk(t *testing.T) {
	disk := smallDisk(t, 4<<20)
	words := "no space is left on the file system of " + filepath.Join(disk, "data")
	for _, existing := range []bool{false, true} {
		for free := int64(0); free <= 512<<10; free += 8 << 10 {
			path := filepath.Join(disk, "data", "queue.db")
			if existing {
				if err := openStore(t, path).Close(); err != nil {
					t.Fatal(err)
				}
			}
			leaveFree(t, disk, free)
			err := useStore(t, path)
			var e *queue.StoreError
			if !errors.Is(err, queue.ErrDiskFull) || !errors.As(err, &e) || !strings.Contains(err.Error(), words) {
				t.Errorf("%d octets free, a store exists: %v: %v, want %q", free, existing, err, words)
			}
			if err := os.Remove(filepath.Join(disk, "filler")); err != nil {
				t.Fatal(err)
			}
			if err := openStore(t, path).Close(); err != nil {
				t.Errorf("%d octets free, a store exists: %v: Open when there is room = %v", free, existing, err)
			}
			if err := os.RemoveAll(filepath.Join(disk, "data")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// useStore opens the store and inserts until something fails.
func useStore(t *testing.T, path string) error {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: path, MinFreeDisk: 1})
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // the disk is full
	for err == nil {
		s.free = func(string) (int64, error) { return 1 << 30, nil } // as a quota has it
		_, err = s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{largeEntry()}})
	}
	if check := s.Check(t.Context()); !errors.Is(check, queue.ErrDiskFull) {
		t.Errorf("Check = %v, want ErrDiskFull", check)
	}
	return err
}
