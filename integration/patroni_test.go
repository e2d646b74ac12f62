//go:build linux

package integration

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/integration/postgres"
	"mailsidecar/mailer/relaytest"
)

// failoverTime is how long a failover may take: Patroni needs twenty seconds for a machine that
// hangs.
const failoverTime = 30 * time.Second

// TestFailover: two instances at a primary with a synchronous standby, under Patroni. The primary
// dies in three ways while mail is posted and delivered: no message that was acknowledged is lost,
// one that arrives twice has an uncertain attempt, and mail is accepted and delivered again within
// half a minute.
func TestFailover(t *testing.T) {
	t.Parallel()
	cluster := postgres.StartCluster(t)
	relay := relaytest.New(t, relaytest.Options{}, nil)
	env := shared(t, relay, cluster.URL())
	var servers []*sidecar
	var all []*clients
	l := &ledger{ids: map[string]string{}}
	accepted := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.ids)
	}
	var work sync.WaitGroup
	for i := range 2 {
		servers = append(servers, serve(t, env))
		c := newClients(t)
		c.turnTo(servers[i].url)
		all = append(all, c)
		work.Go(func() {
			for n := 0; c.ctx.Err() == nil; n++ {
				number := fmt.Sprintf("%d-%d", i, n)
				if id, err := c.postNumber(number); err == nil {
					l.mu.Lock()
					l.ids[number] = id
					l.mu.Unlock()
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	defer work.Wait()
	defer func() {
		for _, c := range all {
			c.cancel()
		}
	}()
	var dead *postgres.Node
	for _, fault := range []struct {
		name   string
		happen func(leader *postgres.Node)
		mend   func()
	}{
		{"the postmaster is killed", (*postgres.Node).KillPostmaster, nil},
		{"the primary is killed", (*postgres.Node).Kill, func() { dead.Start(t) }},
		// Nobody lets it go on: Patroni without a watchdog may then have two primaries for a moment.
		{"the primary hangs", (*postgres.Node).Freeze, nil},
	} {
		dead = cluster.Leader(t)
		before := accepted()
		machine.Await(t, "mail before "+fault.name, func() bool { return accepted() > before+20 })
		began := time.Now()
		fault.happen(dead)
		// What is accepted from now on may still be of before: the answers on their way.
		time.Sleep(500 * time.Millisecond)
		taken, delivered := accepted(), len(relay.Messages())
		machine.Await(t, "mail after "+fault.name, func() bool { return accepted() > taken+20 && len(relay.Messages()) > delivered+20 })
		took := time.Since(began)
		t.Logf("%s: mail goes on after %v, %d accepted so far", fault.name, took.Round(100*time.Millisecond), accepted())
		if took > failoverTime {
			t.Errorf("%s: mail goes on after %v, want within %v", fault.name, took, failoverTime)
		}
		if fault.mend != nil {
			fault.mend()
		}
	}
	for _, c := range all {
		c.cancel()
	}
	work.Wait()
	for _, s := range servers {
		s.awaitReady(t)
		s.drain(t)
	}
	l.wantArrived(t, relay, servers[0])
	for _, s := range servers {
		if s.ended() {
			t.Errorf("an instance has ended: %v", s.err)
		}
		if strings.Contains(s.log.String(), "hunter2") {
			t.Error("a log has the password of the database")
		}
	}
}
