package smtp_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// TestLadder races the rungs 587 and 2525 in every state they can be in.
func TestLadder(t *testing.T) {
	works := relaytest.Script{}
	silent := relaytest.Script{"greeting": "silence"}
	tests := []struct {
		name           string
		port587, other any // a fate, or the script of a relay
		want           string
		port           int
		took           time.Duration
	}{
		{"both work", works, works, "accepted 250", 587, 0},
		{"refused, works", relaytest.Refused, works, "accepted 250", 2525, 0},
		{"black hole, works", relaytest.BlackHole, works, "accepted 250", 2525, 300 * time.Millisecond},
		{"silent, works", silent, works, "accepted 250", 2525, 300 * time.Millisecond},
		{"dropped, works", relaytest.Script{"greeting": "drop"}, works, "accepted 250", 2525, 0},
		{"no STARTTLS, works", relaytest.Script{"STARTTLS": "454 4.7.0 no"}, works, "accepted 250", 2525, 0},
		{"421, works", relaytest.Script{"greeting": "bye 421 4.7.0 later"}, works, "accepted 250", 2525, 0},
		{"black hole, black hole", relaytest.BlackHole, relaytest.BlackHole, "relay connect", 0, 5300 * time.Millisecond},
		{"refused, refused", relaytest.Refused, relaytest.Refused, "relay connect", 0, 0},
		{"refused, silent", relaytest.Refused, silent, "relay greeting", 0, 30 * time.Second},
		{"AUTH refused: no other rung", relaytest.Script{"AUTH": "535 5.7.8 no"}, works, "relay auth 535", 587, 0},
		{"AUTH dropped: no other rung", relaytest.Script{"AUTH": "drop"}, works, "relay auth", 587, 0},
		{"MAIL refused: no other rung", relaytest.Script{"MAIL": "550 5.7.1 no"}, works, "permanent mail 550", 587, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := &relaytest.Network{Port: map[int]any{587: behind(t, tt.port587), 2525: behind(t, tt.other)}}
				relay := newRelay(t, options(network))
				begin := time.Now()
				a := relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
				if took := time.Since(begin); took != tt.took {
					t.Errorf("Deliver() took %v, want %v", took, tt.took)
				}
				if got := outcomes(a); got != tt.want || a.Rung.Port != tt.port {
					t.Errorf("Deliver() = %s on port %d, want %s on port %d", got, a.Rung.Port, tt.want, tt.port)
				}
				relay.Close()
				if n := network.Open(); n != 0 {
					t.Errorf("%d connections left open", n)
				}
			})
		})
	}
}

func behind(t *testing.T, x any) any {
	if script, ok := x.(relaytest.Script); ok {
		return relaytest.New(t, relaytest.Options{}, script)
	}
	return x
}

// TestLadderLosers: only the winner of a race logs in.
func TestLadderLosers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := relaytest.New(t, relaytest.Options{}, relaytest.Script{"greeting": "drip 220 ok"})
		fast := relaytest.New(t, relaytest.Options{}, nil)
		network := &relaytest.Network{Port: map[int]any{587: slow, 2525: fast}}
		relay := newRelay(t, options(network))
		a := relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
		want := []mailer.RungReport{
			{Rung: mailer.Rung{Port: 587}, Duration: 300 * time.Millisecond},
			{Rung: mailer.Rung{Port: 2525}, Won: true},
		}
		if !slices.Equal(a.Ladder, want) {
			t.Errorf("Ladder = %+v, want %+v", a.Ladder, want)
		}
		synctest.Wait()
		if n := network.Open(); n != 1 {
			t.Errorf("%d connections open after the race, want the winner's", n)
		}
		if n := len(slow.Credentials()) + slow.Said("AUTH"); n != 0 {
			t.Errorf("the loser was shown credentials")
		}
	})
}

// slowDial makes the connections to one port take some time.
func slowDial(network *relaytest.Network, slow string, d time.Duration) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, kind, addr string) (net.Conn, error) {
		if strings.HasSuffix(addr, ":"+slow) {
			time.Sleep(d)
		}
		return network.Dial(ctx, kind, addr)
	}
}

// TestLadderTie: two rungs come in at the same moment, and the second is closed
// all the same.
func TestLadderTie(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			first, second := relaytest.New(t, relaytest.Options{}, nil), relaytest.New(t, relaytest.Options{}, nil)
			network := &relaytest.Network{Port: map[int]any{587: first, 2525: second}}
			opts := options(network)
			opts.Dial = slowDial(network, "587", raceDelay)
			relay := newRelay(t, opts)
			if got, want := outcomes(relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))), "accepted 250"; got != want {
				t.Errorf("Deliver() = %s, want %s", got, want)
			}
			relay.Close()
			if n := network.Open(); n != 0 {
				t.Errorf("%d connections left open", n)
			}
			if n := len(first.Credentials()) + len(second.Credentials()); n != 1 {
				t.Errorf("%d logins, want 1", n)
			}
		})
	}
}

