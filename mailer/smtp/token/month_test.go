package token

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"
)

// TestMonth: for a month a mail wants a token each 20 seconds, tokens last an hour, each
// renewal replaces the refresh token and a spent one ends the family. Four servers run
// one after the other, and a check now and then. Once the network fails for a day, and
// once the disk. No mail waits for longer than a minute, but while there is no network.
func TestMonth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		begin := time.Now()
		now := func() time.Duration { return time.Since(begin) }
		between := func(from, to time.Duration) bool { return now() >= from && now() < to }
		offline := func() bool { return between(9*day+5*time.Hour, 10*day+5*time.Hour) }

		diskFull := func() bool { return between(20*day+time.Minute, 21*day) }

		i, store := &issuer{rotate: true, reuseKills: true, life: 3600, latency: 3 * time.Second}, new(orderedStore)
		i.fail = func(int, url.Values) *http.Response {
			if offline() {
				return noAnswer
			}
			return nil
		}
		store.fail = func(step string) error {
			store.mu.Lock()
			store.events = nil // they would fill the memory
			store.mu.Unlock()
			if step == "save" && diskFull() {
				return errDiskFull
			}
			return nil
		}
		var late, whileOffline time.Duration
		mails, failed := 0, 0
		for _, until := range []time.Duration{7 * day, 15*day + 31*time.Minute, 22 * day, 30 * day} {
			server, stop := startSource(t, loginOptions(i, store))
			for now() < until {
				waited := mailWaits(t, server, &failed)
				mails++
				if between(9*day+5*time.Hour, 10*day+6*time.Hour) {
					whileOffline = max(whileOffline, waited)
				} else {
					late = max(late, waited)
				}
				// While the disk is full the server keeps the lock: a check would spend the
				// token that it finds there.
				if mails%1000 == 0 && !offline() && !diskFull() {
					check, end := startSource(t, loginOptions(i, store))
					mailWaits(t, check, &failed)
					end()
				}
				time.Sleep(20*time.Second - waited%(20*time.Second))
			}
			stop()
		}
		if i.dead || i.overlap {
			t.Errorf("the family ended: %v, requests at a time: %v", i.dead, i.overlap)
		}
		if late > time.Minute {
			t.Errorf("a mail waited %v", late)
		}
		// An hour of the day is bridged by the token in use, and after it there is no
		// longer wait than the pause between two requests.
		if whileOffline < 22*time.Hour || whileOffline > day+time.Minute {
			t.Errorf("a mail waited %v for the network", whileOffline)
		}
		t.Logf("%d mails, at most %v late, %d failures while offline, %d requests", mails, late, failed, i.asked())
	})
}

var errDiskFull = errors.New("no space left on device")

// startSource runs a source until stop.
func startSource(t *testing.T, o Options) (*Source, func()) {
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	return s, func() {
		cancel()
		<-done
		grace, end := context.WithTimeout(context.Background(), 8*time.Second)
		defer end()
		s.Close(grace)
	}
}

// mailWaits returns how long a mail waits for a token, which it asks for each second.
func mailWaits(t *testing.T, s *Source, failed *int) time.Duration {
	begin := time.Now()
	for {
		_, err := s.Token(t.Context(), "")
		if err == nil {
			return time.Since(begin)
		}
		if time.Since(begin) > 48*time.Hour {
			t.Fatalf("a mail waits for two days: %v", err)
		}
		*failed++
		time.Sleep(time.Second)
	}
}
