package smtp

import (
	"crypto/tls"
	"sync"
	"time"
)

// staleHandshake is how long a certificate counts that the relay has shown: a port that is not
// used any more is not asked again, and may long have another one.
const staleHandshake = 12 * time.Hour

// certificates are those that the relay has shown, by port. The last one counts.
type certificates struct {
	mu     sync.Mutex
	byPort map[int]shownCertificate
}

type shownCertificate struct{ ends, seenAt time.Time }

func (c *certificates) note(port int, state *tls.ConnectionState) {
	if len(state.PeerCertificates) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byPort == nil {
		c.byPort = map[int]shownCertificate{}
	}
	c.byPort[port] = shownCertificate{ends: state.PeerCertificates[0].NotAfter, seenAt: time.Now()}
}

// Certificates returns when the certificates end that the relay has shown last, by port.
// Ports where no handshake was made with success within 12 hours are missing.
func (r *Relay) Certificates() map[int]time.Time {
	r.seen.mu.Lock()
	defer r.seen.mu.Unlock()
	ends := map[int]time.Time{}
	for port, c := range r.seen.byPort {
		if time.Since(c.seenAt) <= staleHandshake {
			ends[port] = c.ends
		}
	}
	return ends
}
