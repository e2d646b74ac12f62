package compose

import (
	"context"
	"errors"
	"fmt"

	"mailsidecar/mailer"
)

// Signer signs messages (DKIM, RFC 6376). The one of package dkim is the real one.
type Signer interface {
	// Room returns how many octets the signatures of a message by that author take at most;
	// zero where it does not sign for the author.
	Room(author string) int
	// Sign returns the header fields that sign the content, to be put in front of it, each
	// with its CRLF; none where it is not to be signed.
	Sign(ctx context.Context, c mailer.Content) ([]byte, error)
}

// Options are what the server decides about a message. The zero value will do.
type Options struct {
	// Reserve is asked before the octets are made.
	Reserve Reserve
	// Signer signs the message; nil signs none.
	Signer Signer
}

// room is how much room the signatures of that author need; zero where there are none.
func (o Options) room(author string) int {
	if o.Signer == nil {
		return 0
	}
	return o.Signer.Room(author)
}

// sign signs c, whose octets stand in data behind so much room for the signatures.
func (o Options) sign(ctx context.Context, c mailer.Content, data []byte, room int) (mailer.Content, error) {
	if room == 0 {
		return c, nil
	}
	return sign(ctx, c, data, room, o.Signer.Sign)
}

// SignError says that a message was made, and could not be signed.
type SignError struct{ Err error }

func (e *SignError) Error() string { return "sign: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *SignError) Unwrap() error { return e.Err }

// sign puts what by returns in front of c, whose octets stand in data behind so much room
// for it. With more, the message is copied once more. The error is a [*SignError].
func sign(ctx context.Context, c mailer.Content, data []byte, room int, by func(context.Context, mailer.Content) ([]byte, error)) (mailer.Content, error) {
	fields, err := by(ctx, c)
	switch {
	case err != nil:
		return mailer.Content{}, &SignError{err}
	case len(fields) == 0:
		return c, nil
	}
	if err := checkLines(fields); err != nil {
		return mailer.Content{}, &SignError{fmt.Errorf("the signature is no header field: %w", err)}
	}
	if hasEightBit(fields) {
		return mailer.Content{}, &SignError{errors.New("the signature is not in ASCII")}
	}
	if len(fields) > room {
		c.Data = append(fields[:len(fields):len(fields)], c.Data...)
		return c, nil
	}
	start := room - len(fields)
	copy(data[start:], fields)
	c.Data = data[start:]
	return c, nil
}
