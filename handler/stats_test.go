package handler

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/keys"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

func someStats(now time.Time) queue.Stats {
	s := queue.Stats{
		Statuses: map[queue.Status]int64{queue.StatusDeferred: 3}, OldestDue: now.Add(-time.Hour),
		Hour:    queue.Window{Since: now.Add(-time.Hour), Counts: queue.Counts{Messages: 2, Accepted: 4, Delivered: 1, Deferred: 5, Bounced: 6, Uncertain: 7}},
		Buckets: []queue.Bucket{{At: now, Counts: queue.Counts{Messages: 2}}},
		Keys:    []queue.KeyStats{{Name: "shop", Statuses: map[queue.Status]int64{queue.StatusDeferred: 3}, Day: queue.Counts{Accepted: 4}}},
		Relays:  []queue.RelayStats{{Name: "b", Day: queue.Counts{Bounced: 6}}, {Name: "old", Day: queue.Counts{Delivered: 1}}},
		Replies: []queue.ReplyStats{{Relay: "b", Class: mailer.ClassPermanent, Code: 550, Enhanced: "5.1.1", Text: "<*> unknown", Count: 6, First: now, Last: now}},
	}
	return s
}

func TestGetStats(t *testing.T) {
	now := time.Now()
	q := stored()
	q.stats = someStats(now)
	s := newTestServer(t, q, func(o *Options) { o.Relays = &fakeRelays{} })
	got := read[api.Stats](t, serve(s, newRequest("GET", "/v1/stats", "")))
	want := api.StatsCounts{Messages: 2, Accepted: 4, Delivered: 1, Deferred: 5, Bounced: 6, Uncertain: 7}
	if got.Hour.StatsCounts != want || got.Statuses["deferred"] != 3 || got.Statuses["queued"] != 0 || len(got.Statuses) != len(queue.Statuses) || !got.OldestDue.Equal(q.stats.OldestDue) {
		t.Errorf("stats = %+v", got)
	}
	if got.Key != "shop" {
		t.Errorf("stats of a key that is no admin have the key %q, want shop: else a monitor takes them for those of all mail", got.Key)
	}
	if r := got.Relays; len(r) != 5 || r[1].Name != "b" || r[1].Status != api.RelayPaused || r[1].Day.Bounced != 6 || r[4].Name != "old" || r[4].Status != "" {
		t.Errorf("relays = %+v, want the four that are configured and one more", r)
	}
	if r := got.Replies; len(r) != 1 || r[0].Class != "permanent" || r[0].ReplyCode != 550 || r[0].Text != "<*> unknown" || r[0].Filter != (api.StatsFilter{Relay: "b", ReplyCode: 550, EnhancedCode: "5.1.1", Text: "=<*> unknown"}) {
		t.Errorf("replies = %+v", r)
	}
	for target, status := range map[string]int{"/v1/stats?x=1": 400, "/v1/stats?key=shop&key=shop": 400, "/v1/stats?key=blog": 403, "/v1/stats?key=shop": 200} {
		if a := serve(s, newRequest("GET", target, "")); a.status != status {
			t.Errorf("GET %s = %d %s, want %d", target, a.status, text(a), status)
		}
	}
	none := newTestServer(t, &fakeQueue{}, nil)
	if a := serve(none, newRequest("GET", "/v1/stats", "")); a.status != 422 || read[api.Problem](t, a).Code != api.CodeQueueRequired {
		t.Errorf("without a queue: %d %s, want queue_required", a.status, text(a))
	}
}

// TestFlow: one bit, without a key, from an answer of the store that is a second old at
// most.
func TestFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := stored()
		s := newTestServer(t, q, nil)
		ask := func(target string, want int) {
			t.Helper()
			a := serve(s, newRequest("GET", target, "", "Authorization: "))
			if a.status != want || want != http.StatusBadRequest && len(a.body) > len("mail waits\n") {
				t.Errorf("GET %s = %d %s, want %d", target, a.status, text(a), want)
			}
		}
		ask("/healthz/flow", 200)
		q.stats.OldestDue = time.Now().Add(-10 * time.Minute)
		ask("/healthz/flow?max_age=1m", 200) // as it was found just now
		time.Sleep(flowLife)
		ask("/healthz/flow?max_age=1m", 503)
		ask("/healthz/flow", 200)
		ask("/healthz/flow?max_age=5m", 503)
		if q.asked != 2 || q.scope[0] != queue.AnyKey {
			t.Errorf("the store was asked %d times for %v, want twice for all keys", q.asked, q.scope)
		}
		time.Sleep(5*time.Minute + flowLife)
		ask("/healthz/flow", 503)
		q.err = errors.New("broken")
		q.stats.OldestDue = time.Time{}
		time.Sleep(flowLife)
		ask("/healthz/flow", 503)
		for _, bad := range []string{"max_age=", "max_age=0s", "max_age=-1m", "max_age=31d", "max_age=x", "max_age=1m&max_age=2m", "age=1m"} {
			if bad != "max_age=" { // as if it were not there
				ask("/healthz/flow?"+bad, 400)
			}
		}
	})
}

