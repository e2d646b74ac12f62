package config

import (
	"cmp"
	"slices"
	"strings"
)

// provider is what SMTP_PROVIDER stands for. Limits that the vendors change
// without notice are defaults, never bounds.
type provider struct {
	name, host string
	ports      string // as in SMTP_PORTS
	username   string // where it is the same for everybody
	recipients string // as in SMTP_MAX_RECIPIENTS; empty means our default, as in the next two
	conns      string // as in SMTP_MAX_CONNECTIONS
	messages   string // as in SMTP_MESSAGES_PER_CONNECTION
	rate       string // as in SMTP_RATE; empty means no bound
	oauth2     string // as in SMTP_OAUTH2_PROVIDER
	tokensOnly bool   // passwords are refused
	advice     string
}

const (
	google    = "google"
	microsoft = "microsoft"
	sesDomain = "amazonaws.com"
)

// providers are in the order of the documentation. The STARTTLS ports come
// first, the fallback submission port among them where there is one.
var providers = []provider{
	{
		name: "gmail", host: "smtp.gmail.com", ports: "587,465", oauth2: google,
		advice: "Gmail takes an app password, which needs 2-step verification, or OAuth2; not the account's password",
	},
	{
		name: "google-workspace", host: "smtp-relay.gmail.com", ports: "587,465", oauth2: google,
		advice: "the SMTP relay service must be allowed in the Workspace admin console; it takes an app password, OAuth2 or a known IP address",
	},
	{
		name: "microsoft365", host: "smtp.office365.com", ports: "587", oauth2: microsoft, conns: "3", rate: "30/m",
		advice: "authenticated SMTP must be enabled for the mailbox; passwords are being phased out, so prefer OAuth2",
	},
	{
		name: "outlook", host: "smtp-mail.outlook.com", ports: "587", oauth2: microsoft, tokensOnly: true, conns: "3",
		advice: "Outlook.com takes OAuth2 only, no password",
	},
	{
		name: "yahoo", host: "smtp.mail.yahoo.com", ports: "587,465", messages: "20",
		advice: "Yahoo takes an app password only",
	},
	{
		name: "icloud", host: "smtp.mail.me.com", ports: "587",
		advice: "iCloud takes an app-specific password only",
	},
	{
		name: "zoho", host: "smtp.zoho.com", ports: "587,465",
		advice: "accounts belong to a region: outside the US set SMTP_HOST to smtp.zoho.eu, smtp.zoho.in or alike",
	},
	{
		name: "mailersend", host: "smtp.mailersend.net", ports: "587,2525",
		advice: "the SMTP user is generated for each domain",
	},
	{
		name: "sendgrid", host: "smtp.sendgrid.net", ports: "587,2525,465", username: "apikey",
		advice: "the user name is the word apikey, the password an API key",
	},
	{
		name: "mailgun", host: "smtp.mailgun.org", ports: "587,2525,465",
		advice: "the SMTP user belongs to one domain; EU domains need mailgun-eu",
	},
	{
		name: "mailgun-eu", host: "smtp.eu.mailgun.org", ports: "587,2525,465",
		advice: "the SMTP user belongs to one domain; US domains need mailgun",
	},
	{
		name: "postmark", host: "smtp.postmarkapp.com", ports: "587,2525", recipients: "50",
		advice: "the server token is user name and password alike",
	},
	{
		name: "ses", ports: "587,2587,465,2465", recipients: "50",
		advice: "SES takes SMTP credentials derived for the region, not the AWS access key",
	},
	{
		name: "brevo", host: "smtp-relay.brevo.com", ports: "587,2525,465",
		advice: "the password is an SMTP key, not an API key",
	},
	{
		name: "smtp2go", host: "mail.smtp2go.com", ports: "587,2525,8025,465,8465,443",
		advice: "the SMTP user is made in the SMTP2GO console; it listens on 443, too",
	},
	{
		name: "mailjet", host: "in-v3.mailjet.com", ports: "587,2525,588,465,80", recipients: "50",
		advice: "the user name is the API key, the password the secret key",
	},
	{
		name: "resend", host: "smtp.resend.com", ports: "587,2587,465,2465", username: "resend",
		advice: "the user name is the word resend, the password an API key",
	},
	{
		name: "sparkpost", host: "smtp.sparkpostmail.com", ports: "587,2525", username: "SMTP_Injection",
		advice: "the user name is the word SMTP_Injection, the password an API key; EU accounts set SMTP_HOST",
	},
	{
		name: "elasticemail", host: "smtp.elasticemail.com", ports: "587,2525,465",
		advice: "the password is an SMTP credential, not the account's",
	},
}

