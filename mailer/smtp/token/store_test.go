package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// sample is a record with every field.
func sample() Record {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	return Record{
		RefreshToken: "refresh-secret", TokenURL: "https://login.example.com/token", Issuer: "microsoft", Tenant: "common",
		ClientID: "id", Scopes: []string{"https://outlook.office.com/SMTP.Send", "offline_access"}, Account: "jo@example.com",
		Issued: at, Expires: at.Add(7 * 24 * time.Hour), LoggedIn: at.Add(-time.Hour), Digest: Digest("configured-secret"), Outlived: []string{Digest("earlier-secret")},
		AccessToken: "access-secret", AccessFetched: at, AccessExpires: at.Add(time.Hour),
	}
}

// TestStores: what every store must do.
func TestStores(t *testing.T) {
	for name, store := range map[string]Store{
		"memory": new(MemoryStore), "file": NewFileStore(filepath.Join(t.TempDir(), "made", "when needed")),
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if _, err := store.Load(ctx, 1); !errors.Is(err, ErrNotStored) {
				t.Errorf("Load() of an empty store = %v, want ErrNotStored", err)
			}
			unlock, err := store.Lock(ctx, 1)
			if err != nil {
				t.Fatal(err)
			}
			want := sample()
			for range 2 { // the second one replaces
				want.RefreshToken += "x"
				if err := store.Save(ctx, 1, want); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := store.Load(ctx, 1); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("Load() = %#v, %v, want %#v", got, err, want)
			}
			if _, err := store.Load(ctx, 2); !errors.Is(err, ErrNotStored) {
				t.Errorf("Load(2) = %v, want ErrNotStored", err)
			}
			bad := want
			bad.RefreshToken = "a\nb"
			if err := store.Save(ctx, 1, bad); err == nil {
				t.Error("Save() took a refresh token with a line end")
			}
			testLock(t, store, unlock)
		})
	}
}

// testLock: the lock of a relay is exclusive, and others are free. unlock ends the
// lock of the first.
func testLock(t *testing.T, store Store, unlock func()) {
	short, cancel := context.WithTimeout(t.Context(), 2*lockLook)
	defer cancel()
	if _, err := store.Lock(short, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second Lock() = %v, want the end of its context", err)
	}
	other, err := store.Lock(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	other()
	unlock()
	var mu sync.Mutex
	var users sync.WaitGroup
	inside, total := 0, 0
	for range 8 {
		users.Go(func() {
			unlock, err := store.Lock(t.Context(), 1)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			if inside++; inside > 1 {
				t.Error("two users have the lock")
			}
			total++
			mu.Unlock()
			mu.Lock()
			inside--
			mu.Unlock()
			unlock()
		})
	}
	users.Wait()
	if total != 8 {
		t.Errorf("%d users had the lock, want 8", total)
	}
}

// TestFileStoreMode: only the owner can read the files, whatever the umask and
// whatever others did to the mode.
func TestFileStoreMode(t *testing.T) {
	s := NewFileStore(filepath.Join(t.TempDir(), "data"))
	unlock, err := s.Lock(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := s.Save(t.Context(), 1, sample()); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		for path, want := range map[string]os.FileMode{filepath.Dir(s.Path(1)): 0o700, s.Path(1): 0o600, s.lockPath(1): 0o600} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: mode of %s = %v, %v, want %v", when, path, info.Mode().Perm(), err, want)
			}
		}
	}
	check("after Save")
	if err := os.Chmod(s.Path(1), 0o664); err != nil { // as fsGroup of Kubernetes does
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), 1); err != nil {
		t.Errorf("Load() of a file with mode 0664 = %v, want it mended", err)
	}
	check("after Load")
}

