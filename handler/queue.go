package handler

import (
	"context"

	"mailsidecar/queue"
)

// Queue takes submissions. queue.None answers with the relay's verdict; the
// durable queue once the message is stored, or after Submission.Wait.
type Queue interface {
	// Submit takes one message. When err is nil the receipt's recipients tell
	// what became of each. Once ctx ends, a message that is not stored is
	// abandoned, and one that is goes on.
	Submit(ctx context.Context, s queue.Submission) (queue.Receipt, error)
	// SubmitBatch takes all of them in one durable commit, or none.
	SubmitBatch(ctx context.Context, s []queue.Submission) ([]queue.Receipt, error)
	// Durable says whether an accepted message is stored; false for None.
	Durable() bool
}
