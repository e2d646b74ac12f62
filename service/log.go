package service

import (
	"io"
	"log/slog"

	"mailsidecar/config"
)

// NewLogger returns the logger that the configuration asks for.
func NewLogger(w io.Writer, c config.Service) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel, ReplaceAttr: inMillis}
	if c.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// inMillis writes a duration in milliseconds and says so in its key, as the HTTP
// interface does; slog's own nanoseconds are easily taken for something else.
func inMillis(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindDuration {
		return a
	}
	return slog.Int64(a.Key+"_ms", a.Value.Duration().Milliseconds())
}
