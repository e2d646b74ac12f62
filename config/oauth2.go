package config

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"

	"mailsidecar/credentials"
	"mailsidecar/netaddr"
	"mailsidecar/relays"
	"mailsidecar/units"
)

// OAuth2 says where the access token comes from: it is given, or stands in a file, or
// is fetched from TokenURL in the way of [OAuth2.Grant].
type OAuth2 struct {
	AccessToken     Secret `env:"ACCESS_TOKEN" twin:"no" desc:"Access token." note:"Expires within hours: for tests."`
	AccessTokenFile string `env:"ACCESS_TOKEN_FILE" desc:"File with the access token, read again for each login." note:"For a token that another program renews."`
	Provider        string `env:"PROVIDER" oneof:"google microsoft" desc:"google or microsoft: fills in token URL and scopes." unset:"by the relay's provider"`
	Cloud           string `env:"CLOUD" oneof:"us cn" desc:"Microsoft's cloud: us (US Government: GCC High, DoD) or cn (China, 21Vianet)." unset:"the worldwide one"`
	Tenant          string `env:"TENANT" desc:"Microsoft's directory (tenant) id or domain." unset:"common" note:"Needed for client credentials, and for apps that are registered for one directory only."`
	ClientID        string `env:"CLIENT_ID" desc:"Client (application) id." note:"Without anything below it a person logs in: mailsidecar login."`
	ClientSecret    Secret `env:"CLIENT_SECRET" desc:"Client secret." note:"Public clients have none."`
	ClientAuth      string `env:"CLIENT_AUTH" default:"post" oneof:"post basic" desc:"How the client secret is sent: post, in the form, or basic, in an Authorization field." note:"Yahoo wants basic."`
	SecretExpires   Date   `env:"SECRET_EXPIRES" desc:"Day on which the client secret ends, such as 2027-11-30." unset:"not known" note:"A warning begins 30 days before."`
	CertFile        string `env:"CERT_FILE" desc:"Certificate that proves the client in place of a secret, a file in PEM form; read again each time." note:"Its end is read from it, and a warning begins 30 days before."`
	KeyFile         string `env:"KEY_FILE" desc:"RSA key of that certificate, a file in PEM form." unset:"in the certificate's file"`
	AssertionFile   string `env:"ASSERTION_FILE" desc:"File with a JWT that proves the client, read again each time." note:"For workload identity federation: name what AZURE_FEDERATED_TOKEN_FILE names."`

	ServiceAccountFile string `env:"SERVICE_ACCOUNT_FILE" desc:"JSON key of a Google service account that may act for the mailbox SMTP_USERNAME." note:"Google Workspace only. Needs no client id."`
	RefreshToken       Secret `env:"REFRESH_TOKEN" desc:"Refresh token." unset:"that of mailsidecar login, or client credentials" note:"Where the server replaces it, the new one is kept in the data directory."`
	TokenURL           string `env:"TOKEN_URL" desc:"Token endpoint, https." unset:"the OAuth2 provider's"`
	AuthorizeURL       string `env:"AUTHORIZE_URL" desc:"Address where a person logs in for mailsidecar login, https." unset:"the OAuth2 provider's"`
	DeviceURL          string `env:"DEVICE_URL" desc:"Device authorization endpoint for mailsidecar login --device, https." unset:"the OAuth2 provider's"`
	Scopes             List   `env:"SCOPES" desc:"Scopes to ask for, separated by commas." unset:"the OAuth2 provider's for SMTP"`
}

// Grant is the way in which access tokens are fetched.
type Grant int

const (
	GrantNone           Grant = iota // they are not fetched
	GrantLogin                       // with the refresh token of a person's login
	GrantClient                      // with the client's own credentials
	GrantServiceAccount              // with a Google service account
)

// Grant returns the way in which access tokens are fetched. Desktop clients of Google
// have a secret and need a login all the same, and so do those with an address where a
// person logs in.
func (o OAuth2) Grant() Grant {
	switch {
	case !o.Fetched():
		return GrantNone
	case o.ServiceAccountFile != "":
		return GrantServiceAccount
	case o.RefreshToken.IsSet() || !o.provesClient() || o.Provider == google, o.AuthorizeURL != "", o.DeviceURL != "":
		return GrantLogin
	default:
		return GrantClient
	}
}

