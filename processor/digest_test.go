package processor

import (
	"crypto/sha256"
	"hash"
	"testing"
)

// longest counts how much is written at once.
type longest struct {
	hash.Hash
	n int
}

func (l *longest) Write(b []byte) (int, error) {
	l.n = max(l.n, len(b))
	return l.Hash.Write(b)
}

func TestDigest(t *testing.T) {
	for _, size := range []int{0, 1, Small, Small + 1, 3*Small - 1, 3 * Small} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i * i)
		}
		l := &longest{Hash: sha256.New()}
		Digest(l, data)
		if got := [sha256.Size]byte(l.Sum(nil)); got != sha256.Sum256(data) || l.n > Small {
			t.Errorf("the digest of %d octets is %x, written in pieces of up to %d", size, got, l.n)
		}
	}
}