// TestLadderSlow: a rung that is known is not raced only because it is far away.
func TestLadderSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := relaytest.New(t, relaytest.Options{}, relaytest.Script{"greeting": "after 600ms 220 far away"})
		second := relaytest.New(t, relaytest.Options{}, relaytest.Script{"greeting": "drop then default"})
		network := &relaytest.Network{Port: map[int]any{587: first, 2525: second}}
		opts := options(network)
		opts.MessagesPerConnection = 1
		relay := newRelay(t, opts)
		for i, want := range []int{1, 1} { // dials to 2525 so far: only the first race
			if a := relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText)); a.Rung.Port != 587 {
				t.Errorf("delivery %d served on port %d (%s), want 587", i, a.Rung.Port, outcomes(a))
			}
			if got := second.Served(); got != want {
				t.Errorf("after delivery %d: %d connections to 2525, want %d", i, got, want)
			}
		}
	})
}

// TestLadderRemembers: once a rung has won no message pays for the others, and
// the preferred one is taken back when it works again.
func TestLadderRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := relaytest.New(t, relaytest.Options{}, nil), relaytest.New(t, relaytest.Options{}, nil)
		network := &relaytest.Network{Port: map[int]any{587: relaytest.BlackHole, 2525: second}}
		opts := options(network)
		opts.MessagesPerConnection = 1
		relay := newRelay(t, opts)
		deliver := func(wantPort int, wantTook time.Duration) mailer.Attempt {
			t.Helper()
			begin := time.Now()
			a := relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
			if outcomes(a) != "accepted 250" || a.Rung.Port != wantPort || time.Since(begin) != wantTook {
				t.Errorf("Deliver() = %s on port %d after %v, want port %d after %v", outcomes(a), a.Rung.Port, time.Since(begin), wantPort, wantTook)
			}
			return a
		}
		deliver(2525, raceDelay)
		if a := deliver(2525, 0); a.Ladder != nil {
			t.Errorf("Ladder = %+v when the rung was known, want none", a.Ladder)
		}

		network.Set(587, first)
		time.Sleep(61 * time.Second)
		if n := len(first.Credentials()); n != 0 {
			t.Errorf("the probe logged in %d times", n)
		}
		deliver(587, 0)

		// The remembered rung fails: the others are raced within the attempt.
		network.Set(587, relaytest.Refused)
		a := deliver(2525, 0)
		if len(a.Ladder) != 2 || a.Ladder[0].Failure == nil || !a.Ladder[1].Won {
			t.Errorf("Ladder = %+v, want 587 failed and 2525 won", a.Ladder)
		}
		network.Set(587, first)
		time.Sleep(61 * time.Second)
		deliver(587, 0)
		network.Set(587, relaytest.BlackHole)
		deliver(2525, raceDelay)
		dials := len(network.Dials())
		time.Sleep(10 * time.Minute)
		if probes := network.Dials()[dials:]; len(probes) != 10 || slices.Contains(probes, 2525) {
			t.Errorf("probed %v in ten minutes, want port 587 each minute", probes)
		}
		relay.Close()
		if n := network.Open(); n != 0 {
			t.Errorf("%d connections left open", n)
		}
	})
}

const raceDelay = 300 * time.Millisecond

// TestLadderStops: a stopped attempt does not change what is known of the ladder.
func TestLadderStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &relaytest.Network{Port: map[int]any{587: relaytest.BlackHole, 2525: relaytest.BlackHole}}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("request over"))
		defer cancel()
		begin := time.Now()
		a := newRelay(t, options(network)).Deliver(ctx, envelope("b@example.org"), content(messageText))
		if got, want := outcomes(a), "relay connect"; got != want || time.Since(begin) != time.Second {
			t.Errorf("Deliver() = %s after %v, want %s after 1s", got, time.Since(begin), want)
		}
	})
}

// TestPorts meets real sockets: the rung after a refused port wins, and the one
// after a port whose packets are dropped does before that one's dial ends.
func TestPorts(t *testing.T) {
	scripted := relaytest.New(t, relaytest.Options{}, nil)
	port := scripted.Listen(t)
	tests := []struct {
		name    string
		first   int
		refused bool
	}{
		{"refused", relaytest.RefusedPort(t), true},
		{"black hole", relaytest.BlackHolePort(t), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			relay := newRelay(t, smtp.Options{
				Host: "127.0.0.1", Ladder: []mailer.Rung{{Port: tt.first}, {Port: port}},
				Username: "user", Password: "secret", RootCAs: relaytest.RootCAs(),
			})
			a := relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
			if got := outcomes(a); got != "accepted 250" || a.Rung.Port != port {
				t.Fatalf("Deliver() = %s on port %d, want accepted on %d", got, a.Rung.Port, port)
			}
			// A rung that is cut short has no failure.
			if first := a.Ladder[0]; first.Rung.Port != tt.first || first.Won || (first.Failure != nil) != tt.refused {
				t.Errorf("first rung = %+v, want port %d with a failure: %t", first, tt.first, tt.refused)
			}
		})
	}
}
