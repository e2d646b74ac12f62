package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailsidecar/credentials"
	"mailsidecar/mailer"
	"mailsidecar/relays"
	"mailsidecar/units"
)

// Relay is one upstream relay. The desc tags document the fields, and the env
// tags name them: after SMTP_ for the first relay, after SMTP2_ for the second.
type Relay struct {
	Number int  // 1 for SMTP_…, 2 for SMTP2_…
	Others bool // there are further relays
	// Advice is what users of the preset's relay most often get wrong, in one
	// sentence for the output of check; empty without a preset.
	Advice string
	// Hints are sentences on what is known of the relay at the host and does not fit the
	// settings. They change nothing.
	Hints []string
	// RootCAs are the authorities in TLSCAFile; nil means the system's.
	RootCAs *x509.CertPool
	// Keys are the names of the API keys that MAILSIDECAR_KEY_RELAYS gives this relay, and
	// its place among the relays of each, from 1 on.
	Keys map[string]int

	Provider              string         `env:"PROVIDER" desc:"Preset of a known relay: fills in host, ports and limits. One of {providers}, with a region after a colon where there are several, such as zoho:eu." note:"Whatever else is set wins over the preset."`
	Host                  string         `env:"HOST" desc:"Host name or IP address of the relay." unset:"the provider's" note:"Its certificate must carry this name."`
	Ports                 Ladder         `env:"PORTS" alias:"PORT" default:"587,2525" desc:"The ladder: ports to try, best first. 465, 2465, 8465 and 443 mean implicit TLS, the others STARTTLS; PORT/tls and PORT/starttls say it explicitly." note:"They are raced, so a blocked one costs little."`
	Username              string         `env:"USERNAME" desc:"User name for AUTH." unset:"no AUTH, or the provider's fixed one"`
	Password              Secret         `env:"PASSWORD" desc:"Password for AUTH, often an app password or an API key."`
	Auth                  string         `env:"AUTH" default:"auto" oneof:"auto scram-sha-256-plus scram-sha-256 scram-sha-1-plus scram-sha-1 plain login cram-md5 ntlm xoauth2 oauthbearer none" desc:"AUTH mechanism: auto, scram-sha-256-plus, scram-sha-256, scram-sha-1-plus, scram-sha-1, plain, login, cram-md5, ntlm, xoauth2, oauthbearer or none." note:"auto takes XOAUTH2, or OAUTHBEARER where that stands alone, if OAuth2 is configured; else the strongest that is offered, NTLM never."`
	TLS                   string         `env:"TLS" default:"required" oneof:"required none" desc:"required (STARTTLS or implicit TLS, by port) or none." note:"none sends credentials and mail in clear text: for a relay on the same host or private network."`
	AllowCleartext        bool           `env:"ALLOW_CLEARTEXT" default:"false" desc:"With TLS none: go beyond loopback and private addresses, too." note:"Anybody on the way can then read the password."`
	TLSCAFile             string         `env:"TLS_CA_FILE" desc:"PEM file with the certificate authorities to trust instead of the system's." note:"For a relay with a certificate of a private authority."`
	TLSServerName         string         `env:"TLS_SERVER_NAME" desc:"Name that the relay's certificate must carry." unset:"the host" note:"For a relay that is reached by an IP address or through a tunnel."`
	TLSMinVersion         string         `env:"TLS_MIN_VERSION" default:"1.2" oneof:"1.2 1.3" desc:"Oldest TLS version that the relay may speak: 1.2 or 1.3." note:"Older ones are broken, and no longer allowed for mail (RFC 8997)."`
	TLSPin                Pins           `env:"TLS_PIN" desc:"Public keys, separated by commas, of which the relay must have one: sha256/BASE64 or hexadecimal." unset:"any key that an authority vouches for" note:"The relay's own key needs no authority, name or date then: for a certificate signed by itself. check --json shows it. Name the next key, too, before it is changed."`
	TLSCertFile           string         `env:"TLS_CERT_FILE" desc:"PEM file with our certificate, and its chain, for a relay that asks for one." note:"It is read again when it changes."`
	TLSKeyFile            string         `env:"TLS_KEY_FILE" desc:"PEM file with the private key of that certificate." unset:"it is in TLS_CERT_FILE"`
	OAuth2                OAuth2         `group:"OAUTH2"`
	HELO                  string         `env:"HELO" desc:"Our name in EHLO: a domain or an address literal." unset:"the host's name, else its address" note:"Some relays insist on a real domain."`
	MaxRecipients         int            `env:"MAX_RECIPIENTS" default:"100" min:"1" max:"10000" desc:"Recipients in one transaction." note:"A message with more goes out in several."`
	MaxConnections        int            `env:"MAX_CONNECTIONS" default:"8" min:"1" max:"1000" desc:"Connections to the relay at a time. There are fewer as long as fewer are needed, and when the relay asks for it; they are kept for the next message." note:"More of them bring more mail to a relay that is far away; relays limit them."`
	MessagesPerConnection int            `env:"MESSAGES_PER_CONNECTION" default:"100" min:"1" max:"100000" desc:"Messages sent over one connection before it is closed." note:"1 keeps no connection."`
	IdleTimeout           units.Duration `env:"IDLE_TIMEOUT" default:"30s" min:"1s" max:"1h" desc:"How long an unused connection is kept." note:"Keep it under the relay's own limit."`
	Rate                  units.Rate     `env:"RATE" unset:"no limit" desc:"Messages that may go to the relay in a second, minute, hour or day: 10/s, 30/m, 500/h, 2000/d." note:"For a relay that refuses mail which comes faster. A quarter may go at once, the rest is spread evenly; high-priority mail is not held back."`
	ForceFrom             string         `env:"FORCE_FROM" desc:"Address, also with a name, that takes the place of every message's From and envelope sender at this relay; the old From goes into Reply-To." unset:"From stays" note:"For one relay of several that takes one sender only. MAILSIDECAR_FORCE_FROM does so for all."`
	ReturnPath            string         `env:"RETURN_PATH" desc:"Envelope sender (reverse-path) of all mail through this relay, where bounces go; the empty one of bounce messages stays." unset:"the message's own, or FORCE_FROM" note:"For a relay that wants a verified domain there, when From stays."`
	Weight                int            `env:"WEIGHT" min:"1" max:"1000" desc:"Share of the mail that this relay gets, beside the weights of the other relays that may take it." unset:"mail only when no relay with a weight takes it" note:"Without any weight the relays are used in order, each when those before it take no mail."`
	Senders               List           `env:"SENDERS" desc:"Addresses and domains, separated by commas, whose mail this relay takes." unset:"any sender that no other relay names" note:"Routes senders to different relays."`
}

