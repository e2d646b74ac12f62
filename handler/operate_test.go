package handler

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// fakeOperator knows the relays "relay" and "one#1", and has a backlog.
type fakeOperator struct {
	pause   queue.ManualPause
	resumed string
	since   time.Time
}

func (o *fakeOperator) PauseRelay(_ context.Context, name string, until time.Time, reason string) (queue.ManualPause, error) {
	if name != "relay" && name != "one#1" {
		return queue.ManualPause{}, &queue.UnknownRelayError{Name: name, Known: []string{"relay", "one#1"}}
	}
	o.pause = queue.ManualPause{Relay: name, Since: time.Now(), Until: until, Reason: reason}
	return o.pause, nil
}

func (o *fakeOperator) ResumeRelay(_ context.Context, name string) error {
	o.resumed = name
	return nil
}

func (o *fakeOperator) Drain()    { o.since = time.Now() }
func (o *fakeOperator) EndDrain() { o.since = time.Time{} }

func (o *fakeOperator) Drained(context.Context) (queue.Drain, error) {
	return queue.Drain{Since: o.since, Left: queue.Backlog{Due: 3, Later: 2, Next: nextTurn, Held: 1}}, nil
}

// operatedRelays are those of a fakeOperator.
type operatedRelays struct {
	quickRelays
	operator *fakeOperator
}

func (r *operatedRelays) Status() []RelayStatus {
	all := []RelayStatus{{Name: "relay"}, {Name: "one#1"}}
	for i := range all {
		if p := r.operator.pause; p.Relay == all[i].Name {
			all[i].Manual = &p
		}
	}
	return all
}

func operated(t *testing.T) (*Server, *fakeOperator) {
	o := &fakeOperator{}
	return newTestServer(t, stored(), func(opts *Options) {
		opts.Operator, opts.Relays = o, &operatedRelays{operator: o}
		opts.Keys[0].Roles = []string{"admin"}
	}), o
}

func TestPauseRelay(t *testing.T) {
	s, o := operated(t)
	before := time.Now()
	r := read[api.Relay](t, serve(s, newRequest("POST", "/v1/relays/relay/pause", `{"for": "2h", "reason": "it moves"}`)))
	if p := r.PausedByOperator; r.Status != api.RelayPaused || p == nil || p.Reason != "it moves" || p.Until.Sub(before).Round(time.Minute) != 2*time.Hour || p.Since.IsZero() {
		t.Errorf("relay = %+v, %+v", r, p)
	}
	r = read[api.Relay](t, serve(s, newRequest("POST", "/v1/relays/one%231/pause", "{}")))
	if p := r.PausedByOperator; r.Name != "one#1" || p == nil || !p.Until.IsZero() {
		t.Errorf("relay = %+v, %+v", r, p)
	}
	o.pause = queue.ManualPause{}
	r = read[api.Relay](t, serve(s, newRequest("POST", "/v1/relays/one%231/resume", "")))
	if o.resumed != "one#1" || r.PausedByOperator != nil {
		t.Errorf("resumed %q: %+v", o.resumed, r)
	}
	request := newRequest("POST", "/v1/relays/relay/pause", "")
	request.Header.Del("Content-Type")
	if got := serve(s, request); got.status != http.StatusOK || o.pause.Relay != "relay" {
		t.Errorf("without a body: %d %s", got.status, got.body)
	}
}

func TestPauseRelayRefused(t *testing.T) {
	s, o := operated(t)
	for _, tt := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/v1/relays/other/pause", "{}", 404, "No relay is named other. There are: relay, one#1."},
		{"/v1/relays/relay/pause", `{"for": "soon"}`, 400, `"field":"for"`},
		{"/v1/relays/relay/pause", `{"for": "10ms"}`, 400, `"field":"for"`},
		{"/v1/relays/relay/pause", `{"for": "400d"}`, 400, "from 1s to 366d"},
		{"/v1/relays/relay/pause", `{"reason": "two\nlines"}`, 400, `"field":"reason"`},
		{"/v1/relays/relay/pause", `{"reason": "` + strings.Repeat("é", 201) + `"}`, 400, `"field":"reason"`},
		{"/v1/relays/relay/pause", `{"until": "2030-01-01T00:00:00Z"}`, 400, "unknown_field"},
		{"/v1/relays/relay/pause", `[]`, 400, "wrong_type"},
	} {
		got := serve(s, newRequest("POST", tt.path, tt.body))
		if got.status != tt.status || !strings.Contains(strings.ReplaceAll(text(got), `": "`, `":"`), tt.want) {
			t.Errorf("POST %s %s = %d %s, want %d with %q", tt.path, tt.body, got.status, text(got), tt.status, tt.want)
		}
	}
	if o.pause.Relay != "" {
		t.Errorf("paused all the same: %+v", o.pause)
	}
}

