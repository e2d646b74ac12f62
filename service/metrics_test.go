package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/config"
	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/queue"
	"mailsidecar/queue/memory"
)

// scrape returns the samples at the address, by name with labels.
func scrape(t *testing.T, url, key string) map[string]string {
	t.Helper()
	status, body := get(t, url, key)
	if status != http.StatusOK {
		t.Fatalf("GET %s = %d %s", url, status, body)
	}
	samples := map[string]string{}
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "#") {
			at := strings.LastIndexByte(strings.TrimSpace(line), ' ')
			samples[line[:at]] = strings.TrimSpace(line[at+1:])
		}
	}
	return samples
}

func get(t *testing.T, url, key string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.Header.Get("Mailsidecar") != "1" {
		t.Errorf("GET %s: no header Mailsidecar", url)
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// TestMetricsAddr: the address of its own has metrics without a key, and nothing else. On
// the main port they need a key with the role admin.
func TestMetricsAddr(t *testing.T) {
	c := serviceWith(t, "sqlite", refusedPort(t))
	c.Service.MetricsAddr = "127.0.0.1:0"
	c.Service.Keys = []config.APIKey{
		{Name: "shop", Secret: config.NewSecret("0123456789abcdef")},
		{Name: "ops", Secret: config.NewSecret("fedcba9876543210"), Roles: []string{"admin"}},
	}
	s, stop := start(t, c)
	own := "http://" + s.bound.metrics.Addr().String()
	samples := scrape(t, own+"/metrics", "")
	for name, want := range map[string]string{
		`mailsidecar_queue_messages{key="shop",status="queued"}`:                    "0",
		`mailsidecar_queue_oldest_due_timestamp_seconds{key="ops",priority="bulk"}`: "0",
		`mailsidecar_queue_limit_messages`:                                          "100000",
		`mailsidecar_relay_up{relay="127.0.0.1"}`:                                   "1",
		`mailsidecar_relay_connections_limit{relay="127.0.0.1"}`:                    "0",
		`mailsidecar_scrape_errors_total{part="queue"}`:                             "0",
		`mailsidecar_disk_min_free_bytes`:                                           "2.68435456e+08",
	} {
		if got, ok := samples[name]; !ok || name != `mailsidecar_relay_connections_limit{relay="127.0.0.1"}` && got != want {
			t.Errorf("%s = %q, want %s", name, got, want)
		}
	}
	for _, path := range []string{"/", "/livez", "/v1/stats", "/metrics/"} {
		if status, _ := get(t, own+path, "fedcba9876543210"); status != http.StatusNotFound {
			t.Errorf("GET %s at the address for metrics = %d, want 404", path, status)
		}
	}
	for key, want := range map[string]int{"": 401, "wrong": 401, "0123456789abcdef": 403, "fedcba9876543210": 200} {
		if status, body := get(t, s.URL()+"/metrics", key); status != want {
			t.Errorf("GET /metrics with key %q = %d %s, want %d", key, status, body, want)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.bound.metrics.Addr().String()); err == nil {
		conn.Close()
		t.Error("metrics are still served after the stop")
	}
}

// TestMetricsOff: nothing is counted where nobody may read it.
func TestMetricsOff(t *testing.T) {
	shop := config.APIKey{Name: "shop", Secret: config.NewSecret("0123456789abcdef")}
	admin := config.APIKey{Name: "ops", Roles: []string{"admin"}}
	for _, tt := range []struct {
		keys []config.APIKey
		addr string
		want bool
	}{
		{nil, "", true},
		{[]config.APIKey{shop}, "", false},
		{[]config.APIKey{shop}, ":9587", true},
		{[]config.APIKey{shop, admin}, "", true},
	} {
		c := config.Default()
		c.Service.Keys, c.Service.MetricsAddr = tt.keys, tt.addr
		if got := newMetrics(c, "") != nil; got != tt.want {
			t.Errorf("%v %q: metrics %t, want %t", tt.keys, tt.addr, got, tt.want)
		}
	}
}

// TestMetricsAddrTaken: the error names the setting.
func TestMetricsAddrTaken(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c := serviceWith(t, "none", refusedPort(t))
	c.Service.MetricsAddr = l.Addr().String()
	_, err = Start(t.Context(), Options{Config: c, Logger: quiet()})
	taken, ok := errors.AsType[*ListenError](err)
	if !ok || taken.Setting != "MAILSIDECAR_METRICS_ADDR" {
		t.Errorf("Start = %v, want a ListenError of MAILSIDECAR_METRICS_ADDR", err)
	}
}

// TestMetricsWithoutQueue: what is known of a queue is absent, the rest is there.
func TestMetricsWithoutQueue(t *testing.T) {
	s, stop := start(t, serviceWith(t, "none", refusedPort(t)))
	samples := scrape(t, s.URL()+"/metrics", "")
	for name := range samples {
		if strings.HasPrefix(name, "mailsidecar_queue_") || strings.HasPrefix(name, "mailsidecar_disk_") || strings.HasPrefix(name, "mailsidecar_store_") {
			t.Errorf("%s is there, though nothing is stored", name)
		}
	}
	if samples[`mailsidecar_relay_up{relay="127.0.0.1"}`] != "1" {
		t.Error("no relay")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// slowStore is a store whose numbers do not come.
type slowStore struct {
	queue.Store
	hang chan struct{}
}

func (s slowStore) Stats(context.Context, string, time.Time) (queue.Stats, error) {
	<-s.hang // not even when the context ends
	return queue.Stats{}, errors.New("too late")
}

// TestMetricsSlowStore: a store that hangs costs a scrape its part, within a bound, and mail
// nothing.
func TestMetricsSlowStore(t *testing.T) {
	c := serviceWith(t, "sqlite", refusedPort(t))
	store := slowStore{memory.New(memory.Options{}), make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, Options{Config: c, Logger: quiet(), Store: store})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	scraped := make(chan map[string]string, 2)
	for range 2 {
		go func() { scraped <- scrape(t, s.URL()+"/metrics", "") }()
	}
	if a, err := post(s, http.Header{}); err != nil || a.Status != http.StatusAccepted {
		t.Errorf("a message while scrapes hang: %d, %v; want 202", a.Status, err)
	}
	for range 2 {
		samples := <-scraped
		if _, ok := samples[`mailsidecar_queue_messages{key="(none)",status="queued"}`]; ok {
			t.Error("the queue's numbers are there, though the store hangs")
		}
		if samples[`mailsidecar_queue_used_messages`] == "" || samples[`mailsidecar_queue_limit_messages`] != "100000" {
			t.Error("how full the queue is is missing, though no store is needed for that")
		}
		if samples[`mailsidecar_relay_up{relay="127.0.0.1"}`] == "" {
			t.Error("the relays are missing, though only the store hangs")
		}
	}
	if got := scrape(t, s.URL()+"/metrics", "")[`mailsidecar_scrape_errors_total{part="queue"}`]; got != "2" && got != "3" {
		t.Errorf("scrape errors = %s, want 2, and 3 where the third is shown already", got)
	}
	close(store.hang)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestMetricsStrangers: whoever keeps connections to the address open keeps nobody out.
func TestMetricsStrangers(t *testing.T) {
	c := serviceWith(t, "none", refusedPort(t))
	c.Service.MetricsAddr = "127.0.0.1:0"
	s, stop := start(t, c)
	addr := s.bound.metrics.Addr().String()
	for i := range 100 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			w := bufio.NewWriter(conn)
			_, _ = w.WriteString("GET /metrics HTTP/1.1\r\nHost: ") // cut off
			_ = w.Flush()
		}
	}
	if samples := scrape(t, "http://"+addr+"/metrics", ""); samples["go_goroutines"] == "" {
		t.Error("no metrics beside idle connections")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestMetricsCount: what is counted is there after a delivery, with a queue and without.
func TestMetricsCount(t *testing.T) {
	for _, store := range []string{"sqlite", "none"} {
		t.Run(store, func(t *testing.T) {
			relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{})
			port := relay.Listen(t)
			c := serviceWith(t, store, port)
			c.Relays[0].RootCAs, c.Relays[0].TLSServerName = relaytest.RootCAs(), relaytest.Host
			s, stop := start(t, c)
			if a, err := post(s, http.Header{"Prefer": {"wait=30"}}); err != nil || a.Status != http.StatusOK {
				t.Fatalf("post = %d %s, %v; want 200", a.Status, a.Body, err)
			}
			if status, _ := get(t, s.URL()+"/v1/messages/nothing-there", ""); status < 400 {
				t.Errorf("a message that there is not: %d", status)
			}
			samples := scrape(t, s.URL()+"/metrics", "")
			want := map[string]string{
				`mailsidecar_messages_accepted_total{door="json",key="(none)",priority="normal"}`:              "1",
				`mailsidecar_recipients_tried_total{outcome="delivered",relay="127.0.0.1"}`:                    "1",
				`mailsidecar_recipients_ended_total{state="delivered"}`:                                        "1",
				`mailsidecar_attempts_total{class="ok",relay="127.0.0.1",stage="none"}`:                        "1",
				`mailsidecar_attempt_duration_seconds_count{relay="127.0.0.1"}`:                                "1",
				`mailsidecar_delivery_latency_seconds_count{priority="normal"}`:                                "1",
				fmt.Sprintf(`mailsidecar_relay_connects_total{port="%d",relay="127.0.0.1",result="ok"}`, port): "1",
				fmt.Sprintf(`mailsidecar_relay_rung_serving{port="%d",position="1",relay="127.0.0.1"}`, port):  "1",
				`mailsidecar_relay_up{relay="127.0.0.1"}`:                                                      "1",
			}
			if store == "none" {
				want[`mailsidecar_requests_refused_total{code="queue_required",key="(none)"}`] = "1"
			} else {
				want[`mailsidecar_requests_refused_total{code="message_not_found",key="(none)"}`] = "1"
				want[`mailsidecar_store_errors_total`] = "0"
				if n := samples["mailsidecar_store_commit_duration_seconds_count"]; n == "" || n == "0" {
					t.Error("no commit was counted")
				}
			}
			for name, value := range want {
				if samples[name] != value {
					t.Errorf("%s = %q, want %s", name, samples[name], value)
				}
			}
			if samples[fmt.Sprintf(`mailsidecar_relay_certificate_expiry_timestamp_seconds{port="%d",relay="127.0.0.1"}`, port)] == "" {
				t.Error("the end of the relay's certificate is missing")
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMetricsBounded: addresses, unknown keys, paths and methods add no series.
func TestMetricsBounded(t *testing.T) {
	c := serviceWith(t, "sqlite", refusedPort(t))
	c.Service.Keys = []config.APIKey{{Name: "ops", Secret: config.NewSecret("fedcba9876543210"), Roles: []string{"admin"}}}
	s, stop := start(t, c)
	ask := func(i int) {
		for _, r := range []struct{ method, path, key, body string }{
			{"POST", "/v1/messages", "fedcba9876543210", fmt.Sprintf(`{"from": "a%d@a%d.example.com", "to": "b%d@b%d.example.org", "subject": "s%d", "text": "x"}`, i, i, i, i, i)},
			{"POST", "/v1/messages", fmt.Sprintf("unknown-%d", i), smallMessage},
			{"GET", fmt.Sprintf("/nothing/%d", i), "fedcba9876543210", ""},
			{"GET", fmt.Sprintf("/v1/messages/%d", i), "fedcba9876543210", ""},
			{"GET", fmt.Sprintf("/v1/messages/%d/content/%d", i, i), "fedcba9876543210", ""},
			{fmt.Sprintf("VERB%d", i), "/v1/messages", "fedcba9876543210", ""},
			{"POST", fmt.Sprintf("/v3/domain%d.example.com/messages", i), "", ""},
		} {
			req := httptest.NewRequest(r.method, r.path, strings.NewReader(r.body))
			req.Header.Set("Authorization", "Bearer "+r.key)
			req.Header.Set("Content-Type", "application/json")
			s.http.ServeHTTP(httptest.NewRecorder(), req)
		}
	}
	ask(0)
	names := func() (all []string) {
		for name := range scrape(t, s.URL()+"/metrics", "fedcba9876543210") {
			if strings.HasPrefix(name, "mailsidecar_") {
				all = append(all, name)
			}
		}
		slices.Sort(all)
		return all
	}
	names() // the scrape itself has series
	before := names()
	for i := range 2000 {
		ask(i + 1)
	}
	after := slices.DeleteFunc(names(), func(name string) bool { return strings.Contains(name, "relay_connects_total") }) // the first try may come late
	for _, name := range after {
		if _, known := slices.BinarySearch(before, name); !known && !strings.Contains(name, "127.0.0.1") {
			t.Errorf("new: %s", name)
		}
	}
	if len(after) > len(before)+20 {
		t.Errorf("%d series, and %d before", len(after), len(before))
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// newTestMonitor watches one relay of one port, which is not asked.
func newTestMonitor(t *testing.T) *relayMonitor {
	t.Helper()
	configs := []config.Relay{{Number: 1, Host: "127.0.0.1", Ports: config.Ladder{{Port: 587}}}}
	relays, err := NewRelays(configs, RelayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relays[0].Close)
	return newRelayMonitor(configs, relays, nil, quiet())
}

// TestMetricsPauseEnds: a pause whose time has come does not count, though the queue knows
// of it until a message has gone there.
func TestMetricsPauseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, until := newTestMonitor(t), time.Now().Add(time.Hour)
		quota := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageMail, Reply: mailer.Reply{Code: 452}, Passes: true, Relay: "127.0.0.1"}
		m.pauses = func() []queue.Pause {
			return []queue.Pause{{Relay: "127.0.0.1", Failures: 1, Until: until, Reason: quota}}
		}
		if n := m.numbers()[0]; !n.QuotaUsedUp || !n.PausedUntil.Equal(until) || n.Up {
			t.Errorf("during the pause: %+v, want the quota used up until then", n)
		}
		time.Sleep(time.Hour)
		if n := m.numbers()[0]; n.QuotaUsedUp || !n.PausedUntil.IsZero() || !n.Up {
			t.Errorf("after it: %+v, want no quota used up, no pause, and nothing against the relay", n)
		}
	})
}

// TestFailingSincePause: a relay fails since its pause began, whoever looks how often. A pause whose time has come, while
// nothing has gone there for half an hour, or after a quota, says nothing against it any more.
func TestFailingSincePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTestMonitor(t)
		m.out = newOutgoing(1)
		broken := &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageMail, Text: "the connection broke", Relay: "127.0.0.1"}
		pause := func(since, until time.Time, why *mailer.Failure) {
			m.note(0, mailer.Attempt{Results: []mailer.Result{{Failure: why}}})
			m.pauses = func() []queue.Pause {
				return []queue.Pause{{Relay: "127.0.0.1", Failures: 1, Since: since, Until: until, Reason: why}}
			}
		}
		began := time.Now()
		pause(began, began.Add(time.Minute), broken)
		time.Sleep(30 * time.Second)
		if s := m.Status()[0]; !s.FailingSince.Equal(began) {
			t.Errorf("paused for 30 s, and seen now: failing since %v, want %v", s.FailingSince, began)
		}
		time.Sleep(time.Hour) // nobody looks, and it works between two pauses
		again := time.Now()
		pause(again, again.Add(time.Minute), broken)
		if s := m.Status()[0]; !s.FailingSince.Equal(again) {
			t.Errorf("in a second pause it fails since %v, want %v", s.FailingSince, again)
		}
		time.Sleep(2 * time.Minute) // a probe is due
		if s := m.Status()[0]; !s.FailingSince.Equal(again) {
			t.Errorf("while a probe is due it fails since %v, want %v", s.FailingSince, again)
		}
		time.Sleep(time.Hour)
		if s := m.Status()[0]; !s.FailingSince.IsZero() {
			t.Errorf("an hour after the last attempt it fails since %v, want nothing against it", s.FailingSince)
		}
		quota := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageMail, Reply: mailer.Reply{Code: 452}, Passes: true, Relay: "127.0.0.1"}
		pause(time.Now(), time.Now().Add(time.Hour), quota)
		time.Sleep(59 * time.Minute)
		if m.Status()[0].FailingSince.IsZero() {
			t.Error("during the pause for a quota nothing is said against it")
		}
		time.Sleep(2 * time.Minute)
		if s := m.Status()[0]; !s.FailingSince.IsZero() {
			t.Errorf("after the pause for a quota it fails since %v, want nothing against it", s.FailingSince)
		}
	})
}

// TestMetricsStaleFailure: a failure says for half an hour that a relay cannot be used, unless
// the queue leaves the relay alone for longer. After that nobody knows.
func TestMetricsStaleFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTestMonitor(t)
		m.out = newOutgoing(1)
		refused := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Text: "no answer", Relay: "127.0.0.1"}
		m.note(0, mailer.Attempt{Results: []mailer.Result{{Failure: refused}}})
		time.Sleep(29 * time.Minute)
		if m.numbers()[0].Up {
			t.Error("29 minutes after a failed attempt the relay is up")
		}
		time.Sleep(2 * time.Minute)
		if !m.numbers()[0].Up {
			t.Error("31 minutes after the only attempt the relay is down")
		}
		m.pauses = func() []queue.Pause {
			return []queue.Pause{{Relay: "127.0.0.1", Failures: 1, Until: time.Now().Add(time.Minute), Reason: refused}}
		}
		if m.numbers()[0].Up {
			t.Error("the relay is up, though the queue has paused it")
		}
	})
}
