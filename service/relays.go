package service

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"mailsidecar/config"
	"mailsidecar/mailer"
	"mailsidecar/mailer/dkim"
	"mailsidecar/mailer/smtp"
	"mailsidecar/mailer/smtp/token"
	"mailsidecar/processor"
	"mailsidecar/queue"
	"mailsidecar/service/certs"
	"mailsidecar/units"
)

// Relay is an upstream relay as the service uses it.
type Relay interface {
	mailer.Deliverer
	// Check asks the relay, without sending mail, what works and what does not, and
	// whether it takes mail of that sender; an empty one is not tried.
	Check(ctx context.Context, sender string) smtp.Report
	Connections() smtp.Connections
	Turns() smtp.Turns
	Logins() smtp.LoginState
	// Certificates are when the certificate ends that was seen last, by port.
	Certificates() map[int]time.Time
	// Useful is how many deliveries at a time are of use at this moment.
	Useful() int
	// Rate is how fast it takes mail; zero means that nothing limits it.
	Rate() units.Rate
	// Used tells it when messages set out within its rate in an earlier run.
	Used(times []time.Time)
	// NoteUsed has it tell of what an attempt has used of it before it uses more.
	NoteUsed(note func(ctx context.Context, times []time.Time) error)
	// ShareRate has it keep to its rate together with those of other instances.
	ShareRate(note mailer.ChangeNote, used []time.Time)
	// ShareLogins has it count refused logins together with those of other instances.
	ShareLogins(note mailer.ChangeNote)
	// Rewrites reports whether it may change any message.
	Rewrites() bool
	// StopWaiting ends the deliveries that wait for the relay's rate.
	StopWaiting()
	// Close returns when the relay's connections are closed.
	Close()
}

var _ Relay = (*smtp.Relay)(nil)

// RelayOptions are what relays have in common. The zero value will do.
type RelayOptions struct {
	Timeouts smtp.Timeouts // zero fields mean the defaults
	Logger   *slog.Logger  // nil logs nothing
	Meter    smtp.Meter    // nil counts nothing
	// DataDir is where OAuth2 logins are stored; empty means in memory.
	DataDir string
	// Logins is where they are stored instead; nil means nowhere.
	Logins *SharedLogins
	// Diagnosis lets no OAuth2 refresh token be spent whose successor could not be
	// stored.
	Diagnosis bool
	// DKIM are the keys that sign what a relay needs in another form than the stored one.
	DKIM []dkim.Entry
	// Processor has the turns of what takes long; nil limits nothing.
	Processor *processor.Turns
}

// NewRelays makes a relay of each configuration. Relays that are one account count its
// refused logins together. What cannot be used is a [*ConfigError].
func NewRelays(configs []config.Relay, o RelayOptions) ([]Relay, error) {
	var made []Relay
	var logins smtp.Logins
	signer := newResigner(o.DKIM)
	store, names := newTokenStore(o), relayNames(configs)
	for i, c := range configs {
		options := relayOptions(c, names[i], o.Logger)
		options.Timeouts, options.Logins, options.Signer, options.Processor = o.Timeouts, &logins, signer, o.Processor
		options.Meter = o.Meter
		r, err := newRelay(c, options, store)
		if err != nil {
			return nil, err
		}
		made = append(made, r)
	}
	if o.Logger != nil {
		warnForgetful(configs, store, o.Logger)
	}
	return made, nil
}

func newRelay(c config.Relay, o smtp.Options, store token.Store) (Relay, error) {
	if c.TLSCertFile != "" {
		files, err := certs.OpenFiles(c.TLSCertFile, cmp.Or(c.TLSKeyFile, c.TLSCertFile), cmp.Or(o.Logger, slog.New(slog.DiscardHandler)))
		if err != nil {
			return nil, &ConfigError{c.Variable("TLS_CERT_FILE"), err}
		}
		o.ClientCertificate = func() (*tls.Certificate, error) { return files.GetCertificate(nil) }
	}
	if c.OAuth2.Configured() && c.Auth != "none" {
		return newTokenRelay(c, o, store)
	}
	r, err := smtp.New(o)
	if err != nil {
		return nil, &ConfigError{c.Variable("HOST"), err}
	}
	return r, nil
}

// relayNames gives each relay its host as name, with its number where another
// one has the same host.
func relayNames(configs []config.Relay) []string {
	count := map[string]int{}
	for _, c := range configs {
		count[c.Host]++
	}
	names := make([]string, len(configs))
	for i, c := range configs {
		names[i] = c.Host
		if count[c.Host] > 1 {
			names[i] = fmt.Sprintf("%s#%d", c.Host, c.Number)
		}
	}
	return names
}

