//go:build profiled

// Profiled takes the place of the product's main.go (go build -overlay) for
// bench -profile: a CPU profile around it, written to the file that BENCH_PROFILE
// names, and beside it, with .heap, a heap profile of the moment with the most
// memory. The product itself has no such option.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	"mailsidecar/cli"
)

func main() { os.Exit(run(os.Getenv("BENCH_PROFILE"))) }

func run(path string) int {
	file, err := os.Create(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "profiled:", err)
		return 1
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		fmt.Fprintln(os.Stderr, "profiled:", err)
		return 1
	}
	defer pprof.StopCPUProfile()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go watchHeap(ctx, path+".heap")
	return cli.Run(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
}

// watchHeap keeps the profile of the largest heap that it has seen.
func watchHeap(ctx context.Context, path string) {
	var most uint64
	for ticker := time.NewTicker(200 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if m.HeapInuse <= most*11/10 {
			continue
		}
		most = m.HeapInuse
		var profile bytes.Buffer
		if err := pprof.Lookup("heap").WriteTo(&profile, 0); err != nil {
			continue
		}
		if err := os.WriteFile(path, profile.Bytes(), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, "profiled:", err)
		}
	}
}
