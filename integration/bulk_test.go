package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// bulkMessages is how many messages of each kind TestBulkUnderKills has.
const bulkMessages = 600

// TestBulkUnderKills: cancel, retry and export by filter, with SIGKILL at random in the middle of command and server,
// and repeated until they are done: what was canceled is never sent, all else arrives, twice only where an attempt was
// uncertain, and an export that ended is whole.
func TestBulkUnderKills(t *testing.T) {
	t.Parallel()
	busy := relaytest.New(t, relaytest.Options{}, relaytest.Script{"RCPT": "450 4.2.1 busy"})
	relay := relaytest.New(t, relaytest.Options{}, nil)
	o := &operated{env: durable(t, busy), relay: relay, clients: newClients(t), ledger: &ledger{ids: map[string]string{}}, dir: t.TempDir()}
	o.sidecar = serve(t, o.env)
	o.clients.turnTo(o.url)
	canceled := o.submitMany(t, "cancel")
	sent := o.submitMany(t, "send")
	raced := o.submitMany(t, "race")
	machine.Await(t, "first try of all messages", func() bool { return o.count(t, "status=deferred") == 3*bulkMessages })
	o.run(t, 0, "relay", "pause")
	o.kill(t)
	o.env["SMTP_PORTS"] = fmt.Sprintf("%d/starttls", relay.Listen(t))
	o.start(t)

	file := filepath.Join(o.dir, "send.mbox")
	o.untilDone(t, "queue", "export", "--tag", "do=send", "--to", file, "--force")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for number := range sent {
		if n := bytes.Count(data, []byte("\nX-Number: "+number+"\n")); n != 1 {
			t.Errorf("the export has message %s %d times", number, n)
		}
	}
	o.untilDone(t, "queue", "cancel", "--tag", "do=cancel", "--yes")
	if n := o.count(t, "status=canceled"); n != bulkMessages {
		t.Errorf("%d messages are canceled, want %d", n, bulkMessages)
	}
	o.untilDone(t, "queue", "retry", "--tag", "do=send")
	if n := len(relay.Messages()); n > 0 {
		t.Errorf("%d messages were sent to a paused relay", n)
	}

	// The rest goes out while it is canceled.
	o.run(t, 0, "relay", "resume")
	o.untilDone(t, "queue", "retry", "--tag", "do=race")
	o.untilDone(t, "queue", "cancel", "--tag", "do=race", "--yes")
	o.untilDone(t, "queue", "retry", "--tag", "do=send")
	o.drain(t)

	copies := countCopies(relay)
	for number, id := range canceled {
		if n := copies[number]; n > 0 {
			t.Errorf("message %s (%s) was canceled and arrived %d times", number, id, n)
		}
	}
	for number, id := range sent {
		if n := copies[number]; n == 0 || n > 1 && !o.wasUncertain(t, id) {
			t.Errorf("message %s (%s) arrived %d times", number, id, n)
		}
	}
	out := 0
	for number, id := range raced {
		var m struct{ Status string }
		o.get(t, "/v1/messages/"+id, &m)
		n := copies[number]
		switch {
		case m.Status == "delivered" && n == 0, m.Status != "delivered" && m.Status != "canceled":
			t.Errorf("message %s (%s) is %s, and arrived %d times", number, id, m.Status, n)
		case n > 1 || m.Status == "canceled" && n > 0:
			if !o.wasUncertain(t, id) {
				t.Errorf("message %s (%s) is %s, and arrived %d times, and no attempt on it was uncertain", number, id, m.Status, n)
			}
		}
		out += min(n, 1)
	}
	t.Logf("%d kills of the server; of %d messages that were canceled while they went out, %d went", o.kills, len(raced), out)
	if code, out := exitCode(t, command(t, o.env, "queue", "check")); code != 0 {
		t.Errorf("the store is not sound: %d %s", code, out)
	}
}

// submitMany submits messages with a tag, and returns their ids by their number.
func (o *operated) submitMany(t *testing.T, do string) map[string]string {
	t.Helper()
	ids := map[string]string{}
	const batch = 200
	for n := 0; n < bulkMessages; n += batch {
		var all []string
		for i := n; i < n+batch; i++ {
			all = append(all, fmt.Sprintf(`{"from":"shop@example.com","to":["ana@example.org"],"subject":"x","text":"x","tags":{"do":%q},"headers":{"X-Number":"%s-%d"}}`, do, do, i))
		}
		resp, err := http.Post(o.url+"/v1/messages/batch", "application/json", strings.NewReader(`{"messages":[`+strings.Join(all, ",")+`]}`))
		if err != nil {
			t.Fatal(err)
		}
		var answer struct{ Results []struct{ ID string } }
		err = json.NewDecoder(resp.Body).Decode(&answer)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusAccepted || len(answer.Results) != batch {
			t.Fatalf("batch = %d, %d results, %v", resp.StatusCode, len(answer.Results), err)
		}
		for i, r := range answer.Results {
			ids[fmt.Sprintf("%s-%d", do, n+i)] = r.ID
		}
	}
	return ids
}

// count counts the messages that a query selects.
func (o *operated) count(t *testing.T, query string) (total int) {
	t.Helper()
	for cursor := ""; ; {
		var n struct {
			Matching int
			Next     string
		}
		o.get(t, "/v1/messages/count?"+query+cursor, &n)
		if total += n.Matching; n.Next == "" {
			return total
		}
		cursor = "&cursor=" + n.Next
	}
}

// untilDone repeats a command, with it or the server killed at random, and lets the last one end.
func (o *operated) untilDone(t *testing.T, args ...string) {
	t.Helper()
	for range 3 {
		if o.killed(t, args...) {
			break
		}
		cmd := command(t, o.env.with(environment{"MAILSIDECAR_URL": o.url}), args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		o.kill(t)
		_ = cmd.Wait() // as it may
		o.start(t)
	}
	o.run(t, 0, args...)
}
