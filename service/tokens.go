package service

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"mailsidecar/config"
	"mailsidecar/diagnosis"
	"mailsidecar/mailer/smtp"
	"mailsidecar/mailer/smtp/token"
	"mailsidecar/queue/postgres"
	"mailsidecar/relays"
)

// tokenRelay is a relay that is logged in to with OAuth2 tokens.
type tokenRelay struct {
	*smtp.Relay
	source *token.Source
	config config.Relay
	log    *slog.Logger
	// resume ends the pause of the relay in the queue; nil without a queue.
	resume atomic.Pointer[func(relayName string)]
}

// newTokenRelay makes the relay and its source of tokens. The options lack that source
// alone.
func newTokenRelay(c config.Relay, o smtp.Options, store token.Store) (*tokenRelay, error) {
	r := &tokenRelay{config: c, log: o.Logger}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	options := tokenOptions(c, store)
	options.Notify = r.notify
	source, err := token.New(options)
	if err != nil {
		return nil, &ConfigError{c.Variable("OAUTH2_CLIENT_ID"), err}
	}
	r.source, o.TokenSource = source, source.Token
	if c.OAuth2.NeedsLogin() {
		o.Account = func() string { return source.Status().Account }
	}
	if r.Relay, err = smtp.New(o); err != nil {
		return nil, &ConfigError{c.Variable("HOST"), err}
	}
	return r, nil
}

func tokenOptions(c config.Relay, store token.Store) token.Options {
	o := c.OAuth2
	options := token.Options{
		AccessToken: o.AccessToken.Reveal(), AccessTokenFile: o.AccessTokenFile,
		Endpoint: token.Endpoint{TokenURL: o.TokenURL, Client: TokenClient(o)},
		Scopes:   o.Scopes, RefreshToken: o.RefreshToken.Reveal(), Tenant: o.Tenant, Store: store, Relay: c.Number,
		ServiceAccountFile: o.ServiceAccountFile, Subject: c.Username, SecretExpires: o.SecretExpires.Time,
	}
	if issuer, ok := relays.IssuerAt(o.TokenURL); ok {
		options.Issuer = issuer.Name
	}
	switch o.Grant() {
	case config.GrantClient:
		options.Grant = token.GrantClient
	case config.GrantServiceAccount:
		options.Grant = token.GrantServiceAccount
	case config.GrantLogin, config.GrantNone:
	}
	return options
}

// TokenClient is the client that the settings describe.
func TokenClient(o config.OAuth2) token.Client {
	return token.Client{
		ID: o.ClientID, Secret: o.ClientSecret.Reveal(), Basic: o.ClientAuth == "basic",
		CertFile: o.CertFile, KeyFile: o.KeyFile, AssertionFile: o.AssertionFile,
	}
}

// newTokenStore returns where the logins of relays are kept: in the database that instances
// share, in the data directory, and in memory without one.
func newTokenStore(o RelayOptions) token.Store {
	switch {
	case o.Logins != nil:
		o.Logins.Careful = o.Diagnosis
		return o.Logins.SealedStore
	case o.DataDir == "":
		return new(token.MemoryStore)
	}
	store := token.NewFileStore(o.DataDir)
	store.Careful = o.Diagnosis
	return store
}

// SharedLogins are logins in the database of the queue, sealed.
type SharedLogins struct {
	*token.SealedStore
	database *postgres.Logins
}

// OpenLogins returns the logins that the instances share; nil where each has its own. It connects to
// nothing yet.
func OpenLogins(c config.Service) (*SharedLogins, error) {
	if !c.Queue.Shared() || !c.StoreKey.IsSet() {
		return nil, nil //nolint:nilnil // there are none
	}
	database, err := postgres.OpenLogins(databaseOptions(c, nil))
	if err != nil {
		return nil, &ConfigError{"MAILSIDECAR_QUEUE", err}
	}
	sealed, err := token.NewSealedStore(database, []byte(c.StoreKey.Reveal()))
	if err != nil {
		return nil, &ConfigError{"MAILSIDECAR_STORE_KEY_FILE", err}
	}
	return &SharedLogins{sealed, database}, nil
}

// Close ends the connections to the database.
func (l *SharedLogins) Close() {
	if l != nil {
		l.database.Close()
	}
}

// warnForgetful warns of logins that end with the process.
func warnForgetful(configs []config.Relay, store token.Store, log *slog.Logger) {
	for _, c := range configs {
		if c.OAuth2.Grant() == config.GrantLogin && !store.Lasting() {
			log.Warn("OAuth2 login is kept in memory only", "relay", c.Host,
				"found", "A refresh token that the server replaces is lost when this process ends.",
				"do", "Set MAILSIDECAR_DATA_DIR to a directory on a volume that lasts.")
		}
	}
}

