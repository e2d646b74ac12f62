package sqlite

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/queue"
)

func verified(t *testing.T, path string) Report {
	t.Helper()
	r, err := Verify(t.Context(), path)
	if err != nil {
		t.Fatalf("Verify(%s) = %v", filepath.Base(path), err)
	}
	if !r.Sound() {
		t.Errorf("Verify(%s): damage %q, faults %q", filepath.Base(path), r.Damage, r.Faults)
	}
	return r
}

func nothingBeside(t *testing.T, path string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".mailsidecar-copy") || f.Name() != filepath.Base(path) && strings.HasPrefix(f.Name(), filepath.Base(path)) {
			t.Errorf("%s was left beside %s", f.Name(), filepath.Base(path))
		}
	}
}

// TestBackupUnderLoad: a copy that is made while messages come and end holds each message that
// was stored before, whole, and nothing that contradicts itself.
func TestBackupUnderLoad(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	dir := t.TempDir()
	var mu sync.Mutex
	var stored []queue.Entry // that stay
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				b := sizedBatch(100, 70_000, 1_500_000)
				if _, err := s.Insert(t.Context(), b); err != nil {
					t.Errorf("Insert = %v", err)
					return
				}
				if _, err := s.Record(t.Context(), []queue.Outcome{delivered(b.Entries[0]), delivered(b.Entries[2])}); err != nil {
					t.Errorf("Record = %v", err)
					return
				}
				mu.Lock()
				stored = append(stored, b.Entries[1])
				mu.Unlock()
			}
		})
	}
	for n := range 3 {
		for {
			mu.Lock()
			enough := len(stored) > 4*n
			mu.Unlock()
			if enough || t.Failed() {
				break
			}
			time.Sleep(time.Millisecond)
		}
		mu.Lock()
		before := stored[:len(stored):len(stored)]
		mu.Unlock()
		to := filepath.Join(dir, string(rune('a'+n)), "copy.db")
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		told := int64(0)
		size, err := Backup(t.Context(), s.opts.Path, to, BackupOptions{Progress: func(done, total int64) { told = done }})
		if err != nil || size != fileSize(to) || told != size {
			t.Fatalf("Backup = %d, %v; the file has %d octets, and %d were told", size, err, fileSize(to), told)
		}
		if info, err := os.Stat(to); err != nil || info.Mode() != 0o600 {
			t.Errorf("the copy has mode %v, %v; want 0600", info.Mode(), err)
		}
		verified(t, to)
		nothingBeside(t, to)
		c := openStore(t, to)
		for _, e := range before {
			content, err := c.Content(t.Context(), "app", e.Message.ID)
			if err != nil || !bytes.Equal(content.Data, e.Content.Data) {
				t.Errorf("the copy has a message that was stored before it as %d octets, %v", len(content.Data), err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	stop()
	load.Wait()
}

// TestBackupLetsLogShrink: once the copy is made, the log of the store gets short again.
func TestBackupLetsLogShrink(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	if _, err := s.Insert(t.Context(), sizedBatch(1<<20)); err != nil {
		t.Fatal(err)
	}
	held := make(chan struct{})
	release := make(chan struct{})
	done := make(chan error, 1)
	var once sync.Once
	go func() {
		_, err := Backup(t.Context(), s.opts.Path, filepath.Join(t.TempDir(), "copy.db"), BackupOptions{Progress: func(int64, int64) {
			once.Do(func() { close(held); <-release })
		}})
		done <- err
	}()
	<-held
	for range 6 { // beyond longestLog
		if _, err := s.Insert(t.Context(), sizedBatch(12<<20)); err != nil {
			t.Fatalf("Insert while a copy is made = %v", err)
		}
	}
	if n := fileSize(logPath(s.opts.Path)); n < 60<<20 {
		t.Fatalf("the log has %d octets while somebody reads: the test shows nothing", n)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Insert(t.Context(), sizedBatch(1<<20)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * trimPause)
	}
	if n := fileSize(logPath(s.opts.Path)); n > longestLog {
		t.Errorf("the log has %d octets after the copy, want %d at most", n, longestLog)
	}
}

func TestBackupRefuses(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	if _, err := s.Insert(t.Context(), sizedBatch(100)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	there := filepath.Join(dir, "there.db")
	if err := os.WriteFile(there, []byte("mine"), 0o644); err != nil { // the copy must not have this mode
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(there, link); err != nil {
		t.Skip(err)
	}
	for name, tt := range map[string]struct {
		from, to string
		o        BackupOptions
		want     string
	}{
		"a file that exists":      {s.opts.Path, there, BackupOptions{}, "exists"},
		"a link":                  {s.opts.Path, link, BackupOptions{Replace: true}, "symbolic link"},
		"a directory":             {s.opts.Path, dir, BackupOptions{Replace: true}, "directory"},
		"the store":               {s.opts.Path, s.opts.Path, BackupOptions{Replace: true}, "of the store itself"},
		"the store's log":         {s.opts.Path, s.opts.Path + "-wal", BackupOptions{Replace: true}, "of the store itself"},
		"no store":                {filepath.Join(dir, "none.db"), filepath.Join(dir, "x.db"), BackupOptions{}, "no such file"},
		"no queue":                {there, filepath.Join(dir, "x.db"), BackupOptions{}, "not a database"},
		"too little disk":         {s.opts.Path, s.opts.Path + ".copy", BackupOptions{MinFreeDisk: 1 << 60}, "kept free for the server"},
		"no directory to put it ": {s.opts.Path, filepath.Join(dir, "none", "x.db"), BackupOptions{}, "no such file"},
	} {
		_, err := Backup(t.Context(), tt.from, tt.to, tt.o)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Backup = %v, want an error with %q", name, err, tt.want)
		}
	}
	if mine, err := os.ReadFile(there); err != nil || string(mine) != "mine" {
		t.Errorf("the file that was there is %q, %v", mine, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Backup(ctx, s.opts.Path, filepath.Join(dir, "x.db"), BackupOptions{Progress: func(int64, int64) { cancel() }})
	if err == nil { // it may have been the last piece
		err = os.Remove(filepath.Join(dir, "x.db"))
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Backup that is given up = %v", err)
	}
	if _, err := Backup(t.Context(), s.opts.Path, there, BackupOptions{Replace: true}); err != nil {
		t.Errorf("Backup in place of a file = %v", err)
	}
	if info, err := os.Stat(there); err != nil || info.Mode() != 0o600 {
		t.Errorf("the copy has mode %v, %v; want 0600", info.Mode(), err)
	}
	nothingBeside(t, filepath.Join(dir, "x.db"))
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(s.opts.Path), ".mailsidecar-copy*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestBackupLeavesNothing: however a backup to a writer ends, such as by the SIGPIPE of a reader
// that has ended, no copy of the mail stays; and what one left that was killed before is removed.
func TestBackupLeavesNothing(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	if _, err := s.Insert(t.Context(), sizedBatch(3000)); err != nil {
		t.Fatal(err)
	}
	dir, elsewhere := filepath.Dir(s.opts.Path), t.TempDir()
	place := func(dir, name string, age time.Duration) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(name, []byte("mail"), 0o600), os.Chtimes(name, time.Time{}, time.Now().Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	copies := func(dir string) (names string) {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(dir, "*copy-*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range found {
			names += filepath.Base(name) + " "
		}
		return names
	}
	place(dir, ".mailsidecar-copy-1", 2*staleCopy)
	place(dir, ".mailsidecar-copy-2", staleCopy/2) // another backup may be at work on it
	place(elsewhere, ".mailsidecar-copy-3", 2*staleCopy)
	place(elsewhere, "my-copy-4", 2*staleCopy)
	during := ""
	_, err := BackupTo(t.Context(), s.opts.Path, writerFunc(func(p []byte) (int, error) {
		during = copies(dir)
		return len(p), nil
	}), BackupOptions{})
	if err != nil || during != ".mailsidecar-copy-2 " && runtime.GOOS != "windows" { // which cannot remove a file that is open
		t.Errorf("while the copy is read there are %q, %v", during, err)
	}
	if _, err := Backup(t.Context(), s.opts.Path, filepath.Join(elsewhere, "to.db"), BackupOptions{}); err != nil {
		t.Error(err)
	}
	if left := copies(dir) + copies(elsewhere); left != ".mailsidecar-copy-2 my-copy-4 " {
		t.Errorf("left: %q", left)
	}
}

// TestBackupWithoutServer: a store that a crash has left is copied with what is in its log,
// and stays as it was.
func TestBackupWithoutServer(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	b := sizedBatch(3000)
	if _, err := s.Insert(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	crashed := filepath.Join(t.TempDir(), "queue.db")
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(s.opts.Path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(crashed+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := fileSize(crashed + "-wal")
	var out bytes.Buffer
	if _, err := BackupTo(t.Context(), crashed, &out, BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	if fileSize(crashed+"-wal") != log {
		t.Errorf("the log has %d octets after the copy and had %d", fileSize(crashed+"-wal"), log)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(copied, out.Bytes(), 0o400); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, copied); r.Usage.Messages != 1 || r.Leased != 1 {
		t.Errorf("the copy has %+v, want one message, which is leased", r)
	}
	nothingBeside(t, copied)
}

func restore(t *testing.T, path, from string) (kept Kept, r Report, err error) {
	t.Helper()
	kept, err = Restore(t.Context(), path, from, time.Now(), func(int64, int64) {}, func(got Report) error { r = got; return nil })
	return kept, r, err
}

func TestRestore(t *testing.T) {
	path := dbPath(t)
	s := openUnsynced(t, path)
	early, late := sizedBatch(3000), sizedBatch(3000)
	insert := func(b queue.Batch) {
		t.Helper()
		if _, err := s.Insert(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	has := func(path string, want ...queue.Batch) {
		t.Helper()
		c := openStore(t, path)
		defer c.Close() //nolint:errcheck // the test ends
		for i, b := range []queue.Batch{early, late} {
			_, err := c.Get(t.Context(), "app", b.Entries[0].Message.ID)
			if wanted := i < len(want); (err == nil) != wanted {
				t.Errorf("%s: message %d: %v, want it there: %v", filepath.Base(path), i, err, wanted)
			}
		}
	}
	insert(early)
	copied := filepath.Join(t.TempDir(), "copy.db")
	if _, err := Backup(t.Context(), path, copied, BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	insert(late)
	if _, _, err := restore(t, path, copied); !errors.Is(err, queue.ErrLocked) {
		t.Errorf("Restore beside a server = %v, want %v", err, queue.ErrLocked)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	if _, err := Restore(t.Context(), path, copied, time.Now(), func(int64, int64) {}, func(Report) error { return no }); !errors.Is(err, no) {
		t.Errorf("Restore that is refused = %v", err)
	}
	has(path, early, late)
	kept, r, err := restore(t, path, copied)
	if err != nil || r.Usage.Messages != 1 {
		t.Fatalf("Restore = %+v, %v", r, err)
	}
	has(path, early)
	has(kept.Store, early, late)
	if _, err := os.Stat(path + unfinishedSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unfinished file was left: %v", err)
	}
	// Without a store, too.
	other := filepath.Join(t.TempDir(), "new", "queue.db")
	if kept, _, err := restore(t, other, copied); err != nil || kept.Store != "" {
		t.Fatalf("Restore where nothing is = %q, %v", kept, err)
	}
	has(other, early)
}

// TestRestoreAfterCrash: what was in the log of the store that is replaced is kept with it, and
// never gets into the restored one.
func TestRestoreAfterCrash(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	early, late := sizedBatch(3000), sizedBatch(300_000)
	if _, err := s.Insert(t.Context(), early); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if _, err := Backup(t.Context(), s.opts.Path, copied, BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Insert(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]bool{"a sound store": false, "a damaged one": true} {
		crashed := filepath.Join(t.TempDir(), "queue.db")
		for _, suffix := range []string{"", "-wal"} {
			data, err := os.ReadFile(s.opts.Path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if spoil && suffix == "" {
				data = bytes.Repeat([]byte("spoilt"), 5000)
			}
			if err := os.WriteFile(crashed+suffix, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		kept, _, err := restore(t, crashed, copied)
		if err != nil {
			t.Errorf("%s: Restore = %v", name, err)
			continue
		}
		if r := verified(t, crashed); r.Usage.Messages != 1 {
			t.Errorf("%s: the restored store has %d messages, want 1", name, r.Usage.Messages)
		}
		if spoil {
			if kept.Log != kept.Store+"-wal" || fileSize(kept.Log) == 0 || len(kept.Damage) == 0 {
				t.Errorf("%s: its log was not kept: %+v", name, kept)
			}
		} else if r := verified(t, kept.Store); kept.Log != "" || len(kept.Damage) > 0 || r.Usage.Messages != 2 {
			t.Errorf("%s: what was kept has %d messages, want 2", name, r.Usage.Messages)
		}
	}
}

// TestRestoreFoldsLog: a log that cannot be brought into the sound store that it belongs to ends
// the restore before anything is changed.
func TestRestoreFoldsLog(t *testing.T) {
	_, crashed, ids := killed(t)
	path := crashed.write(t)
	copied := filepath.Join(t.TempDir(), "copy.db")
	if _, err := Backup(t.Context(), path, copied, BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	reader, err := openSnapshot(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = restore(t, path, copied)
	if err == nil || !strings.Contains(err.Error(), "another process reads it") {
		t.Errorf("Restore while somebody reads the store = %v", err)
	}
	if left, err := filepath.Glob(path + ".*"); err != nil || len(left) != 1 { // the lock
		t.Errorf("left: %q, %v", left, err)
	}
	if err := reader.close(); err != nil {
		t.Fatal(err)
	}
	kept, _, err := restore(t, path, copied)
	if err != nil || kept.Log != "" || len(kept.Damage) > 0 {
		t.Fatalf("Restore = %+v, %v", kept, err)
	}
	if r := verified(t, kept.Store); r.Usage.Messages != int64(len(ids)) {
		t.Errorf("what was kept has %d messages, want %d", r.Usage.Messages, len(ids))
	}
}

// TestRestoreKeepsLoneLog: the log of a database that somebody has deleted is kept, too.
func TestRestoreKeepsLoneLog(t *testing.T) {
	_, crashed, _ := killed(t)
	copied := filepath.Join(t.TempDir(), "copy.db")
	if _, err := Backup(t.Context(), crashed.write(t), copied, BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	path := crashed.write(t)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(t.Context(), path); err != nil || len(r.Damage) != 1 {
		t.Errorf("Verify of a log without its database = %+v, %v; want damage", r, err)
	}
	kept, _, err := restore(t, path, copied)
	if err != nil || kept.Store != "" || len(kept.Damage) == 0 {
		t.Fatalf("Restore = %+v, %v", kept, err)
	}
	if log, err := os.ReadFile(kept.Log); err != nil || !bytes.Equal(log, crashed.log) {
		t.Errorf("the log that is kept has %d octets, %v; want %d", len(log), err, len(crashed.log))
	}
	verified(t, path)
}

// TestRestoreKilled: what a restore leaves that is killed while it asks is gone after a start.
func TestRestoreKilled(t *testing.T) {
	path := dbPath(t)
	if err := openUnsynced(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+unfinishedSuffix, []byte("all mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := openUnsynced(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path + unfinishedSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unfinished file after a start: %v", err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	path := dbPath(t)
	s := openUnsynced(t, path)
	if _, err := s.Insert(t.Context(), sizedBatch(400_000, 400_000)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	sound := filepath.Join(dir, "sound.db")
	if _, err := Backup(t.Context(), path, sound, BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	spoilt := func(name string, spoil func(data []byte) []byte) string {
		data, err := os.ReadFile(sound)
		if err != nil {
			t.Fatal(err)
		}
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, spoil(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for file, want := range map[string]error{
		spoilt("empty.db", func([]byte) []byte { return nil }):                                                    queue.ErrCorrupt,
		spoilt("text.db", func([]byte) []byte { return []byte("Dear queue,") }):                                   queue.ErrCorrupt,
		spoilt("other.db", func(b []byte) []byte { copy(b[68:], "else"); return b }):                              queue.ErrCorrupt,
		spoilt("newer.db", func(b []byte) []byte { copy(b[60:], []byte{0, 0, 1, 0}); return b }):                  queue.ErrNewerSchema,
		spoilt("cut.db", func(b []byte) []byte { return b[:len(b)/2] }):                                           queue.ErrCorrupt,
		spoilt("bits.db", func(b []byte) []byte { copy(b[2*4096:], bytes.Repeat([]byte{0xa5}, 4096)); return b }): queue.ErrCorrupt,
		filepath.Join(dir, "none.db"): fs.ErrNotExist,
	} {
		if _, _, err := restore(t, path, file); !errors.Is(err, want) {
			t.Errorf("Restore(%s) = %v, want %v", filepath.Base(file), err, want)
		}
	}
	if _, _, err := restore(t, path, path); err == nil {
		t.Error("Restore took the store itself")
	}
	if r := verified(t, path); r.Usage.Messages != 2 {
		t.Errorf("the store has %d messages after refusals, want 2", r.Usage.Messages)
	}
	if files, err := filepath.Glob(path + "*"); err != nil || len(files) > 4 {
		t.Errorf("left: %v, %v", files, err)
	}
}

// TestVerifyFinds: each rule finds what breaks it, and a sound store breaks none.
func TestVerifyFinds(t *testing.T) {
	path := dbPath(t)
	s := openUnsynced(t, path)
	b := sizedBatch(3000, 600_000, 100)
	if _, err := s.Insert(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Record(t.Context(), []queue.Outcome{delivered(b.Entries[2])}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	verified(t, path)
	found := map[string]bool{}
	for _, spoil := range []string{
		`DELETE FROM messages WHERE body IS NULL`,
		`DELETE FROM recipients WHERE n = 0`,
		`INSERT INTO attempts SELECT x'00', 0, '', 0, '', '', '', NULL, 0, 0, '', 0, ''`,
		`UPDATE messages SET status = 'failed' WHERE final = 1`,
		`UPDATE messages SET final = 1`,
		`UPDATE recipients SET due = NULL, owner = NULL WHERE state = 'queued'`,
		`UPDATE recipients SET due = 1 WHERE state = 'delivered'`,
		`UPDATE messages SET body = NULL`,
		`DELETE FROM contents WHERE seq = 2`,
		`INSERT INTO contents SELECT 1000, x''`,
		`UPDATE usage SET messages = messages + 1`,
		`DELETE FROM stats_statuses WHERE status = 'delivered'`,
		`UPDATE stats_statuses SET status = 'failed' WHERE status = 'delivered'`,
	} {
		copied := filepath.Join(t.TempDir(), "queue.db")
		if _, err := Backup(t.Context(), path, copied, BackupOptions{}); err != nil {
			t.Fatal(err)
		}
		c := openStore(t, copied)
		if err := c.writer.exec(spoil); err != nil {
			t.Fatalf("%s: %v", spoil, err)
		}
		c.writer.usage.current.Store(nil)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := Verify(t.Context(), copied)
		if err != nil || len(r.Damage) > 0 || len(r.Faults) == 0 {
			t.Errorf("after %s: Verify = %+v, %v; want faults", spoil, r, err)
		}
		for _, fault := range r.Faults {
			name, _, _ := strings.Cut(fault, ":")
			found[name] = true
		}
	}
	for _, rule := range rules {
		if !found[rule.broken] {
			t.Errorf("nothing found %q", rule.broken)
		}
	}
}
