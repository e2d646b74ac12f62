package sqlite

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// maxLog is the length of the log that docs/operating.md promises.
const maxLog = 64 << 20

// insertSized stores a message of that many octets, and returns how long the log is then.
func insertSized(t *testing.T, s *Store, size int) int64 {
	t.Helper()
	e := randomEntry(0, time.Now())
	e.Message.Size, e.Content = int64(size), mailer.Content{Data: make([]byte, size)}
	if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.opts.Path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// overlap begins views one after the other until stop is called, each before the one
// before it ends.
func overlap(t *testing.T, s *Store, each time.Duration) (stop func()) {
	t.Helper()
	ended := make(chan struct{})
	for n := range 2 {
		go func() {
			time.Sleep(time.Duration(n) * each / 2)
			for {
				err := s.view(t.Context(), func(v *session) error {
					err := v.read()
					time.Sleep(each)
					return err
				})
				if err != nil {
					t.Errorf("view = %v", err)
				}
				select {
				case <-ended:
					return
				default:
				}
			}
		}()
	}
	return func() {
		close(ended)
		time.Sleep(2 * each)
	}
}

// TestLogStaysShort: the log stays short though views overlap without a gap, and
// though messages come as fast as they can be stored, in any size.
func TestLogStaysShort(t *testing.T) {
	for name, c := range map[string]struct {
		sizes []int
		pause time.Duration // between messages
		each  time.Duration // that a view takes
	}{
		"small messages":           {[]int{100 << 10}, 5 * time.Millisecond, 100 * time.Millisecond},
		"without a pause":          {[]int{1 << 20}, 0, 100 * time.Millisecond},
		"long views":               {[]int{1 << 20}, 0, viewTime * 9 / 10},
		"large messages":           {[]int{25 << 20, 1 << 10, 10 << 20}, 10 * time.Millisecond, 100 * time.Millisecond},
		"the largest batch at all": {[]int{1 << 20, 1 << 20, 1 << 20, 50 << 20}, 0, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			path := dbPath(t)
			synctest.Test(t, func(t *testing.T) {
				s := openUnsynced(t, path)
				stop := overlap(t, s, c.each)
				time.Sleep(time.Second)
				var longest int64
				for n, octets := 0, 0; octets < 2*maxLog; n++ {
					longest = max(longest, insertSized(t, s, c.sizes[n%len(c.sizes)]))
					octets += c.sizes[n%len(c.sizes)]
					time.Sleep(c.pause)
				}
				stop()
				if longest > maxLog {
					t.Errorf("the log got %d octets long, want %d at most", longest, maxLog)
				}
			})
		})
	}
}

// TestLogIsMeasured: the length of the log is that of the file, which is opened once for
// each connection of the writer.
func TestLogIsMeasured(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	for _, size := range []int{1, 1 << 20, 1} {
		want := insertSized(t, s, size)
		if got := s.writer.log.size(); got != want {
			t.Errorf("size of the log = %d, want %d", got, want)
		}
	}
	opened := s.writer.log.file
	insertSized(t, s, 1)
	if s.writer.log.file != opened {
		t.Error("the log was opened for each commit")
	}
	s.writer.unsure = true // the writer is at rest
	want := insertSized(t, s, 1)
	if got := s.writer.log.size(); got != want || s.writer.log.file == opened {
		t.Errorf("size of the log of another connection = %d, want %d of the file opened anew", got, want)
	}
}

// TestLogBehindHangingView: while a view never ends, messages are stored and others
// read, with short delays.
func TestLogBehindHangingView(t *testing.T) {
	path := dbPath(t)
	synctest.Test(t, func(t *testing.T) {
		s := openUnsynced(t, path)
		release, ended := make(chan struct{}), make(chan error)
		go func() {
			ended <- s.view(t.Context(), func(v *session) error { err := v.read(); <-release; return err })
		}()
		synctest.Wait()
		began := time.Now()
		for range 80 {
			insertSized(t, s, 1<<20)
			if err := s.view(t.Context(), (*session).read); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 2*viewTime {
			t.Errorf("messages and views behind one that hangs took %v, want %v at most", took, 2*viewTime)
		}
		close(release)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		time.Sleep(hungPause)
		insertSized(t, s, 1) // copies the log, as no view reads from it
		if log := insertSized(t, s, 1); log > longLog {
			t.Errorf("the log has %d octets once the view has ended, want %d at most", log, longLog)
		}
	})
}

// TestContentInSteps: the bytes of a large message are read in several transactions, so
// that the log can begin anew in between, and messages that are gone meanwhile are told.
func TestContentInSteps(t *testing.T) {
	s := openUnsynced(t, dbPath(t))
	for _, size := range []int{0, 1, chunkSize, contentStep*chunkSize - 1, contentStep * chunkSize, 2*contentStep*chunkSize + 1} {
		e := randomEntry(0, time.Now())
		e.Message.Size, e.Content = int64(size), mailer.Content{Data: bytes.Repeat([]byte("0123456"), size/7+1)[:size]}
		if _, err := s.Insert(t.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
			t.Fatal(err)
		}
		c, err := s.Content(t.Context(), "app", e.Message.ID)
		if err != nil || !bytes.Equal(c.Data, e.Content.Data) {
			t.Errorf("Content of %d octets = %d octets, %v", size, len(c.Data), err)
		}
		if size <= contentStep*chunkSize {
			continue
		}
		id, _ := blob(e.Message.ID)
		r, more := contentReader{key: "app", id: id}, true
		err = s.view(t.Context(), func(v *session) (err error) {
			more, err = r.some(v)
			return err
		})
		if err != nil || !more || len(r.Data) != contentStep*chunkSize {
			t.Fatalf("first step = %d octets, more %v, %v, want %d and more", len(r.Data), more, err, contentStep*chunkSize)
		}
		if err := s.write(t.Context(), func(w *writer) error { return w.deleteContent(id) }); err != nil {
			t.Fatal(err)
		}
		err = s.view(t.Context(), func(v *session) (err error) {
			more, err = r.some(v)
			return err
		})
		if !errors.Is(err, queue.ErrContentGone) {
			t.Errorf("next step after the bytes are gone = %v, want ErrContentGone", err)
		}
	}
}

// TestGateLetsIn: views that come while the gate is shut wait until it opens, or
// leave; at the latest it opens by itself.
func TestGateLetsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		if err := g.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		quiet, opened := g.shut()
		began := time.Now()
		inside := make(chan time.Duration, 2)
		for range 2 {
			go func() {
				if g.enter(t.Context()) == nil {
					inside <- time.Since(began)
				}
			}()
		}
		synctest.Wait()
		if len(inside) > 0 || !g.isShut() {
			t.Error("views entered a gate that is shut")
		}
		time.Sleep(100 * time.Millisecond)
		g.leave()
		<-quiet
		g.open(opened)
		synctest.Wait()
		if g.views != 2 || <-inside != 100*time.Millisecond {
			t.Errorf("views inside = %d, want 2 as soon as it opened", g.views)
		}
		began = time.Now()
		if _, opened = g.shut(); g.enter(t.Context()) != nil || time.Since(began) != viewTime {
			t.Errorf("the gate opened after %v, want %v", time.Since(began), viewTime)
		}
		<-opened
		for range 3 {
			g.leave()
		}
		if quiet, _ = g.shut(); g.views != 0 {
			t.Errorf("views inside = %d, want 0", g.views)
		}
		<-quiet
	})
}
