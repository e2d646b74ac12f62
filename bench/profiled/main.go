//go:build profiled

// Profiled takes the place of the product's main.go (go build -overlay) for
// bench -profile: a CPU profile around it, written to the file that BENCH_PROFILE
// names. The product itself has no such door.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"mailsidecar/cli"
)

func main() { os.Exit(run()) }

func run() int {
	file, err := os.Create(os.Getenv("BENCH_PROFILE"))
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
	return cli.Run(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
}
