package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"mailsidecar/integration/machine"
	"mailsidecar/integration/mta"
)

// mailing is a set of messages that are handed in together, with the outcome that
// each must have.
type mailing struct {
	server *sidecar
	relay  realRelay
	box    string
	ids    []string            // by the number that is each message's subject
	want   []map[string]string // by number: the state that each recipient must end in
	taken  int                 // messages for the box
	busy   int                 // messages with a recipient that is always busy
	mixed  bool                // some recipient is not the box
}

// mailOut hands in count messages in batches. The patterns in turn name a message's
// recipients, joined by "+": at most one "box", "more" for other mailboxes, "bad"
// for an unknown recipient, and "busy".
func (s *sidecar) mailOut(t *testing.T, relay realRelay, count int, patterns ...string) *mailing {
	t.Helper()
	m := &mailing{server: s, relay: relay, box: relay.Recipient(t)}
	var batch []map[string]any
	for number := range count {
		want := map[string]string{}
		var to []string
		for i, word := range strings.Split(patterns[number%len(patterns)], "+") {
			recipient, state := m.box, "delivered"
			switch word {
			case "bad":
				recipient, state = fmt.Sprintf("unknown%d@%s", i, mta.Domain), "bounced"
				m.mixed = true
			case "more":
				recipient = relay.Recipient(t)
			case "busy":
				recipient, state = "busy@"+mta.Domain, "deferred"
				m.busy++
				m.mixed = true
			default:
				m.taken++
			}
			to = append(to, recipient)
			want[recipient] = state
		}
		m.want = append(m.want, want)
		one := hello(to...)
		one["subject"] = fmt.Sprint(number)
		if batch = append(batch, one); len(batch) == 500 || number == count-1 {
			m.ids = append(m.ids, s.sendBatch(t, batch)...)
			batch = nil
		}
	}
	return m
}

// sendBatch returns the ids of the messages.
func (s *sidecar) sendBatch(t *testing.T, messages []map[string]any) []string {
	t.Helper()
	body, err := json.Marshal(map[string]any{"messages": messages})
	if err != nil {
		t.Fatal(err)
	}
	a := s.request(t, http.MethodPost, "/v1/messages/batch", body, http.Header{"Content-Type": {"application/json"}})
	wantStatus(t, a, http.StatusAccepted)
	var stored struct{ Results []struct{ ID string } }
	if err := json.Unmarshal([]byte(a.Body), &stored); err != nil || len(stored.Results) != len(messages) {
		t.Fatalf("batch of %d: %v\n%s", len(messages), err, a.Body)
	}
	var ids []string
	for _, r := range stored.Results {
		ids = append(ids, r.ID)
	}
	return ids
}

// await waits until only messages with busy recipients are left. If all recipients
// are good, deferred messages are retried at once, so that the test need not wait
// for the schedule. Otherwise they are not, since that would also retry recipients
// that have bounced.
func (m *mailing) await(t *testing.T) {
	t.Helper()
	queued, deferred := 0, 0
	over := machine.Wait(func() bool {
		queued, deferred = m.server.count(t, "queued"), m.server.count(t, "deferred")
		if queued == 0 && deferred == m.busy {
			return true
		}
		if queued == 0 && !m.mixed {
			m.server.request(t, http.MethodPost, "/v1/messages/retry", []byte(`{"status":"deferred"}`),
				http.Header{"Content-Type": {"application/json"}})
		}
		return false
	})
	if !over {
		t.Fatalf("%d messages are queued and %d deferred, want 0 and %d", queued, deferred, m.busy)
	}
}

// count is how many messages have the status.
func (s *sidecar) count(t *testing.T, status string) int {
	t.Helper()
	n, cursor := 0, ""
	for {
		var page struct {
			Messages []struct{ ID string }
			Next     string
		}
		s.get(t, "/v1/messages?limit=100&status="+status+cursor, &page)
		n += len(page.Messages)
		if page.Next == "" {
			return n
		}
		cursor = "&cursor=" + page.Next
	}
}

// check waits for the end and checks the promises: each recipient is in its state,
// and each message for the box has arrived once. Only an uncertain one may arrive
// twice.
func (m *mailing) check(t *testing.T) {
	t.Helper()
	m.await(t)
	for number, id := range m.ids {
		a := m.server.request(t, http.MethodGet, "/v1/messages/"+id, nil, nil)
		for recipient, want := range m.want[number] {
			if got := a.state(recipient); got != want {
				t.Errorf("message %d: state of %s = %s, want %s\n%s", number, recipient, got, want, a.Body)
			}
		}
	}
	copies := map[string]int{}
	for _, got := range m.relay.Await(t, m.box, m.taken) {
		copies[message(t, got.Data).Header.Get("Subject")]++
	}
	for number, want := range m.want {
		n := copies[fmt.Sprint(number)]
		switch {
		case want[m.box] == "":
			if n > 0 {
				t.Errorf("message %d, which is for others, arrived", number)
			}
		case n == 0:
			t.Errorf("message %d did not arrive", number)
		case n > 1 && !m.server.wasUncertain(t, m.ids[number]):
			t.Errorf("message %d arrived %d times, and no attempt on it was uncertain", number, n)
		}
	}
}
