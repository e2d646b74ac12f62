package processor

import "hash"

// Digest writes data to h a piece at a time. Go cannot interrupt the digest of one piece: it
// is written in assembly. With 25 MiB at once everything else that begins or ends a garbage
// collection would wait for tens of milliseconds.
func Digest(h hash.Hash, data []byte) {
	for len(data) > 0 {
		n := min(len(data), Small)
		h.Write(data[:n])
		data = data[n:]
	}
}
