package queue

import (
	"crypto/rand"
	"encoding/binary"
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

// TimeOf returns when the message with the id was accepted, in whole milliseconds;
// zero when id is not one of [NewID] or [FirstID].
func TimeOf(id string) time.Time {
	u, err := uuid.Parse(id)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(u[:]) >> 16)).UTC() // 48 bits
}
