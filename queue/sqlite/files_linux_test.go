package sqlite

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mailsidecar/queue"
	"mailsidecar/queue/storetest"
)

// TestPlanted: whatever stands in the place of one of the store's files, the start says
// so and ends. It neither waits nor touches anything outside.
func TestPlanted(t *testing.T) {
	kinds := map[string]func(path, outside string) error{
		"symbolic link": func(path, outside string) error { return os.Symlink(filepath.Join(outside, "file"), path) },
		"symbolic link to nothing": func(path, outside string) error {
			return os.Symlink(filepath.Join(outside, "nothing"), path)
		},
		"symbolic link to a directory": func(path, outside string) error { return os.Symlink(outside, path) },
		"symbolic link to a pipe":      func(path, outside string) error { return os.Symlink(filepath.Join(outside, "pipe"), path) },
		"directory":                    func(path, _ string) error { return os.Mkdir(path, 0o700) },
		"named pipe":                   func(path, _ string) error { return syscall.Mkfifo(path, 0o600) },
		"socket": func(path, _ string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				return err
			}
			l.SetUnlinkOnClose(false)
			return l.Close()
		},
		"device": func(path, _ string) error { return syscall.Mknod(path, syscall.S_IFCHR|0o600, 1<<8|3) },
	}
	for _, suffix := range ownSuffixes {
		for kind, plant := range kinds {
			for _, there := range []bool{false, true} {
				t.Run(strings.TrimSpace("queue.db"+suffix+" "+kind), func(t *testing.T) { testPlanted(t, suffix, kind, plant, there) })
			}
		}
	}
}

func testPlanted(t *testing.T, suffix, kind string, plant func(path, outside string) error, there bool) {
	outside, dir := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "queue.db")
	if there {
		if err := openStore(t, path).Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "file"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(outside, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	err := plant(path+suffix, outside)
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("%s: %v", kind, err) // only root makes devices
	}
	if err != nil {
		t.Fatal(err)
	}
	word, _, _ := strings.Cut(kind, " to")
	wantStoreError(t, openErr(t, path), queue.ErrNotRegular, "queue.db"+suffix+": no regular file, but a "+word)
	if b, err := os.ReadFile(filepath.Join(outside, "file")); err != nil || string(b) != "precious" {
		t.Errorf("the file elsewhere has %q, %v", b, err)
	}
	if left := names(t, outside); len(left) != 2 {
		t.Errorf("elsewhere are %q, want what was there", left)
	}
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestOwnFiles: the files that a store makes are those that are checked.
func TestOwnFiles(t *testing.T) {
	path := dbPath(t)
	s := openStore(t, path)
	if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{randomEntry(0, storetest.Start)}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range names(t, filepath.Dir(path)) {
		if !slices.Contains(ownSuffixes, strings.TrimPrefix(name, "queue.db")) {
			t.Errorf("%s is not checked at the start", name)
		}
	}
}

// TestForeignLock: what is in a file that is no lock file stays, though it is locked. A
// directory that is a link is followed.
func TestForeignLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "queue.db")
	for content, stays := range map[string]bool{
		"precious": true, "12345678901234567890123": true, "1\n2\n": true, "": false, "4711\n": false, "1234567890\n": false,
	} {
		if err := os.WriteFile(path+".lock", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := openStore(t, path).Close(); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path + ".lock"); err != nil || (string(b) == content) != stays {
			t.Errorf("the lock file with %q has %q, %v, want it kept: %v", content, b, err, stays)
		}
	}
}