// failingFor is a relay that began to fail so long ago, and went on for so long.
func failingFor(ago, lasting time.Duration) RelayStatus {
	since := time.Now().Add(-ago)
	return RelayStatus{Name: "a", Failure: &mailer.Failure{}, FailingSince: since, FailedAt: since.Add(lasting)}
}

// TestFlowWhileRelayFails: each try of a message that waits begins its time anew, so that little
// mail is never due for long. It waits all the same.
func TestFlowWhileRelayFails(t *testing.T) {
	for _, tt := range []struct {
		want    int
		waiting int64
		relays  statusRelays
	}{
		{503, 1, statusRelays{failingFor(20*time.Minute, 19*time.Minute)}},
		{503, 1, statusRelays{{Name: "b"}, failingFor(20*time.Minute, 19*time.Minute)}},
		{200, 1, statusRelays{failingFor(10*time.Minute, 9*time.Minute)}},
		{200, 0, statusRelays{failingFor(20*time.Minute, 19*time.Minute)}},
		{200, 1, statusRelays{{Name: "b"}}},
	} {
		q := stored()
		// Scheduled mail does not wait for a relay.
		q.stats = queue.Stats{Statuses: map[queue.Status]int64{queue.StatusDeferred: tt.waiting, queue.StatusQueued: 7}}
		if tt.waiting > 0 {
			q.stats.OldestDue = time.Now().Add(-time.Minute)
		}
		s := newTestServer(t, q, func(o *Options) { o.Relays = tt.relays })
		if a := serve(s, newRequest("GET", "/healthz/flow", "", "Authorization: ")); a.status != tt.want {
			t.Errorf("%d messages wait, relays %+v: %d, want %d", tt.waiting, tt.relays, a.status, tt.want)
		}
	}
}

// TestFlowWithoutQueue: mail flows while some relay can be used.
func TestFlowWithoutQueue(t *testing.T) {
	paused := RelayStatus{Name: "a", PausedUntil: time.Now().Add(time.Minute)}
	byPerson := RelayStatus{Name: "a", Manual: &queue.ManualPause{Relay: "a", Since: time.Now()}}
	for _, tt := range []struct {
		want   int
		relays statusRelays
	}{
		{200, statusRelays{paused, {Name: "b"}}},
		{503, statusRelays{paused, paused}},
		{503, statusRelays{paused, byPerson}},
		{200, statusRelays{failingFor(time.Hour, 0)}}, // once: nothing else was tried
		{200, statusRelays{failingFor(time.Hour, time.Hour), {Name: "b"}}},
		{503, statusRelays{failingFor(time.Hour, 2*time.Minute)}},
	} {
		want, relays := tt.want, tt.relays
		s := newTestServer(t, &fakeQueue{}, func(o *Options) { o.Relays, o.Keys = relays, []keys.Entry{{Name: "a", Secret: testKey}} })
		if a := serve(s, newRequest("GET", "/healthz/flow", "", "Authorization: ")); a.status != want {
			t.Errorf("%d relays = %d, want %d", len(relays), a.status, want)
		}
	}
}

// statusRelays are relays that are as they are.
type statusRelays []RelayStatus

func (r statusRelays) Status() []RelayStatus { return r }

func (statusRelays) Check(context.Context, string) []RelayReport { return nil }

// TestStatsOfAWeek: with days=7 the answer has the hours of seven days, of the same key; another number is refused.
func TestStatsOfAWeek(t *testing.T) {
	q := &fakeQueue{durable: true}
	begin := time.Date(2030, 1, 24, 8, 0, 0, 0, time.UTC)
	for i := range queue.WeekHours {
		q.week = append(q.week, queue.Bucket{At: begin.Add(time.Duration(i) * time.Hour), Counts: queue.Counts{Messages: int64(i)}})
	}
	s := newTestServer(t, q, nil)
	if b := read[api.Stats](t, serve(s, newRequest("GET", "/v1/stats", ""))); len(b.Hours) > 0 || len(q.scope) != 1 {
		t.Errorf("GET /v1/stats has %d hours, and asked for %v", len(b.Hours), q.scope)
	}
	b := read[api.Stats](t, serve(s, newRequest("GET", "/v1/stats?days=7", "")))
	if len(b.Hours) != queue.WeekHours || b.Hours[3].Messages != 3 || !b.Hours[3].At.Equal(begin.Add(3*time.Hour)) {
		t.Errorf("hours = %+v", b.Hours)
	}
	if want := []string{"shop", "week of shop"}; !slices.Equal(q.scope, want) {
		t.Errorf("looked for %v, want %v", q.scope, want)
	}
	for _, days := range []string{"0", "1", "8", "x", "7&days=7"} {
		if a := serve(s, newRequest("GET", "/v1/stats?days="+days, "")); a.status != 400 {
			t.Errorf("GET /v1/stats?days=%s = %d, want 400", days, a.status)
		}
	}
}
