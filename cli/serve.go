package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"mailsidecar/config"
	"mailsidecar/service"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve: take mail over HTTP and hand it to the relay (the default)",
		Long: `Takes mail over HTTP and hands it to the relay until SIGTERM or SIGINT, then
stops in order: it accepts nothing more, answers the requests under way, ends or
gives back the deliveries in hand and closes the queue, all of that within
MAILSIDECAR_SHUTDOWN_TIMEOUT. A second signal ends it at once.

The log goes to standard error.

Exit status: 0 stopped in order; 1 it could not start, or not stop in time;
78 wrong configuration.`,
		Example: `  SMTP_HOST=smtp.example.com SMTP_USERNAME=me SMTP_PASSWORD=secret \
  MAILSIDECAR_ADDR=127.0.0.1:8587 mailsidecar serve`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), cmd.ErrOrStderr()) },
	}
	help := cmd.HelpFunc()
	cmd.SetHelpFunc(func(c *cobra.Command, args []string) {
		help(c, args)
		fmt.Fprintln(c.OutOrStdout(), "\nConfiguration, from the environment:")
		fmt.Fprintln(c.OutOrStdout())
		_ = config.WriteHelp(c.OutOrStdout()) // cobra ignores the errors of help, too
	})
	return cmd
}

func serve(ctx context.Context, logTo io.Writer) error {
	cfg, warnings, err := loadUntil(ctx)
	if ctx.Err() != nil {
		return nil // it was stopped before it began
	}
	if err != nil {
		return misconfigured(err, warnings)
	}
	log := service.NewLogger(logTo, cfg.Service)
	log.Info("starting", "version", buildVersion().String(), "config", cfg)
	logNotes(log, warnings, cfg.Relays)
	service.TuneMemory(cfg.Service)
	service.TuneProcessors()
	s, err := service.Start(ctx, service.Options{Config: cfg, Version: buildVersion().version, Logger: log})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// logNotes logs what [printNotes] prints.
func logNotes(log *slog.Logger, warnings []string, relays []config.Relay) {
	for _, w := range warnings {
		log.Warn("configuration", "warning", w)
	}
	for _, relay := range relays {
		for _, h := range relay.Hints {
			log.Info("relay known", "relay", relay.Host, "hint", h)
		}
	}
}

// loadUntil loads the configuration. It does not wait for a file after ctx has ended: a
// named pipe takes seconds.
func loadUntil(ctx context.Context) (cfg config.Config, warnings []string, err error) {
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		cfg, warnings, err = config.Load()
	}()
	select {
	case <-loaded:
		return cfg, warnings, err
	case <-ctx.Done():
		return config.Config{}, nil, ctx.Err()
	}
}

// misconfigured is err with the warnings, because a misspelt name is often its cause.
func misconfigured(err error, warnings []string) error {
	for _, w := range warnings {
		err = fmt.Errorf("%w\nwarning: %s", err, w)
	}
	return &statusError{exitConfig, err}
}
