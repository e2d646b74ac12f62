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
	// Takes reports whether some relay takes mail of a key from that sender. Otherwise
	// SubmitBatch and Submit answer [queue.ErrNoRoute].
	Takes(key, sender string) bool

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
	// cursor, up to limit of them where limit is not zero. That it changes none is no
	// error. Where a step fails after others there is none either: the answer says what was
	// done, and whoever goes on at its Next meets the error.
	RetryMatching(ctx context.Context, f queue.Filter, limit int, cursor string) (queue.Bulk, error)
	// CancelMatching cancels them in the same way.
	CancelMatching(ctx context.Context, f queue.Filter, limit int, cursor string) (queue.Bulk, error)
	// Count counts the messages that f selects, from the start or from a cursor. Where it took
	// long, next is the cursor to go on with; otherwise next is empty.
	Count(ctx context.Context, f queue.Filter, cursor string) (n int, next string, err error)
	// Cancel ends every recipient that is not in a final state; one that is being
	// tried keeps the outcome of that attempt. It returns the message as it
	// is then; [queue.ErrNothingToCancel] when there was no such recipient.
	Cancel(ctx context.Context, key, id string) (queue.Message, error)
	// Resend sends the content of a message to another address, as a new message of the same
	// key; [queue.ErrContentGone] where it was removed. The repetition of a request is answered first.
	Resend(ctx context.Context, key string, r queue.Resend) (queue.Receipt, error)
	// Reschedule makes a message that waits for its SendAt wait until at instead, or be
	// due now where that is zero or past; [queue.ErrNotScheduled] when it does not wait
	// for its time any more.
	Reschedule(ctx context.Context, key, id string, at time.Time) (queue.Message, error)
	// Stats returns the numbers of the key's messages, or of all with [queue.AnyKey].
	Stats(ctx context.Context, key string) (queue.Stats, error)
	// Week returns what happened to these in the last seven days, hour by hour.
	Week(ctx context.Context, key string) ([]queue.Bucket, error)
	// Content returns the message's bytes as they go to the relay, or
	// [queue.ErrContentGone].
	Content(ctx context.Context, key, id string) ([]byte, error)
}
