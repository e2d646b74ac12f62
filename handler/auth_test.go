package handler

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"mailsidecar/units"
)

func TestNewRefusesKeys(t *testing.T) {
	for _, keys := range [][]Key{{{Name: "", Secret: "x"}}, {{Name: "*", Secret: "x"}}, {{Name: "a"}}, {{Name: "a", Secret: "x"}, {Name: "a", Secret: "y"}}} {
		if _, err := New(Options{Queue: &fakeQueue{}, Keys: keys}); err == nil {
			t.Errorf("New() with keys %v = nil, want an error", keys)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("New() without a queue = nil, want an error")
	}
}

func TestKeyIsNotPrinted(t *testing.T) {
	var b strings.Builder
	k := Key{Name: "shop", Secret: testKey}
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "key", k, "keys", []Key{k})
	fmt.Fprintf(&b, "%v %+v %s %v", k, k, k, []Key{k})
	if strings.Contains(b.String(), testKey) {
		t.Errorf("the secret is in %s", b.String())
	}
}

func TestLoopbackHost(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:8587": true, "localhost.": true, "mail.localhost:80": true, "127.0.0.1": true, "127.8.9.1:8587": true, "[::1]": true, "[::1]:8587": true,
		"": false, "example.com": false, "localhost.example.com": false, "xlocalhost": false, "10.0.0.1": false, "127.0.0.1.example.com": false, "0.0.0.0": false, "[::]:80": false,
	} {
		if got := loopbackHost(host); got != want {
			t.Errorf("loopbackHost(%q) = %v, want %v", host, got, want)
		}
	}
}

// TestWithoutKeys: requests belong to the key without a name.
func TestWithoutKeys(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, func(o *Options) { o.Keys = nil })
	r := newRequest("POST", "http://localhost:8587/v1/messages", goodMessage, "Authorization: ")
	if got := serve(s, r).status; got != 202 || q.submissions()[0].Key != "" {
		t.Errorf("keyless = %d, want 202", got)
	}
}

func TestMaySend(t *testing.T) {
	k := apiKey{senders: []string{"a@example.com", "example.net"}}
	for sender, want := range map[string]bool{
		"A@example.com": true, "b@example.com": false, "b@Example.NET": true, "b@sub.example.net": false, "": false,
	} {
		if got := k.maySend(sender); got != want {
			t.Errorf("maySend(%q) = %v, want %v", sender, got, want)
		}
	}
	if !(apiKey{}).maySend("anybody@example.org") {
		t.Error("a key without senders may not send")
	}
}

func TestLimiter(t *testing.T) {
	k := apiKey{name: "k", rate: units.Rate{Messages: 60, Per: time.Minute}}
	now := time.Now()
	var l limiter
	for _, tc := range []struct {
		n     int
		after time.Duration
		ok    bool
	}{
		{60, 0, true},
		{1, 0, false},
		{1, time.Second, true},
		{1, time.Second, false},
		{30, 20 * time.Second, false},
		{19, 20 * time.Second, true},
		{500, 21 * time.Second, false},
		{500, 3 * time.Minute, true},
		{1, 4 * time.Minute, false},
	} {
		wait, ok := l.take(k, tc.n, now.Add(tc.after))
		if ok != tc.ok || !ok && wait <= 0 {
			t.Errorf("take(%d) at %v = %v, %v, want %v", tc.n, tc.after, wait, ok, tc.ok)
		}
	}
	daily := apiKey{name: "daily", rate: units.Rate{Messages: 2, Per: 24 * time.Hour}}
	for i, want := range []time.Duration{0, 0, 12 * time.Hour} {
		if wait, ok := l.take(daily, 1, now); wait != want || ok != (want == 0) {
			t.Errorf("message %d of 2/d at once: take() = %v, %v, want %v", i+1, wait, ok, want)
		}
	}
	if _, ok := l.take(apiKey{name: "free"}, 1e6, now); !ok {
		t.Error("a key without a rate is limited")
	}
}

// TestRefusedUsesNoRate: the rate is charged last, whatever else is wrong.
func TestRefusedUsesNoRate(t *testing.T) {
	s := newTestServer(t, stored(), func(o *Options) {
		o.Keys[0].Rate = units.Rate{Messages: 1, Per: time.Minute}
		o.Keys[0].Senders = []string{"example.com"}
	})
	const batch = "/v1/messages/batch"
	for i, step := range []struct {
		target, Body string
		want         int
	}{
		{"/v1/messages", strings.Replace(goodMessage, "example.com", "example.net", 1), 403},
		{"/v1/messages", "{", 400},
		{batch, `{"messages":[{"to":"a@example.com"}]}`, 422},
		{"/v1/messages", goodMessage, 202},
		{"/v1/messages", goodMessage, 429},
		{batch, `{"messages":[` + goodMessage + `]}`, 429},
		{batch, `{"messages":[{"to":"a@example.com"}]}`, 422},
	} {
		if got := serve(s, newRequest("POST", step.target, step.Body)); got.status != step.want {
			t.Errorf("request %d, POST %s = %d %s, want %d", i+1, step.target, got.status, text(got), step.want)
		}
	}
}
