package queue

import (
	"errors"
	"slices"
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
	// Among selects messages with one of these statuses.
	Among StatusSet
	// State selects messages with a recipient in that state, whatever the fields below
	// ask of a recipient.
	State State
	// ID is how the id begins, as [ParseIDPrefix] returns it.
	ID string
	// Sender is the addr-spec of the From field, whole. ASCII case does not count.
	Sender string
	// Subject has words, see [SubjectWords], each of which the first [SubjectSearched] characters of the decoded
	// subject have in them; case does not count.
	Subject string

	// What follows is asked of one and the same recipient.

	// Recipient is a forward-path, whole, and Domain what is behind its last @. ASCII case
	// does not count.
	Recipient      string
	Domain         string
	RecipientState State
	// Relay, ReplyCode, EnhancedCode and Text are those of a last attempt that failed. Text
	// is a pattern for the reply's text, or ours where
	// there was no reply; a * in it stands for anything, and ASCII case does not count.
	Relay        string
	ReplyCode    int
	EnhancedCode string
	Text         string
	NoText       bool // the reply has no text

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

// ByReply says that the filter selects by why recipients were not delivered.
func (f Filter) ByReply() bool {
	return f.Relay != "" || f.ReplyCode != 0 || f.EnhancedCode != "" || f.Text != "" || f.NoText
}

// ByRecipient says that the filter asks something of a recipient.
func (f Filter) ByRecipient() bool {
	return f.Recipient != "" || f.Domain != "" || f.RecipientState != "" || f.ByReply()
}

// Retryable selects what a retry may change, of what the filter selects: without a status,
// messages of which nothing was tried yet are left out.
func (f Filter) Retryable() Filter {
	if f.Status == "" && f.Among == 0 {
		f.Among = SetOf(StatusDeferred, StatusHeld, StatusPartial, StatusFailed)
	}
	return f
}

// Cancelable selects what is not final, of what the filter selects.
func (f Filter) Cancelable() Filter {
	open := SetOf(StatusQueued, StatusDeferred, StatusHeld)
	if f.Among != 0 {
		open &= f.Among
	}
	f.Among = open
	return f
}

// Bulk is what a command has done to the messages that a filter selects.
type Bulk struct {
	Matched int // how many were selected
	Changed int // how many of them it has changed
	// Next is the cursor to go on with where more may match; otherwise it is empty.
	Next string
}

// StatusSet is a set of statuses; zero stands for all of them.
type StatusSet uint8

// SetOf returns the set of these statuses.
func SetOf(statuses ...Status) (set StatusSet) {
	for _, s := range statuses {
		set |= 1 << slices.Index(Statuses, s)
	}
	return set
}

// Has says that the status is in the set.
func (set StatusSet) Has(s Status) bool { return set == 0 || set&SetOf(s) != 0 }

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
