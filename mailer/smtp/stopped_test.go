package smtp_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
)

// countedConn counts the octets that are written.
type countedConn struct {
	net.Conn
	written *atomic.Int64
}

func (c countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// TestMaySend: whenever the envelope says that the message may not be sent any more, the relay
// does not get the end of its content, and is not in trouble. It is asked before the first
// octet of the content, and once all of it is written but the final dot.
func TestMaySend(t *testing.T) {
	for name, text := range map[string]string{"short": messageText, "long": messageText + strings.Repeat("0123456789abcdef\r\n", 10_000)} {
		calls := 1000                      // how often it is asked, once that is known
		for no := 1; no <= calls+1; no++ { // at last it is never said
			synctest.Test(t, func(t *testing.T) {
				scripted := relaytest.New(t, relaytest.Options{}, nil)
				network := &relaytest.Network{Port: map[int]any{587: scripted}}
				var written atomic.Int64
				opts := options(network)
				opts.Ladder = opts.Ladder[:1]
				opts.Dial = func(ctx context.Context, n, addr string) (net.Conn, error) {
					c, err := network.Dial(ctx, n, addr)
					return countedConn{c, &written}, err
				}
				relay := newRelay(t, opts)
				n, said := 0, int64(-1) // what was written when it said no
				var at []int64          // what was written when it was asked, from DATA on
				env := envelope("b@example.org", "c@example.org")
				env.MaySend = func() bool {
					if n++; n < no {
						if scripted.Said("DATA") > 0 {
							at = append(at, written.Load())
						}
						return true
					}
					said = max(said, written.Load())
					return false
				}
				a := relay.Deliver(t.Context(), env, content(text))
				synctest.Wait()
				if no > calls || n < no { // it was always allowed
					calls = n
					if outcomes(a) != "accepted 250, accepted 250" {
						t.Errorf("%s: Deliver() = %s, want accepted", name, outcomes(a))
					}
					if whole := at[len(at)-1] - at[0]; whole < int64(len(text)) {
						t.Errorf("%s: asked after %v octets, want it asked before the content, and after it", name, at)
					}
					if left := written.Load() - at[len(at)-1]; left > 100 {
						t.Errorf("%s: %d octets were written after it was asked last, want the final dot alone", name, left)
					}
					return
				}
				for _, r := range a.Results {
					if r.Failure == nil || !errors.Is(r.Failure, mailer.ErrMayNotSend) || r.Failure.Scope() != mailer.ScopeMessage || r.Failure.TriesNext() {
						t.Errorf("%s, no at question %d: %s, want ErrMayNotSend, which is about no relay", name, no, outcome(r))
					}
				}
				if got := len(scripted.Messages()); got != 0 {
					t.Errorf("%s, no at question %d: the relay got %d messages, want none", name, no, got)
				}
				if more := written.Load() - said; more > 100 {
					t.Errorf("%s, no at question %d: %d octets were written after that, want none but the end of TLS", name, no, more)
				}
				env.MaySend = nil
				if a := relay.Deliver(t.Context(), env, content(text)); a.Results[0].Failure != nil {
					t.Errorf("%s: the next delivery = %s, want accepted", name, outcomes(a))
				}
			})
		}
	}
}