// TestFileStoreOwner: what root stores belongs to the owner of the directory.
func TestFileStoreOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	s := NewFileStore(t.TempDir())
	if err := os.Chown(filepath.Dir(s.Path(1)), 65532, 65531); err != nil {
		t.Fatal(err)
	}
	unlock, err := s.Lock(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := s.Save(t.Context(), 1, sample()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{s.Path(1), s.lockPath(1)} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if owner := fmt.Sprintf("%+v", info.Sys()); !strings.Contains(owner, "Uid:65532 Gid:65531") {
			t.Errorf("%s belongs to %s", path, owner)
		}
	}
}

// TestFileStoreForeign: what is no file of ours is not followed, and not lost either.
func TestFileStoreForeign(t *testing.T) {
	ctx := t.Context()
	for name, make := range map[string]func(path string) error{
		"symbolic link": func(path string) error {
			target := filepath.Join(filepath.Dir(path), "target")
			data, err := sample().Marshal()
			return errors.Join(err, os.WriteFile(target, data, 0o600), os.Symlink(target, path))
		},
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		s := NewFileStore(t.TempDir())
		if err := make(s.Path(1)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(ctx, 1); err == nil || !strings.Contains(err.Error(), "no regular file") || errors.Is(err, ErrNotStored) {
			t.Errorf("Load() of a %s = %v, want an error", name, err)
		}
	}
	// The same for the lock: a link in its place is not followed, a pipe not waited for.
	for name, plant := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink(filepath.Join(filepath.Dir(path), "elsewhere"), path) },
		"pipe": func(path string) error { return exec.Command("mkfifo", path).Run() },
	} {
		s := NewFileStore(t.TempDir())
		if err := plant(s.lockPath(1)); err != nil {
			t.Fatal(err)
		}
		unlock, err := s.Lock(ctx, 1)
		if name == "link" && err == nil {
			t.Error("Lock() followed a link")
		}
		if err == nil {
			unlock()
		}
		if _, err := os.Lstat(filepath.Join(filepath.Dir(s.Path(1)), "elsewhere")); err == nil {
			t.Error("Lock() made the target of a link")
		}
		if err := plant(s.Path(1)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(ctx, 1); err == nil || errors.Is(err, ErrNotStored) {
			t.Errorf("Load() of a %s = %v, want an error", name, err)
		}
	}
	// A link in the way of the new file is replaced, and its target stays as it was.
	s := NewFileStore(t.TempDir())
	target := filepath.Join(t.TempDir(), "target")
	if err := errors.Join(os.WriteFile(target, []byte("precious"), 0o600), os.Symlink(target, s.Path(1)+".new"), os.Symlink(target, s.Path(1))); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(ctx, 1, sample()); err != nil {
		t.Errorf("Save() = %v", err)
	}
	if data, err := os.ReadFile(target); err != nil || string(data) != "precious" {
		t.Errorf("the target of the link holds %q, %v", data, err)
	}
	if _, err := s.Load(ctx, 1); err != nil {
		t.Errorf("Load() after Save() = %v", err)
	}
}

// TestFileStoreFails: when a record cannot be written, the old one stays whole and
// nothing is left beside it.
func TestFileStoreFails(t *testing.T) {
	dir := t.TempDir()
	s := NewFileStore(dir)
	if err := s.Save(t.Context(), 1, sample()); err != nil {
		t.Fatal(err)
	}
	// A directory that is not empty cannot be removed, and so not replaced.
	if err := os.MkdirAll(filepath.Join(s.Path(1)+".new", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), 1, sample()); err == nil {
		t.Error("Save() over an obstacle succeeded")
	}
	if got, err := s.Load(t.Context(), 1); err != nil || !reflect.DeepEqual(got, sample()) {
		t.Errorf("Load() after a failed Save() = %v, %v", got, err)
	}
}

