package service

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/config"
	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/queue"
)

// TestWrongPasswordWithoutQueue: a hundred requests cause two logins. All of them are
// told the relay's verdict, and when to come again.
func TestWrongPasswordWithoutQueue(t *testing.T) {
	relay := relaytest.New(t, relaytest.Options{Extensions: []string{"AUTH PLAIN"}}, nil)
	c := serviceWith(t, "none", relay.Listen(t))
	r := &c.Relays[0]
	r.TLS, r.Auth, r.Username, r.Password = "none", "auto", "user", config.NewSecret("wrong")
	s, stop := start(t, c)
	var requests sync.WaitGroup
	for range 100 {
		requests.Go(func() {
			a, err := post(s, http.Header{})
			if err != nil || a.Status != http.StatusServiceUnavailable {
				t.Errorf("the answer is %d, %v, want 503", a.Status, err)
			}
		})
	}
	requests.Wait()
	a, err := post(s, http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	var p api.Problem
	if err := json.Unmarshal(a.Body, &p); err != nil {
		t.Fatal(err)
	}
	seconds, _ := strconv.Atoi(a.Header.Get("Retry-After"))
	if a.Status != http.StatusServiceUnavailable || seconds < 1 || seconds > 60 || !p.Retryable ||
		!strings.Contains(p.Detail, "535 5.7.8") || !strings.Contains(p.Detail, "the next login is not before") {
		t.Errorf("answer within the pause = %d, Retry-After %d, %+v; want 503 with the verdict and the time", a.Status, seconds, p)
	}
	status := s.monitor.Status()[0]
	if l := status.Logins; l.Refused != 2 || l.Next.Before(time.Now()) || l.Failure.Reply.Code != 535 {
		t.Errorf("Logins = %+v, want two refused ones", l)
	}
	report := s.monitor.Check(t.Context(), "")[0]
	if report.OK || report.Rungs[0].Auth != "paused" {
		t.Errorf("Check() = %+v, want it paused", report)
	}
	if n := relay.Said("AUTH"); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestRelaysOfOneAccount: two relays with the same host, user and password share
// their logins.
func TestRelaysOfOneAccount(t *testing.T) {
	relay := relaytest.New(t, relaytest.Options{Extensions: []string{"AUTH PLAIN"}}, nil)
	c := serviceWith(t, "none", relay.Listen(t))
	r := &c.Relays[0]
	r.TLS, r.Auth, r.Username, r.Password = "none", "auto", "user", config.NewSecret("wrong")
	c.Relays = append(c.Relays, c.Relays[0])
	c.Relays[1].Number = 2
	relays, err := NewRelays(c.Relays, RelayOptions{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	q := queue.NewDirect(queue.Routes{{Relay: relays[0]}, {Relay: relays[1]}}, nil)
	for range 10 {
		receipt, err := q.Submit(t.Context(), queue.Submission{
			Sender:   "a@example.com",
			Envelope: mailer.Envelope{ReversePath: "a@example.com", ForwardPaths: []string{"b@example.org"}},
			Content:  mailer.Content{Data: []byte("Subject: x\r\n\r\nx\r\n")},
		})
		if err != nil || receipt.Message.Status() != queue.StatusDeferred {
			t.Fatalf("Submit = %+v, %v, want it deferred", receipt, err)
		}
	}
	for _, r := range relays {
		r.Close()
	}
	if n := relay.Said("AUTH"); n != 2 {
		t.Errorf("%d logins, want 2 over both relays", n)
	}
}

// TestConsentURL: the page for administrators is that of the server where a person logs
// in, or none.
func TestConsentURL(t *testing.T) {
	const microsoft = "https://login.microsoftonline.com/t/oauth2/v2.0/"
	for _, tt := range []struct {
		authorize, device, token string
		want                     bool
	}{
		{"", "", microsoft + "token", true},
		{microsoft + "authorize", microsoft + "devicecode", microsoft + "token", true},
		{"https://login.example.com/authorize", "", microsoft + "token", false},
		{"", "https://login.example.com/device", microsoft + "token", false},
		{"", "", "https://login.example.com/token", false},
	} {
		o := config.OAuth2{Provider: "microsoft", ClientID: "id", AuthorizeURL: tt.authorize, DeviceURL: tt.device, TokenURL: tt.token}
		l, err := NewLogin(config.Relay{OAuth2: o}, t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.ConsentURL(); (got != "") != tt.want {
			t.Errorf("ConsentURL() of %+v = %q, want one: %v", tt, got, tt.want)
		}
	}
}
