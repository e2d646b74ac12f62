package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// operated is a server that is killed at random while somebody operates it.
type operated struct {
	*sidecar
	env            environment
	relay          *relaytest.Relay
	clients        *clients
	ledger         *ledger
	dir            string // of the backups
	backups        int
	last           map[string]bool // the ids that the last backup must have
	kills          int
	paused         bool // as the last command that ended well has left it
	killedCommands int  // in a row, before they were done
}

// TestOperateUnderKills: backups, restores, pauses and drains under load, with SIGKILL at
// random in the middle of server and commands. Nothing that was accepted is lost, what
// arrives twice was uncertain, each backup is sound and has what was accepted before it,
// and a pause holds over a kill.
func TestOperateUnderKills(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, nil)
	o := &operated{env: durable(t, relay), relay: relay, clients: newClients(t), ledger: &ledger{ids: map[string]string{}}, dir: t.TempDir()}
	o.sidecar = serve(t, o.env)
	o.clients.start(o.url, o.ledger)
	steps := []func(*operated, *testing.T){(*operated).backUp, (*operated).pauseOrResume, (*operated).drainAWhile, (*operated).restoreSame}
	span := 8 * time.Second
	if machine.CI() {
		span = 30 * time.Second
	}
	// On a busy machine a command may take longer to start than it has: then it goes on until
	// there is a backup.
	for n, end := 0, time.Now().Add(span); time.Now().Before(end) || n < 2*len(steps) || o.backups == 0 && n < 20*len(steps); n++ {
		steps[n%len(steps)](o, t)
		if t.Failed() {
			break
		}
	}
	o.clients.stop()
	o.run(t, 0, "relay", "resume")
	o.drain(t)
	if out := o.run(t, 0, "drain"); !strings.Contains(out, "Drained: nothing is due.") {
		t.Errorf("drain said %s", out)
	}
	o.checkCopies(t)
	o.checkBackup(t)
}

// checkCopies compares what was accepted with what arrived.
func (o *operated) checkCopies(t *testing.T) {
	t.Helper()
	copies, twice := countCopies(o.relay), 0
	for number, id := range o.ledger.ids {
		switch n := copies[number]; {
		case n == 0:
			t.Errorf("message %s (%s) was accepted and did not arrive", number, id)
		case n > 1:
			if twice++; !o.wasUncertain(t, id) {
				t.Errorf("message %s (%s) arrived %d times, and no attempt on it was uncertain", number, id, n)
			}
		}
	}
	t.Logf("%d kills, %d backups, %d messages accepted, %d of them uncertain and sent twice", o.kills, o.backups, len(o.ledger.ids), twice)
	if len(o.ledger.ids) < 10 || o.backups == 0 {
		t.Error("too little happened to tell anything")
	}
}

// run runs a command of the product against the server to its end.
func (o *operated) run(t *testing.T, want int, args ...string) string {
	t.Helper()
	code, out := exitCode(t, command(t, o.env.with(environment{"MAILSIDECAR_URL": o.url}), args...))
	if code != want {
		t.Errorf("mailsidecar %s = %d, want %d: %s", strings.Join(args, " "), code, want, out)
	}
	return out
}