// NeedsLogin says that only a login which is stored in the data directory gives tokens.
func (o OAuth2) NeedsLogin() bool { return o.Grant() == GrantLogin && !o.RefreshToken.IsSet() }

// provesClient reports whether the client has credentials of its own.
func (o OAuth2) provesClient() bool {
	return o.ClientSecret.IsSet() || o.CertFile != "" || o.AssertionFile != ""
}

// Configured says that there is a source of tokens.
func (o OAuth2) Configured() bool {
	return o.AccessToken.IsSet() || o.AccessTokenFile != "" || o.Fetched()
}

// Fetched says that tokens are to be fetched from TokenURL.
func (o OAuth2) Fetched() bool {
	return o.ClientID != "" || o.RefreshToken.IsSet() || o.ServiceAccountFile != "" || o.provesClient()
}

// Date is a day, at its beginning in UTC; zero means none.
type Date struct{ time.Time }

var _ envconfig.Decoder = (*Date)(nil)

// Decode reads a day in the form of RFC 3339.
func (d *Date) Decode(value string) error {
	t, err := time.Parse(time.DateOnly, strings.TrimSpace(value))
	if err != nil {
		return &invalid{"is " + units.Quote(value) + ", which is no day", "write it as 2027-11-30"}
	}
	d.Time = t
	return nil
}

func (d Date) String() string {
	if d.IsZero() {
		return ""
	}
	return d.Format(time.DateOnly)
}

// checkOAuth2 fills in what OAUTH2_PROVIDER stands for and checks that a token
// can be had in one way. False means that none can be had though OAuth2 is meant, which
// is reported, so that other credentials are not missed.
func (r *reader) checkOAuth2(relay *Relay) bool {
	o := &relay.OAuth2
	if o.AccessToken.IsSet() && o.AccessTokenFile != "" {
		r.problem(relay.Variable("OAUTH2_ACCESS_TOKEN_FILE"), "is set and so is "+relay.Variable("OAUTH2_ACCESS_TOKEN"), "set only one of them")
	}
	if o.AccessTokenFile != "" {
		if _, err := readAll(o.AccessTokenFile); err != nil {
			r.warn("%s names %s, which cannot be read now: %s; it is tried again for each login",
				relay.Variable("OAUTH2_ACCESS_TOKEN_FILE"), shownPath(o.AccessTokenFile), err)
		}
	}
	if r.missesSource(relay) {
		r.reportSource(relay)
		return false
	}
	if !o.Fetched() {
		for _, suffix := range []string{"PROVIDER", "CLOUD", "TENANT", "CLIENT_AUTH", "SECRET_EXPIRES", "KEY_FILE", "TOKEN_URL", "AUTHORIZE_URL", "DEVICE_URL", "SCOPES"} {
			if relay.sets(r, "OAUTH2_"+suffix) {
				r.warn("%s has no effect without %s", relay.Variable("OAUTH2_"+suffix), relay.Variable("OAUTH2_CLIENT_ID"))
			}
		}
		return true
	}
	if o.AccessToken.IsSet() || o.AccessTokenFile != "" {
		r.problem(r.fetcher(*relay), "is set beside an access token", "set the access token or what fetches one, not both")
	}
	if o.ServiceAccountFile != "" {
		r.checkServiceAccount(relay)
	} else {
		r.checkClientID(relay)
	}
	r.checkProof(relay)
	r.applyIssuer(relay)
	r.checkDirectory(relay)
	r.checkTokenURL(relay)
	r.checkLoginURLs(relay)
	if o.Grant() == GrantClient && o.Provider == microsoft && !relay.sets(r, "OAUTH2_TOKEN_URL") {
		r.checkOwnTenant(relay)
	}
	return true
}

