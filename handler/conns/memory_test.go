//go:build !race

// The race detector takes memory of its own.

package conns

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestHeaderMemory: whatever unfinished headers are made of, they take the memory that is
// meant for them at most.
func TestHeaderMemory(t *testing.T) {
	distinct := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%s%x:\n", string(rune('g'+i%16)), i/16)
		}
		return b.String()
	}
	for name, header := range map[string]string{
		"one long field":  "A: " + strings.Repeat("x", 250<<10),
		"fields of a few": distinct(40_000), "one field again": strings.Repeat("a:\n", 80_000), "few small fields": distinct(500),
		"continued lines": "A: b\n" + strings.Repeat(" c\n", 80_000), "a long path": "",
	} {
		t.Run(name, func(t *testing.T) {
			text := begin + header
			if header == "" {
				text = "GET /" + strings.Repeat("%41", 80_000)
			}
			const own = 1000 * (48 << 10) // the test's clients
			grown := growth(t, text)
			if limit := int64(leastWeight + 500*(32<<10) + own); grown > limit {
				t.Errorf("the heap grew by %d KiB, want %d at most", grown>>10, limit>>10)
			}
		})
	}
}

// growth is by how many octets the heap and the stacks grow when 1000 connections send the
// text.
func growth(t *testing.T, text string) int64 {
	set := New(Limits{}, slog.New(slog.DiscardHandler))
	h := &http.Server{
		ConnState: set.Track, ConnContext: Context, ReadHeaderTimeout: time.Minute,
		MaxHeaderBytes: set.limits.Header, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	for range 1000 {
		if runtime.NumGoroutine() < 10 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	before := inUse()
	go func() { served <- h.Serve(set.Listen(l, nil)) }()
	var sent atomic.Int64
	for range 1000 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			for rest := text; rest != ""; {
				n := min(len(rest), 1+rand.IntN(8<<10))
				_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // a server that reads no further is as good
				if _, err := io.WriteString(c, rest[:n]); err != nil {
					break
				}
				rest = rest[n:]
			}
			sent.Add(1)
		}()
	}
	peak := int64(0)
	for sent.Load() < 1000 {
		peak = max(peak, inUse()-before)
		time.Sleep(10 * time.Millisecond)
	}
	peak = max(peak, inUse()-before)
	t.Logf("%d KiB at most", peak>>10)
	if err := errors.Join(l.Close(), h.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	return peak
}

func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
