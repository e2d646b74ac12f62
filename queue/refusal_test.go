package queue_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// TestRefusalIsLogged: once a minute, whatever the clients' number.
func TestRefusalIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		q := start(t, func(o *queue.Options) {
			o.MaxMessages, o.Logger = 1, slog.New(slog.NewTextHandler(&log, nil))
		}, queuetest.NewRelay(queuetest.Unreachable))
		q.MustSubmit(queuetest.Submission("1", "a@example.org"))
		for range 3 {
			for range 100 {
				if _, err := q.Submit(t.Context(), queuetest.Submission("2", "a@example.org")); !errors.Is(err, queue.ErrFull) {
					t.Fatalf("Submit = %v, want ErrFull", err)
				}
			}
			time.Sleep(time.Minute)
		}
		if n := strings.Count(log.String(), "new mail is refused"); n != 3 {
			t.Errorf("refusals logged = %d, want 3, one a minute", n)
		}
		if got := q.Trouble(); !errors.Is(got.RefusedFor, queue.ErrFull) || time.Since(got.Refused) != time.Minute {
			t.Errorf("Trouble = %+v, want the last refusal", got)
		}
		if !strings.Contains(log.String(), "MAILSIDECAR_QUEUE_MAX_MESSAGES") {
			t.Errorf("log = %s\nwant the setting in it", log.String())
		}
	})
}

type lockedLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