// checkClientID insists on a client id.
func (r *reader) checkClientID(relay *Relay) {
	o, name := relay.OAuth2, relay.Variable("OAUTH2_CLIENT_ID")
	switch {
	case o.ClientID != "":
	case o.AccessToken.IsSet() || o.AccessTokenFile != "": // they conflict with what else is set
	case o.RefreshToken.IsSet():
		r.problem(name, "is not set", "set the id of the client that the token was issued to")
	default:
		r.problem(name, "is not set", "set it to the Application (client) ID in the registration of the app, as docs/oauth2.md shows")
	}
}

// fetchers are the settings without which no tokens are fetched.
var fetchers = []string{"OAUTH2_CLIENT_ID", "OAUTH2_REFRESH_TOKEN", "OAUTH2_SERVICE_ACCOUNT_FILE", "OAUTH2_CLIENT_SECRET", "OAUTH2_CERT_FILE", "OAUTH2_ASSERTION_FILE"}

// fetcher is the name of the first of these that is set.
func (r *reader) fetcher(relay Relay) string {
	for _, suffix := range fetchers {
		if source := r.sources[relay.Variable(suffix)]; source == FromVariable || source == FromFile {
			return relay.nameSet(r, suffix)
		}
	}
	return relay.Variable("OAUTH2_CLIENT_ID")
}

// missesSource says that OAuth2 is meant, and that no setting says where the tokens come
// from: there is no password, and some setting is about OAuth2, perhaps with a misspelt
// name, or the relay takes tokens only.
func (r *reader) missesSource(relay *Relay) bool {
	if relay.OAuth2.Configured() || relay.Password.IsSet() || relay.Auth != "auto" && !relay.takesToken() {
		return false
	}
	if r.failed[relay.Variable("PASSWORD")] || r.failed[relay.Variable("AUTH")] {
		return false
	}
	p, ok := relays.PresetNamed(relay.Provider)
	if ok && p.TokensOnly.Value || r.misspelt(*relay) != "" {
		return true
	}
	for v := range variables(relay.prefix()+"_OAUTH2", &relay.OAuth2) {
		if r.sources[v.name] == FromVariable {
			return true
		}
	}
	return false
}

// misspelt is the first unknown name of the relay that looks like one of OAuth2; empty
// where there is none.
func (r *reader) misspelt(relay Relay) string {
	for prefix, name := range r.unknown() {
		if prefix == relay.prefix() && strings.HasPrefix(name, relay.Variable("OAUTH2_")) {
			return name
		}
	}
	return ""
}

// reportSource names the setting that [reader.missesSource] misses: the one whose name is
// misspelt, or else the client id. One that is set, and has a problem, is not missing.
func (r *reader) reportSource(relay *Relay) {
	for _, suffix := range append([]string{"OAUTH2_ACCESS_TOKEN", "OAUTH2_ACCESS_TOKEN_FILE"}, fetchers...) {
		if r.failed[relay.Variable(suffix)] {
			return
		}
	}
	if name := r.misspelt(*relay); name != "" {
		meant := suggestion(relay.prefix(), name, slices.Collect(knownNames(relay.prefix())))
		suffix := strings.TrimSuffix(strings.TrimPrefix(meant, relay.Variable("")), "_FILE")
		sources := append(slices.Clone(fetchers[1:]), "OAUTH2_ACCESS_TOKEN")
		if slices.ContainsFunc(sources, func(s string) bool { return strings.TrimSuffix(s, "_FILE") == suffix }) {
			r.problem(meant, "is not set, and "+name+" is no setting", "write the name as it is here")
			return
		}
	}
	r.checkClientID(relay)
}

