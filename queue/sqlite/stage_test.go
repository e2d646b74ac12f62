package sqlite

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// pagesOfStep is how many pages of the log the commit of one step may take: its octets and a
// few pages of tables.
const pagesOfStep = stageStep/4096 + 64

// TestCommitsAreShort: however large messages are, no commit writes more than a step of
// them, be they stored, changed, or deleted with the last outcome.
func TestCommitsAreShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openUnsynced(t, dbPath(t))
		most := 0
		s.fault = func(happened bool) error {
			if happened {
				most = max(most, s.writer.pagesWritten())
			}
			return nil
		}
		for _, sizes := range [][]int{{25 << 20}, {stageStep + 1}, {10 << 20, 1, 1 << 20}, {stageStep, stageStep, 90_000, 90_000}, {100_000}} {
			b := sizedBatch(sizes...)
			b.Entries[0].Message.SendAt = time.Now().Add(time.Hour)
			b.Entries[0].Owner = ""
			if _, err := s.Insert(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			again := mailer.Content{Data: make([]byte, sizes[0]+1)}
			if ok, err := s.Reschedule(t.Context(), "app", b.Entries[0].Message.ID, time.Now().Add(time.Minute), &again, time.Now()); err != nil || !ok {
				t.Fatalf("Reschedule = %v, %v", ok, err)
			}
			for _, e := range b.Entries {
				if _, err := s.Cancel(t.Context(), "app", e.Owner, []queue.Withdrawal{{ID: e.Message.ID, ForwardPaths: e.Message.Envelope.ForwardPaths}}, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait() // for the janitor
			if n := countRows(t, s, "contents"); n > 0 {
				t.Errorf("%d rows of contents are left of messages that are final", n)
			}
		}
		if most > pagesOfStep {
			t.Errorf("a commit took %d pages, want %d at most", most, pagesOfStep)
		}
	})
}

// TestManyDeletedAtOnce: a commit in which many messages become final deletes little of
// them.
func TestManyDeletedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openUnsynced(t, dbPath(t))
		sizes := make([]int, 60)
		for i := range sizes {
			sizes[i] = 200 << 10
		}
		b := sizedBatch(sizes...)
		if _, err := s.Insert(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		var outcomes []queue.Outcome
		for _, e := range b.Entries {
			outcomes = append(outcomes, delivered(e))
		}
		left := 0
		s.fault = func(happened bool) error {
			if happened && left == 0 {
				if err := s.writer.row(`SELECT count(*) FROM contents`, nil, &left); err != nil {
					t.Error(err)
				}
			}
			return nil
		}
		if _, err := s.Record(t.Context(), outcomes); err != nil {
			t.Fatal(err)
		}
		if most := stageStep / (200 << 10); len(sizes)-left > most {
			t.Errorf("the first commit deleted %d contents, want %d at most", len(sizes)-left, most)
		}
		synctest.Wait()
		if n := countRows(t, s, "contents"); n > 0 {
			t.Errorf("%d rows of contents are left", n)
		}
	})
}

