package queue_test

import (
	"testing"

	"mailsidecar/queue"
	"mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// start runs a queue on an empty store in memory.
func start(t *testing.T, edit func(*queue.Options), relays ...*queuetest.Relay) *queuetest.Queue {
	t.Helper()
	return queuetest.Start(t, memory.New(memory.Options{}), edit, relays...)
}

// restart runs another queue on what q, which has ended or crashes by this, has
// left in its store.
func restart(t *testing.T, q *queuetest.Queue, edit func(*queue.Options), relays ...*queuetest.Relay) *queuetest.Queue {
	t.Helper()
	return queuetest.Start(t, q.Options.Store.(*memory.Store).Reopen(), edit, relays...)
}
