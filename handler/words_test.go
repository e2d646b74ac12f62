package handler

import (
	"testing"

	"mailsidecar/api"
	"mailsidecar/queue"
)

// TestStatusWords: server and clients have one word for a message, whatever states its
// recipients are in; and a list by a state knows with which statuses that comes.
func TestStatusWords(t *testing.T) {
	states := []queue.State{queue.Queued, queue.Deferred, queue.Held, queue.Delivered, queue.Bounced, queue.Expired, queue.Canceled}
	for set := 1; set < 1<<len(states); set++ {
		n := map[queue.State]int{}
		var recipients []api.Recipient
		for i, state := range states {
			if set&(1<<i) != 0 {
				n[state] = 1
				recipients = append(recipients, api.Recipient{State: string(state)})
			}
		}
		status := queue.StatusOf(n)
		if got := api.StatusOf(recipients); got != string(status) {
			t.Errorf("api.StatusOf(%v) = %s, want %s", n, got, status)
		}
		for state := range n {
			if !status.Has(state) {
				t.Errorf("%s.Has(%s) = false, and %v is %s", status, state, n, status)
			}
		}
	}
}

// TestStatusFilter: the words for messages and for recipients are both taken.
func TestStatusFilter(t *testing.T) {
	for word, want := range map[string]queue.Filter{
		"failed": {Key: "shop", Status: queue.StatusFailed}, "deferred": {Key: "shop", Status: queue.StatusDeferred},
		"bounced": {Key: "shop", State: queue.Bounced}, "expired": {Key: "shop", State: queue.Expired},
		"waiting": {Key: "shop", Among: queue.SetOf(queue.StatusQueued, queue.StatusDeferred)},
	} {
		for _, target := range []string{"GET /v1/messages?status=" + word, "POST /v1/messages/retry"} {
			q := &fakeQueue{durable: true}
			s := newTestServer(t, q, nil)
			r := newRequest("GET", "/v1/messages?status="+word, "")
			if target[0] == 'P' {
				r = newRequest("POST", "/v1/messages/retry", `{"status":"`+word+`"}`)
			}
			if got := serve(s, r); got.status != 200 || q.filter != want {
				t.Errorf("%s with %s = %d %s, filter %+v, want %+v", target, word, got.status, text(got), q.filter, want)
			}
		}
	}
	if got := serve(newTestServer(t, &fakeQueue{durable: true}, nil), newRequest("GET", "/v1/messages?status=rejected", "")); got.status != 400 {
		t.Errorf("status=rejected = %d, want 400", got.status)
	}
}
