package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"mailsidecar/queue"
	"mailsidecar/queue/tally"
)

// Insert stores the batch.
func (s *Store) Insert(ctx context.Context, b queue.Batch) (replayed []string, err error) {
	err = s.write(ctx, "Insert", func() (err error) {
		if replayed, err = s.replay(b.Idempotency); err != nil || replayed != nil {
			return err
		}
		known := 0
		for _, e := range b.Entries {
			if m := s.messages[e.Message.ID]; m != nil {
				known++
				if !m.same(e.Message) {
					return fmt.Errorf("message id %s is taken", e.Message.ID)
				}
			}
		}
		switch {
		case known > 0 && known == len(b.Entries):
			return nil
		case known > 0:
			return errors.New("some messages of the batch are stored already")
		}
		for _, e := range b.Entries {
			s.insert(e)
		}
		s.remember(b)
		return nil
	})
	return replayed, err
}

// same says that a message which is to be stored under the id is this one.
func (m *message) same(as queue.Message) bool {
	return m.Key == as.Key && m.MessageID == as.MessageID && m.Created.Equal(as.Created) && m.Size == as.Size
}

// Replay is what Insert would answer to a repeated request.
func (s *Store) Replay(ctx context.Context, i queue.Idempotency) (replayed []string, err error) {
	err = s.read(ctx, "Replay", func() (err error) {
		replayed, err = s.replay(&i)
		return err
	})
	return replayed, err
}

func (t *tables) replay(i *queue.Idempotency) ([]string, error) {
	if i == nil {
		return nil, nil
	}
	r, known := t.requests[requestKey{i.Key, i.Name}]
	switch {
	case !known || !r.expires.After(i.Expires.Add(-queue.IdempotencyLife)):
		return nil, nil
	case r.fingerprint != i.Fingerprint:
		return nil, queue.ErrIdempotencyMismatch
	default:
		return slices.Clone(r.ids), nil
	}
}

func (t *tables) remember(b queue.Batch) {
	if b.Idempotency == nil {
		return
	}
	r := request{fingerprint: b.Idempotency.Fingerprint, expires: b.Idempotency.Expires}
	for _, e := range b.Entries {
		r.ids = append(r.ids, e.Message.ID)
	}
	t.requests[requestKey{b.Idempotency.Key, b.Idempotency.Name}] = r
}

func (t *tables) insert(e queue.Entry) {
	m := &message{Message: e.Message, content: e.Content, clock: e.Message.Expires}
	m.Recipients, m.Attempts = nil, nil
	m.Tags = maps.Clone(m.Tags)
	m.Envelope.ForwardPaths = slices.Clone(m.Envelope.ForwardPaths)
	m.content.Data = bytes.Clone(m.content.Data)
	for n, path := range m.Envelope.ForwardPaths {
		r := &recipient{message: m, n: n, route: e.Route, owner: e.Owner, lease: queue.FirstLease}
		r.ForwardPath, r.State, r.NextAttempt = path, queue.Queued, e.Due
		m.recipients = append(m.recipients, r)
		t.list(r)
	}
	t.messages[m.ID] = m
	if earlier := t.messages[m.ResentOf]; earlier != nil {
		earlier.ResentAs = append(earlier.ResentAs, m.ID)
		earlier.ResentAs = earlier.ResentAs[max(0, len(earlier.ResentAs)-queue.MaxResent):]
	}
	m.status = queue.StatusQueued
	t.numbers.Apply(tally.Change{Key: m.Key, To: m.status, Accepted: len(m.recipients), At: m.Created})
	t.file(m)
}
