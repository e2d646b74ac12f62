package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"mailsidecar/api"
)

// TestEventMessages: each message that is an event is logged by the service.
func TestEventMessages(t *testing.T) {
	var code strings.Builder
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "events.go") {
			return err
		}
		data, err := os.ReadFile(path)
		code.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for message := range eventKinds {
		if !strings.Contains(code.String(), "("+strconv.Quote(message)) && !strings.Contains(code.String(), ", "+strconv.Quote(message)) {
			t.Errorf("nothing logs %q", message)
		}
	}
}

// unread is a log of which nobody reads a line.
func unread() *slog.Logger { return slog.New(slog.NewTextHandler(nobody{}, nil)) }

type nobody struct{}

func (nobody) Write(p []byte) (int, error) { return len(p), nil }

// TestEvents: lines of the log become sentences, the newest first.
func TestEvents(t *testing.T) {
	log, kept := keepEvents(unread())
	at := time.Date(2030, 1, 31, 8, 0, 0, 0, time.UTC)
	log = log.With("relay", "smtp.example.net")
	log.Info("accepted", "id", "x")
	log.Warn("relay paused", "cause", "auth: 535 5.7.8 no <shop@example.com>", "until", at)
	log.Warn("relay paused", "cause", "auth: 535 5.7.8 no <shop@example.com>", "until", at.Add(time.Hour))
	log.Info("relay resumed")
	log.Warn("relay paused by an operator", "since", at, "reason", "moving\nhouse")
	log.Warn("relay paused by an operator", "since", at, "until", at, "reason", "")
	log.Error("new certificate not read", "file", "/run/tls.pem", "error", errors.New("no such file"))
	log.Info("queue started", "messages", 0, "crashes", 0, "uncertain", 3)
	var got []string
	for _, e := range kept.events().Events {
		got = append(got, fmt.Sprintf("%s %s %s: %s", e.Level, e.Kind, e.Relay, e.Text))
	}
	want := []string{
		"info queue smtp.example.net: The queue has started. Messages in it: 0. Recipients whose mail may have been sent when the last run ended: 3.",
		"error certificate smtp.example.net: The new certificate in /run/tls.pem cannot be read: no such file. The old one serves.",
		"warning relay_paused smtp.example.net: An operator has paused smtp.example.net until 2030-01-31T08:00:00Z.",
		"warning relay_paused smtp.example.net: An operator has paused smtp.example.net: moving house.",
		"info relay_resumed smtp.example.net: smtp.example.net takes mail again.",
		"warning relay_paused smtp.example.net: smtp.example.net gets no mail for now: auth: 535 5.7.8 no <(an address)>",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("events =\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestEventsAreBounded: in number and in size, whatever a relay says.
func TestEventsAreBounded(t *testing.T) {
	log, kept := keepEvents(unread())
	for i := range 3 * maxEvents {
		log.Warn("relay paused", "relay", "a", "cause", fmt.Sprint(i, strings.Repeat("\xffä\u202e@", 100_000)))
	}
	all := kept.events().Events
	if len(all) != maxEvents || !strings.Contains(all[0].Text, fmt.Sprint(3*maxEvents-1)) {
		t.Errorf("%d events, the newest %.80q", len(all), all[0].Text)
	}
	for _, e := range all {
		if n := utf8.RuneCountInString(e.Text); n > maxEventText || !utf8.ValidString(e.Text) || strings.ContainsAny(e.Text, "\u202e\n") {
			t.Fatalf("text of %d characters: %.80q", n, e.Text)
		}
	}
}

// TestEventLogIsALog: what is logged goes on to the log behind.
func TestEventLogIsALog(t *testing.T) {
	var b strings.Builder
	log, _ := keepEvents(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if log.Enabled(context.Background(), slog.LevelInfo) {
		t.Error("more is logged than the log behind wants")
	}
	log.With("a", 1).WithGroup("g").Warn("relay paused", "b", 2)
	if !strings.Contains(b.String(), `msg="relay paused" a=1 g.b=2`) {
		t.Errorf("log = %s", b.String())
	}
}

// TestGetEvents: a running server tells that it has started.
func TestGetEvents(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, Options{Config: serviceWith(t, "none", refusedPort(t)), Logger: unread()})
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
	client, err := api.New(s.URL(), "", "test", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.HTTP.CloseIdleConnections()
	a, err := client.Do(t.Context(), http.MethodGet, "/v1/events", nil, nil)
	var got api.Events
	if err != nil || json.Unmarshal(a.Body, &got) != nil || len(got.Events) != 1 || got.Events[0].Kind != api.EventStarted || got.Since.IsZero() {
		t.Errorf("GET /v1/events = %d %s, %v", a.Status, a.Body, err)
	}
}

// FuzzCleanEvent: no address, no control character, no more than allowed.
func FuzzCleanEvent(f *testing.F) {
	f.Add("550 5.1.1 <ana@example.org>: no such user")
	f.Add("\xff\x00\u202e a@b, c@d\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		got := cleanEvent(text)
		if utf8.RuneCountInString(got) > maxEventText || !utf8.ValidString(got) || strings.ContainsAny(got, "\r\n\x00") || addresses().MatchString(got) {
			t.Errorf("cleanEvent(%q) = %q", text, got)
		}
	})
}