// checkDirectory checks what only Microsoft has: directories, and several clouds.
func (r *reader) checkDirectory(relay *Relay) {
	o, name := relay.OAuth2, relay.Variable("OAUTH2_TENANT")
	issuer, _ := relays.IssuerAt(o.TokenURL)
	if o.Provider != microsoft && o.TokenURL != "" && !issuer.Tenants {
		for _, suffix := range []string{"OAUTH2_CLOUD", "OAUTH2_TENANT"} {
			if relay.sets(r, suffix) {
				r.warn("%s has no effect: the OAuth2 provider is not microsoft", relay.Variable(suffix))
			}
		}
	}
	switch {
	case o.Tenant == "":
	case relay.sets(r, "OAUTH2_TOKEN_URL") && issuer.Tenants:
		r.warn("%s has no effect: %s names the directory", name, relay.Variable("OAUTH2_TOKEN_URL"))
	case o.Provider == microsoft && !isDirectory(o.Tenant):
		r.problem(name, "is "+units.Quote(o.Tenant)+", which is neither the id of a directory nor a domain",
			"set \"Directory (tenant) ID\", a domain of the organization, "+strings.Join(commonTenants[:2], ", ")+" or "+commonTenants[2])
	}
}

// isDirectory reports whether Microsoft may have a directory of that name.
func isDirectory(tenant string) bool {
	return isDirectoryID(tenant) || slices.Contains(commonTenants, strings.ToLower(tenant)) ||
		strings.Contains(strings.Trim(tenant, "."), ".") && isDomain(tenant)
}

// isDirectoryID reports whether s has the form of Microsoft's directory ids: groups of 8,
// 4, 4, 4 and 12 hexadecimal digits with hyphens between them.
func isDirectoryID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		hyphen := i == 8 || i == 13 || i == 18 || i == 23
		if hyphen != (s[i] == '-') || !hyphen && !strings.ContainsRune("0123456789abcdefABCDEF", rune(s[i])) {
			return false
		}
	}
	return true
}

// checkServiceAccount checks the key of a service account, which needs no other
// client.
func (r *reader) checkServiceAccount(relay *Relay) {
	o := &relay.OAuth2
	name := relay.Variable("OAUTH2_SERVICE_ACCOUNT_FILE")
	r.checkFile(name, func() error { _, err := credentials.ReadServiceAccount(o.ServiceAccountFile); return err },
		"name the JSON file that Google's console gave with the key")
	for _, suffix := range []string{"OAUTH2_CLIENT_ID", "OAUTH2_CLIENT_SECRET", "OAUTH2_REFRESH_TOKEN", "OAUTH2_CERT_FILE", "OAUTH2_ASSERTION_FILE"} {
		if source := r.sources[relay.Variable(suffix)]; source == FromVariable || source == FromFile {
			r.problem(relay.nameSet(r, suffix), "is set beside "+name, "set only one of them")
		}
	}
	if !relay.sets(r, "OAUTH2_PROVIDER") && o.TokenURL == "" {
		r.fill(relay, map[string]string{"OAUTH2_PROVIDER": google})
	}
	if o.Provider == microsoft {
		r.problem(name, "is set, and the OAuth2 provider is microsoft", "set "+relay.Variable("OAUTH2_PROVIDER")+"=google, or leave the file out")
	}
}

// checkProof checks what the client proves itself with: one thing at most.
func (r *reader) checkProof(relay *Relay) {
	o := &relay.OAuth2
	secret, cert, assertion := relay.nameSet(r, "OAUTH2_CLIENT_SECRET"), relay.Variable("OAUTH2_CERT_FILE"), relay.Variable("OAUTH2_ASSERTION_FILE")
	switch {
	case o.CertFile != "" && o.ClientSecret.IsSet():
		r.problem(cert, "is set and so is "+secret, "set only one of them")
	case o.AssertionFile != "" && o.ClientSecret.IsSet():
		r.problem(assertion, "is set and so is "+secret, "set only one of them")
	case o.AssertionFile != "" && o.CertFile != "":
		r.problem(assertion, "is set and so is "+cert, "set only one of them")
	}
	if o.CertFile != "" {
		r.checkCertificate(relay)
	} else if o.KeyFile != "" {
		r.problem(relay.Variable("OAUTH2_KEY_FILE"), "is set without "+cert, "set "+cert+" to the certificate of that key")
	}
	if o.AssertionFile != "" {
		r.checkFile(assertion, func() error { _, err := credentials.ReadAssertion(o.AssertionFile); return err },
			"name the file in which your platform puts the JWT")
	}
	if o.Provider == google && (o.CertFile != "" || o.AssertionFile != "") {
		r.problem(relay.Variable("OAUTH2_PROVIDER"), "is google, which takes no certificate and no assertion of a client", "set "+relay.Variable("OAUTH2_SERVICE_ACCOUNT_FILE")+" in their place")
	}
	if o.ClientSecret.IsSet() {
		r.checkSecretExpires(relay)
		return
	}
	for _, suffix := range []string{"OAUTH2_CLIENT_AUTH", "OAUTH2_SECRET_EXPIRES"} {
		if relay.sets(r, suffix) {
			r.warn("%s has no effect without %s", relay.Variable(suffix), secret)
		}
	}
}

