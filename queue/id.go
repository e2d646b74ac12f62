package queue

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// NewID returns the id of a message accepted at created: a UUID of version 7
// (RFC 9562 §5.7) with that time, so that ids sort by the time of acceptance. The
// library's own goes by the last time it saw, which a clock that was set back
// would not share with the message.
func NewID(created time.Time) string {
	u := firstID(created)
	// The 12 bits after the version order ids within a millisecond.
	sub := uint16(created.Nanosecond() % 1e6 * 4096 / 1e6) // below 4096
	binary.BigEndian.PutUint16(u[6:], 0x7000|sub)
	_, _ = rand.Read(u[8:]) // never fails (crypto/rand)
	u[8] = u[8]&0x3f | 0x80
	return u.String()
}

// FirstID returns the id that sorts before those of all messages accepted in the
// millisecond of t or later, and after those of earlier ones. Before 1970 there are
// no messages.
func FirstID(t time.Time) string { return firstID(t).String() }

func firstID(t time.Time) (u uuid.UUID) {
	binary.BigEndian.PutUint64(u[:], uint64(max(t.UnixMilli(), 0))<<16)
	return u
}

// MinIDPrefix is how many digits of an id select messages at least: four stand for the
// messages of seven weeks.
const MinIDPrefix = 4

// ErrIDPrefix says that a text is not how an id begins.
var ErrIDPrefix = fmt.Errorf("must be an id, or its first %d or more digits, such as 01a2f3", MinIDPrefix)

// ParseIDPrefix reads how an id begins, with hyphens or without, and returns it
// as [Filter] has it: its hexadecimal digits in lower case. The error is [ErrIDPrefix].
func ParseIDPrefix(text string) (string, error) {
	text = strings.ToLower(text)
	digits := strings.ReplaceAll(text, "-", "")
	if len(digits) < MinIDPrefix || len(digits) > 2*len(uuid.Nil) {
		return "", ErrIDPrefix
	}
	id, err := hex.DecodeString(padded(digits, "0"))
	if err != nil || text != digits && !strings.HasPrefix(uuid.UUID(id).String(), text) {
		return "", ErrIDPrefix
	}
	return digits, nil
}

// IDRange returns the first and the last id that begin with what [ParseIDPrefix] returns.
func IDRange(prefix string) (first, last uuid.UUID) {
	_, _ = hex.Decode(first[:], []byte(padded(prefix, "0")))
	_, _ = hex.Decode(last[:], []byte(padded(prefix, "f")))
	return first, last
}

func padded(digits, with string) string {
	return digits + strings.Repeat(with, 2*len(uuid.Nil)-len(digits))
}

// TimeOf returns when the message with the id was accepted, in whole milliseconds;
// zero when id is not one of [NewID] or [FirstID].
func TimeOf(id string) time.Time {
	u, err := uuid.Parse(id)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(u[:]) >> 16)).UTC() // 48 bits
}
