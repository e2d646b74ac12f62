package memory

import (
	"bytes"
	"context"
	"maps"
	"time"

	"mailsidecar/queue"
)

type noteKey struct{ kind, name string }

type note struct {
	value   []byte
	changed time.Time
}

// Notes returns copies.
func (s *Store) Notes(ctx context.Context, kind string) (notes map[string][]byte, now time.Time, err error) {
	err = s.read(ctx, "Notes", func() error {
		notes, now = map[string][]byte{}, time.Now()
		for k, n := range s.notes {
			if k.kind == kind {
				notes[k.name] = bytes.Clone(n.value)
			}
		}
		return nil
	})
	return notes, now, err
}

// ChangeNote changes one note.
func (s *Store) ChangeNote(ctx context.Context, kind, name string, change func(value []byte, now time.Time) []byte) error {
	return s.read(ctx, "ChangeNote", func() error {
		k, now := noteKey{kind, name}, time.Now()
		before := s.notes[k].value
		after := change(bytes.Clone(before), now)
		switch {
		case bytes.Equal(before, after):
			return nil
		case len(after) == 0:
			delete(s.notes, k)
		default:
			s.notes[k] = note{bytes.Clone(after), now}
		}
		s.commits.Add(1)
		return nil
	})
}

// sweepNotes forgets what nobody has changed for long.
func (t *tables) sweepNotes() {
	maps.DeleteFunc(t.notes, func(_ noteKey, n note) bool { return time.Since(n.changed) > queue.NoteLife })
}