// TestStagesLeaveNothing: whatever fails while messages of many sizes are stored and
// deleted, those that are stored have their bytes, and there are no others; at the next
// start at the latest.
func TestStagesLeaveNothing(t *testing.T) {
	for seed := range uint64(6) {
		random, faults := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
		octets := rand.NewChaCha8([32]byte{byte(seed)}) // an octet at a time takes long with the race detector
		path := dbPath(t)
		stored := map[string][]byte{}
		ids := map[string]queue.Entry{}
		for range 4 {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, path)
				synctest.Wait() // the janitor is at work from the beginning
				if err := s.writer.exec("PRAGMA synchronous = off"); err != nil {
					t.Fatal(err)
				}
				var failing atomic.Bool
				s.fault = func(happened bool) error {
					s.janitor.wake() // it must leave alone what is under way
					if failing.Load() && faults.IntN(6) == 0 {
						return errors.New("commit failed")
					}
					return nil
				}
				for range 12 {
					failing.Store(random.IntN(3) == 0)
					b := sizedBatch(random.IntN(6*chunkSize), random.IntN(12)*chunkSize, random.IntN(100))
					for _, e := range b.Entries {
						_, _ = octets.Read(e.Content.Data)
					}
					_, err := s.Insert(t.Context(), b)
					if err != nil && !failing.Load() {
						t.Errorf("Insert = %v", err)
					}
					for _, e := range b.Entries {
						if has, _ := s.Get(t.Context(), "app", e.Message.ID); err == nil || has.ID != "" {
							stored[e.Message.ID], ids[e.Message.ID] = e.Content.Data, e
						}
					}
					for id, e := range ids {
						if random.IntN(4) == 0 {
							if _, err := s.Record(t.Context(), []queue.Outcome{delivered(e)}); err == nil {
								delete(ids, id)
								delete(stored, id)
							}
						}
					}
				}
				failing.Store(false)
				for id, data := range stored {
					c, err := s.Content(t.Context(), "app", id)
					if err != nil && !errors.Is(err, queue.ErrContentGone) || err == nil && !bytes.Equal(c.Data, data) {
						t.Errorf("the content of a stored message has %d octets and %v, want %d", len(c.Data), err, len(data))
					}
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
		synctest.Test(t, func(t *testing.T) {
			s := openUnsynced(t, path)
			synctest.Wait()
			var rows, want int
			err := s.view(t.Context(), func(v *session) error {
				return errors.Join(v.row(`SELECT count(*) FROM contents`, nil, &rows), v.row(`SELECT coalesce(sum(chunks), 0) FROM messages WHERE body IS NOT NULL`, nil, &want))
			})
			if err != nil || rows != want || countRows(t, s, "loose") > 0 {
				t.Errorf("%d rows of contents, %d of messages, %d loose, %v", rows, want, countRows(t, s, "loose"), err)
			}
			_ = s.Close()
		})
	}
}

func sizedBatch(sizes ...int) (b queue.Batch) {
	for _, size := range sizes {
		e := randomEntry(0, time.Now())
		e.Message.Size, e.Content = int64(size), mailer.Content{Data: make([]byte, size)}
		b.Entries = append(b.Entries, e)
	}
	return b
}

// delivered is the outcome that all of the message was delivered.
func delivered(e queue.Entry) queue.Outcome {
	o := queue.Outcome{ID: e.Message.ID, Owner: e.Owner, Route: e.Route, At: time.Now()}
	for _, path := range e.Message.Envelope.ForwardPaths {
		o.Changes = append(o.Changes, queue.Change{ForwardPath: path, State: queue.Delivered})
	}
	return o
}

func countRows(t *testing.T, s *Store, table string) (n int) {
	t.Helper()
	err := s.view(t.Context(), func(v *session) error { return v.row(`SELECT count(*) FROM `+table, nil, &n) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestUnwantedAtSecondTry: content that the first try of a commit hands over, and the
// second does not want, is deleted at once.
func TestUnwantedAtSecondTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openUnsynced(t, dbPath(t))
		commits := 0
		s.fault = func(happened bool) error {
			if happened {
				return nil
			}
			switch commits++; commits {
			case 1:
				time.Sleep(time.Second) // until both others wait, which makes them a group: outcomes share one with large content
			case 2:
				return errors.New("a fault of the disk")
			}
			return nil
		}
		small := func(patient bool) {
			if err := s.writer.do(t.Context(), &write{patient: patient, run: func(*writer) error { return nil }}); err != nil {
				t.Error(err)
			}
		}
		go small(false)
		time.Sleep(time.Millisecond)
		go small(true)
		tries := 0
		content := mailer.Content{Data: make([]byte, 100_000)}
		err := s.staged(t.Context(), []mailer.Content{content}, false, func(_ *writer, hand handOver) error {
			if tries++; tries > 1 {
				return nil
			}
			_, err := hand(content)
			return err
		})
		if err != nil || tries != 2 {
			t.Fatalf("staged = %v after %d tries, want 2", err, tries)
		}
		synctest.Wait() // for the janitor
		if n := countRows(t, s, "contents"); n > 0 {
			t.Errorf("%d rows of contents are left that nobody wants", n)
		}
	})
}
