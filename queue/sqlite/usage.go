package sqlite

import (
	"context"

	"mailsidecar/queue"
)

// Usage reads what the writer has counted.
func (s *Store) Usage(ctx context.Context) (queue.Usage, error) {
	var u queue.Usage
	err := s.view(ctx, func(v *session) error {
		return v.row(`SELECT messages, bytes FROM usage`, nil, &u.Messages, &u.Bytes)
	})
	return u, err
}

// add counts messages of size octets each that the open transaction makes unfinished; a
// negative number is of those that it finishes.
func (w *writer) add(messages, size int64) {
	w.added.Messages += messages
	w.added.Bytes += messages * size
}

// count stores what the transaction has counted, just before it commits.
func (w *writer) count() error {
	if w.added == (queue.Usage{}) {
		return nil
	}
	return w.exec(`UPDATE usage SET messages = messages + ?, bytes = bytes + ?`, w.added.Messages, w.added.Bytes)
}
