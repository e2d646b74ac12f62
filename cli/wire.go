package cli

import (
	"fmt"
	"log/slog"
	"time"

	"mailsidecar/config"
	"mailsidecar/handler"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/mailer/smtp/token"
	"mailsidecar/queue"
)

// This file turns configuration into the options of the other packages, which
// know nothing of the environment.

// relayOptions is what the mailer is told of one relay.
func relayOptions(r config.Relay, name string, log *slog.Logger) (smtp.Options, error) {
	o := smtp.Options{
		Name: name, Host: r.Host, Ladder: ladder(r),
		Username: r.Username, Password: r.Password.Reveal(), Mechanism: r.Auth,
		Cleartext: r.TLS == "none", AllowCleartext: r.AllowCleartext, RootCAs: r.RootCAs, ServerName: r.TLSServerName,
		Helo: r.HELO, MaxRecipients: r.MaxRecipients, Logger: log,
		MaxConnections: r.MaxConnections, MessagesPerConnection: r.MessagesPerConnection, IdleTimeout: time.Duration(r.IdleTimeout),
		Rate: mailer.Rate(r.Rate),
	}
	if r.Auth == "none" {
		o.Username, o.Password, o.Mechanism = "", "", ""
	}
	if r.OAuth2.Configured() {
		source, err := token.New(tokenOptions(r.OAuth2))
		if err != nil {
			return o, exit(exitConfig, "%sOAUTH2_CLIENT_ID: %w", relayPrefix(r), err)
		}
		o.TokenSource = source
	}
	return o, nil
}

func tokenOptions(o config.OAuth2) token.Options {
	return token.Options{
		AccessToken: o.AccessToken.Reveal(), AccessTokenFile: o.AccessTokenFile,
		TokenURL: o.TokenURL, ClientID: o.ClientID, ClientSecret: o.ClientSecret.Reveal(),
		RefreshToken: o.RefreshToken.Reveal(), Scopes: o.Scopes,
	}
}

func ladder(r config.Relay) []mailer.Rung {
	rungs := make([]mailer.Rung, len(r.Ports))
	for i, p := range r.Ports {
		rungs[i] = mailer.Rung{Port: p.Port, Implicit: p.Implicit, Clear: r.TLS == "none"}
	}
	return rungs
}

// relayPrefix is what the names of the relay's variables begin with.
func relayPrefix(r config.Relay) string {
	if r.Number <= 1 {
		return "SMTP_"
	}
	return fmt.Sprintf("SMTP%d_", r.Number)
}

// relayNames gives each relay its host as name, with its number where another
// one has the same host.
func relayNames(relays []config.Relay) []string {
	count := map[string]int{}
	for _, r := range relays {
		count[r.Host]++
	}
	names := make([]string, len(relays))
	for i, r := range relays {
		names[i] = r.Host
		if count[r.Host] > 1 {
			names[i] = fmt.Sprintf("%s#%d", r.Host, r.Number)
		}
	}
	return names
}

// buildRelays makes a relay of each configuration. Zero fields of timeouts mean
// the defaults.
func buildRelays(relays []config.Relay, timeouts smtp.Timeouts, log *slog.Logger) ([]*smtp.Relay, error) {
	built := make([]*smtp.Relay, len(relays))
	names := relayNames(relays)
	for i, r := range relays {
		options, err := relayOptions(r, names[i], log)
		if err != nil {
			return nil, err
		}
		options.Timeouts = timeouts
		if built[i], err = smtp.New(options); err != nil {
			return nil, exit(exitConfig, "%sHOST: %w", relayPrefix(r), err)
		}
	}
	return built, nil
}

// buildRoutes says which relay takes whose mail. board is told of every attempt.
func buildRoutes(relays []config.Relay, board *relayBoard) queue.Routes {
	routes := make(queue.Routes, len(relays))
	for i, r := range relays {
		routes[i] = queue.Route{Relay: board.watch(i), Senders: r.Senders}
	}
	return routes
}

// workers is how many deliveries go on at a time at most: what keeps every
// connection of the busiest relay at work, see [mailer.Relay.Useful].
func workers(relays []config.Relay) int {
	most := 0
	for _, r := range relays {
		most = max(most, r.MaxConnections)
	}
	return 3 * most
}

// buildHandler makes the HTTP side.
func (s *server) buildHandler(c config.Service) (*handler.Server, error) {
	keys := make([]handler.Key, len(c.Keys))
	for i, k := range c.Keys {
		keys[i] = handler.Key{Name: k.Name, Secret: k.Secret.Reveal(), Senders: k.Senders, Rate: mailer.Rate(k.Rate)}
	}
	tlsConfig, err := buildTLS(c, s.log)
	if err != nil {
		return nil, err
	}
	h, err := handler.New(handler.Options{
		Queue: s.queue, Relays: s.board, Keys: keys, From: c.From, Ready: s.ready, Logger: s.log,
		Providers: c.Providers(), TLS: tlsConfig,
		Version: buildVersion().version, MaxMessageSize: int64(c.MaxMessageSize), MaxRecipients: c.MaxRecipients,
		MaxInFlight: int64(c.MaxInFlight), RequestTimeout: time.Duration(c.RequestTimeout),
	})
	if err != nil {
		return nil, exit(exitConfig, "configuration: %w", err)
	}
	return h, nil
}
