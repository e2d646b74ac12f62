package smtp_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/units"
)

// TestEverythingAtRandom: a rate, several recipients, refused logins, messages that
// expire and callers that leave, at a relay that is slow, odd and picky at random. Each
// delivery ends in its time, no recipient fails for good but by a reply of its own, the
// relay sees neither more connections nor more MAILs than allowed, and afterwards
// nothing is left and mail goes out as before.
func TestEverythingAtRandom(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { everythingAtRandom(t, rand.New(rand.NewPCG(seed, 12))) })
		})
	}
}

func everythingAtRandom(t *testing.T, random *rand.Rand) {
	t.Helper()
	pick := func(n int, actions ...string) string {
		steps := make([]string, n)
		for i := range steps {
			steps[i] = actions[random.IntN(len(actions))]
		}
		return strings.Join(append(steps, "default"), " then ")
	}
	const ok = "default"
	opts := relaytest.Options{
		MaxMessages: random.IntN(6), StaysOpen: random.IntN(2) == 0, EHLOEndsLogin: random.IntN(2) == 0,
		MaxErrors: 20 * random.IntN(2), MaxNonmail: 10 * random.IntN(2),
	}
	if random.IntN(3) == 0 {
		opts.TLSExtensions = relaytest.Without("PIPELINING")
	}
	var rate units.Rate
	if random.IntN(2) == 0 {
		rate = units.Rate{Messages: 2 + random.IntN(20), Per: time.Duration(1+random.IntN(60)) * time.Second}
	}
	allowed := 1 + random.IntN(4)
	script := relaytest.Script{
		"greeting": pick(20, ok, ok, "after 2s 220 slow", "after 20s 220 slow", "bye 421 4.7.0 no"),
		"AUTH":     pick(8, ok, ok, ok, "after 3s 235 ok", "454 4.7.0 later", "535 5.7.8 no"),
		"MAIL":     pick(80, ok, ok, ok, ok, "drop", "450 4.2.0 no", "after 6s 250 ok", "530 5.7.0 login first", "432 4.3.2 Concurrent connections limit exceeded"),
		"RCPT":     pick(120, ok, ok, ok, "550 5.1.1 unknown", "452 4.5.3 too many", "450 4.2.1 busy", "after 4s 250 ok", "drop"),
		"DATA":     pick(60, ok, ok, ok, "after 1s 354 go", "451 4.3.0 no", "554 5.7.1 no"),
		".":        pick(80, ok, ok, "after 3s 250 ok", "after 40s 250 ok", "450 4.2.0 no", "554 5.7.1 spam", "drop", "silence"),
	}
	p := newPoolTest(t, opts, script, func(o *smtp.Options) {
		o.Rate, o.MaxConnections, o.MaxRecipients, o.MessagesPerConnection = rate, allowed, 1+random.IntN(4), 1+random.IntN(12)
	})
	over, most := make(chan struct{}), make(chan int)
	go func() { most <- mostConnections(p.scripted, over) }()
	var all sync.WaitGroup
	var mu sync.Mutex
	var attempts []mailer.Attempt
	for i := range 100 {
		env := envelope(fmt.Sprintf("a%d@example.org", i), fmt.Sprintf("b%d@example.org", i), fmt.Sprintf("c%d@example.org", i))
		env.Priority = mailer.Priority(random.IntN(3) - 1)
		if random.IntN(3) == 0 {
			env.Expires = time.Now().Add(time.Duration(random.IntN(60)) * time.Second)
		}
		patience, hangsUp := time.Duration(1+random.IntN(90))*time.Second, random.IntN(2) == 0
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if hangsUp {
				time.AfterFunc(patience/2, cancel)
			}
			begin := time.Now()
			a := p.relay.Deliver(ctx, env, content(messageText))
			if took := time.Since(begin); took > patience+time.Second {
				t.Errorf("a delivery with %v took %v", patience, took)
			}
			mu.Lock()
			defer mu.Unlock()
			attempts = append(attempts, a)
		})
		time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
	}
	all.Wait()
	time.Sleep(time.Hour) // late verdicts, rests and the pause of the login
	for range 3 {
		p.relay.Deliver(t.Context(), envelope("last@example.org"), content(messageText))
	}
	for _, a := range attempts {
		checkOwnReplies(t, script, p.scripted, a)
	}
	checkAcceptedOnce(t, p.scripted, attempts)
	close(over)
	if most := <-most; most > allowed {
		t.Errorf("%d connections at a time, want %d at most", most, allowed)
	}
	if rate.Messages > 0 {
		checkRate(t, rate, mails(p.scripted))
	}
	if c := p.relay.Connections(); c.Waiting != 0 || c.Open > allowed {
		t.Errorf("in the end: %+v", c)
	}
	p.relay.Close()
	if n := p.network.Open(); n != 0 || p.relay.Connections().Open != 0 {
		t.Errorf("%d connections left open, %d counted", n, p.relay.Connections().Open)
	}
}

// checkAcceptedOnce: no recipient got more than one copy, and what is said to be accepted
// was.
func checkAcceptedOnce(t *testing.T, scripted *relaytest.Relay, attempts []mailer.Attempt) {
	t.Helper()
	copies := map[string]int{}
	for _, m := range scripted.Messages() {
		if !strings.Contains(m.Reply, "250") {
			continue
		}
		for _, path := range m.ForwardPaths {
			copies[path]++
		}
	}
	for _, a := range attempts {
		for _, r := range a.Results {
			if n := copies[r.ForwardPath]; n > 1 || r.Failure == nil && n != 1 {
				t.Errorf("%s got %d copies, and its result is %s", r.ForwardPath, n, outcome(r))
			}
		}
	}
}

// mostConnections returns the greatest number of clients that stay for some time, until
// over is closed.
func mostConnections(scripted *relaytest.Relay, over chan struct{}) (most int) {
	time.Sleep(333 * time.Microsecond) // nothing else happens at the same instants
	ticker := time.NewTicker(77 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-over:
			return most
		case <-ticker.C:
			most = max(most, scripted.Connections())
		}
	}
}