// killed runs a command and kills it at random; ended says that it was done before. One has
// more time than the one before it, until one is done.
func (o *operated) killed(t *testing.T, args ...string) (ended bool) {
	t.Helper()
	cmd := command(t, o.env.with(environment{"MAILSIDECAR_URL": o.url}), args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Duration(rand.IntN(150*(1+o.killedCommands)))*time.Millisecond, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if ended = cmd.Wait() == nil; ended {
		o.killedCommands = 0
	} else {
		o.killedCommands++
	}
	return ended
}

// restart kills the server after a while and starts another.
func (o *operated) restart(t *testing.T) {
	t.Helper()
	time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
	o.kill(t)
	o.start(t)
}

func (o *operated) start(t *testing.T) {
	t.Helper()
	o.kills++
	o.sidecar = serve(t, o.env)
	if strings.Contains(o.log.String(), "queue log damaged") {
		t.Errorf("after %d kills the log is said to be damaged", o.kills)
	}
	o.clients.turnTo(o.url)
}

// accepted are the ids of what was accepted by now.
func (o *operated) accepted() map[string]bool {
	o.ledger.mu.Lock()
	defer o.ledger.mu.Unlock()
	ids := map[string]bool{}
	for id := range maps.Values(o.ledger.ids) {
		ids[id] = true
	}
	return ids
}

func (o *operated) file() string { return filepath.Join(o.dir, fmt.Sprintf("backup-%d.db", o.backups)) }

// backUp makes a backup beside the server, which is killed meanwhile, or with the command
// itself killed. A file that is there is whole.
func (o *operated) backUp(t *testing.T) {
	before := o.accepted()
	ended := make(chan bool, 1)
	file := o.file()
	if rand.IntN(2) == 0 {
		ended <- o.killed(t, "queue", "backup", file)
	} else {
		go func() { ended <- o.run(t, 0, "queue", "backup", file) != "" }()
		time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
		o.kill(t)
		defer o.start(t)
	}
	done := <-ended
	switch _, err := os.Stat(file); {
	case errors.Is(err, fs.ErrNotExist):
		if done {
			t.Errorf("%s is not there after the command has ended", file)
		}
		return
	case err != nil:
		t.Fatal(err)
	}
	o.backups, o.last = o.backups+1, before
	if code, out := exitCode(t, command(t, o.env, "queue", "check", file)); code != 0 {
		t.Errorf("the backup is not sound: %d %s", code, out)
	}
}

// pauseOrResume pauses the relay, or resumes it. Where it is paused, nothing is sent after a
// kill.
func (o *operated) pauseOrResume(t *testing.T) {
	if o.paused {
		o.run(t, 0, "relay", "resume")
		o.paused = false
		o.restart(t)
		return
	}
	o.run(t, 0, "relay", "pause", "--reason", "kills")
	o.paused = true
	o.kill(t)
	time.Sleep(300 * time.Millisecond) // the relay may still read what was on its way
	before := len(o.relay.Messages())
	o.start(t)
	time.Sleep(time.Duration(200+rand.IntN(300)) * time.Millisecond)
	if n := len(o.relay.Messages()) - before; n > 0 {
		t.Errorf("%d messages were sent to a paused relay after a kill", n)
	}
}

// drainAWhile drains the server, kills it in the middle, and ends with one that accepts mail
// again: a drain does not survive.
func (o *operated) drainAWhile(t *testing.T) {
	o.killed(t, "drain")
	o.restart(t)
	var d struct{ Draining bool }
	if o.get(t, "/v1/drain", &d); d.Draining {
		t.Error("a drain has survived a kill")
	}
}

// restoreSame kills the server and replaces its store with a copy of the same state, killed
// at random as well: whichever of the two is there afterwards, nothing has changed.
func (o *operated) restoreSame(t *testing.T) {
	o.kill(t)
	file := filepath.Join(o.dir, "same.db")
	if code, out := exitCode(t, command(t, o.env, "queue", "backup", "--force", file)); code != 0 {
		t.Fatalf("backup without a server: %d %s", code, out)
	}
	o.killed(t, "queue", "restore", "--yes", file)
	if code, out := exitCode(t, command(t, o.env, "queue", "check")); code != 0 {
		t.Errorf("the store is not sound after a restore: %d %s", code, out)
	}
	o.start(t)
}

// checkBackup: the last backup has every message that was accepted before it was begun.
func (o *operated) checkBackup(t *testing.T) {
	t.Helper()
	env := o.env.with(environment{"MAILSIDECAR_QUEUE": "sqlite:" + filepath.Join(o.dir, fmt.Sprintf("backup-%d.db", o.backups-1))})
	cmd := command(t, env, "queue", "list", "--limit", "1000000", "--json")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list the backup: %v", err)
	}
	var messages []struct{ ID string }
	if err := json.Unmarshal(out, &messages); err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	for _, m := range messages {
		has[m.ID] = true
	}
	for id := range o.last {
		if !has[id] {
			t.Errorf("message %s was accepted before the last backup, which does not have it", id)
		}
	}
}
