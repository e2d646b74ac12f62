package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// By hand, the long form:
//
//	go test ./integration -run TestKill -v -kill-for 30m -timeout 40m
var killFor = flag.Duration("kill-for", 0, "how long TestKill kills the server; 0 means 60s with CI=true, else 5s")

// TestKill kills the server with SIGKILL at random moments while clients post
// numbered messages, and checks the first promise of README.md: every message that
// was answered 202 arrives, and one that arrives twice was being handed over at a
// kill.
func TestKill(t *testing.T) {
	t.Parallel()
	span, minKills := killSpan()
	relay := relaytest.New(t, relaytest.Options{}, nil)
	env := durable(t, relay)
	clients, ledger := newClients(t), &ledger{ids: map[string]string{}}

	s := serve(t, env)
	clients.start(s.url, ledger)
	kills := 0
	for end := time.Now().Add(span); time.Now().Before(end) || kills < minKills; kills++ {
		time.Sleep(time.Duration(50+rand.IntN(600)) * time.Millisecond)
		s.kill(t)
		s = serve(t, env)
		if strings.Contains(s.log.String(), "queue log damaged") {
			t.Errorf("after %d kills the log is said to be damaged", kills+1)
		}
		clients.turnTo(s.url)
	}
	clients.stop()

	s.drain(t)
	copies := countCopies(relay)
	lost, duplicates := 0, 0
	for number, id := range ledger.ids {
		switch n := copies[number]; {
		case n == 0:
			lost++
			t.Errorf("message %s (%s) was accepted and did not arrive", number, id)
		case n > 1:
			duplicates++
			if !s.wasUncertain(t, id) {
				t.Errorf("message %s (%s) arrived %d times, and no attempt on it was uncertain", number, id, n)
			}
		}
	}
	t.Logf("%d kills, %d messages accepted, %d lost, %d duplicates of open transactions",
		kills, len(ledger.ids), lost, duplicates)
	if len(ledger.ids) < kills { // a busy machine with the race detector manages few
		t.Errorf("only %d messages were accepted over %d kills: too few to tell anything", len(ledger.ids), kills)
	}
}

func killSpan() (span time.Duration, minKills int) {
	switch {
	case *killFor > 0:
		return *killFor, 1
	case machine.CI():
		return time.Minute, 50
	default:
		return 5 * time.Second, 1
	}
}

// durable is the configuration for a scripted relay with a queue on disk.
func durable(t *testing.T, relay *relaytest.Relay) environment {
	return environment{
		"SMTP_HOST":            "127.0.0.1",
		"SMTP_PORTS":           fmt.Sprintf("%d/starttls", relay.Listen(t)),
		"SMTP_USERNAME":        "shop",
		"SMTP_PASSWORD":        "secret",
		"SMTP_TLS_CA_FILE":     writeFile(t, "ca.pem", string(relaytest.AuthorityPEM())),
		"MAILSIDECAR_DATA_DIR": t.TempDir(),
	}
}

// kill is kill -9.
func (s *sidecar) kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.exited
}

// drain retries the waiting messages until no message waits. On a slow machine some of
// them are held, because they alone were in hand at several kills: a person retries those.
func (s *sidecar) drain(t *testing.T) {
	t.Helper()
	machine.Await(t, "end of what waits", func() bool {
		waiting := 0
		for _, status := range []string{"queued", "deferred", "held"} {
			var page struct{ Messages []json.RawMessage }
			s.get(t, "/v1/messages?limit=1&status="+status, &page)
			waiting += len(page.Messages)
		}
		if waiting == 0 {
			return true
		}
		for _, status := range []string{"deferred", "held"} {
			resp, err := http.Post(s.url+"/v1/messages/retry", "application/json", strings.NewReader(`{"status":"`+status+`"}`))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		}
		return false
	})
}

func (s *sidecar) wasUncertain(t *testing.T, id string) bool {
	t.Helper()
	for _, a := range s.story(t, id).Attempts {
		for _, r := range a.Results {
			if r.Outcome == "uncertain" {
				return true
			}
		}
	}
	return false
}

func (s *sidecar) get(t *testing.T, path string, answer any) {
	t.Helper()
	resp, err := http.Get(s.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %d, %v", path, resp.StatusCode, err)
	}
}

// countCopies counts the messages that the relay accepted, by their number.
func countCopies(relay *relaytest.Relay) map[string]int {
	copies := map[string]int{}
	for _, m := range relay.Messages() {
		_, rest, _ := bytes.Cut(m.Data, []byte("\r\nX-Number: "))
		number, _, _ := bytes.Cut(rest, []byte("\r\n"))
		copies[string(number)]++
	}
	return copies
}

// ledger records which numbers were answered 202, and with which id.
type ledger struct {
	mu  sync.Mutex
	ids map[string]string
}

// wantArrived: every message that was accepted has arrived, and one that arrived twice has an uncertain attempt. Any
// of the servers that know the messages is asked.
func (l *ledger) wantArrived(t *testing.T, relay *relaytest.Relay, s *sidecar) {
	t.Helper()
	copies := countCopies(relay)
	duplicates := 0
	for number, id := range l.ids {
		switch n := copies[number]; {
		case n == 0:
			t.Errorf("message %s (%s) was accepted and did not arrive", number, id)
		case n > 1:
			duplicates++
			if !s.wasUncertain(t, id) {
				t.Errorf("message %s (%s) arrived %d times, and no attempt on it was uncertain", number, id, n)
			}
		}
	}
	t.Logf("%d messages, %d twice", len(l.ids), duplicates)
}

// clients post numbered messages to whichever server runs.
type clients struct {
	ctx    context.Context
	cancel context.CancelFunc
	url    atomic.Value
	work   sync.WaitGroup
}

func newClients(t *testing.T) *clients {
	c := &clients{}
	c.ctx, c.cancel = context.WithCancel(t.Context())
	return c
}

func (c *clients) turnTo(url string) { c.url.Store(url) }

func (c *clients) start(url string, l *ledger) {
	c.turnTo(url)
	for client := range 4 {
		c.work.Go(func() { c.post(client, l) })
	}
}

func (c *clients) stop() {
	c.cancel()
	c.work.Wait()
}

// post posts until the clients are stopped. A request that a kill cut off is not
// recorded: it was not answered, whether or not it was stored.
func (c *clients) post(client int, l *ledger) {
	for n := 0; c.ctx.Err() == nil; n++ {
		number := fmt.Sprintf("%d-%d", client, n)
		id, err := c.postNumber(number)
		if err != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		l.mu.Lock()
		l.ids[number] = id
		l.mu.Unlock()
	}
}

var errNotAccepted = errors.New("not accepted")

func (c *clients) postNumber(number string) (id string, err error) {
	body := fmt.Sprintf(`{"from":"shop@example.com","to":["ana@example.org"],"subject":"Order","text":"Thank you!","headers":{"X-Number":%q}}`, number)
	req, err := http.NewRequestWithContext(c.ctx, http.MethodPost, c.url.Load().(string)+"/v1/messages", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var a struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusAccepted {
		return "", errNotAccepted
	}
	return a.ID, nil
}