// checkRelay judges the settings of one relay together.
func (r *reader) checkRelay(relay *Relay) {
	r.checkHost(relay)
	r.checkTLS(relay)
	if r.checkOAuth2(relay) {
		r.checkCredentials(relay)
	}
	r.checkSenders(relay)
	r.checkForced(relay)
	if name := relay.Variable("HELO"); !isDomain(relay.HELO) && !isAddressLiteral(relay.HELO) && relay.HELO != "" {
		r.problem(name, "is no domain", "set a domain in ASCII, such as app.example.com, or an address literal, such as [192.0.2.1]")
	}
}

func (r *reader) checkHost(relay *Relay) {
	name := relay.Variable("HOST")
	switch {
	case relay.Host == "" && r.needsRegion(*relay):
		r.problem(name, "is not set, and "+relay.Provider+" needs a region", "set "+relay.Variable("PROVIDER")+"="+relay.Provider+":REGION (\"mailsidecar presets "+relay.Provider+"\" shows how)")
	case relay.Host == "" && !r.failed[relay.Variable("PROVIDER")]:
		r.problem(name, "is not set", "set it to the relay's host name, or set "+relay.Variable("PROVIDER"))
	case relay.Host != "" && !isHost(relay.Host):
		// Not shown: a URL here may hold user name and password.
		r.problem(name, "is no host name", "set the bare name or IP address; ports go into "+relay.Variable("PORTS"))
	}
}

