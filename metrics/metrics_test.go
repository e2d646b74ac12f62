package metrics

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

func example() *Metrics {
	m := New(Options{Version: "1.2.3", Relays: []string{"relay.example.com"}, Keys: []string{"shop"}, Stores: true})
	m.Read(Sources{})
	return m
}

// series is how many series a scrape has, without those of the library.
func series(t *testing.T, m *Metrics) int {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), prefix) {
			n += len(f.GetMetric())
		}
	}
	return n
}

// TestNames: what promtool check metrics asks for.
func TestNames(t *testing.T) {
	problems, err := testutil.GatherAndLint(example().registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, d := range example().Definitions() {
		if d.Kind == "counter" != strings.HasSuffix(d.Name, "_total") {
			t.Errorf("%s is a %s", d.Name, d.Kind)
		}
		if !regexp.MustCompile(`^[A-Z0-9].*\.$`).MatchString(d.Help) {
			t.Errorf("%s: help %q is no sentence", d.Name, d.Help)
		}
	}
}

// TestReplyLabels: replies of a hostile relay make no more series than a limit.
func TestReplyLabels(t *testing.T) {
	for _, tt := range []struct {
		code           int
		enhanced       string
		want, wantMore string
	}{
		{250, "2.0.0", "250", "2.0.0"},
		{550, "", "550", "none"},
		{550, "5.7.509", "550", "5.7.509"},
		{199, "", "other", "none"},
		{600, "", "other", "none"},
		{550, "5.01.1", "550", "other"},
		{550, "3.1.1", "550", "other"},
		{550, "5.1", "550", "other"},
		{550, "5.1.1.1", "550", "other"},
		{550, "5.1.1000", "550", "other"},
		{550, "5.-1.1", "550", "other"},
		{550, "ana@example.org", "550", "other"},
	} {
		k := replyLabels{pairs: map[string]map[replyLabel]bool{}}
		if got := k.label("r", mailer.Reply{Code: tt.code, Enhanced: tt.enhanced}); got != (replyLabel{tt.want, tt.wantMore}) {
			t.Errorf("label(%d %s) = %v, want %s %s", tt.code, tt.enhanced, got, tt.want, tt.wantMore)
		}
	}

	m := example()
	before := series(t, m)
	for i := range 200_000 {
		m.Tried([]mailer.Attempt{{Relay: "relay.example.com", Results: []mailer.Result{{
			ForwardPath: fmt.Sprintf("user%d@example.org", i),
			Failure: &mailer.Failure{
				Class: mailer.Class(i % 4), Stage: mailer.Stage(i % 11), Relay: fmt.Sprintf("host%d", i),
				Reply: mailer.Reply{Code: i % 1000, Enhanced: fmt.Sprintf("5.%d.%d", i%1000, i/1000), Text: fmt.Sprint(i)},
			},
		}}}})
	}
	// 101 replies, and class and stage: 4 times 11.
	if got := series(t, m) - before; got > maxReplyLabels+1+44 {
		t.Errorf("200,000 replies made %d series", got)
	}
}

// TestUnknownNames: relays of earlier runs and keys that are not configured have no series of
// their own.
func TestUnknownNames(t *testing.T) {
	m := example()
	for i := range 1000 {
		name := fmt.Sprint("n", i)
		m.Tried([]mailer.Attempt{{Relay: name, Results: []mailer.Result{{ForwardPath: name + "@example.org"}}}})
		m.Accepted(name, "json", mailer.PriorityNormal)
		m.Answered("/v1/messages", "POST", 429, name, "rate_limited", time.Second)
		m.Opened(name, 587, "ok")
		m.LoggedIn(name, "accepted")
	}
	stats, n := queue.Stats{}, New(Options{Relays: []string{"relay.example.com"}, Keys: []string{"shop"}, Stores: true})
	for i := range 1000 {
		stats.Keys = append(stats.Keys, queue.KeyStats{Name: fmt.Sprint("gone", i), Statuses: map[queue.Status]int64{queue.StatusQueued: 2}})
		stats.Lanes = append(stats.Lanes, queue.LaneStats{Lane: queue.Lane{Key: fmt.Sprint("gone", i)}, OldestDue: time.Unix(int64(2000-i), 0)})
	}
	n.Read(Sources{Stats: func(context.Context) (queue.Stats, error) { return stats, nil }})
	for _, want := range []string{`queue_messages{key="(removed)",status="queued"} 2000`, `queue_oldest_due_timestamp_seconds{key="(removed)",priority="normal"} 1001`} {
		if !strings.Contains(render(t, n), "\n"+prefix+want+"\n") {
			t.Errorf("no %s in\n%s", want, render(t, n))
		}
	}
	text := render(t, m) + render(t, n)
	if strings.Contains(text, `"n1"`) || strings.Contains(text, "gone") || strings.Count(text, "\n") > 1200 {
		t.Errorf("%d lines, want few and none with an unknown name", strings.Count(text, "\n"))
	}
}

// TestOutcomes: the outcomes are those of GET /v1/stats.
func TestOutcomes(t *testing.T) {
	m := example()
	refused := func(c mailer.Class) *mailer.Failure {
		return &mailer.Failure{Class: c, Stage: mailer.StageRcpt, Reply: mailer.Reply{Code: 550, Enhanced: "5.1.1"}}
	}
	started := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	m.Tried([]mailer.Attempt{
		{Relay: "relay.example.com", Started: started, Duration: time.Second, Results: []mailer.Result{
			{ForwardPath: "a", Reply: mailer.Reply{Code: 250}},
			{ForwardPath: "b", Failure: refused(mailer.ClassPermanent)},
			{ForwardPath: "c", Failure: refused(mailer.ClassPermanent)},
			{ForwardPath: "d", Failure: refused(mailer.ClassTransient)},
			{ForwardPath: "e", Failure: refused(mailer.ClassUncertain)},
		}},
		{Relay: "relay.example.com", Started: started, Duration: time.Second, Results: []mailer.Result{{ForwardPath: "c", Reply: mailer.Reply{Code: 250}}}},
	})
	m.Ended(queue.Delivered, mailer.PriorityHigh, 3*time.Second)
	m.Ended(queue.Bounced, mailer.PriorityHigh, 3*time.Second)
	text := render(t, m)
	for _, want := range []string{
		`recipients_tried_total{outcome="delivered",relay="relay.example.com"} 2`,
		`recipients_tried_total{outcome="bounced",relay="relay.example.com"} 1`,
		`recipients_tried_total{outcome="deferred",relay="relay.example.com"} 2`,
		`recipients_tried_total{outcome="uncertain",relay="relay.example.com"} 1`,
		`attempts_total{class="permanent",relay="relay.example.com",stage="rcpt"} 1`,
		`attempts_total{class="ok",relay="relay.example.com",stage="none"} 1`,
		`replies_total{code="550",enhanced="5.1.1",relay="relay.example.com"} 4`,
		`replies_total{code="250",enhanced="none",relay="relay.example.com"} 2`,
		`relay_last_delivery_timestamp_seconds{relay="relay.example.com"} 1.796040001e+09`,
		`recipients_ended_total{state="delivered"} 1`,
		`delivery_latency_seconds_count{priority="high"} 1`,
		`delivery_latency_seconds_sum{priority="high"} 3`,
	} {
		if !strings.Contains(text, "\n"+prefix+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestDenied: who asks without a right counts as such, once.
func TestDenied(t *testing.T) {
	m := example()
	m.Answered("/v1/messages", "POST", 401, "", "unauthorized", time.Second)
	m.Answered("/v1/messages", "POST", 202, "shop", "", time.Second)
	m.Answered("/v1/messages", "POST", 503, "shop", "queue_full", time.Second)
	text := render(t, m)
	for _, want := range []string{
		`auth_failures_total{code="unauthorized"} 1`, `auth_failures_total{code="role_required"} 0`,
		`requests_refused_total{code="unauthorized",key="(none)"} 1`, `requests_refused_total{code="queue_full",key="shop"} 1`,
		`http_requests_total{code="202",method="POST",route="/v1/messages"} 1`, `http_request_duration_seconds_count{route="/v1/messages"} 3`,
	} {
		if !strings.Contains(text, "\n"+prefix+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestRefused: refused mail has the codes of the answers, and each is there before its first time.
func TestRefused(t *testing.T) {
	m := example()
	m.Answered("/v1/messages/:id", "GET", 503, "shop", "queue_unavailable", time.Second) // a look-up
	m.Refused(fmt.Errorf("x: %w", queue.ErrFull))
	m.Refused(&queue.StoreError{Path: "queue.db", Err: queue.ErrMoved})
	m.Refused(&queue.StoreError{Path: "queue.db", Err: queue.ErrMoved})
	text := render(t, m)
	for _, want := range []string{`{code="queue_full"} 1`, `{code="disk_full"} 0`, `{code="queue_unavailable"} 2`} {
		if !strings.Contains(text, "\n"+prefix+"queue_refused_requests_total"+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	without := New(Options{})
	without.Refused(queue.ErrFull)
	if strings.Contains(render(t, without), "queue_refused") {
		t.Error("refused mail is there without a queue")
	}
}

// TestAccepted: the first message of a key after a start is an increase. Mail of a key that is
// gone, which an admin sends once more, counts as that.
func TestAccepted(t *testing.T) {
	m := example()
	m.Accepted("gone", "resend", mailer.PriorityNormal)
	m.Accepted("", "json", mailer.PriorityNormal)
	text := render(t, m)
	for _, want := range []string{
		`{door="json",key="shop",priority="normal"} 0`, `{door="rfc822",key="shop",priority="normal"} 0`,
		`{door="resend",key="(removed)",priority="normal"} 1`, `{door="json",key="(none)",priority="normal"} 1`,
	} {
		if !strings.Contains(text, "\n"+prefix+"messages_accepted_total"+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

func render(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body)
	}
	return "\n" + w.Body.String()
}

var update = flag.Bool("update", false, "write the table of docs/metrics.md")

const doc = "../docs/metrics.md"

// TestDocumentation: docs/metrics.md lists the metrics as they are.
func TestDocumentation(t *testing.T) {
	table := "| metric | type | labels | meaning |\n|---|---|---|---|\n"
	for _, d := range example().Definitions() {
		labels := ""
		for _, l := range d.Labels {
			labels += " `" + l + "`"
		}
		table += fmt.Sprintf("| `%s` | %s |%s | %s |\n", d.Name, d.Kind, labels, d.Help)
	}
	data, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	before, now, _ := strings.Cut(string(data), "\n| metric |")
	if *update {
		if err := os.WriteFile(doc, []byte(before+"\n"+table), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if "| metric |"+now != table {
		t.Error("docs/metrics.md does not have the metrics as they are: go test ./metrics -update")
	}
}
