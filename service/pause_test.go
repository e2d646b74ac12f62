package service

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/mailer/relaytest"
)

// TestPauseWithoutQueue: without a queue each request during a quota's pause is answered at
// once, with the relay's words and the time until then, and the relay is asked once.
func TestPauseWithoutQueue(t *testing.T) {
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{"MAIL": "550 5.4.5 Daily user sending limit exceeded."})
	c := serviceWith(t, "none", relay.Listen(t))
	c.Relays[0].TLS = "none"
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, Options{Config: c, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for n := range 3 {
		answer, err := post(s, http.Header{})
		if err != nil {
			t.Fatal(err)
		}
		after, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
		if answer.Status != http.StatusServiceUnavailable || after < 3500 || after > 3600 {
			t.Errorf("request %d: %d with Retry-After %d, want 503 and an hour", n, answer.Status, after)
		}
		for _, want := range []string{`"relay_unreachable"`, "550 5.4.5 Daily user sending limit exceeded", "send it again after the time in Retry-After"} {
			if !strings.Contains(string(answer.Body), want) {
				t.Errorf("request %d: %s\nwant %q in it", n, answer.Body, want)
			}
		}
		if told := strings.Contains(string(answer.Body), "the relay is not asked before"); told != (n > 0) {
			t.Errorf("request %d: %s\nsays that the relay was not asked: %v", n, answer.Body, told)
		}
	}
	if n := relay.Said("MAIL"); n != 1 {
		t.Errorf("the relay was asked %d times, want once", n)
	}
	client, err := api.New(s.URL(), "", "test", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.HTTP.CloseIdleConnections()
	status, err := client.Do(ctx, http.MethodGet, "/v1/relays", http.Header{}, nil)
	if err != nil || !strings.Contains(string(status.Body), `"paused_until"`) {
		t.Errorf("GET /v1/relays = %s, %v, want paused_until", status.Body, err)
	}
}