func TestDamagedRecord(t *testing.T) {
	s := NewFileStore(t.TempDir())
	whole, err := sample().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	with := func(old, new string) []byte { return bytes.Replace(whole, []byte(old), []byte(new), 1) }
	for name, data := range map[string][]byte{
		"empty": nil, "cut": whole[:len(whole)/2], "twice": append(bytes.Clone(whole), whole...), "no object": []byte(`"x"`),
		"later version": with(`"version": 1`, `"version": 2`), "unknown field": with(`"issuer"`, `"issuerx"`),
		"wrong type": with(`"refresh-secret"`, `7`), "control character": with(`refresh-secret`, `refresh\u0000secret`),
		"no token": with(`refresh-secret`, ``), "no url": with(`https://`, `file://`), "no client": with(`"client_id": "id"`, `"client_id": ""`),
		"long":    append(bytes.Clone(whole), bytes.Repeat([]byte(" "), maxRecord)...),
		"no time": with(`"2026-11-29T12:00:00Z"`, `"0001-01-01T00:00:00Z"`),
	} {
		if err := os.WriteFile(s.Path(1), data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Load(t.Context(), 1)
		if damaged, ok := errors.AsType[*DamagedError](err); !ok || damaged.Where != s.Path(1) {
			t.Errorf("Load() of a record that is %s = %v, want a DamagedError", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("Load() of a record that is %s quotes it: %v", name, err)
		}
	}
}

// TestRecordRedacted: no verb prints the secrets of a record.
func TestRecordRedacted(t *testing.T) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(verb, sample()); strings.Contains(s, "-secret") {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}

// TestFileStoreBetweenProcesses: several processes count in one record, under its
// lock, and one of them is killed while it has the lock.
func TestFileStoreBetweenProcesses(t *testing.T) {
	dir := os.Getenv("TOKEN_TEST_DIR")
	if dir != "" {
		countInStore(t, dir, os.Getenv("TOKEN_TEST_HANG") != "")
		return
	}
	dir = t.TempDir()
	start := func(more ...string) *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFileStoreBetweenProcesses$")
		cmd.Env = append(os.Environ(), append(more, "TOKEN_TEST_DIR="+dir)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	hanging := start("TOKEN_TEST_HANG=1")
	for { // until it has the lock
		if _, err := os.Stat(filepath.Join(dir, "locked")); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	counting := []*exec.Cmd{start(), start(), start()}
	if err := hanging.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = hanging.Wait()
	for _, cmd := range counting {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, cmd.Stdout)
		}
	}
	r, err := NewFileStore(dir).Load(t.Context(), 1)
	if err != nil || r.RefreshToken != "60" {
		t.Errorf("the count is %q, %v, want 60: 20 of each process", r.RefreshToken, err)
	}
}

// countInStore adds 20 to the count in the store; if it is to hang, it hangs with the
// lock instead.
func countInStore(t *testing.T, dir string, hang bool) {
	s, ctx := NewFileStore(dir), t.Context()
	for range 20 {
		unlock, err := s.Lock(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		if hang {
			if err := os.WriteFile(filepath.Join(dir, "locked"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			select {}
		}
		r, err := s.Load(ctx, 1)
		if errors.Is(err, ErrNotStored) {
			r, err = sample(), nil
			r.RefreshToken = "0"
		}
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(r.RefreshToken)
		if err != nil {
			t.Fatal(err)
		}
		r.RefreshToken = strconv.Itoa(n + 1)
		if err := s.Save(ctx, 1, r); err != nil {
			t.Fatal(err)
		}
		unlock()
	}
}

func FuzzParseRecord(f *testing.F) {
	whole, err := sample().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":1,"refresh_token":"a","token_url":"https://x","client_id":"c","issued":"2026-01-01T00:00:00+25:00"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecord(data)
		if err != nil {
			return
		}
		again, err := r.Marshal()
		if err != nil {
			t.Fatalf("a record that was read cannot be written: %v", err)
		}
		r2, err := ParseRecord(again)
		if err != nil || r2.RefreshToken != r.RefreshToken || !r2.Issued.Equal(r.Issued) || r2.Account != r.Account {
			t.Errorf("read again: %#v, %v, want %#v", r2, err, r)
		}
	})
}
