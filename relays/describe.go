package relays

import (
	"cmp"
	"strconv"
	"strings"
)

// Line is one thing that is known of a relay, in words.
type Line struct {
	Topic  string // such as "Ports"
	Text   string
	Source Source
}

// Lines returns what is known of the relay, in the order in which a person asks for it.
func (p Preset) Lines() []Line {
	d := describer{preset: p}
	d.say("Ports", ladderText(p.Ports.Value), p.Ports.Source, p.Ports.Note)
	d.say("Other ports", numbers(p.MorePorts.Value)+", which the preset does not try", p.MorePorts.Source, p.MorePorts.Note)
	for _, r := range p.Regions {
		d.say("Host of "+p.Name+":"+r.Name, r.Host+", "+r.Title, r.Source, "")
	}
	d.say("Other hosts", strings.Join(p.OtherHosts.Value, ", "), p.OtherHosts.Source, p.OtherHosts.Note)
	d.say("User name", p.User.Note, p.User.Source, "")
	d.say("Password", p.Password.Value, p.Password.Source, p.Password.Note)
	d.say("Login", strings.ToUpper(strings.Join(p.Auth.Value, ", ")), p.Auth.Source, p.Auth.Note)
	d.say("OAuth2", p.OAuth2.Value+oauthText(p), p.OAuth2.Source, p.OAuth2.Note)
	d.say("From", fromTexts[p.From.Value], p.From.Source, p.From.Note)
	d.say("DKIM", dkimText(p.SignsDKIM.Value), p.SignsDKIM.Source, p.SignsDKIM.Note)
	d.say("Size of a message", p.Size.Value.String(), p.Size.Source, p.Size.Note)
	d.limit("Recipients in one transaction", p.Recipients)
	d.limit("Connections at a time", p.Connections)
	d.limit("Messages over one connection", p.MessagesPerConnection)
	d.say("Rate", p.Rate.Value.String(), p.Rate.Source, p.Rate.Note)
	d.say("Quota", p.Quota.Value, p.Quota.Source, p.Quota.Note)
	d.say("Idle connection", "closed after "+p.Idle.Value.String(), p.Idle.Source, p.Idle.Note)
	d.say("When the login fails", p.Login.Value, p.Login.Source, p.Login.Note)
	return d.lines
}

// Warnings returns what users of the relay get wrong, the most frequent first.
func (p Preset) Warnings() []Line {
	d := describer{preset: p}
	for _, trap := range append([]Fact[string]{p.Advice}, p.Traps...) {
		d.say("", strings.ToUpper(trap.Value[:1])+trap.Value[1:], trap.Source, trap.Note)
	}
	return d.lines
}

// describer gathers lines. It leaves out what is not known, which has no source.
type describer struct {
	preset Preset
	lines  []Line
}

func (d *describer) say(topic, text, source, note string) {
	if source == "" {
		return
	}
	if note != "" {
		text += ": " + note
	}
	d.lines = append(d.lines, Line{topic, text, d.preset.Sources[source]})
}

func (d *describer) limit(topic string, n Fact[int]) {
	d.say(topic, strconv.Itoa(n.Value), n.Source, n.Note)
}

// fromTexts say which addresses the relay takes in From.
var fromTexts = map[From]string{
	FromOwn:       "the account's own addresses alone",
	FromDomain:    "any address in the domain of the account",
	FromVerified:  "addresses and domains that the account has verified",
	FromRewritten: "replaced where it is not the account's own",
	FromAny:       "any address",
}

func oauthText(p Preset) string {
	if p.TokensOnly.Value {
		return ", and no password (docs/oauth2.md)"
	}
	return " (docs/oauth2.md)"
}

func dkimText(signs bool) string {
	if signs {
		return "the relay signs"
	}
	return "the relay does not sign"
}

// ladderText lists ports with their TLS mode where that is implicit.
func ladderText(ports []int) string {
	var texts []string
	for _, port := range ports {
		text := strconv.Itoa(port)
		if ImplicitTLS(port) {
			text += " (implicit TLS)"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

func numbers(list []int) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ", ")
}

// Setting is one variable to set for a relay.
type Setting struct {
	Name  string // after SMTP_, such as "USERNAME"
	Value string // empty where the account has its own
	Note  string // what belongs there, or may stand there instead; empty where the value says it
}

// Lines returns the setting as lines of a file with variables, a comment among them. What
// has a value has its comment above: Docker takes all behind the equals sign for the value.
func (s Setting) Lines() []string {
	line := "SMTP_" + s.Name + "=" + s.Value
	switch {
	case s.Note == "":
		return []string{line}
	case s.Value == "":
		return []string{line + "   # " + s.Note}
	default:
		return []string{"# " + s.Note, line}
	}
}

// otherRegions says what SMTP_PROVIDER is in each region, where none is named and one has
// to be chosen; else empty.
func (p Provider) otherRegions() string {
	if p.Region != "" || p.Regional() || len(p.Regions) == 0 {
		return ""
	}
	names := make([]string, len(p.Regions))
	for i, r := range p.Regions {
		names[i] = p.Name + ":" + r.Name
	}
	return "or, as the account has it: " + strings.Join(names, ", ")
}

// Settings returns the variables to set for the relay, as [ProviderNamed] found it. The
// preset fills in the rest.
func (p Provider) Settings() []Setting {
	provider := p.Name
	switch {
	case p.Region != "":
		provider += ":" + p.Region
	case p.Regional():
		provider += ":REGION"
	}
	all := []Setting{{"PROVIDER", provider, p.otherRegions()}}
	if p.User.Kind != UserWord {
		all = append(all, Setting{"USERNAME", "", cmp.Or(p.User.Note, "the user name of the account")})
	}
	if p.TokensOnly.Value {
		return append(all, Setting{"OAUTH2_CLIENT_ID", "", "of the client that is registered for mailsidecar (docs/oauth2.md)"})
	}
	return append(all, Setting{"PASSWORD", "", cmp.Or(p.Password.Value, "the password of the account")})
}
