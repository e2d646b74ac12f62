package handler

import (
	"context"
	"time"

	"mailsidecar/queue"
)

// Submitter takes submissions. queue.Direct answers with the relay's verdict;
// queue.Durable once the message is stored, or after Submission.Wait.
type Submitter interface {
	// Submit takes one message. When err is nil the receipt has the state of each
	// recipient. Once ctx ends, a message that is not stored is abandoned; a stored
	// one goes on.
	Submit(ctx context.Context, s queue.Submission) (queue.Receipt, error)
}

// Ledger looks up stored messages and changes them.
//
// The look-ups and commands are scoped by the name of the API key: a message of
// another key is [queue.ErrNotFound].
type Ledger interface {
	// SubmitBatch takes all of them in one durable commit, or none. They bear the
	// same idempotency key and fingerprint; a repeat gets the receipts of those
	// that were stored, in their order.
	SubmitBatch(ctx context.Context, s []queue.Submission) ([]queue.Receipt, error)

	// Get returns a message with its recipients and attempts.
	Get(ctx context.Context, key, id string) (queue.Message, error)
	// List returns up to limit messages (limit > 0), from the start or from a
	// cursor that an earlier page gave: else [queue.ErrInvalidCursor].
	List(ctx context.Context, f queue.Filter, limit int, cursor string) (queue.Page, error)
	// Retry makes every deferred, held, bounced or expired recipient due now and
	// returns the message as it is then; [queue.ErrNothingToRetry] when there is
	// no such recipient.
	Retry(ctx context.Context, key, id string) (queue.Message, error)
	// RetryMatching does so for the messages that f selects, from the start or from a
	// cursor, and returns how many it changed; zero is no error. Where it took long,
	// next is the cursor to go on with; otherwise next is empty.
	RetryMatching(ctx context.Context, f queue.Filter, cursor string) (n int, next string, err error)
	// Cancel ends every recipient that is not in a final state; one that is being
	// tried keeps the outcome of that attempt. It returns the message as it
	// is then; [queue.ErrNothingToCancel] when there was no such recipient.
	Cancel(ctx context.Context, key, id string) (queue.Message, error)
	// Reschedule makes a message that waits for its SendAt wait until at instead, or be
	// due now where that is zero or past; [queue.ErrNotScheduled] when it does not wait
	// for its time any more.
	Reschedule(ctx context.Context, key, id string, at time.Time) (queue.Message, error)
	// Content returns the message's bytes as they go to the relay, or
	// [queue.ErrContentGone].
	Content(ctx context.Context, key, id string) ([]byte, error)
}