// needsRegion reports whether the provider has a host in each region and none of its own.
func (r *reader) needsRegion(relay Relay) bool {
	p, ok := relays.PresetNamed(relay.Provider)
	return ok && p.Regional()
}

func (r *reader) checkTLS(relay *Relay) {
	cleartext := relay.TLS == "none"
	for _, rung := range relay.Ports {
		if cleartext && rung.Implicit {
			r.problem(relay.Variable("PORTS"), "has port "+strconv.Itoa(rung.Port)+", which means implicit TLS, and "+relay.Variable("TLS")+" is none",
				"leave that port out, or set "+relay.Variable("TLS")+"=required")
		}
	}
	switch {
	case cleartext && relay.hasCredentials():
		r.warn("%s=none: credentials and mail go to the relay in clear text", relay.Variable("TLS"))
	case cleartext:
		r.warn("%s=none: mail goes to the relay in clear text", relay.Variable("TLS"))
	case relay.AllowCleartext:
		r.warn("%s has no effect without %s=none", relay.Variable("ALLOW_CLEARTEXT"), relay.Variable("TLS"))
	}
	if relay.TLSCAFile != "" {
		r.readRootCAs(relay)
	}
	r.checkClientCertificate(relay)
	if cleartext && (len(relay.TLSPin) > 0 || relay.TLSCertFile != "") {
		r.warn("%s and %s have no effect with %s=none", relay.Variable("TLS_PIN"), relay.Variable("TLS_CERT_FILE"), relay.Variable("TLS"))
	}
	if relay.TLSServerName != "" && !isHost(relay.TLSServerName) {
		r.problem(relay.Variable("TLS_SERVER_NAME"), "is no host name", "set the name that stands in the relay's certificate")
	}
}

// checkClientCertificate checks that our certificate and its key can be used.
func (r *reader) checkClientCertificate(relay *Relay) {
	name, key := relay.Variable("TLS_CERT_FILE"), relay.Variable("TLS_KEY_FILE")
	switch {
	case relay.TLSCertFile == "" && relay.TLSKeyFile != "":
		r.problem(name, "is not set, and "+key+" is", "name the file with the certificate and its chain, in PEM form")
		return
	case relay.TLSCertFile == "":
		return
	}
	var pair tls.Certificate
	read := func() (err error) {
		pair, err = credentials.ReadPair(relay.TLSCertFile, relay.TLSKeyFile)
		return err
	}
	if e, ok := errors.AsType[*credentials.FileError](read()); ok && e.Kind == credentials.KindKey {
		r.checkFile(key, func() error { return e }, "name the private key that belongs to the certificate, in PEM form")
		return
	}
	if r.checkFile(name, read, "name a certificate in PEM form, and in "+key+" the private key that belongs to it") && time.Now().After(pair.Leaf.NotAfter) {
		r.warn("%s names a certificate that ended on %s", name, pair.Leaf.NotAfter.UTC().Format(time.DateOnly))
	}
}

func (r *reader) readRootCAs(relay *Relay) {
	name := relay.Variable("TLS_CA_FILE")
	text, err := readAll(relay.TLSCAFile)
	if err != nil {
		r.problem(name, "names "+shownPath(relay.TLSCAFile)+", which cannot be read: "+err.Error(), "name a PEM file that this process may read")
		return
	}
	relay.RootCAs = x509.NewCertPool()
	if !relay.RootCAs.AppendCertsFromPEM([]byte(text)) {
		r.problem(name, "names "+shownPath(relay.TLSCAFile)+", which holds no certificate", "name a file with certificates in PEM form")
	}
}

func (relay Relay) hasCredentials() bool {
	return relay.Username != "" || relay.Password.IsSet() || relay.OAuth2.Configured()
}

