package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"mailsidecar/config"
	"mailsidecar/mailer/smtp"
	"mailsidecar/mailer/smtp/token"
	"mailsidecar/mailer/smtp/token/weblogin"
	"mailsidecar/relays"
)

// Login is the login of a person, from whose mailbox a relay sends. It needs no
// running server: one that runs takes the login over from the data directory.
type Login struct {
	relay    config.Relay
	issuer   relays.Issuer // zero where the endpoints are the operator's own
	tenant   string        // of the issuer's endpoints; empty means the common one
	endpoint *token.Endpoint
	store    token.Store
	dir      string // of store; empty where it is a database
	place    string // of the login
}

// NewLogin prepares a login for the relay. dataDir is where the login will be
// stored, unless there are logins in a database. The error is a [*ConfigError].
func NewLogin(relay config.Relay, dataDir string, shared *SharedLogins) (*Login, error) {
	o := relay.OAuth2
	if dataDir == "" && shared == nil {
		return nil, &ConfigError{"MAILSIDECAR_DATA_DIR", errors.New("is not set, and without a queue there is no other directory in which the login could be stored: set it to a directory that lasts")}
	}
	issuer, _ := relays.IssuerNamed(IssuerName(o), o.Cloud)
	tenant := o.Tenant
	if at, ok := relays.IssuerAt(o.TokenURL); ok && at.Tenants {
		issuer, tenant = at, firstSegment(o.TokenURL)
	}
	l := &Login{relay: relay, issuer: issuer, tenant: tenant, endpoint: &token.Endpoint{TokenURL: o.TokenURL, Client: TokenClient(o)}}
	if shared != nil {
		l.store, l.place = shared.SealedStore, "the database "+shared.database.Place()
		return l, nil
	}
	files := token.NewFileStore(dataDir)
	l.store, l.dir, l.place = files, dataDir, files.Path(relay.Number)
	return l, nil
}

// firstSegment is the first part of a URL's path: at Microsoft the tenant, which the
// endpoints of one login must share.
func firstSegment(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	return first
}

// CheckStore reports why the login could not be stored; a person should not log in for
// nothing. It waits while another process has the lock, for 70 seconds at most.
func (l *Login) CheckStore(ctx context.Context) error {
	if l.dir == "" {
		return l.checkDatabase(ctx)
	}
	err := os.MkdirAll(l.dir, 0o700)
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(l.dir, "oauth2-probe-"); err == nil {
			err = errors.Join(probe.Close(), os.Remove(probe.Name()))
		}
	}
	if err != nil {
		return &StoreError{Dir: l.dir, Err: err}
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	unlock()
	return nil
}

// checkDatabase is CheckStore for logins in a database.
func (l *Login) checkDatabase(ctx context.Context) error {
	_, err := l.store.Load(ctx, l.relay.Number)
	if err != nil && !errors.Is(err, token.ErrNotStored) && !errors.As(err, new(*token.DamagedError)) {
		return fmt.Errorf("no login can be stored in %s: %w. You have not been logged in yet", l.place, err)
	}
	waiting, cancel := context.WithTimeout(ctx, token.LockTimeout)
	defer cancel()
	unlock, err := l.store.Lock(waiting, l.relay.Number)
	if err != nil {
		return fmt.Errorf("no login can be stored in %s: its lock: %w. You have not been logged in yet", l.place, err)
	}
	unlock()
	return nil
}

// StoreError is a data directory in which no login can be stored. It is found before a
// person logs in.
type StoreError struct {
	Dir string
	Err error
}

func (e *StoreError) Error() string {
	reason := e.Err
	if path, ok := errors.AsType[*os.PathError](reason); ok {
		reason = path.Err
	}
	return fmt.Sprintf("no login can be stored in MAILSIDECAR_DATA_DIR %s: %v. Make it a directory that this user can write to, and log in then: you have not been logged in yet",
		e.Dir, reason)
}

func (e *StoreError) Unwrap() error { return e.Err }

// lock takes the lock of the relay's login. A directory that has no locks is used
// without one, as by the server.
func (l *Login) lock(ctx context.Context) (unlock func(), err error) {
	waiting, cancel := context.WithTimeout(ctx, token.LockTimeout)
	defer cancel()
	unlock, err = l.store.Lock(waiting, l.relay.Number)
	switch {
	case err == nil:
		return unlock, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case waiting.Err() != nil:
		return nil, fmt.Errorf("another process holds the lock of %s: see that the server can write there and that its disk is not full, or stop it, and log in again",
			l.place)
	default:
		return func() {}, nil
	}
}

