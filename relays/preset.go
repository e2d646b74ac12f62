// Package relays holds what is known of public relays beyond the protocol: how
// each is reached and what it limits.
//
// It connects to nothing and decides nothing. An entry changes when a relay
// changes its habits, and names the relay that it is about; everything in it is
// from that relay's own documentation or from replies that it was seen to give.
package relays

import (
	"slices"
	"strings"
	"time"

	"mailsidecar/units"
)

// Preset is what SMTP_PROVIDER stands for. Vendors change their limits without
// notice: a limit here is a default that the configuration may raise. A zero
// value means that nothing special is known, so that the general default holds.
type Preset struct {
	Name string
	// Host is the relay's DNS name; empty where each region has its own, see
	// [Preset.InRegion].
	Host         string
	regionalHost string // with REGION in it; empty for all others
	// Ports are those that the relay listens on, best first. Each uses TLS as its
	// number implies.
	Ports                 []int
	Username              string // where it is the same for every account
	Recipients            int    // in one transaction
	Connections           int    // at a time
	MessagesPerConnection int
	Rate                  units.Rate
	OAuth2                string // name of its authorization server: "google" or "microsoft"
	TokensOnly            bool   // the relay refuses passwords
	// Advice is what its users most often get wrong: one sentence without a full
	// stop.
	Advice string
}

// presets are in the order of the documentation. The STARTTLS ports come first,
// the fallback submission port among them where there is one.
var presets = []Preset{
	{
		Name: "gmail", Host: "smtp.gmail.com", Ports: []int{587, 465}, OAuth2: "google",
		Advice: "Gmail takes an app password, which needs 2-step verification, or OAuth2 (docs/oauth2.md); not the account's password",
	},
	{
		Name: "google-workspace", Host: "smtp-relay.gmail.com", Ports: []int{587, 465}, OAuth2: "google",
		Advice: "the SMTP relay service must be allowed in the Workspace admin console; it takes an app password, OAuth2 or a known IP address",
	},
	{
		Name: "microsoft365", Host: "smtp.office365.com", Ports: []int{587}, OAuth2: "microsoft", Connections: 3, Rate: units.Rate{Messages: 30, Per: time.Minute},
		Advice: "authenticated SMTP must be enabled for the mailbox; from the end of December 2026 passwords are off by default and new tenants have none, so use OAuth2: docs/oauth2.md",
	},
	{
		Name: "outlook", Host: "smtp-mail.outlook.com", Ports: []int{587}, OAuth2: "microsoft", TokensOnly: true, Connections: 3,
		Advice: "Outlook.com takes OAuth2 only, by the login of a person, and no password: docs/oauth2.md",
	},
	{
		Name: "yahoo", Host: "smtp.mail.yahoo.com", Ports: []int{587, 465}, MessagesPerConnection: 20,
		Advice: "Yahoo takes an app password only",
	},
	{
		Name: "icloud", Host: "smtp.mail.me.com", Ports: []int{587},
		Advice: "iCloud takes an app-specific password only",
	},
	{
		Name: "zoho", Host: "smtp.zoho.com", Ports: []int{587, 465},
		Advice: "accounts belong to a region: outside the US set SMTP_HOST to smtp.zoho.eu, smtp.zoho.in or alike",
	},
	{
		Name: "mailersend", Host: "smtp.mailersend.net", Ports: []int{587, 2525},
		Advice: "the SMTP user is generated for each domain",
	},
	{
		Name: "sendgrid", Host: "smtp.sendgrid.net", Ports: []int{587, 2525, 465}, Username: "apikey",
		Advice: "the user name is the word apikey, the password an API key",
	},
	{
		Name: "mailgun", Host: "smtp.mailgun.org", Ports: []int{587, 2525, 465},
		Advice: "the SMTP user belongs to one domain; EU domains need mailgun-eu",
	},
	{
		Name: "mailgun-eu", Host: "smtp.eu.mailgun.org", Ports: []int{587, 2525, 465},
		Advice: "the SMTP user belongs to one domain; US domains need mailgun",
	},
	{
		Name: "postmark", Host: "smtp.postmarkapp.com", Ports: []int{587, 2525}, Recipients: 50,
		Advice: "the server token is user name and password alike",
	},
	{
		Name: "ses", regionalHost: "email-smtp.REGION.amazonaws.com", Ports: []int{587, 2587, 465, 2465}, Recipients: 50,
		Advice: "SES takes SMTP credentials derived for the region, not the AWS access key",
	},
	{
		Name: "brevo", Host: "smtp-relay.brevo.com", Ports: []int{587, 2525, 465},
		Advice: "the password is an SMTP key, not an API key",
	},
	{
		Name: "smtp2go", Host: "mail.smtp2go.com", Ports: []int{587, 2525, 8025, 465, 8465, 443},
		Advice: "the SMTP user is made in the SMTP2GO console; it listens on 443, too",
	},
	{
		Name: "mailjet", Host: "in-v3.mailjet.com", Ports: []int{587, 2525, 588, 465, 80}, Recipients: 50,
		Advice: "the user name is the API key, the password the secret key",
	},
	{
		Name: "resend", Host: "smtp.resend.com", Ports: []int{587, 2587, 465, 2465}, Username: "resend",
		Advice: "the user name is the word resend, the password an API key",
	},
	{
		Name: "sparkpost", Host: "smtp.sparkpostmail.com", Ports: []int{587, 2525}, Username: "SMTP_Injection",
		Advice: "the user name is the word SMTP_Injection, the password an API key; EU accounts set SMTP_HOST",
	},
	{
		Name: "elasticemail", Host: "smtp.elasticemail.com", Ports: []int{587, 2525, 465},
		Advice: "the password is an SMTP credential, not the account's",
	},
}

// Presets returns every preset, in the order of the documentation.
func Presets() []Preset { return slices.Clone(presets) }

// PresetNamed returns the preset of that name, which is in lower case.
func PresetNamed(name string) (Preset, bool) {
	return find(func(p Preset) bool { return p.Name == name })
}

// PresetFor returns the preset of the relay that host belongs to: the one with
// that host or of the same issuer in another cloud, or else the first in the same
// domain, which is the last two labels of the name. It is for advice: an unknown
// host in a known domain may differ.
func PresetFor(host string) (Preset, bool) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if p, ok := find(func(p Preset) bool { return p.Host == host }); ok {
		return p, true
	}
	if i, ok := CloudOf(host); ok {
		return find(func(p Preset) bool { return p.OAuth2 == i.Name })
	}
	return find(func(p Preset) bool { return domain(p.Host+p.regionalHost) == domain(host) })
}

func find(matches func(Preset) bool) (Preset, bool) {
	if i := slices.IndexFunc(presets, matches); i >= 0 {
		return presets[i], true
	}
	return Preset{}, false
}

// domain returns the last two labels of host.
func domain(host string) string {
	labels := strings.Split(host, ".")
	return strings.Join(labels[max(0, len(labels)-2):], ".")
}

// Regional reports whether the relay has one host in each region, so that Host is
// empty.
func (p Preset) Regional() bool { return p.regionalHost != "" }

// InRegion returns the preset with the host of that region, such as "eu-west-1".
// The region of a relay that is not regional is ignored.
func (p Preset) InRegion(region string) Preset {
	if p.Regional() {
		p.Host = strings.Replace(p.regionalHost, "REGION", region, 1)
	}
	return p
}
