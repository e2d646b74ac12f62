package smtp

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"testing"
	"testing/synctest"
	"time"
)

// TestCertificatesGrowStale: what a port has not shown for half a day does not count any more:
// a port that is not used is not asked again, though its certificate was renewed long ago.
func TestCertificatesGrowStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Relay
		end := time.Now().Add(24 * time.Hour)
		state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{NotAfter: end}}}
		r.seen.note(587, &tls.ConnectionState{})
		r.seen.note(587, state)
		r.seen.note(2525, state)
		for _, step := range []struct {
			after time.Duration
			want  map[int]time.Time
		}{
			{0, map[int]time.Time{587: end, 2525: end}},
			{11 * time.Hour, map[int]time.Time{587: end, 2525: end}},
			{2 * time.Hour, map[int]time.Time{587: end}},
			{12 * time.Hour, map[int]time.Time{}},
		} {
			time.Sleep(step.after)
			if got := r.Certificates(); !maps.Equal(got, step.want) {
				t.Errorf("%v later: %v, want %v", step.after, got, step.want)
			}
			if step.after == 11*time.Hour {
				r.seen.note(587, state)
			}
		}
	})
}