func (r *reader) checkSecretExpires(relay *Relay) {
	if ends := relay.OAuth2.SecretExpires; !ends.IsZero() && time.Now().After(ends.Time) {
		r.warn("%s is %s, so the client secret has ended: make a new one, and set both", relay.Variable("OAUTH2_SECRET_EXPIRES"), ends)
	}
}

// checkCertificate reads certificate and key. One that has ended is a warning: it may
// be renewed at any time.
func (r *reader) checkCertificate(relay *Relay) {
	o, name := &relay.OAuth2, relay.Variable("OAUTH2_CERT_FILE")
	var cert credentials.Certificate
	read := func() (err error) { cert, err = credentials.ReadCertificate(o.CertFile, o.KeyFile); return err }
	key := relay.Variable("OAUTH2_KEY_FILE")
	if e, ok := errors.AsType[*credentials.FileError](read()); ok && e.Kind == credentials.KindKey {
		r.checkFile(key, func() error { return e }, "name the RSA key that belongs to the certificate, in PEM form")
		return
	}
	if !r.checkFile(name, read, "name a certificate in PEM form, and in "+key+" the RSA key that belongs to it") {
		return
	}
	if time.Now().After(cert.NotAfter()) {
		r.warn("%s names a certificate that ended on %s: put a new one there and its key into %s, and register it", name, cert.NotAfter().UTC().Format(time.DateOnly), key)
	}
}

// checkFile reports a file that read cannot use.
func (r *reader) checkFile(name string, read func() error, remedy string) bool {
	err := read()
	if err == nil {
		return true
	}
	what := "cannot be used: " + err.Error()
	if e, ok := errors.AsType[*credentials.FileError](err); ok {
		what = "names " + shownPath(e.File) + ", which cannot be used: " + e.Err.Error()
	}
	r.problem(name, what, remedy)
	return false
}

// commonTenants are those which stand for every directory.
var commonTenants = []string{"common", "organizations", "consumers"}

// checkOwnTenant checks that client credentials have the directory which they need.
func (r *reader) checkOwnTenant(relay *Relay) {
	name := relay.Variable("OAUTH2_TENANT")
	switch tenant := strings.ToLower(relay.OAuth2.Tenant); {
	case tenant == "":
		r.problem(name, "is not set, and without a refresh token Microsoft needs it", "set the directory's id or domain")
	case slices.Contains(commonTenants, tenant):
		r.problem(name, "is "+tenant+", which gives no token to an app without a person", "set the directory's id or domain")
	}
}

// requireLoginStore refuses relays that wait for a login where there is no place to
// store one.
func (r *reader) requireLoginStore(all []Relay, s Service) {
	inDatabase := s.Queue.Shared() && s.StoreKeyFile != ""
	for _, relay := range all {
		name := relay.Variable("OAUTH2_REFRESH_TOKEN")
		if relay.OAuth2.NeedsLogin() && s.DataDir == "" && !inDatabase && !r.failed[name] && !r.failed[serviceName("DATA_DIR")] {
			r.problem(name, "is not set, and without "+serviceName("DATA_DIR")+" mailsidecar login has no place for one",
				"set "+serviceName("DATA_DIR")+" to a directory that lasts, or set the token; with PostgreSQL "+serviceName("STORE_KEY_FILE")+" will do, too")
		}
	}
}

