// Mailsidecar takes mail over HTTP and hands it to an upstream relay by
// authenticated SMTP. Package cli has the commands.
package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"mailsidecar/cli"
)

func main() {
	forgetPostgres()
	os.Exit(cli.Run(stopContext(), cli.CommandLine(os.Args), cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}

// forgetPostgres takes PGHOST and the like from the environment: settings have our names and
// stand in the address of a database, and the client library would mix others in silently. For
// a copy it would do so at both ends.
func forgetPostgres() {
	for _, setting := range os.Environ() {
		if name, _, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "PG") {
			_ = os.Unsetenv(name) // it came from the environment, so it is a name
		}
	}
}

// stopContext ends at SIGINT, SIGTERM or SIGHUP, which ask for an orderly stop. SIGHUP comes
// when a terminal closes, and from systemd right after SIGTERM where SendSIGHUP is set;
// so it never ends the process at once. A second SIGINT or SIGTERM does, for the first of
// these gives them their default effect back.
func stopContext() context.Context {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup does
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		for s := range signals {
			if s != syscall.SIGHUP {
				// Before anybody can see that the stop began, and send the second one.
				signal.Reset(os.Interrupt, syscall.SIGTERM)
			}
			stop()
		}
	}()
	return ctx
}
