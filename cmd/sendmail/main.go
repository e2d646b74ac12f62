// Sendmail is "mailsidecar sendmail" alone: the client without the server, small
// enough to be copied into the image of an application as /usr/sbin/sendmail.
// Package sendmail has the program.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"mailsidecar/sendmail"
)

// version is set by the linker: -X main.version=1.2.3
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	args, _ := sendmail.CommandLine(os.Args)
	os.Exit(sendmail.Program{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: version}.Run(ctx, args))
}