// checkCredentials checks that AUTH has all it needs.
func (r *reader) checkCredentials(relay *Relay) {
	user, password := relay.Variable("USERNAME"), relay.Variable("PASSWORD")
	token := relay.OAuth2.Configured()
	if r.failed[relay.Variable("AUTH")] || r.failed[user] || r.failed[password] {
		return
	}
	switch {
	case relay.Auth == "none":
		if relay.sets(r, "USERNAME") || relay.Password.IsSet() || token {
			r.problem(relay.Variable("AUTH"), "is none, yet there are credentials", "set "+relay.Variable("AUTH")+"=auto, or leave the credentials out")
		}
	case relay.takesToken() && !token:
		r.problem(relay.Variable("OAUTH2_REFRESH_TOKEN"), "is not set, and "+relay.Variable("AUTH")+" is "+relay.Auth,
			"set it with "+relay.Variable("OAUTH2_CLIENT_ID")+", or set "+relay.Variable("OAUTH2_ACCESS_TOKEN_FILE"))
	case token && relay.Username == "" && !relay.OAuth2.NeedsLogin(): // which tells the account
		r.problem(user, "is not set, and OAuth2 needs one", "set it to the mailbox's address")
	case token && (relay.takesToken() || relay.Auth == "auto"):
		if relay.Password.IsSet() {
			r.warn("%s has no effect, because the login is with OAuth2", relay.nameSet(r, "PASSWORD"))
		}
	case token && !relay.Password.IsSet():
		r.problem(relay.Variable("AUTH"), "is "+relay.Auth+", which takes no OAuth2 token", "set "+relay.Variable("AUTH")+"=auto, or leave "+relay.Variable("OAUTH2_…")+" out")
	case relay.Username != "" && !relay.Password.IsSet():
		r.problem(password, "is not set, but "+relay.loginName(r), "set it or "+password+"_FILE"+relay.advice())
	case relay.Password.IsSet() && relay.Username == "":
		r.problem(user, "is not set, but "+relay.nameSet(r, "PASSWORD")+" is", "set the user name that belongs to it"+relay.advice())
	case token:
		r.warn("%s has no effect, because %s is %s, which takes the password", relay.Variable("OAUTH2_…"), relay.Variable("AUTH"), relay.Auth)
	case relay.Auth != "auto" && !relay.Password.IsSet():
		r.problem(user, "is not set, and "+relay.Variable("AUTH")+" is "+relay.Auth, "set it and "+password+relay.advice())
	case !relay.Password.IsSet():
		r.warn("%s and %s are not set: mail is handed over without AUTH; %s=none says that this is meant", user, password, relay.Variable("AUTH"))
	}
}

// takesToken says that AUTH names a mechanism that logs in with an OAuth2 token.
func (relay Relay) takesToken() bool { return relay.Auth == "xoauth2" || relay.Auth == "oauthbearer" }

// sets says that the environment, not a preset, gives the value.
func (relay Relay) sets(r *reader, suffix string) bool {
	return r.sources[relay.Variable(suffix)] == FromVariable
}

// nameSet is the name under which a setting is set: its own, or that of the file which
// holds the secret.
func (relay Relay) nameSet(r *reader, suffix string) string {
	name := relay.Variable(suffix)
	if r.sources[name] == FromFile {
		return name + "_FILE"
	}
	return name
}

// loginName says where the user name comes from, for a sentence.
func (relay Relay) loginName(r *reader) string {
	if relay.sets(r, "USERNAME") {
		return relay.Variable("USERNAME") + " is"
	}
	return relay.Provider + " logs in as " + relay.Username
}

func (relay Relay) advice() string {
	if relay.Advice == "" {
		return ""
	}
	return " (" + relay.Advice + ")"
}

// checkSenders brings SENDERS into the form that routing compares.
func (r *reader) checkSenders(relay *Relay) {
	for i, text := range relay.Senders {
		sender, bad := parseSender(text)
		if bad != nil {
			r.problem(relay.Variable("SENDERS"), bad.what, bad.remedy)
			continue
		}
		relay.Senders[i] = sender
	}
}

