//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"
)

// The short form runs in CI; by hand: go test -tags integration -run TestKill
// ./integration -kill-for 30m -timeout 40m.
var killFor = flag.Duration("kill-for", time.Minute, "how long TestKill keeps killing the server")

const minKills = 50

// TestKill kills the server with SIGKILL at random moments while clients post
// numbered messages, and holds promise 1 against what the relay got: whatever
// was answered 2xx arrives at least once, and what arrives twice was being
// handed over at a kill.
func TestKill(t *testing.T) {
	sink := startSink(t)
	s := newServer(t, sink.environ())
	accepted := &ledger{ids: map[string]string{}}

	s.start(t)
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() { accepted.post(ctx, s.url, c) })
	}
	kills, end := 0, time.Now().Add(*killFor)
	for time.Now().Before(end) || kills < minKills {
		time.Sleep(time.Duration(50+rand.IntN(800)) * time.Millisecond)
		s.kill(t)
		kills++
		s.start(t)
	}
	stop()
	clients.Wait()

	s.drain(t)
	lost, duplicates := 0, 0
	for number, id := range accepted.ids {
		copies := sink.copies(number)
		if copies == 0 {
			lost++
			t.Errorf("message %s (%s) was accepted and did not arrive", number, id)
		}
		if copies > 1 {
			duplicates++
			if !s.wasUncertain(t, id) {
				t.Errorf("message %s (%s) arrived %d times, and no attempt on it was uncertain", number, id, copies)
			}
		}
	}
	t.Logf("%d kills, %d messages accepted, %d lost, %d duplicates of open transactions",
		kills, len(accepted.ids), lost, duplicates)
	if len(accepted.ids) < 10*kills {
		t.Errorf("only %d messages were accepted over %d kills: too few to tell anything", len(accepted.ids), kills)
	}
}

// ledger records which numbers were answered 2xx, and with which id.
type ledger struct {
	mu  sync.Mutex
	ids map[string]string
}

// post posts messages until ctx ends. A request that a kill cut off stays
// unrecorded: it was not accepted, whether or not it was stored.
func (l *ledger) post(ctx context.Context, url string, client int) {
	for n := 0; ctx.Err() == nil; n++ {
		number := fmt.Sprintf("%d-%d", client, n)
		id, err := postNumber(ctx, url, number)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		l.mu.Lock()
		l.ids[number] = id
		l.mu.Unlock()
	}
}

func postNumber(ctx context.Context, url, number string) (id string, err error) {
	body := fmt.Sprintf(`{"from":"shop@example.com","to":["ana@example.org"],"subject":"%s","text":"Order %[1]s","headers":{"X-Number":"%[1]s"}}`, number)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/messages", bytes.NewBufferString(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	var answer struct{ ID string }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusAccepted {
		return "", fmt.Errorf("HTTP %d", res.StatusCode)
	}
	return answer.ID, nil
}
