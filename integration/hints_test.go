//go:build linux

package integration

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/integration/postgres"
	"mailsidecar/mailer/relaytest"
)

// TestTold: an instance knows at once what another one has tried, and what it is to cancel.
func TestTold(t *testing.T) {
	t.Parallel()
	late := toldLate(t, 40, 4, 0, nil)
	t.Logf("the other instance answers %v later, the slowest of %d %v", late[len(late)/2], len(late), late[len(late)-1])
	// The machine may be busy, which the slowest ones show. Without being told it were 150 ms.
	if late[len(late)/2] > 50*time.Millisecond {
		t.Errorf("the other instance answers %v later, want within 50 ms", late[len(late)/2])
	}
}

var told = flag.Int("told", 0, "how many messages TestFiguresTold waits for at another instance, for the figures of docs/scaling.md")

// TestFiguresTold measures how much later than the instance that sends another one answers, with notifications and without,
// while nothing else goes on and while both instances accept what they can.
func TestFiguresTold(t *testing.T) {
	if *told == 0 {
		t.Skip("measures for minutes: -told 1000")
	}
	for _, listen := range []string{"", "none"} {
		for _, callers := range []int{0, 8} {
			late := toldLate(t, *told, 8, callers, environment{"MAILSIDECAR_QUEUE_LISTEN": listen})
			at := func(percent int) time.Duration { return late[(len(late)-1)*percent/100].Round(100 * time.Microsecond) }
			load, _ := os.ReadFile("/proc/loadavg")
			t.Logf("MAILSIDECAR_QUEUE_LISTEN=%q, %d callers at each instance beside: the other instance answers later by p50 %v, p90 %v, p99 %v, at most %v; load %s",
				listen, callers, at(50), at(90), at(99), at(100), load)
		}
	}
}

// toldLate returns, in order, how much later than the instance that sends a message another one answers, whose request waits for the
// same message. So many requests are under way at a time, and beside them others that only store something.
func toldLate(t *testing.T, messages, atATime, beside int, more environment) (late []time.Duration) {
	t.Helper()
	db := postgres.Start(t)
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "after 300ms 250 2.0.0 queued"})
	env := shared(t, relay, db.URL()).with(more)
	a, b := serve(t, env), serve(t, env)
	if more["MAILSIDECAR_QUEUE_LISTEN"] == "" {
		for _, s := range []*sidecar{a, b} {
			s.awaitLog(t, "hears what other instances tell")
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer load.Wait()
	defer stop()
	scheduled := strings.Replace(asyncOrder, "{", `{"send_at": "`+time.Now().Add(24*time.Hour).Format(time.RFC3339)+`", `, 1)
	for n := range 2 * beside {
		load.Go(func() {
			for ctx.Err() == nil {
				_ = []*sidecar{a, b}[n%2].post(t, "application/json", []byte(scheduled), nil)
			}
		})
	}
	var mu sync.Mutex
	for round := range messages / atATime {
		var all sync.WaitGroup
		for n := range atATime {
			all.Go(func() {
				header := http.Header{"Prefer": {"wait=20"}, "Idempotency-Key": {fmt.Sprint(round, "-", n)}}
				var answered [2]time.Time
				var both sync.WaitGroup
				for i, s := range []*sidecar{a, b} {
					if i == 1 {
						time.Sleep(100 * time.Millisecond) // it is stored, and being tried
					}
					both.Go(func() {
						got := s.post(t, "application/json", []byte(asyncOrder), header)
						answered[i] = time.Now()
						if got.HTTPStatus != http.StatusOK || got.Status != "delivered" {
							t.Errorf("instance %d answers %d %s", i, got.HTTPStatus, got.Body)
						}
					})
				}
				both.Wait()
				mu.Lock()
				late = append(late, answered[1].Sub(answered[0]))
				mu.Unlock()
			})
		}
		all.Wait()
	}
	if n := len(relay.Messages()); n != len(late) {
		t.Errorf("the relay got %d messages, want %d", n, len(late))
	}
	slices.Sort(late)
	return late
}

// TestCancelElsewhere: what one instance has in memory is canceled at another one, whose answer says so.
func TestCancelElsewhere(t *testing.T) {
	t.Parallel()
	db := postgres.Start(t)
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "after 3s 250 2.0.0 queued"})
	env := shared(t, relay, db.URL()).with(environment{"SMTP_MAX_CONNECTIONS": "1"})
	a, b := serve(t, env), serve(t, env)
	for _, s := range []*sidecar{a, b} {
		s.awaitLog(t, "hears what other instances tell")
	}
	first := a.post(t, "application/json", []byte(asyncOrder), nil)
	wantStatus(t, first, http.StatusAccepted)
	awaitMessages(t, relay, 1) // its reply is to come
	const workers = 3          // for one connection; what they have is marked already, or may be
	for range workers {
		wantStatus(t, a.post(t, "application/json", []byte(asyncOrder), nil), http.StatusAccepted)
	}
	waits := a.post(t, "application/json", []byte(strings.Replace(asyncOrder, "Order", "Canceled", 1)), nil)
	wantStatus(t, waits, http.StatusAccepted)
	got := b.request(t, http.MethodDelete, "/v1/messages/"+waits.ID, nil, nil)
	if got.HTTPStatus != http.StatusOK || got.Status != "canceled" {
		t.Errorf("DELETE at the other instance of what waits in memory = %d %v, want canceled\n%s", got.HTTPStatus, got.Status, got.Body)
	}
	got = b.request(t, http.MethodDelete, "/v1/messages/"+first.ID, nil, nil)
	if got.HTTPStatus != http.StatusOK || got.Status != "queued" {
		t.Errorf("DELETE at the other instance of what is past the final dot = %d %v, want queued until that is answered\n%s", got.HTTPStatus, got.Status, got.Body)
	}
	b.awaitStatus(t, first.ID, "delivered")
	a.drain(t)
	if n := len(relay.Messages()); n != 1+workers {
		t.Errorf("the relay got %d messages, want %d: all but the one that was canceled", n, 1+workers)
	}
}
