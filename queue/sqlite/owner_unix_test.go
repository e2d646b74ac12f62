//go:build unix

package sqlite

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestRestoreAsRoot: what root restores belongs to the user of the service, who could not start
// otherwise. So do the files that a command of root makes beside the store.
func TestRestoreAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const user = 65532
	s := openUnsynced(t, dbPath(t))
	if _, err := s.Insert(t.Context(), sizedBatch(3000)); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if _, err := Backup(t.Context(), s.opts.Path, copied, BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	owned := func(name string, want int) {
		t.Helper()
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != want || int(st.Gid) != want || info.Mode() != 0o600 {
			t.Errorf("%s is of %d:%d with mode %v, want %d", filepath.Base(name), st.Uid, st.Gid, info.Mode(), want)
		}
	}
	dir := t.TempDir()
	if err := os.Chown(dir, user, user); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err) // root that may not, as in a container without that capability
	}
	path := filepath.Join(dir, "queue.db")
	for range 2 { // as the directory, then as the store that was there
		if _, _, err := restore(t, path, copied); err != nil {
			t.Fatal(err)
		}
		owned(path, user)
		owned(path+lockSuffix, user)
		if err := os.Chown(dir, 0, user); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path + lockSuffix); err != nil {
		t.Fatal(err)
	}
	if _, err := Backup(t.Context(), path, filepath.Join(dir, "copy.db"), BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	owned(path+lockSuffix, user)
	owned(filepath.Join(dir, "copy.db"), 0)
	for _, name := range []string{path + "-wal", path + "-shm"} {
		if _, err := os.Stat(name); err == nil {
			owned(name, user)
		}
	}
}