// checkForced checks what takes the place of senders at the relay. It is in ASCII: a
// relay without SMTPUTF8 could take no mail at all.
func (r *reader) checkForced(relay *Relay) {
	if bad := checkForced(relay.ForceFrom); bad != nil {
		r.problem(relay.Variable("FORCE_FROM"), bad.what, bad.remedy+" or Shop <shop@example.com>")
	}
	bad := checkForced(relay.ReturnPath)
	switch name := relay.Variable("RETURN_PATH"); {
	case relay.ReturnPath == "":
	case strings.Trim(relay.ReturnPath, "<> ") == "":
		r.problem(name, "is the null reverse-path, with which no bounce would come back", "set an address whose mail is read, such as bounces@example.com")
	case bad != nil:
		r.problem(name, bad.what, bad.remedy)
	case strings.ContainsAny(relay.ReturnPath, "<> "):
		r.problem(name, "has more than an address", "write it bare, such as bounces@example.com")
	}
}

func checkForced(value string) *invalid {
	if value == "" {
		return nil
	}
	address, err := mailer.ParseAddress(value)
	switch {
	case err != nil:
		return &invalid{"is no address: " + err.Error(), "write one such as shop@example.com"}
	case !mailer.IsASCII(address.Email):
		return &invalid{"is " + units.Quote(address.Email) + ", which relays without SMTPUTF8 do not take", "set an address in ASCII such as shop@example.com"}
	default:
		return nil
	}
}

// requireRelayFor refuses a forced sender whose mail no relay takes, or none of those that
// a key names.
func (r *reader) requireRelayFor(s Service, relays []Relay) {
	address, err := mailer.ParseAddress(s.ForceFrom)
	if s.ForceFrom == "" || err != nil {
		return
	}
	sender, bad := parseSender(address.Email)
	if bad != nil {
		return
	}
	if !r.takenByOne(relays, sender) {
		r.problem(serviceName("FORCE_FROM"), "is "+units.Quote(sender)+", which no relay takes: "+relays[0].Variable("SENDERS")+" names others",
			"add it there, or let one relay have no SENDERS")
		return
	}
	for _, k := range s.Keys {
		if named := ofKey(relays, k.Name); len(named) > 0 && !r.takenByOne(named, sender) {
			r.problem(serviceName("FORCE_FROM"), "is "+units.Quote(sender)+", which no relay takes that "+serviceName("KEY_RELAYS")+" gives key "+units.Quote(k.Name)+": "+named[0].Variable("SENDERS")+" names others",
				"add it there, or give the key a relay that takes it")
		}
	}
}

// takenByOne reports whether one of the relays takes mail of a sender, or may, where its
// SENDERS could not be read.
func (r *reader) takenByOne(relays []Relay, sender string) bool {
	return slices.ContainsFunc(relays, func(relay Relay) bool {
		return len(relay.Senders) == 0 || relay.takes(sender) || r.failed[relay.Variable("SENDERS")]
	})
}

// parseSender brings an address or a domain into the form that senders are
// compared in.
func parseSender(text string) (string, *invalid) {
	sender, err := mailer.ParseSender(text)
	if err != nil {
		return "", &invalid{
			"has an entry that is neither address nor domain: " + units.Quote(text) + ", " + err.Error(),
			"write them bare, such as shop@example.com,example.org",
		}
	}
	return sender, nil
}

func isHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || isDomain(s)
}

// isDomain reports whether s is a host name of letters, digits, hyphens and
// underscores (people's Compose services have them), in ASCII.
func isDomain(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || strings.IndexFunc(label, notHostRune) >= 0 {
			return false
		}
	}
	return true
}

func notHostRune(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
}

// isAddressLiteral: [192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321 §4.1.3).
func isAddressLiteral(s string) bool {
	if !strings.HasPrefix(s, "[") || !strings.HasSuffix(s, "]") {
		return false
	}
	address, v6 := strings.CutPrefix(s[1:len(s)-1], "IPv6:")
	ip, err := netip.ParseAddr(address)
	return err == nil && ip.Zone() == "" && ip.Is6() == v6
}
