package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kelseyhightower/envconfig"

	"mailsidecar/files"
	"mailsidecar/mailer"
	"mailsidecar/mailer/dkim"
)

// Limits of MAILSIDECAR_DKIM.
const (
	maxDKIM = 100
	// maxSignatures is for one domain: each takes time, and room in the message.
	maxSignatures = 4
)

// DKIM is the entries of MAILSIDECAR_DKIM as they are written: domain:selector:FILE.
type DKIM List

var _ envconfig.Decoder = (*DKIM)(nil)

// Decode splits the value.
func (d *DKIM) Decode(value string) error { return (*List)(d).Decode(value) }

// String shows an entry only where it has three parts, and no file that may be a key set in
// place of its name.
func (d DKIM) String() string {
	shown := make([]string, len(d))
	for i, text := range d {
		domain, selector, file := dkim.CutEntry(text)
		if _, err := dkim.NewEntry(domain, selector); err != nil {
			shown[i] = files.Shown("")
			continue
		}
		shown[i] = domain + ":" + selector + ":" + files.Shown(file)
	}
	return strings.Join(shown, ",")
}

// checkDKIM reads the keys. Each entry that is wrong is a problem of its own.
func (r *reader) checkDKIM(s *Service) {
	name := serviceName("DKIM")
	if len(s.DKIM) > maxDKIM {
		r.problem(name, fmt.Sprintf("has %d entries", len(s.DKIM)), fmt.Sprintf("set %d at most", maxDKIM))
		return
	}
	for i, text := range s.DKIM {
		if err := r.addDKIM(s, text); err != nil {
			r.problem(name+" (entry "+strconv.Itoa(i+1)+")", err.What, err.Remedy)
			r.failed[name] = true
		}
	}
}

// addDKIM reads one entry.
func (r *reader) addDKIM(s *Service, text string) *dkim.Error {
	e, err := dkim.ReadEntry(text)
	if err != nil {
		bad, _ := errors.AsType[*dkim.Error](err)
		return bad
	}
	if slices.ContainsFunc(s.DKIMKeys, func(other dkim.Entry) bool { return other.Name() == e.Name() }) {
		return &dkim.Error{What: "has the domain and the selector of another entry", Remedy: "give each key a selector of its own"}
	}
	if n := signaturesOf(s.DKIMKeys, e.Domain); n == maxSignatures {
		return &dkim.Error{What: fmt.Sprintf("is one more than %d of the same domain", maxSignatures), Remedy: "take out the keys that are not used any more"}
	}
	_, _, file := dkim.CutEntry(text)
	if dkim.IsOpen(file) {
		r.warn("%s: every user of this machine may read the key of %s: chmod 600 %s", serviceName("DKIM"), e.Name(), files.Shown(file))
	}
	if e.Key.Weak() {
		r.warn("%s: the RSA key of %s has %d bits, and should have %d: make a new one with mailsidecar dkim new", serviceName("DKIM"), e.Name(), e.Key.Bits(), dkim.GoodRSA)
	}
	s.DKIMKeys = append(s.DKIMKeys, e)
	return nil
}

func signaturesOf(entries []dkim.Entry, domain string) int {
	n := 0
	for _, e := range entries {
		if e.Domain == domain {
			n++
		}
	}
	return n
}

// warnUnsigned warns of senders that the settings name and no key signs for.
func (r *reader) warnUnsigned(all []Relay, s Service) {
	if len(s.DKIMKeys) == 0 || r.failed[serviceName("DKIM")] {
		return
	}
	signer := dkim.NewSigner(s.DKIMKeys)
	for _, from := range authors(all, s) {
		if address, err := mailer.ParseAddress(from.address); err == nil && signer.Room(address.Email) == 0 {
			r.warn("%s is %s, and %s has no key of that domain: its mail goes unsigned; \"mailsidecar dkim new\" makes a key",
				from.setting, address.Email, serviceName("DKIM"))
		}
	}
}

// authors returns the settings that say who the author of mail is, where a message may keep
// that one to the end.
func authors(all []Relay, s Service) []sender {
	var list []sender
	for _, relay := range all {
		list = append(list, sender{relay.Variable("FORCE_FROM"), relay.ForceFrom})
	}
	switch {
	case len(all) > 0 && !slices.ContainsFunc(all, func(relay Relay) bool { return relay.ForceFrom == "" }):
		return list // no other one goes out
	case s.ForceFrom != "":
		return append(list, sender{serviceName("FORCE_FROM"), s.ForceFrom})
	default:
		return append(list, sender{serviceName("FROM"), s.From})
	}
}
