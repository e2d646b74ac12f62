package service

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/queue"
)

// TestSeldom: of the messages about a database that is away one comes each minute, with the number of
// those before, beside that which says so; others come each time.
func TestSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := logSeldom(slog.New(slog.NewTextHandler(&out, nil)))
		away := fmt.Errorf("read: %w: refused", queue.ErrUnavailable)
		for range 100 {
			log.With("n", 1).Error("read queue store", "error", away)
			log.Error("claim from queue store", "id", 1, "error", away)
			log.Info("request", "error", away)
		}
		unlimited(log).Warn("not reached", "error", away)
		for range 3 {
			log.Error("read queue store", "error", errors.New("syntax"))
		}
		time.Sleep(time.Minute)
		log.Error("read queue store", "error", away)
		got := out.String()
		for text, want := range map[string]int{`"read queue store"`: 5, `"claim from queue store"`: 0, "msg=request": 100, "left_out=199": 1, "not reached": 1} {
			if n := strings.Count(got, text); n != want {
				t.Errorf("%s stands in the log %d times, want %d", text, n, want)
			}
		}
	})
}
