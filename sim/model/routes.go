package model

import (
	"slices"
	"strings"
)

// takers are the names of the relays that may take mail of a key from the domain, best
// first: those that the key names, in its order, or all where it names none; of these the
// ones that name the domain, or else those that name no sender.
func (c *checker) takers(key, domain string) []string {
	named := func(name string) bool { return c.Relays[name].Keys[key] > 0 }
	list := c.Order
	if slices.ContainsFunc(list, named) {
		list = slices.DeleteFunc(slices.Clone(list), func(name string) bool { return !named(name) })
		slices.SortFunc(list, func(a, b string) int { return c.Relays[a].Keys[key] - c.Relays[b].Keys[key] })
	}
	of := func(sender func([]string) bool) []string {
		return slices.DeleteFunc(slices.Clone(list), func(name string) bool { return !sender(c.Relays[name].Senders) })
	}
	if own := of(func(senders []string) bool { return slices.Contains(senders, domain) }); len(own) > 0 {
		return own
	}
	return of(func(senders []string) bool { return len(senders) == 0 })
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// routes: mail goes to no relay that may not take it: neither in sight of the relay, nor in
// a story.
func (c *checker) routes() {
	for name, r := range c.Relays {
		for _, t := range r.Notes.Mails {
			domain := domainOf(t.ReversePath)
			if key, ok := c.Domains[domain]; ok && !slices.Contains(c.takers(key, domain), name) {
				c.fail("route", "relay %s saw a MAIL of %s for %v at %v, and takes no mail of the key %s", name, t.ReversePath, t.Paths, t.At, key)
			}
		}
	}
	for i := range c.Messages {
		m := &c.Messages[i]
		for _, a := range m.Attempts {
			if a.Relay != "" && !slices.Contains(c.takers(m.Key, domainOf(m.Envelope.ReversePath)), a.Relay) {
				c.fail("route", "%s of the key %s has an attempt at relay %s, which takes no mail of it", m.Subject, m.Key, a.Relay)
			}
		}
	}
}
