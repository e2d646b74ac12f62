package smtp_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// TestLoginsOfInstances: several instances with a wrong password are refused no more often than one, and when it is right
// again all of them send.
func TestLoginsOfInstances(t *testing.T) {
	refused := map[int]int{}
	for _, n := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			b := newBoard()
			p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"AUTH": strings.Repeat("after 100ms 535 5.7.8 wrong password then ", 7) + "default"}, nil)
			relays := []*smtp.Relay{p.relay}
			for len(relays) < n {
				o := p.opts
				o.Logins = nil // of another process
				relays = append(relays, newRelay(t, o))
			}
			began := time.Now()
			var all sync.WaitGroup
			for _, r := range relays {
				r.ShareLogins(b.note)
				for range 4 / n {
					all.Go(func() {
						for time.Since(began) < 2*time.Hour {
							if a := r.Deliver(t.Context(), envelope("a@example.org"), content(messageText)); a.Results[0].Failure == nil {
								return
							}
							time.Sleep(time.Second)
						}
						t.Error("it is not delivered within two hours")
					})
				}
			}
			time.Sleep(30 * time.Minute)
			for _, c := range p.scripted.Commands() {
				if strings.HasPrefix(c.Line, "AUTH") {
					refused[n]++
				}
			}
			all.Wait()
		})
	}
	if refused[4] > refused[1] || refused[1] < 5 {
		t.Errorf("logins in half an hour by one and by four instances = %v, want no more by four", refused)
	}
	t.Log(refused)
}

// TestLoginOutcomesLost: an instance that could not tell the others of a refused login, or does not know
// whether it has, forgets it not. Refused logins are as rare as ever.
func TestLoginOutcomesLost(t *testing.T) {
	logins := map[string]int{}
	for _, lost := range []string{"", "before", "after"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBoard()
			p := newPoolTest(t, relaytest.Options{}, relaytest.Script{"AUTH": strings.Repeat("535 5.7.8 wrong password then ", 2000) + "default"}, nil)
			count := func() (n int) {
				for _, c := range p.scripted.Commands() {
					if strings.HasPrefix(c.Line, "AUTH") {
						n++
					}
				}
				return n
			}
			told := 0
			p.relay.ShareLogins(func(ctx context.Context, kind, name string, change func([]byte, time.Time) []byte) error {
				if n := count(); lost != "" && n > told { // a login has just been refused
					told = n
					if lost == "after" {
						_ = b.note(ctx, kind, name, change)
					}
					return errAway
				}
				return b.note(ctx, kind, name, change)
			})
			for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(time.Second) {
				p.relay.Deliver(t.Context(), envelope("a@example.org"), content(messageText))
			}
			logins[lost] = count()
		})
	}
	if logins[""] < 5 || logins[""] > 10 || logins["before"] != logins[""] || logins["after"] != logins[""] {
		t.Errorf("logins within an hour = %v, want as many whatever is lost", logins)
	}
}

// TestLoginsWithoutPlace: while the place of the note does not answer, logins go on.
func TestLoginsWithoutPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard()
		b.away = true
		p := newPoolTest(t, relaytest.Options{}, nil, nil)
		p.relay.ShareLogins(b.note)
		p.deliver(t, "accepted 250")
	})
}
