//go:build unix

package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(write("secret", "s3cret"), link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "secret"): "s3cret", link: "s3cret", write("empty", ""): "", write("full", strings.Repeat("x", 100)): strings.Repeat("x", 100), "/dev/null": "",
	} {
		if got, err := Read(path, 100); string(got) != want || err != nil {
			t.Errorf("Read(%s) = %q, %v, want %q", path, got, err, want)
		}
	}
	for path, want := range map[string]string{
		write("large", strings.Repeat("x", 101)): "over 100 octets", "/dev/zero": "over 100 octets", dir: "directory", filepath.Join(dir, "none"): "no such file",
	} {
		if got, err := Read(path, 100); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), dir) {
			t.Errorf("Read(%s) = %q, %v, want an error with %q", path, got, err, want)
		}
	}
	if _, err := Read(filepath.Join(dir, "none"), 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of no file = %v, want fs.ErrNotExist", err)
	}
}

// TestPipe: what a program writes into a pipe is read, though it takes a moment, and a pipe
// into which no program writes is not waited for.
func TestPipe(t *testing.T) {
	for name, tc := range map[string]struct {
		write func(*testing.T, string)
		want  string
		err   error
	}{
		"no writer":     {func(*testing.T, string) {}, "", errTooSlow},
		"silent writer": {func(t *testing.T, path string) { openPipe(t, path) }, "", errTooSlow},
		"slow writer": {func(t *testing.T, path string) {
			time.Sleep(50 * time.Millisecond)
			f := openPipe(t, path)
			for _, part := range []string{"s3", "cret"} {
				time.Sleep(50 * time.Millisecond)
				if _, err := f.WriteString(part); err != nil {
					t.Error(err)
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}, "s3cret", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "pipe")
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			written := make(chan struct{})
			go func() {
				defer close(written)
				tc.write(t, path)
			}()
			got, err := Read(path, 100)
			<-written
			if string(got) != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("Read = %q, %v, want %q, %v", got, err, tc.want, tc.err)
			}
		})
	}
}

// openPipe opens the pipe for writing until the test ends.
func openPipe(t *testing.T, path string) *os.File {
	f, err := os.OpenFile(path, os.O_RDWR, 0) // it does not wait for a reader
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestReadOnce: calls for one file share one read, so that a file system which does not answer
// holds no more than one for each file.
func TestReadOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	first := begin(file{path, 100})
	for range 20 {
		if begin(file{path, 100}) != first {
			t.Fatal("a second call began a read of its own")
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0) // waits for the reader
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("s3cret"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	<-first.done
	if string(first.data) != "s3cret" || first.err != nil {
		t.Errorf("read = %q, %v, want s3cret", first.data, first.err)
	}
	mu.Lock()
	defer mu.Unlock()
	if r := underWay[file{path, 100}]; r != nil {
		t.Error("a read that has ended is still under way")
	}
}
