//go:build linux

package integration

import (
	"fmt"
	"net/http"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/integration/postgres"
	"mailsidecar/mailer/relaytest"
)

// TestFrozenDatabaseMemory posts large mail, much more than there is memory, while the database stands still. The
// server stays within its memory with default settings, and goes on afterwards.
func TestFrozenDatabaseMemory(t *testing.T) {
	group := machine.LimitMemory(t, 512<<20)
	lean := leanBinary(t)
	db := postgres.Start(t)
	relay := relaytest.New(t, relaytest.Options{TLSExtensions: append(relaytest.Without("SIZE"), "SIZE 104857600"), Kept: 4 << 10}, nil)
	command := append(group.Enter(), lean, "serve")
	s := serveAs(t, shared(t, relay, db.URL()), func(cmd *exec.Cmd) { cmd.Path, cmd.Args = command[0], command })
	contentType, large, _ := asJSON(t, 25<<20/78*57-(4<<10))
	_, middling, _ := asJSON(t, 1<<20)
	wantStatus(t, s.post(t, contentType, large, nil), http.StatusAccepted) // in pieces
	db.Freeze(t)
	var refused, octets atomic.Int64
	var all sync.WaitGroup
	end := time.Now().Add(6 * time.Second)
	for n := range 40 {
		body := middling
		if n < 8 {
			body = large
		}
		all.Go(func() {
			for time.Now().Before(end) {
				if a := s.post(t, contentType, body, nil); a.HTTPStatus != http.StatusServiceUnavailable {
					t.Errorf("POST without a database = %d %s", a.HTTPStatus, a.Code)
				}
				refused.Add(1)
				octets.Add(int64(len(body)))
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	all.Wait()
	db.Thaw(t)
	s.awaitReady(t)
	machine.Await(t, "mail to be accepted again", func() bool { return s.post(t, contentType, large, nil).HTTPStatus == http.StatusAccepted })
	if n := group.Killed(t); n > 0 || s.ended() {
		t.Fatalf("the kernel has killed the server %d times", n)
	}
	t.Logf("%d requests with %d MiB were refused", refused.Load(), octets.Load()>>20)
	s.wantMemory(t, "VmHWM", 96+2*128) // the formula of docs/operating.md, with the defaults
	if octets.Load() < 1<<30 {
		t.Errorf("%d MiB tell nothing of a limit of 512", octets.Load()>>20)
	}
}

// TestDatabaseRestarts: the database crashes ten times while two instances take and deliver mail. All that was
// accepted arrives, and what arrives twice has an uncertain attempt.
func TestDatabaseRestarts(t *testing.T) {
	t.Parallel()
	const crashes = 10
	db := postgres.Start(t)
	relay := relaytest.New(t, relaytest.Options{}, nil)
	env := shared(t, relay, db.URL())
	l := &ledger{ids: map[string]string{}}
	accepted := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.ids)
	}
	var servers []*sidecar
	var work sync.WaitGroup
	all := newClients(t)
	for i := range 2 {
		s := serve(t, env)
		servers = append(servers, s)
		c := &clients{ctx: all.ctx}
		c.turnTo(s.url)
		for client := range 2 {
			work.Go(func() {
				for n := 0; c.ctx.Err() == nil; n++ {
					number := fmt.Sprintf("%d-%d-%d", i, client, n)
					if id, err := c.postNumber(number); err == nil {
						l.mu.Lock()
						l.ids[number] = id
						l.mu.Unlock()
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
	}
	defer work.Wait()
	defer all.cancel()
	for n := range crashes {
		taken, delivered := accepted(), len(relay.Messages())
		machine.Await(t, fmt.Sprintf("mail before crash %d", n), func() bool { return accepted() > taken+20 && len(relay.Messages()) > delivered+20 })
		db.Stop()
		db.Run(t)
	}
	taken := accepted()
	machine.Await(t, "mail after the last crash", func() bool { return accepted() > taken+20 })
	all.cancel()
	work.Wait()
	for _, s := range servers {
		s.awaitReady(t)
		s.drain(t)
	}
	l.wantArrived(t, relay, servers[0])
}