// AskBrowser begins to wait for a browser on that port; zero means any. The error is
// a [*ConfigError] where the issuer's address for that is not known.
func (l *Login) AskBrowser(ctx context.Context, port int) (*weblogin.Browser, error) {
	o := l.relay.OAuth2
	address := cmp.Or(o.AuthorizeURL, l.issuer.AuthorizeURL(l.tenant))
	if address == "" {
		return nil, &ConfigError{l.relay.Variable("OAUTH2_AUTHORIZE_URL"), errors.New("is not set: set it to the address where a person logs in")}
	}
	return weblogin.Listen(ctx, weblogin.Request{
		AuthorizeURL: address, ClientID: o.ClientID, Scopes: l.scopes(), Params: l.issuer.AuthorizeParams,
		RedirectHost: cmp.Or(l.issuer.RedirectHost, "127.0.0.1"), Port: port,
	})
}

// Redeem gets the tokens for the grant that a browser brought.
func (l *Login) Redeem(ctx context.Context, g weblogin.Grant) (token.Answer, error) {
	return l.endpoint.ExchangeCode(ctx, g.Code, g.RedirectURI, g.Verifier)
}

// AskDevice gets a code that the person types in on another device. The error is a
// [*ConfigError] where the issuer has none for mail.
func (l *Login) AskDevice(ctx context.Context) (token.DeviceCode, error) {
	o := l.relay.OAuth2
	address := cmp.Or(o.DeviceURL, l.issuer.DeviceURL(l.tenant))
	switch {
	case address == "" && l.issuer.Name != "":
		return token.DeviceCode{}, &ConfigError{"--device", fmt.Errorf("%s gives no device code for mail: log in with a browser, without --device", title(l.issuer.Name))}
	case address == "":
		return token.DeviceCode{}, &ConfigError{l.relay.Variable("OAUTH2_DEVICE_URL"), errors.New("is not set: set it to the device authorization endpoint, or log in without --device")}
	}
	return l.endpoint.AskDeviceCode(ctx, address, l.scopes())
}

// AwaitDevice returns the tokens once the person has typed the code in. It ends when
// the code does.
func (l *Login) AwaitDevice(ctx context.Context, code token.DeviceCode) (token.Answer, error) {
	return l.endpoint.AwaitDevice(ctx, code)
}

// scopes are those of the mailbox, and those that let the issuer say who logged in.
func (l *Login) scopes() []string {
	all := slices.Clone([]string(l.relay.OAuth2.Scopes))
	for _, scope := range l.issuer.AccountScopes {
		if !slices.Contains(all, scope) {
			all = append(all, scope)
		}
	}
	return all
}

// ConsentURL is where an administrator approves the app for everyone; empty where
// there is no such page, or none that is known because a person logs in elsewhere.
func (l *Login) ConsentURL() string {
	o := l.relay.OAuth2
	for _, address := range []string{o.AuthorizeURL, o.DeviceURL, o.TokenURL} {
		if at, _ := relays.IssuerAt(address); address != "" && at.Name != l.issuer.Name {
			return ""
		}
	}
	return l.issuer.ConsentURL(l.tenant, o.ClientID, "http://"+cmp.Or(l.issuer.RedirectHost, "127.0.0.1"))
}

// IncompleteError is an answer of the token endpoint that no mail could be sent with,
// or not for long.
type IncompleteError struct{ What, Do string }

func (e *IncompleteError) Error() string { return e.What + ". " + e.Do }

// Complete reports what the answer lacks, as an [*IncompleteError].
func (l *Login) Complete(a token.Answer) error {
	o := l.relay.OAuth2
	if missing := notGranted(o.Scopes, a.Scopes); len(missing) > 0 {
		return &IncompleteError{
			"the login did not allow everything that was asked for: " + strings.Join(missing, " ") + " is missing",
			"Log in again and leave every box ticked. If there is none, add the permission to the app's registration.",
		}
	}
	switch {
	case l.Mailbox(a) == "":
		return &IncompleteError{"the answer does not say who logged in", "Set " + l.relay.Variable("USERNAME") + " to the mailbox's address."}
	case a.RefreshToken != "":
		return nil
	}
	remedy := "Add the scope for which your server issues one, such as offline_access, to " + l.relay.Variable("OAUTH2_SCOPES") + "."
	switch l.issuer.Name {
	case "google":
		remedy = "Remove the app at https://myaccount.google.com/connections and log in again."
	case "microsoft":
		remedy = "Add offline_access to " + l.relay.Variable("OAUTH2_SCOPES") + ", or leave that variable out."
	}
	return &IncompleteError{"there is no refresh token in the answer, so that the login would end within hours", remedy}
}

// openIDScopes are about the login itself. Servers do not always list them among
// those granted.
var openIDScopes = []string{"openid", "profile", "email", "offline_access"}

