package service

import (
	"bytes"
	"log/slog"
	"math"
	"strings"
	"testing"
)

func TestWithinFiles(t *testing.T) {
	for _, tc := range []struct {
		wanted int
		files  uint64
		want   int
	}{
		{2000, math.MaxUint64, 2000}, {2000, 2200, 2000}, {2000, 2199, 1999}, {2000, 1024, 824}, {2000, 64, 16}, {50, 1024, 50},
	} {
		var log bytes.Buffer
		if got := withinFiles(tc.wanted, tc.files, slog.New(slog.NewTextHandler(&log, nil))); got != tc.want {
			t.Errorf("withinFiles(%d, %d) = %d, want %d", tc.wanted, tc.files, got, tc.want)
		}
		if warned := strings.Contains(log.String(), "LimitNOFILE"); warned != (tc.want < tc.wanted) {
			t.Errorf("withinFiles(%d, %d) logs %q", tc.wanted, tc.files, log.String())
		}
	}
}
