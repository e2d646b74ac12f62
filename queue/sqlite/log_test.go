package sqlite

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// files are those of a store as a kill leaves them.
type files struct{ db, log []byte }

func readFiles(t *testing.T, path string) files {
	t.Helper()
	db, err1 := os.ReadFile(path)
	log, err2 := os.ReadFile(path + "-wal")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return files{db, log}
}

func (f files) write(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "queue.db")
	if err := errors.Join(os.WriteFile(path, f.db, 0o600), os.WriteFile(path+"-wal", f.log, 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// reopen opens the store that a kill has left, and returns what it logs and how many
// of the messages it has.
func (f files) reopen(t *testing.T, ids []string) (s *Store, logged string, found int) {
	t.Helper()
	var log bytes.Buffer
	s, err := Open(t.Context(), Options{Path: f.write(t), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, id := range ids {
		if _, err := s.Get(t.Context(), queue.AnyKey, id); err == nil {
			found++
		} else if !errors.Is(err, queue.ErrNotFound) {
			t.Fatal(err)
		}
	}
	return s, log.String(), found
}

// insertSome stores messages of different sizes, each in a commit of its own.
func insertSome(t *testing.T, s *Store, sizes ...int) (ids []string) {
	t.Helper()
	for _, size := range sizes {
		e := randomEntry(0, time.Now())
		e.Message.Size, e.Content = int64(size), mailer.Content{Data: bytes.Repeat([]byte{byte(size)}, size)}
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.Message.ID)
	}
	return ids
}

// killed is a store of which a kill has left the log, with frames of an earlier log
// behind its own. before are its files at the end of the earlier log.
func killed(t *testing.T) (before, after files, ids []string) {
	t.Helper()
	s := openUnsynced(t, dbPath(t))
	ids = insertSome(t, s, 100_000, 10, 5000, 200_000)
	before = readFiles(t, s.opts.Path)
	var busy, log, copied int
	if err := s.writer.row("PRAGMA wal_checkpoint(RESTART)", nil, &busy, &log, &copied); err != nil || log != copied {
		t.Fatalf("checkpoint = %d of %d, %v", copied, log, err)
	}
	before.db = readFiles(t, s.opts.Path).db
	ids = append(ids, insertSome(t, s, 10, 20_000, 300, 5000, 12)...)
	after = readFiles(t, s.opts.Path)
	if bytes.Equal(before.log[:logHeader], after.log[:logHeader]) || len(before.log) < len(after.log) {
		t.Fatalf("the log was not begun anew, or is longer than before: %d, %d octets, %x %x", len(before.log), len(after.log), before.log[:32], after.log[:32])
	}
	return before, after, ids
}

func report(t *testing.T, log []byte) logReport {
	t.Helper()
	r, err := readLog(bytes.NewReader(log), 4096)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// used asks SQLite how many frames of the log it uses.
func (f files) used(t *testing.T) (frames int) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(f.write(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var busy, copied int
	if err := db.QueryRowContext(t.Context(), "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &frames, &copied); err != nil {
		t.Fatal(err)
	}
	return frames
}

const testFrame = frameHeader + 4096

// TestDamagedLog flips a bit at each place of a log that matters: whenever something
// that was accepted is lost by that, it is told.
func TestDamagedLog(t *testing.T) {
	_, whole, ids := killed(t)
	sound := report(t, whole.log)
	if sound.lost || sound.header || sound.frames == 0 || sound.frames != whole.used(t) {
		t.Fatalf("report of a sound log = %+v, want all frames and no damage", sound)
	}
	var places []int
	for n := range logHeader {
		places = append(places, n)
	}
	for frame := range sound.frames {
		for _, n := range []int{0, 3, 4, 7, 8, 12, 15, 16, 19, 20, 23, 24, 2000, testFrame - 1} {
			places = append(places, logHeader+frame*testFrame+n)
		}
	}
	for i, place := range places {
		bad := files{whole.db, bytes.Clone(whole.log)}
		bad.log[place] ^= 1 << (i % 8)
		got := report(t, bad.log)
		// Without it the log is that of a crash during the last commit.
		last := place >= logHeader+(sound.frames-1)*testFrame
		if got.frames >= sound.frames || got.lost == last || got.header != (place < logHeader) {
			t.Errorf("report with a flipped bit in octet %d = %+v, want it told", place, got)
		}
		if frame := (place - logHeader) / testFrame; place >= logHeader && got.behind != sound.frames-frame-1 {
			t.Errorf("report with a flipped bit in octet %d has %d frames behind, want %d", place, got.behind, sound.frames-frame-1)
		} else if place < logHeader && got.behind != sound.frames {
			t.Errorf("report with a flipped bit in the header has %d frames, want %d", got.behind, sound.frames)
		}
		if i%23 != 0 {
			continue
		}
		if n := bad.used(t); n != got.frames {
			t.Errorf("with a flipped bit in octet %d SQLite uses %d frames, and the report has %d", place, n, got.frames)
		}
		s, logged, found := bad.reopen(t, ids)
		copied, _ := os.ReadFile(s.opts.Path + "-wal.damaged")
		told := strings.Contains(logged, "level=ERROR") && strings.Contains(logged, "may hold accepted mail") && bytes.Equal(copied, bad.log)
		if found == len(ids) || told == last {
			t.Errorf("with a flipped bit in octet %d %d of %d messages are there, told: %v (%s)", place, found, len(ids), told, logged)
		}
		insertSome(t, s, 10)
		if r := report(t, readFiles(t, s.opts.Path).log); r.lost {
			t.Errorf("report of the log that follows on a damaged one = %+v, want no damage", r)
		}
	}
}

// TestKilledLog cuts the log short as a kill may, at each system call that writes to it
// and within: that is no damage, neither at the next start nor after another kill.
func TestKilledLog(t *testing.T) {
	before, after, ids := killed(t)
	frames := report(t, after.log).frames
	cuts := []int{0, logHeader}
	commits := map[int]bool{} // cuts within the last frame of a commit
	for frame := range frames {
		at := logHeader + frame*testFrame
		cuts = append(cuts, at+8, at+16, at+frameHeader, at+frameHeader+512, at+testFrame)
		commits[at+frameHeader] = binary.BigEndian.Uint32(after.log[at+4:]) > 0
	}
	for i, cut := range cuts {
		short := files{before.db, bytes.Clone(after.log[:cut])}
		over := files{before.db, append(bytes.Clone(after.log[:cut]), before.log[cut:]...)}
		for _, f := range []files{short, over} {
			got := report(t, f.log)
			if cut >= logHeader && (got.lost || got.header) {
				t.Errorf("report of a log cut at octet %d = %+v, want no damage", cut, got)
			}
			if i%13 != 0 && !commits[cut] {
				continue
			}
			if n := f.used(t); n != got.frames {
				t.Errorf("of a log cut at octet %d SQLite uses %d frames, and the report has %d", cut, n, got.frames)
			}
			s, logged, _ := f.reopen(t, ids)
			insertSome(t, s, 10)
			again := readFiles(t, s.opts.Path)
			r := report(t, again.log)
			if logged != "" || r.lost {
				t.Errorf("a start on a log cut at octet %d logs %q, and a kill leaves %+v, want no damage", cut, logged, r)
			}
			if _, err := os.Stat(s.opts.Path + "-wal.damaged"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a start on a log cut at octet %d keeps a copy: %v", cut, err)
			}
		}
	}
}

// TestKilledInLargeCommit: SQLite writes to its log before a large transaction ends, and
// changes there what it has written. A kill within is no damage.
func TestKilledInLargeCommit(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	insertSome(t, s, 10)
	var logs [][]byte
	err := s.write(t.Context(), func(w *writer) error {
		for n := range 40 {
			e := randomEntry(30, time.Now())
			e.Content.Data = make([]byte, 300_000+n)
			_, err1 := w.insertBatch(queue.Batch{Entries: []queue.Entry{e}}, w.insertContent)
			var err2 error
			if n%20 == 19 { // change pages that are in the log already
				err2 = w.exec(`UPDATE recipients SET tries = ? WHERE n = 0`, n)
			}
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			logs = append(logs, readFiles(t, s.opts.Path).log)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tails, behind := 0, 0
	for n, log := range logs {
		r := report(t, log)
		if r.lost {
			t.Errorf("report of the log after %d messages of a transaction = %+v, want no damage", n+1, r)
		}
		if r.tail {
			tails++
		}
		if r.behind > 0 {
			behind++
		}
	}
	if tails < len(logs)/2 || behind == 0 {
		t.Errorf("%d of %d logs have frames of the transaction, %d some behind a bad one, want most and some", tails, len(logs), behind)
	}
}

// TestKilledWhileFramesChange: the end of a large commit changes frames that are in the log
// already. A kill within is no damage, as SQLite's index of the log shows. The same frames
// are damage where the commit is over, or where there is no index that tells.
func TestKilledWhileFramesChange(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	insertSome(t, s, 10)
	read := func(suffix string) []byte {
		data, err := os.ReadFile(s.opts.Path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	db := read("")
	var before, indexBefore []byte
	err := s.write(t.Context(), func(w *writer) error {
		for n := range 3 {
			e := randomEntry(30, time.Now())
			e.Content.Data = make([]byte, 4_000_000+n)
			if _, err := w.insertBatch(queue.Batch{Entries: []queue.Entry{e}}, w.insertContent); err != nil {
				return err
			}
		}
		before, indexBefore = read("-wal"), read("-shm")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	after, indexAfter := read("-wal"), read("-shm")
	var changed []int // checksums
	for at := logHeader + 16; at+8 <= len(before); at += testFrame {
		if !bytes.Equal(before[at:at+8], after[at:at+8]) {
			changed = append(changed, at)
		}
	}
	if len(changed) < 100 {
		t.Fatalf("%d frames changed at the end of the commit, want many", len(changed))
	}
	other := bytes.Clone(indexBefore)
	other[32] ^= 1
	other[48+32] ^= 1
	torn := bytes.Clone(indexBefore)
	torn[16] ^= 1
	for n := 0; n < len(changed); n += len(changed)/3 + 1 {
		log := bytes.Clone(after)
		for _, at := range changed[n:] {
			copy(log[at:at+8], before[at:at+8])
		}
		for name, tc := range map[string]struct {
			index []byte
			told  bool
		}{
			"killed": {indexBefore, false}, "committed": {indexAfter, true}, "of another log": {other, true}, "torn": {torn, true}, "short": {indexBefore[:95], true}, "empty": {nil, true},
		} {
			path := files{db, log}.write(t)
			if err := os.WriteFile(path+"-shm", tc.index, 0o600); err != nil {
				t.Fatal(err)
			}
			var logged bytes.Buffer
			s, err := Open(t.Context(), Options{Path: path, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
			if err != nil {
				t.Fatal(err)
			}
			u, err := s.Usage(t.Context())
			if told := strings.Contains(logged.String(), "queue log damaged"); told != tc.told || u.Messages != 1 {
				t.Errorf("index %s, %d frames changed: told %v, %d messages, %v, want %v, one", name, n, told, u.Messages, err, tc.told)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestLogCopyFails: a start that would destroy what is left of lost mail does not happen.
func TestLogCopyFails(t *testing.T) {
	_, f, _ := killed(t)
	f.log[logHeader] ^= 1
	path := f.write(t)
	if err := os.MkdirAll(path+"-wal.damaged/in the way", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := openErr(t, path); err == nil || !strings.Contains(err.Error(), "free space for the copy") {
		t.Errorf("Open without a place for the copy = %v, want what to do", err)
	}
	if log, err := os.ReadFile(path + "-wal"); err != nil || !bytes.Equal(log, f.log) {
		t.Errorf("the log has %d octets, %v, want it as it was", len(log), err)
	}
}

// makeLog writes a log of small pages. Each frame is a commit.
func makeLog(order binary.ByteOrder, frames int) []byte {
	const size = 512
	magic := uint32(logMagic)
	if order == binary.BigEndian {
		magic++
	}
	var sum checksum
	var log []byte
	signed := func(data []byte) []byte {
		sum.add(order, data)
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, sum[0]), sum[1])
	}
	for _, word := range []uint32{magic, 3007000, size, 0, 77, 88} {
		log = binary.BigEndian.AppendUint32(log, word)
	}
	log = append(log, signed(log)...)
	for n := range frames {
		head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(n+1)), uint32(frames))
		page := bytes.Repeat([]byte{byte(n)}, size)
		sum.add(order, head)
		log = slices.Concat(log, head, log[16:24], signed(page), page)
	}
	return log
}

func TestReadLogOfEitherOrder(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		log := makeLog(order, 5)
		if r := report(t, log); r != (logReport{frames: 5, length: int64(len(log))}) {
			t.Errorf("report of a %v log of 5 frames = %+v", order, r)
		}
		log[logHeader+2*(frameHeader+512)+100] ^= 8
		if r := report(t, log); r != (logReport{frames: 2, length: logHeader + 2*(frameHeader+512), tail: true, behind: 2, lost: true}) {
			t.Errorf("report of a %v log whose third frame is bad = %+v", order, r)
		}
	}
}

func FuzzReadLog(f *testing.F) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		log := makeLog(order, 4)
		for _, place := range []int{-1, 3, 20, logHeader + 5, logHeader + 9, logHeader + frameHeader + 600, len(log) - 1} {
			bad := bytes.Clone(log)
			if place >= 0 {
				bad[place] ^= 1
			}
			f.Add(bad)
		}
		f.Add(log[:len(log)-100])
	}
	f.Add(make([]byte, logHeader+frameHeader+512))
	f.Fuzz(func(t *testing.T, log []byte) {
		r, err := readLog(bytes.NewReader(log), 512)
		if err != nil {
			t.Fatal(err)
		}
		if r.length > int64(len(log)) || r.frames*512 > len(log) || r.behind*512 > len(log) || r.lost && r.behind == 0 || r.header && r.frames > 0 {
			t.Errorf("report of %d octets = %+v", len(log), r)
		}
	})
}