// Provider is what is known of a public relay beyond the protocol.
type Provider struct {
	Ladder Ladder // every port that it listens on, best first
	Advice string // what its users most often get wrong, in one sentence
}

// ProviderOf finds the provider of a host by its name, or else by its domain:
// the last two labels of the name. It is for advice only; nothing is configured
// by it.
func ProviderOf(host string) (Provider, bool) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	i := slices.IndexFunc(providers, func(p provider) bool { return p.host == host })
	if i < 0 {
		i = slices.IndexFunc(providers, func(p provider) bool { return domainOf(cmp.Or(p.host, sesDomain)) == domainOf(host) })
	}
	if i < 0 {
		return Provider{}, false
	}
	var ladder Ladder
	if err := ladder.Decode(providers[i].ports); err != nil {
		return Provider{}, false
	}
	return Provider{ladder, providers[i].advice}, true
}

// domainOf returns the last two labels.
func domainOf(host string) string {
	labels := strings.Split(host, ".")
	return strings.Join(labels[max(0, len(labels)-2):], ".")
}

func providerNames() string {
	names := make([]string, len(providers))
	for i, p := range providers {
		names[i] = p.name
	}
	return strings.Join(names, ", ")
}

// applyProvider fills in what SMTP_PROVIDER stands for and nothing else set.
func (r *reader) applyProvider(relay *Relay) {
	if relay.Provider == "" {
		return
	}
	name, region, _ := strings.Cut(strings.ToLower(relay.Provider), ":")
	i := slices.IndexFunc(providers, func(p provider) bool { return p.name == name })
	if i < 0 || region != "" && (name != "ses" || !isDomain(region)) {
		r.problem(relay.name("PROVIDER"), "is "+quote(relay.Provider)+", which is no provider we know",
			"set one of "+providerNames()+" (ses:REGION), or leave it out and set "+relay.name("HOST"))
		return
	}
	p := providers[i]
	if region != "" {
		p.host = sesHost(region)
	}
	relay.Provider, relay.Advice = p.name, p.advice
	r.preset(relay, p.settings(relay))
	if p.tokensOnly && relay.Password.IsSet() && !relay.OAuth2.Configured() {
		r.warn("%s is set, but %s", relay.name("PASSWORD"), p.advice)
	}
}

// settings are the preset's values by the name after SMTP_.
func (p provider) settings(relay *Relay) map[string]string {
	s := map[string]string{
		"HOST": p.host, "PORTS": p.ports, "MAX_RECIPIENTS": p.recipients,
		"MAX_CONNECTIONS": p.conns, "MESSAGES_PER_CONNECTION": p.messages, "RATE": p.rate,
	}
	if relay.Auth != "none" {
		s["USERNAME"] = p.username
	}
	if relay.OAuth2.Fetched() && relay.OAuth2.TokenURL == "" {
		s["OAUTH2_PROVIDER"] = p.oauth2
	}
	return s
}

// preset gives values to variables that are not set.
func (r *reader) preset(relay *Relay, values map[string]string) {
	for _, v := range variables(relay.prefix(), relay) {
		value := values[strings.TrimPrefix(v.name, relay.prefix()+"_")]
		if value == "" || r.sources[v.name] != FromDefault {
			continue
		}
		if err := v.decode(nowhere, value); err != nil {
			panic(v.name + ": the preset: " + err.Error()) // a test reads every preset
		}
		r.sources[v.name] = FromProvider
	}
}
