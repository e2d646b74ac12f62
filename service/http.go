package service

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"time"

	"mailsidecar/api"
	"mailsidecar/config"
	"mailsidecar/handler"
	compat "mailsidecar/handler/compat/all"
	"mailsidecar/handler/keys"
	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/service/certs"
	"mailsidecar/ui"
)

// newHandler makes the HTTP server, which does not listen yet.
func (s *Service) newHandler(all config.Config, version string) (*handler.Server, error) {
	c := all.Service
	entries := make([]keys.Entry, len(c.Keys))
	for i, k := range c.Keys {
		entries[i] = keys.Entry{Name: k.Name, Secret: k.Secret.Reveal(), Senders: k.Senders, Rate: k.Rate, Roles: k.Roles}
	}
	tlsConfig, err := newTLS(c, s.log)
	if err != nil {
		return nil, err
	}
	apis, err := compat.Choose(c.CompatAPIs())
	if err != nil {
		return nil, &ConfigError{"configuration", err}
	}
	var ledger handler.Ledger
	if s.queue != nil {
		ledger = s.queue
	}
	var scrapes http.Handler
	var meter handler.Meter // a nil pointer in it would not be nil
	if s.metrics != nil {
		scrapes, meter = s.metrics.Handler(), s.metrics
	}
	h, err := handler.New(handler.Options{
		ShareRates: s.changeNote(),
		Metrics:    scrapes, Meter: meter, Submitter: s.submitter, Ledger: ledger, Relays: s.monitor, Operator: s.operator, Keys: entries, From: c.From, ForceFrom: c.ForceFrom, Rewrites: s.monitor.rewrites(), Signer: newSigner(c.DKIMKeys), Ready: s.ready, Logger: s.log, Processor: s.processor,
		Events:   s.events.events,
		Settings: func() []api.Setting { return settingsOf(all) },
		Compat:   apis, TLS: tlsConfig, Pages: s.newPages(c, version), PagesPath: c.UIPath,
		Version: version, MaxConnections: withinFiles(c.MaxConnections, maxFiles(), s.log), MaxMessageSize: int64(c.MaxMessageSize), MaxRecipients: c.MaxRecipients,
		MaxInFlight: int64(c.MaxInFlight), RequestTimeout: time.Duration(c.RequestTimeout),
	})
	if err != nil {
		return nil, &ConfigError{"configuration", err}
	}
	return h, nil
}

// settingsOf are the settings in force, as the log line "starting" has them.
func settingsOf(c config.Config) []api.Setting {
	settings := []api.Setting{}
	for _, s := range c.Effective() {
		settings = append(settings, api.Setting{Name: s.Name, Value: s.Value, Source: string(s.Source), About: s.About})
	}
	return settings
}

// newPages returns what makes the dashboard; nil where there is none.
func (s *Service) newPages(c config.Service, version string) func(*handler.Door) http.Handler {
	if c.UI == "none" {
		return nil
	}
	return func(door *handler.Door) http.Handler {
		return ui.New(door, ui.Options{Prefix: c.UIPath, Version: version, Logger: s.log})
	}
}

// newTLS returns the settings of HTTPS; nil when it is not served. TLS 1.2 is the oldest
// version that clients with security updates speak.
func newTLS(c config.Service, log *slog.Logger) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case c.SelfSigned():
		ca, err := certs.OpenAuthority(c.DataDir)
		if err != nil {
			return nil, &ConfigError{"MAILSIDECAR_TLS", err}
		}
		t.GetCertificate = certs.NewIssuer(ca).GetCertificate
	case c.TLSCertFile != "":
		files, err := certs.OpenFiles(c.TLSCertFile, c.TLSKeyFile, log)
		if err != nil {
			return nil, &ConfigError{"MAILSIDECAR_TLS_CERT_FILE, MAILSIDECAR_TLS_KEY_FILE", err}
		}
		t.GetCertificate = files.GetCertificate
	default:
		return nil, nil
	}
	return t, nil
}

// changeNote changes what instances share; nil where the queue is this instance's alone.
func (s *Service) changeNote() mailer.ChangeNote {
	if s.queue == nil {
		return nil
	}
	if shared, ok := s.queue.store.(queue.SharedStore); ok {
		return shared.ChangeNote
	}
	return nil
}