func TestDrainRoutes(t *testing.T) {
	s, _ := operated(t)
	for _, tt := range []struct {
		method string
		want   bool
	}{{"GET", false}, {"POST", true}, {"POST", true}, {"GET", true}, {"DELETE", false}, {"DELETE", false}, {"GET", false}} {
		d := read[api.Drain](t, serve(s, newRequest(tt.method, "/v1/drain", "")))
		want := api.Drain{Draining: tt.want, Since: d.Since, Due: 3, Later: 2, NextAt: nextTurn, Held: 1}
		if d != want || d.Since.IsZero() == tt.want {
			t.Errorf("%s /v1/drain = %+v, want %+v", tt.method, d, want)
		}
	}
}

// TestDrainingDoors: every door refuses mail while the server is drained, in its own form, and
// says when to come again.
func TestDrainingDoors(t *testing.T) {
	for err, code := range map[error]api.Code{queue.ErrDraining: api.CodeDraining, queue.ErrPaused: api.CodeRelayPaused} {
		for _, d := range permits() {
			if !d.sends {
				continue
			}
			q := stored()
			q.err = err
			s := newTestServer(t, q, nil)
			got := serve(s, d.request(testKey))
			if got.status == 200 && d.route == "POST /email/batch" { // an answer for each message
				if !strings.Contains(text(got), "ErrorCode") {
					t.Errorf("%s: %s", d.route, text(got))
				}
				continue
			}
			want := 503
			if d.provider == "resend" { // whose clients know no other
				want = 500
			}
			if got.status != want || got.header.Get("Retry-After") != "60" {
				t.Errorf("%s: %d, Retry-After %q: %s", d.route, got.status, got.header.Get("Retry-After"), text(got))
			}
			if d.provider == "" && !strings.Contains(text(got), string(code)) {
				t.Errorf("%s: %s, want %s", d.route, text(got), code)
			}
			if d.provider != "" {
				checkShape(t, d.provider, d.route, got, text(got))
			}
		}
	}
}

// TestWaitsForLogin: only a login that must not be repeated waits though a retry is asked for. Another failure at the
// login passes, as on the way there.
func TestWaitsForLogin(t *testing.T) {
	now := time.Now()
	m := queue.Message{Recipients: []queue.Recipient{{ForwardPath: "ana@example.org", State: queue.Deferred}}}
	fails := func(err error) RelayStatus {
		return RelayStatus{Name: "one", PausedUntil: now.Add(time.Hour), Failure: &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageAuth, Text: "no", Err: err}}
	}
	const waits = "also where a retry is asked for"
	for _, tt := range []struct {
		relay RelayStatus
		waits bool
	}{
		{fails(&mailer.LoginError{Tried: true, Next: now.Add(time.Hour)}), true},
		{fails(&mailer.LoginError{Tried: true}), false},
		{fails(errors.New("the connection broke")), false},
	} {
		got := waitsOf(m, []RelayStatus{tt.relay}, now)
		if len(got) != 1 || strings.Contains(got[0].Found, waits) != tt.waits || strings.Contains(got[0].Do, "a retry asks it now") == tt.waits {
			t.Errorf("%v: waits = %+v, want %q: %v, and the opposite of what to do", tt.relay.Failure.Err, got, waits, tt.waits)
		}
	}
}

// TestWaitsForPausedRelay: a message that waits because a person has paused its relay says
// so, and what else keeps it only where that ends later.
func TestWaitsForPausedRelay(t *testing.T) {
	now := time.Now()
	m := queue.Message{Recipients: []queue.Recipient{{ForwardPath: "ana@example.org", State: queue.Queued}}}
	manual := &queue.ManualPause{Relay: "one", Since: time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC), Reason: "it moves"}
	ends := &queue.ManualPause{Relay: "two", Since: manual.Since, Until: now.Add(time.Hour)}
	for name, tt := range map[string]struct {
		relays []RelayStatus
		want   string
		until  time.Time
	}{
		"without an end":        {[]RelayStatus{{Name: "one", Manual: manual}}, "relay paused by an operator since 2026-11-30T08:00:00Z: it moves", time.Time{}},
		"the first that ends":   {[]RelayStatus{{Name: "one", Manual: manual}, {Name: "two", Manual: ends}}, "relay paused by an operator since 2026-11-30T08:00:00Z", ends.Until},
		"one is open":           {[]RelayStatus{{Name: "one", Manual: manual}, {Name: "two"}}, "it is due", time.Time{}},
		"in trouble for longer": {[]RelayStatus{{Name: "two", Manual: ends, PausedUntil: now.Add(2 * time.Hour)}}, "the relay is paused", now.Add(2 * time.Hour)},
	} {
		got := waitsOf(m, tt.relays, now)
		if len(got) != 1 || !strings.HasPrefix(got[0].Found, tt.want) || !got[0].Until.Equal(tt.until) {
			t.Errorf("%s: waits = %+v, want %q until %v", name, got, tt.want, tt.until)
		}
	}
}
