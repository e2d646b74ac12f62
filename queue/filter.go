package queue

import (
	"errors"
	"time"
)

// AnyKey stands for every API key where a name scopes a look-up. It is for an
// operator's tools only: no API key may be so named, and the handler never
// passes it.
const AnyKey = "*"

// Filter selects messages. A zero field, Key excepted, selects all.
type Filter struct {
	// Key is the name of the API key whose messages these are; the empty name
	// is the key of a server that has none.
	Key    string
	Status Status
	// State selects messages with a recipient in that state.
	State State
	// Recipient is a forward-path and Sender the addr-spec of the From field,
	// whole and compared without regard to ASCII case.
	Recipient string
	Sender    string
	// MessageID is a Message-ID field's value with its angle brackets.
	MessageID string
	// TagName selects messages that have that tag, with TagValue unless that is
	// empty.
	TagName  string
	TagValue string
	// Since (inclusive) and Until (exclusive) limit the time of acceptance.
	Since time.Time
	Until time.Time
}

// Page is a part of a list, the newest message first.
type Page struct {
	// Messages have their recipients but no attempts. They may be fewer than the
	// limit, even zero, though Next is set.
	Messages []Message
	// Next is the cursor of the following page; empty on the last one. It is
	// opaque, printable ASCII without blanks, and stays good while messages come
	// and go.
	Next string
	// SearchedBackTo is set where the search for the page took as long as it may. The
	// page has what was found among the messages accepted since then; Next goes on
	// with the older ones. Otherwise it is zero.
	SearchedBackTo time.Time
}

// Errors that a queue answers a look-up or a command with.
var (
	// ErrInvalidCursor: the cursor was not made by this queue.
	ErrInvalidCursor = errors.New("invalid cursor")
	// ErrTooManyLists: so many lists and searches are wanted at once that this one had no
	// turn in time.
	ErrTooManyLists = errors.New("too many lists and searches at once")
	// ErrSearchTooSlow: the store is so slow that a page could not be read in time.
	ErrSearchTooSlow = errors.New("the search took too long")
	// ErrNothingToRetry: every recipient is delivered, canceled or being tried just now,
	// the message waits for its SendAt, or its bytes are gone.
	ErrNothingToRetry = errors.New("nothing to retry")
	// ErrNothingToCancel: every recipient is in a final state already.
	ErrNothingToCancel = errors.New("nothing to cancel")
	// ErrNotScheduled: the message does not wait for its time any more.
	ErrNotScheduled = errors.New("not scheduled any more")
	// ErrContentGone: the message is known, its bytes were removed.
	ErrContentGone = errors.New("message content removed")
)
