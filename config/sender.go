package config

import (
	"slices"
	"strings"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

// sender is an address that mail through a relay has for its author.
type sender struct{ setting, address string }

// warnSenders warns of senders that a relay is known not to take as they are. What it
// really takes, only the account's owner knows.
func (r *reader) warnSenders(all []Relay, s Service) {
	for _, relay := range all {
		for _, from := range slices.Concat(relay.senders(s), relay.keySenders(s), relay.returnPath()) {
			if why := relay.doubts(from.address); why != "" {
				r.warn("%s is %s, and %s", from.setting, from.address, why)
			}
		}
	}
}

// senders returns the addresses that the settings name for mail through the relay.
func (relay Relay) senders(s Service) []sender {
	list := []sender{{relay.Variable("FORCE_FROM"), relay.ForceFrom}}
	if relay.ForceFrom == "" {
		list = []sender{{serviceName("FORCE_FROM"), s.ForceFrom}}
		if s.ForceFrom == "" {
			list = []sender{{serviceName("FROM"), s.From}}
			for _, named := range relay.Senders {
				list = append(list, sender{relay.Variable("SENDERS"), named})
			}
		}
	}
	var found []sender
	for _, from := range list {
		address, err := mailer.ParseAddress(from.address)
		if err == nil && (from.setting == relay.Variable("FORCE_FROM") || relay.routes(address.Email)) {
			found = append(found, sender{from.setting, address.Email})
		}
	}
	return found
}

// keySenders returns the addresses of the keys whose mail may go to the relay, unless a
// setting puts another one in their place.
func (relay Relay) keySenders(s Service) (found []sender) {
	if relay.ForceFrom != "" || s.ForceFrom != "" {
		return nil
	}
	for _, key := range s.Keys {
		if relay.Keys[key.Name] == 0 && s.limitsRelays(key.Name) {
			continue
		}
		for _, named := range key.Senders {
			if address, err := mailer.ParseAddress(named); err == nil && relay.routes(address.Email) {
				found = append(found, sender{serviceName("KEY_SENDERS"), address.Email})
			}
		}
	}
	return found
}

// limitsRelays reports whether KEY_RELAYS names a key.
func (s Service) limitsRelays(key string) bool {
	return slices.ContainsFunc(s.KeyRelays, func(entry string) bool {
		name, _, _ := strings.Cut(entry, ":")
		return strings.TrimSpace(name) == key
	})
}

// returnPath returns the reverse-path that the relay gets in place of the messages' own.
func (relay Relay) returnPath() []sender {
	address, err := mailer.ParseAddress(relay.ReturnPath)
	if err != nil {
		return nil
	}
	return []sender{{relay.Variable("RETURN_PATH"), address.Email}}
}

// routes reports whether mail of that sender may go to the relay.
func (relay Relay) routes(address string) bool {
	address = mailer.Lower(address)
	return len(relay.Senders) == 0 || slices.Contains(relay.Senders, address) || slices.Contains(relay.Senders, domainOf(address))
}

// doubts returns why the relay probably does not take mail of that sender, for a sentence;
// empty where nothing speaks against it.
func (relay Relay) doubts(address string) string {
	user := relay.Username
	isAccount := strings.Contains(user, "@")
	if isAccount && strings.EqualFold(untagged(user), untagged(address)) {
		return ""
	}
	preset, known := relays.PresetFor(relay.Host)
	if !known {
		return ""
	}
	if isLocal(domainOf(address)) {
		return "no relay on the Internet takes mail of a host without a domain in the DNS: set an address in a domain of your own"
	}
	from := preset.From
	login := " (" + relay.Variable("USERNAME") + " is " + user + ")"
	switch {
	case isAccount && (from.Value == relays.FromOwn || from.Value == relays.FromRewritten):
		return from.Note + login + ": this is fine only if it is an alias of the account"
	case isAccount && from.Value == relays.FromDomain && !strings.EqualFold(domainOf(user), domainOf(address)):
		return from.Note + login
	case from.Value == relays.FromVerified && slices.Contains(mailboxDomains, strings.ToLower(domainOf(address))):
		return "receivers refuse mail of that domain from other servers (DMARC): set an address in a domain of your own"
	default:
		return ""
	}
}

// isLocal reports whether a domain is one that only this machine or network knows
// (RFC 6761 §6.3, RFC 6762 §3), as that of the addresses of cron and php.
func isLocal(domain string) bool {
	domain = strings.ToLower(domain)
	for _, top := range []string{"localhost", "localdomain", "local", "internal"} {
		if domain == top || strings.HasSuffix(domain, "."+top) {
			return true
		}
	}
	return !strings.ContainsAny(domain, ".:[")
}

// untagged returns an address without what follows a plus: mostly that is one mailbox.
func untagged(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	local, _, _ = strings.Cut(local, "+")
	return local + "@" + domain
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// mailboxDomains are domains of mailboxes that no customer can verify at a relay.
var mailboxDomains = []string{
	"gmail.com", "googlemail.com", "yahoo.com", "aol.com", "outlook.com", "hotmail.com", "live.com", "icloud.com", "me.com",
	"gmx.de", "gmx.net", "web.de", "proton.me", "protonmail.com", "qq.com", "163.com", "naver.com", "yandex.ru",
}
