package smtp_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// TestCallersLeave: whenever callers leave a slow relay, and however, the relay never
// has more connections than allowed. Callers with patience are served all the while.
func TestCallersLeave(t *testing.T) {
	const allowed = 3
	tests := []struct {
		name   string
		script relaytest.Script
	}{
		{"slow at the final dot", relaytest.Script{".": "after 8s 250 2.0.0 ok"}},
		{"slow at MAIL", relaytest.Script{"MAIL": "after 4s 250 2.1.0 ok"}},
		{"slow at each command", relaytest.Script{
			"AUTH": "after 1s 235 2.7.0 ok", "MAIL": "after 1s 250 2.1.0 ok", "RCPT": "after 1s 250 2.1.5 ok", "DATA": "after 1s 354 go",
			".": "after 2s 250 2.0.0 ok",
		}},
		{"slow at EHLO", relaytest.Script{"EHLO": "after 2s 250-relay.test\n250-STARTTLS\n250-PIPELINING\n250 AUTH PLAIN"}},
		{"slow after a refusal", relaytest.Script{"RCPT": "after 2s 550 5.1.1 unknown then default", "RSET": "after 2s 250 ok"}},
	}
	for _, tt := range tests {
		for _, keywords := range [][]string{nil, {"PIPELINING"}} {
			for seed := range uint64(4) {
				t.Run(fmt.Sprintf("%s without %v, %d", tt.name, keywords, seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						p := newPoolTest(t, relaytest.Options{TLSExtensions: relaytest.Without(keywords...)}, tt.script, func(o *smtp.Options) {
							o.MaxConnections, o.MessagesPerConnection = allowed, 10
						})
						leaveAtRandom(t, p, rand.New(rand.NewPCG(seed, 7)))
						if most := p.scripted.Most(); most > allowed {
							t.Errorf("%d connections at a time at the relay, want %d at most", most, allowed)
						}
						if a := p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText)); a.Results[0].Failure != nil {
							t.Errorf("Deliver() in the end = %v, want it accepted", a.Results[0].Failure)
						}
						p.relay.Close()
						if n := p.network.Open(); n != 0 || p.relay.Connections().Open != 0 {
							t.Errorf("%d connections left open, %d counted", n, p.relay.Connections().Open)
						}
					})
				})
			}
		}
	}
}

// leaveAtRandom delivers a hundred messages whose callers hang up or time out after
// up to ten seconds, some of them with other callers in line.
func leaveAtRandom(t *testing.T, p *poolTest, random *rand.Rand) {
	t.Helper()
	var callers sync.WaitGroup
	for range 100 {
		patience, hangsUp := time.Duration(random.Int64N(int64(10*time.Second))), random.IntN(2) == 0
		callers.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			if hangsUp {
				time.AfterFunc(patience, cancel)
			} else {
				ctx, cancel = context.WithTimeout(ctx, patience)
			}
			defer cancel()
			begin := time.Now()
			a := p.relay.Deliver(ctx, envelope("b@example.org"), content(messageText))
			if took := time.Since(begin); took > patience+time.Second {
				t.Errorf("a caller that leaves after %v is answered after %v", patience, took)
			}
			for _, r := range a.Results {
				if r.Failure != nil && r.Failure.Class == mailer.ClassPermanent && r.Failure.Reply.Code == 0 {
					t.Errorf("Deliver() = %v", r.Failure)
				}
			}
		})
		time.Sleep(time.Duration(random.Int64N(int64(600 * time.Millisecond))))
	}
	callers.Wait()
}