// warnSharedTokens warns of one refresh token in two relays. Each keeps its own
// successor of it.
func (r *reader) warnSharedTokens(all []Relay) {
	for i, relay := range all {
		same := func(other Relay) bool {
			return other.OAuth2.RefreshToken.IsSet() && other.OAuth2.RefreshToken.Reveal() == relay.OAuth2.RefreshToken.Reveal()
		}
		if n := slices.IndexFunc(all[:i], same); n >= 0 {
			r.warn("%s is the same as %s: if the OAuth2 server replaces the token, the second use may end both logins; make a login of its own with mailsidecar login --relay %d",
				relay.nameSet(r, "OAUTH2_REFRESH_TOKEN"), all[n].nameSet(r, "OAUTH2_REFRESH_TOKEN"), relay.Number)
		}
	}
}

func (r *reader) checkTokenURL(relay *Relay) {
	name := relay.Variable("OAUTH2_TOKEN_URL")
	if relay.OAuth2.TokenURL == "" {
		if !r.failed[relay.Variable("OAUTH2_PROVIDER")] && !r.failed[relay.Variable("OAUTH2_CLOUD")] {
			r.problem(name, "is not set", "set it, or set "+relay.Variable("OAUTH2_PROVIDER")+" to google or microsoft")
		}
		return
	}
	r.checkEndpoint(name, relay.OAuth2.TokenURL, "token")
}

// checkLoginURLs checks the endpoints that only "mailsidecar login" asks.
func (r *reader) checkLoginURLs(relay *Relay) {
	o := relay.OAuth2
	for name, address := range map[string]string{"authorize": o.AuthorizeURL, "device": o.DeviceURL} {
		if address != "" {
			r.checkEndpoint(relay.Variable("OAUTH2_"+strings.ToUpper(name)+"_URL"), address, name)
		}
	}
}

// checkEndpoint insists on https, but for a server on this machine. example is the
// last part of the path shown.
func (r *reader) checkEndpoint(name, address, example string) {
	u, err := url.Parse(address)
	secure := err == nil && (u.Scheme == "https" || u.Scheme == "http" && netaddr.IsLoopback(u.Hostname()))
	if !secure || u.Host == "" || u.User != nil {
		r.problem(name, "is no https URL", "set one such as https://login.example.com/oauth2/"+example+", without user name or password")
	}
}

// applyIssuer fills in the endpoint and the scopes for sending by SMTP. In another of
// Microsoft's clouds the preset's relay has another host, too.
func (r *reader) applyIssuer(relay *Relay) {
	o := relay.OAuth2
	issuer, ok := relays.IssuerNamed(o.Provider, o.Cloud)
	if !ok {
		if o.Cloud != "" && !r.failed[relay.Variable("OAUTH2_CLOUD")] && o.TokenURL == "" {
			r.problem(relay.Variable("OAUTH2_CLOUD"), "is "+o.Cloud+", and the OAuth2 provider is not microsoft", "leave it out, or set "+relay.Variable("OAUTH2_PROVIDER")+"=microsoft")
		}
		return
	}
	scopes := issuer.Scopes
	if o.Grant() == GrantClient && issuer.ClientScopes != nil {
		scopes = issuer.ClientScopes
	}
	r.fill(relay, map[string]string{ // an endpoint, no credentials
		"OAUTH2_TOKEN_URL": issuer.TokenURL(o.Tenant),
		"OAUTH2_SCOPES":    strings.Join(scopes, ","),
	})
	r.checkCloud(relay, issuer)
}

// checkCloud checks that the relay takes the tokens of the cloud.
func (r *reader) checkCloud(relay *Relay, issuer relays.Issuer) {
	own, known := relays.CloudOf(relay.Host)
	if !known || own.Name != issuer.Name || own.Cloud == issuer.Cloud {
		return
	}
	if r.sources[relay.Variable("HOST")] == FromPreset {
		relay.Host = issuer.SMTPHost
		return
	}
	r.problem(relay.Variable("OAUTH2_CLOUD"), "does not fit "+relay.Variable("HOST")+": "+relay.Host+" takes tokens of another cloud",
		"set "+relay.Variable("HOST")+"="+issuer.SMTPHost+", or set "+relay.Variable("OAUTH2_CLOUD")+" for the cloud of your organization")
}
