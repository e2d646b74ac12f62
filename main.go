// Mailsidecar takes mail over HTTP and hands it to an upstream relay by
// authenticated SMTP. Package cli has the commands.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"mailsidecar/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly stop. It also gives signals their
	// default effect back, so that a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Run(ctx, cli.CommandLine(os.Args), cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
