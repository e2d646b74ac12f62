package keys

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/units"
)

func TestKeyIsNotPrinted(t *testing.T) {
	var b strings.Builder
	const secret = "s3cret-of-shop"
	k := Entry{Name: "shop", Secret: secret}
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "key", k, "keys", []Entry{k})
	fmt.Fprintf(&b, "%v %+v %s %v", k, k, k, []Entry{k})
	if strings.Contains(b.String(), secret) {
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

func TestMaySend(t *testing.T) {
	k := &Key{senders: []string{"a@example.com", "example.net"}}
	for sender, want := range map[string]bool{
		"A@example.com": true, "b@example.com": false, "b@Example.NET": true, "b@sub.example.net": false, "": false,
	} {
		if got := k.MaySend(sender); got != want {
			t.Errorf("MaySend(%q) = %v, want %v", sender, got, want)
		}
	}
	if !(*Key)(nil).MaySend("anybody@example.org") {
		t.Error("a key without senders may not send")
	}
}

// TestNoKeyMayNothing: a request that has proven no key must not be taken for one of a
// server without keys.
func TestNoKeyMayNothing(t *testing.T) {
	r, err := NewRing(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	for role := Role(0); role <= everything; role++ {
		if may := (*Key)(nil).Require(role) == nil; may != (role == 0) {
			t.Errorf("a request without a key may %v = %v", role, may)
		}
		if err := r.keyless.Require(role); err != nil {
			t.Errorf("without keys: Require(%v) = %v", role, err)
		}
	}
}

func TestBucket(t *testing.T) {
	rate := units.Rate{Messages: 60, Per: time.Minute}
	now := time.Now()
	b := &bucket{}
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
		wait, ok := b.take(rate, tc.n, now.Add(tc.after))
		if ok != tc.ok || !ok && wait <= 0 {
			t.Errorf("take(%d) at %v = %v, %v, want %v", tc.n, tc.after, wait, ok, tc.ok)
		}
	}
	daily := units.Rate{Messages: 2, Per: 24 * time.Hour}
	b = &bucket{}
	for i, want := range []time.Duration{0, 0, 12 * time.Hour} {
		if wait, ok := b.take(daily, 1, now); wait != want || ok != (want == 0) {
			t.Errorf("message %d of 2/d at once: take() = %v, %v, want %v", i+1, wait, ok, want)
		}
	}
	k := &Key{name: "shop", rate: units.Rate{Messages: 5, Per: time.Hour}}
	if err := k.Charge(5001); problem.For(err).Code != api.CodeTooManyMessages || !strings.Contains(problem.For(err).Detail, "5000 messages") {
		t.Errorf("Charge(5001) of 5/h = %v, want too_many_messages", err)
	}
	if err := k.Charge(5000); err != nil {
		t.Errorf("Charge(5000) of 5/h = %v, want nil", err)
	}
	if err := k.Charge(1); problem.For(err).Code != api.CodeRateLimited {
		t.Errorf("Charge(1) after that = %v, want rate_limited", err)
	}
	if _, ok := b.take(units.Rate{}, 1e6, now); !ok {
		t.Error("a zero rate is a limit")
	}
}