// notGranted returns the scopes of the mailbox that are missing. Without a list every
// one was granted (RFC 6749 §5.1). Microsoft may name another host of the same
// resource.
func notGranted(asked, granted []string) []string {
	if granted == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(asked), func(scope string) bool {
		return slices.Contains(openIDScopes, strings.ToLower(scope)) ||
			slices.ContainsFunc(granted, func(g string) bool { return sameScope(scope, g) })
	})
}

func sameScope(a, b string) bool {
	right := func(scope string) string { return scope[strings.LastIndexByte(scope, '/')+1:] }
	return strings.EqualFold(a, b) || right(a) != "" && strings.EqualFold(right(a), right(b))
}

// clockTolerance is how far this machine's clock may be from the issuer's.
const clockTolerance = 5 * time.Minute

// Warnings returns what will stop mail with this login, or may. now is when the answer
// came.
func (l *Login) Warnings(a token.Answer, now time.Time) []token.Warning {
	var all []token.Warning
	if a.RefreshLife > 0 {
		all = append(all, token.Warning{Kind: token.WarningLogin, At: now.Add(a.RefreshLife)})
	}
	if a.Skew.Abs() > clockTolerance {
		all = append(all, token.Warning{Kind: token.WarningClock, Skew: a.Skew})
	}
	return all
}

// Mailbox is the name with which the relay is logged in to: the one configured, or
// else the account that logged in.
func (l *Login) Mailbox(a token.Answer) string {
	return cmp.Or(l.relay.Username, a.ID.Account())
}

// Try logs in to the relay with the new token, and sends no mail.
func (l *Login) Try(ctx context.Context, a token.Answer, timeout time.Duration) (smtp.Report, error) {
	c := l.relay
	c.Username, c.Password = l.Mailbox(a), config.Secret{}
	c.OAuth2 = config.OAuth2{AccessToken: config.NewSecret(a.AccessToken)}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	built, err := NewRelays([]config.Relay{c}, RelayOptions{Timeouts: CheckTimeouts(timeout)})
	if err != nil {
		return smtp.Report{}, err
	}
	defer built[0].Close()
	return built[0].Check(ctx, ""), nil
}

// Kept says what became of a login.
type Kept struct {
	Path string // of the file, or what names the database
	// Stays is the account of another login, which was stored before and was left
	// there.
	Stays string
	// Replaced is the account of the login whose place this one took; empty without
	// one.
	Replaced string
}

// Keep stores the login. proved says that the relay accepted it. One that is not proved
// takes the place of another account's login, or of one with other scopes, only with
// replace.
func (l *Login) Keep(ctx context.Context, a token.Answer, proved, replace bool) (Kept, error) {
	kept := Kept{Path: l.place}
	unlock, err := l.lock(ctx)
	if err != nil {
		return kept, fmt.Errorf("the login is not stored: %w", err)
	}
	defer unlock()
	fresh := l.record(a, time.Now())
	if old, err := l.store.Load(ctx, l.relay.Number); err == nil {
		other := cmp.Or(old.Account, "an account that is not known")
		same := strings.EqualFold(old.Account, fresh.Account) && slices.Equal(old.Scopes, fresh.Scopes)
		if l.fits(old) && !same && !proved && !replace {
			kept.Stays = other
			return kept, nil
		}
		kept.Replaced = other
		for _, digest := range append(old.Outlived, old.Digest) {
			fresh = fresh.Outliving(digest)
		}
	}
	if err := l.store.Save(ctx, l.relay.Number, fresh); err != nil {
		return kept, fmt.Errorf("the login is not stored: %w", err)
	}
	return kept, nil
}

// fits reports whether a stored login may be of use with the settings of today.
func (l *Login) fits(r token.Record) bool {
	o := l.relay.OAuth2
	expired := !r.Expires.IsZero() && !time.Now().Before(r.Expires)
	replaced := !r.Outlives(token.Digest(o.RefreshToken.Reveal()))
	return !expired && !replaced && r.ClientID == o.ClientID && r.TokenURL == o.TokenURL
}

func (l *Login) record(a token.Answer, now time.Time) token.Record {
	o := l.relay.OAuth2
	r := token.Record{
		RefreshToken: a.RefreshToken, TokenURL: o.TokenURL, Issuer: l.issuer.Name, Tenant: l.tenant, ClientID: o.ClientID,
		Scopes: o.Scopes, Account: a.ID.Account(), Issued: now, Digest: token.Digest(o.RefreshToken.Reveal()),
		AccessToken: a.AccessToken, AccessFetched: now,
	}
	if a.RefreshLife > 0 {
		r.Expires = now.Add(a.RefreshLife)
	}
	if a.Life > 0 {
		r.AccessExpires = now.Add(a.Life)
	}
	return r
}

// title is an issuer's name as a sentence has it.
func title(name string) string { return strings.ToUpper(name[:1]) + name[1:] }