// relayOptions are the options of the relay that c describes, without a source of
// tokens.
func relayOptions(c config.Relay, name string, log *slog.Logger) smtp.Options {
	o := smtp.Options{
		Name: name, Host: c.Host, Ladder: ladder(c),
		Username: c.Username, Password: c.Password.Reveal(), Mechanism: c.Auth,
		Cleartext: c.TLS == "none", AllowCleartext: c.AllowCleartext, RootCAs: c.RootCAs, ServerName: c.TLSServerName,
		Helo: c.HELO, MaxRecipients: c.MaxRecipients, Logger: log,
		MaxConnections: c.MaxConnections, MessagesPerConnection: c.MessagesPerConnection, IdleTimeout: time.Duration(c.IdleTimeout),
		Rate: c.Rate, ForceFrom: forcedFrom(c), ReturnPath: SenderOf(c.ReturnPath),
		MinTLS: tls.VersionTLS12,
	}
	if c.TLSMinVersion == "1.3" {
		o.MinTLS = tls.VersionTLS13
	}
	for _, pin := range c.TLSPin {
		o.Pins = append(o.Pins, pin)
	}
	if c.Auth == "none" {
		o.Username, o.Password, o.Mechanism = "", "", ""
	}
	return o
}

// forcedFrom is SMTP_FORCE_FROM; zero where it is not set.
func forcedFrom(c config.Relay) mailer.Address {
	if c.ForceFrom == "" {
		return mailer.Address{}
	}
	address, _ := mailer.ParseAddress(c.ForceFrom) // config has checked it
	return address
}

func ladder(c config.Relay) []mailer.Rung {
	rungs := make([]mailer.Rung, len(c.Ports))
	for i, p := range c.Ports {
		rungs[i] = mailer.Rung{Port: p.Port, Implicit: p.Implicit, Clear: c.TLS == "none"}
	}
	return rungs
}

// workers is how many deliveries go on at a time at most: as many as keep every
// connection of the busiest relay at work, see [smtp.Relay.Useful].
func workers(configs []config.Relay) int {
	most := 0
	for _, c := range configs {
		most = max(most, c.MaxConnections)
	}
	return 3 * most
}

// CheckTimeouts are those of a check that ends after a time: where nothing comes, it
// ends after 5 seconds, and a connection has all of the time.
func CheckTimeouts(all time.Duration) smtp.Timeouts {
	return smtp.Timeouts{Connect: min(5*time.Second, max(all/2, time.Millisecond)), Hello: all}
}

// CheckRelays checks the relays at the same time: it takes as long as the
// slowest. Each is asked whether it takes mail from the address from, or from another
// one where that mail goes elsewhere, see [checkSenders].
func CheckRelays(ctx context.Context, configs []config.Relay, relays []Relay, from string) []smtp.Report {
	senders := checkSenders(configs, relays, from)
	reports := make([]smtp.Report, len(relays))
	var wg sync.WaitGroup
	for i, r := range relays {
		wg.Go(func() { reports[i] = r.Check(ctx, senders[i]) })
	}
	wg.Wait()
	return reports
}

// checkSenders returns the sender to try at each relay: from, where the relay takes its
// mail, be it that of one API key only; otherwise the first address that SMTP_SENDERS of
// the relay names. It is empty where there is neither.
func checkSenders(configs []config.Relay, relays []Relay, from string) []string {
	routes := make(queue.Routes, len(relays))
	for i, r := range relays {
		routes[i] = queue.Route{Relay: r, Senders: configs[i].Senders, Keys: configs[i].Keys}
	}
	takes := routes.For("", from) // of keys that name no relay
	for _, c := range configs {
		for key := range c.Keys {
			takes = append(takes, routes.For(key, from)...)
		}
	}
	senders := make([]string, len(relays))
	for i, r := range relays {
		if from != "" && slices.Contains(takes, mailer.Deliverer(r)) {
			senders[i] = from
			continue
		}
		if n := slices.IndexFunc(configs[i].Senders, func(s string) bool { return strings.Contains(s, "@") }); n >= 0 {
			senders[i] = configs[i].Senders[n]
		}
	}
	return senders
}

// DefaultSender returns the sender of mail that names none: that of
// MAILSIDECAR_FORCE_FROM, which replaces every other one, or else of MAILSIDECAR_FROM.
func DefaultSender(s config.Service) string {
	return cmp.Or(SenderOf(s.ForceFrom), SenderOf(s.From))
}

// SenderOf returns the address in a From such as that of MAILSIDECAR_FROM; empty where
// there is none.
func SenderOf(from string) string {
	address, err := mailer.ParseAddress(from)
	if err != nil {
		return ""
	}
	return address.Email
}