// TokenStatus returns how the relay's OAuth2 tokens fare; false where it uses none.
func TokenStatus(r Relay) (token.Status, bool) {
	t, ok := r.(*tokenRelay)
	if !ok {
		return token.Status{}, false
	}
	return t.source.Status(), true
}

// closeGrace is how long Close waits for a token under way.
const closeGrace = token.RequestTimeout

// Close returns when the connections are closed and a refresh token that is being
// replaced is saved.
func (r *tokenRelay) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	r.closeWithin(ctx)
}

func (r *tokenRelay) closeWithin(ctx context.Context) {
	r.Relay.Close()
	r.source.Close(ctx)
}

// notify is told what happens to the source of tokens.
func (r *tokenRelay) notify(e token.Event) {
	switch e.Kind {
	case token.EventRecovered:
		r.tokenIsBack(false)
		r.log.Info("OAuth2 token is there again", "relay", r.config.Host)
	case token.EventLogin:
		r.tokenIsBack(true)
		r.log.Info("new OAuth2 login is in use", "relay", r.config.Host, "account", r.source.Status().Account)
	case token.EventFailed:
		r.logFailure(e)
	case token.EventReplaced:
		r.logReplaced(e.Err)
	case token.EventYielded:
		setting := r.config.Variable("OAUTH2_REFRESH_TOKEN")
		r.log.Warn("configured OAuth2 refresh token is refused, and the stored login is used", "relay", r.config.Host,
			"account", r.source.Status().Account, "found", "The OAuth2 server refuses "+setting+". A login is stored that was made without it.",
			"do", "Remove "+setting+", or set it to a refresh token that is valid.")
	case token.EventForeign:
		r.log.Warn("stored OAuth2 login does not fit the settings of this process", "relay", r.config.Host, "error", e.Err,
			"found", "A person has logged in with other settings. This process goes on with its own login, which is not stored any more.",
			"do", "Restart mailsidecar with the new settings. If the new login is wrong, log in again with the settings of this process.")
	case token.EventNotSaved:
		r.log.Error("OAuth2 login is not stored", "relay", r.config.Host, "error", e.Err,
			"found", "The refresh token that the server has just replaced cannot be written, so that a restart would lose it.",
			"do", "Make MAILSIDECAR_DATA_DIR writable and free some space: writing is tried again.")
	case token.EventUnwritable:
		r.log.Error("OAuth2 login cannot be stored", "relay", r.config.Host, "error", e.Err,
			"found", "Nothing can be written to the data directory, so that a refresh token which the server replaces would be lost.",
			"do", "Make MAILSIDECAR_DATA_DIR writable for this user, and free some space.")
	case token.EventSaved:
		r.log.Info("OAuth2 login is stored", "relay", r.config.Host)
	case token.EventUnlocked:
		r.log.Warn("OAuth2 login has no lock", "relay", r.config.Host, "error", e.Err,
			"do", "Make MAILSIDECAR_DATA_DIR writable, on a local disk: then no two processes can spend the same refresh token.")
	case token.EventWarning:
		advice := diagnosis.OfWarning(e.Warning, AdviceSettings(r.config))
		r.log.Warn("OAuth2 needs attention", "relay", r.config.Host, "warning", e.Warning.String(), "found", advice.Found, "do", advice.Do)
	}
}

// logReplaced says that the configured refresh token wins over the stored login. err is
// what is wrong with that, or nil.
func (r *tokenRelay) logReplaced(err error) {
	setting := r.config.Variable("OAUTH2_REFRESH_TOKEN")
	found := setting + " was set or changed after that login was stored, or names another client, so that it is used. What is stored is replaced once it has proved good."
	remedy := "If the stored login is the right one, remove " + setting + " before it is replaced. Else nothing has to be done."
	attrs := []any{"relay", r.config.Host}
	if err != nil {
		attrs = append(attrs, "error", err)
		found = "The stored login is damaged, and " + setting + " is used in its place."
		remedy = "If that one is refused, log in again. Else nothing has to be done."
	}
	r.log.Warn("stored OAuth2 login is set aside for the configured refresh token", append(attrs, "found", found, "do", remedy)...)
}

// tokenIsBack lets mail go on at once.
func (r *tokenRelay) tokenIsBack(newLogin bool) {
	r.TokenRenewed(newLogin)
	if resume := r.resume.Load(); resume != nil {
		(*resume)(r.Name())
	}
}

func (r *tokenRelay) logFailure(e token.Event) {
	level := slog.LevelError
	if token.KindOf(e.Err) == token.KindPassing {
		level = slog.LevelWarn
	}
	advice := diagnosis.OfToken(e.Err, AdviceSettings(r.config))
	r.log.Log(context.Background(), level, "OAuth2 token is not available", "relay", r.config.Host, "cause", e.Err.Error(),
		"next_attempt", e.Retry.UTC().Format(time.RFC3339), "found", advice.Found, "do", advice.Do)
}
