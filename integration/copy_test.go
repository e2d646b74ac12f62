//go:build linux

package integration

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/integration/postgres"
	"mailsidecar/mailer/relaytest"
)

// The flags say how many messages TestQueueCopy moves, and how long the text of each is.
var (
	copyMessages = flag.Int("copy-messages", 2000, "how many messages TestQueueCopy moves")
	copyText     = flag.Int("copy-text", 2000, "how many octets of text each has")
)

// TestQueueCopy: a queue moves from its file to PostgreSQL, and back to another file, by commands that are killed at
// random moments. Until a copy is whole no server starts on either store. Then every message arrives once.
func TestQueueCopy(t *testing.T) {
	t.Parallel()
	db := postgres.Start(t)
	relay := relaytest.New(t, relaytest.Options{}, nil)
	env := durable(t, relay).with(environment{"MAILSIDECAR_QUEUE_MAX_MESSAGES": "1000000"})
	away := env.with(environment{"SMTP_PORTS": "1"})
	s := serve(t, away)
	s.fill(t, *copyMessages, strings.Repeat("word ", *copyText/5))
	s.kill(t) // a crash

	url := writeFile(t, "url", db.URL()+"\n")
	moveKilled(t, env, url)
	inDatabase := away.with(environment{"MAILSIDECAR_QUEUE_FILE": url})
	delete(inDatabase, "MAILSIDECAR_DATA_DIR")
	misspelt := inDatabase.with(environment{"MAILSIDECAR_QUEUE_FILE": writeFile(t, "misspelt", db.URL()+"&schema=other")})
	for _, args := range [][]string{{"--to-file", writeFile(t, "back", "sqlite:"+filepath.Join(t.TempDir(), "queue.db"))}, {"--undo", "--yes"}, {"--undo", "--yes"}} {
		if code, out := exitCode(t, command(t, misspelt, append([]string{"queue", "copy"}, args...)...)); code != 1 || !strings.Contains(out, "there is no queue in the schema of postgres://") {
			t.Errorf("copy %v of a schema that is not there = %d %s", args, code, out)
		}
	}
	s = serve(t, inDatabase)
	if code, out := exitCode(t, command(t, inDatabase, "queue", "copy", "--to-file", writeFile(t, "back", "sqlite:"+filepath.Join(t.TempDir(), "queue.db")))); code != 1 || !strings.Contains(out, "instances that work with it: 1; stop them first") {
		t.Errorf("copy while an instance works = %d %s", code, out)
	}
	s.stop(t)
	file := filepath.Join(t.TempDir(), "moved", "queue.db")
	moveKilled(t, inDatabase, writeFile(t, "back", "sqlite:"+file))

	s = serve(t, env.with(environment{"MAILSIDECAR_QUEUE": "sqlite:" + file}))
	s.request(t, http.MethodPost, "/v1/messages/retry", []byte(`{"status":"deferred"}`), http.Header{"Content-Type": {"application/json"}})
	machine.Await(t, "all messages", func() bool { return len(countCopies(relay)) >= *copyMessages })
	s.drain(t)
	for number, n := range countCopies(relay) {
		if n != 1 {
			t.Errorf("message %s arrived %d times", number, n)
		}
	}
}

// fill posts messages in batches.
func (s *sidecar) fill(t *testing.T, n int, text string) {
	t.Helper()
	const batch = 500
	for done := 0; done < n; {
		var messages []map[string]any
		for len(messages) < min(batch, n-done) {
			messages = append(messages, map[string]any{
				"from": "shop@example.com", "to": []string{"ana@example.org"}, "subject": "Order", "text": text,
				"headers": map[string]string{"X-Number": fmt.Sprint(done + len(messages))},
			})
		}
		body, err := json.Marshal(map[string]any{"messages": messages})
		if err != nil {
			t.Fatal(err)
		}
		header := http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {fmt.Sprint(done)}}
		wantStatus(t, s.request(t, http.MethodPost, "/v1/messages/batch", body, header), http.StatusAccepted)
		done += len(messages)
	}
}

// moveKilled moves the queue. The command is killed some times before it may end.
func moveKilled(t *testing.T, env environment, to string) {
	t.Helper()
	killed := 0
	for wait := 60 * time.Millisecond; ; wait = wait*5/4 + time.Duration(rand.IntN(20))*time.Millisecond {
		cmd := command(t, env, "queue", "copy", "--to-file", to)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(wait, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		began := time.Now()
		err := cmd.Wait()
		inTime := timer.Stop()
		if err == nil {
			if killed == 0 {
				t.Error("the copy was not killed once: this shows nothing")
			}
			t.Logf("killed %d times; the last run took %v: %s", killed, time.Since(began).Round(time.Millisecond), &out)
			return
		}
		if inTime {
			t.Fatalf("queue copy = %v: %s", err, &out)
		}
		killed++
	}
}
