package diagnosis_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/diagnosis"
	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

var update = flag.Bool("update", false, "rewrite testdata/situations.golden")

// pins are the keys of relays, which are made anew in each run.
var pins = regexp.MustCompile(`sha256/[A-Za-z0-9+/]{43}=`)

const golden = "testdata/situations.golden"

// ladders are those with which every situation is checked.
var ladders = [][]int{{587}, {587, 2525}, {587, 2525, 25, 8025}}

// world is a relay and the network that leads to it.
type world struct {
	t        *testing.T
	network  *relaytest.Network
	relays   []*relaytest.Relay
	ports    []int
	options  smtp.Options
	settings diagnosis.Settings
	sender   string

	addresses []string // of the host
	lookup    func(ctx context.Context, host string) ([]string, error)
	servers   []string // for names
	lookupAt  func(ctx context.Context, server, host string) ([]string, error)
}

// relay puts a relay of its own behind each of the ports.
func (w *world) relay(o relaytest.Options, script relaytest.Script, ports ...int) {
	for _, port := range ports {
		r := relaytest.New(w.t, o, script)
		w.relays = append(w.relays, r)
		w.network.Set(port, r)
	}
}

// all puts such a relay behind every port of the ladder.
func all(o relaytest.Options, script relaytest.Script) func(*world) {
	return func(w *world) { w.relay(o, script, w.ports...) }
}

// fated gives every port of the ladder that fate.
func fated(fate any) func(*world) {
	return func(w *world) {
		for _, port := range w.ports {
			w.network.Set(port, fate)
		}
	}
}

// and does one after the other.
func and(parts ...func(*world)) func(*world) {
	return func(w *world) {
		for _, part := range parts {
			part(w)
		}
	}
}

func host(name string) func(*world) {
	return func(w *world) { w.options.Host, w.options.ServerName = name, "" }
}

func provider(name string) func(*world) { return func(w *world) { w.settings.Provider = name } }

func from(sender string) func(*world) { return func(w *world) { w.sender = sender } }

// dnsError is what a look-up returns after some time, at the latest when its own is
// over.
func dnsError(after time.Duration, e net.DNSError) func(*world) {
	return func(w *world) {
		w.lookup = func(ctx context.Context, host string) ([]string, error) {
			select {
			case <-ctx.Done():
				return nil, &net.DNSError{Err: "i/o timeout", Name: host, IsTimeout: true}
			case <-time.After(after):
				e.Name = host
				return nil, &e
			}
		}
	}
}

const never = time.Hour

// nameServers are asked one by one; those in answering answer.
func nameServers(servers, answering []string) func(*world) {
	return func(w *world) {
		w.servers = servers
		w.lookupAt = func(ctx context.Context, server, host string) ([]string, error) {
			if slices.Contains(answering, server) {
				return []string{"192.0.2.1"}, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}
}

var (
	bothFamilies = func(w *world) { w.addresses = []string{"2001:db8::1", "192.0.2.1"} }
	clearText    = func(w *world) {
		w.options.Cleartext = true
	}
	noLogin = func(w *world) { w.options.Username, w.options.Password = "", "" }
)

// implicitTLS speaks TLS from the first octet on every port of the ladder.
func implicitTLS(w *world) {
	w.options.Ladder = slices.Clone(w.options.Ladder)
	for i := range w.options.Ladder {
		w.options.Ladder[i].Implicit = true
	}
}

// pinned pins the key of that certificate.
func pinned(cert *x509.Certificate) func(*world) {
	return func(w *world) { w.options.Pins = []smtp.Pin{smtp.PinOf(cert)} }
}

func clientCertificate(pair tls.Certificate) func(*world) {
	return func(w *world) {
		w.settings.ClientCertificate = true
		w.options.ClientCertificate = func() (*tls.Certificate, error) { return &pair, nil }
	}
}

// situation is what a relay, the network or this machine is like, and what is said of
// it. The same is said with every ladder.
type situation struct {
	name  string
	world func(*world)
	// cause and remedy are parts of the first advice; empty where mail can go and there
	// is nothing to say.
	cause, remedy string
	// result is a part of the conclusion; empty means that no mail can go.
	result string
	within time.Duration // the check must end; zero means 6 s
	no     []string      // what must not be said
}

var situations = []situation{
	{name: "all is well", world: all(relaytest.Options{}, nil), result: "takes the login on port 587. No sender was tried"},
	{name: "all is well, with a sender", world: and(all(relaytest.Options{}, nil), from("shop@example.com")), result: "mail can go to relay.test on port 587, from the sender shop@example.com"},

	// Names
	{name: "no such name", world: and(host("smtp.example.net"), dnsError(0, net.DNSError{Err: "no such host", IsNotFound: true})), cause: "DNS has no address for smtp.example.net", remedy: "Check the spelling of SMTP_HOST", no: []string{"Did you mean"}},
	{name: "misspelt name", world: and(host("smtp.gmial.com"), dnsError(0, net.DNSError{Err: "no such host", IsNotFound: true})), cause: "DNS has no address for smtp.gmial.com", remedy: "Did you mean smtp.gmail.com?"},
	{name: "other top-level domain", world: and(host("smtp.sendgrid.com"), dnsError(0, net.DNSError{Err: "no such host", IsNotFound: true})), cause: "DNS has no address", remedy: "Did you mean smtp.sendgrid.net?"},
	{name: "misspelt regional name", world: and(host("email-stmp.eu-west-1.amazonaws.com"), dnsError(0, net.DNSError{Err: "no such host", IsNotFound: true})), cause: "DNS has no address", remedy: "Did you mean email-smtp.eu-west-1.amazonaws.com?"},
	{name: "name of a known relay: smtp.zoho.eu", world: and(host("smtp.zoho.eu"), dnsError(0, net.DNSError{Err: "no such host", IsNotFound: true})), cause: "the name smtp.zoho.eu is right, but this machine's DNS does not know it", remedy: "/etc/resolv.conf", no: []string{"Did you mean", "spelling"}},
	{name: "name of a known relay: smtp.ionos.de", world: and(host("smtp.ionos.de"), dnsError(0, net.DNSError{Err: "no such host", IsNotFound: true})), cause: "the name smtp.ionos.de is right, but this machine's DNS does not know it", remedy: "/etc/resolv.conf", no: []string{"Did you mean", "spelling"}},
	{name: "name of a known relay: email-smtp.eu-central-1.amazonaws.com", world: and(host("email-smtp.eu-central-1.amazonaws.com"), dnsError(0, net.DNSError{Err: "no such host", IsNotFound: true})), cause: "the name email-smtp.eu-central-1.amazonaws.com is right, but this machine's DNS does not know it", remedy: "/etc/resolv.conf", no: []string{"Did you mean", "spelling"}},
	{name: "region that is not in the table", world: and(host("email-smtp.eu-wst-1.amazonaws.com"), provider("ses"), dnsError(0, net.DNSError{Err: "no such host", IsNotFound: true})), cause: "DNS has no address", remedy: "Check the region in SMTP_PROVIDER", no: []string{"Did you mean"}},
	{name: "name of another container", world: and(host("mailpit"), dnsError(0, net.DNSError{Err: "no such host", IsNotFound: true})), cause: "DNS has no address for mailpit", remedy: "known only in a network that both share"},
	{name: "name server fails", world: dnsError(0, net.DNSError{Err: "server misbehaving", Server: "192.0.2.53:53", IsTemporary: true}), cause: "the name server 192.0.2.53 answers with an error", remedy: "/etc/resolv.conf", within: time.Nanosecond, no: []string{"spelling"}},
	{name: "name server refuses the packets", world: dnsError(0, net.DNSError{Err: "read: connection refused", Server: "127.0.0.53:53"}), cause: "the name server 127.0.0.53 answers with an error, or refuses", remedy: "/etc/resolv.conf", no: []string{"spelling"}},
	{name: "name server silent", world: and(dnsError(never, net.DNSError{}), nameServers([]string{"192.0.2.53:53"}, nil)), cause: "the name server 192.0.2.53 does not answer", remedy: "port 53 is open", within: 5 * time.Second, no: []string{"spelling"}},
	{name: "first of two name servers silent", world: and(dnsError(never, net.DNSError{}), nameServers([]string{"192.0.2.53:53", "192.0.2.54:53"}, []string{"192.0.2.54:53"})), cause: "the name server 192.0.2.53 does not answer, and 192.0.2.54 is asked too late", remedy: "/etc/resolv.conf", within: 5 * time.Second},
	{name: "two name servers silent", world: and(dnsError(never, net.DNSError{}), nameServers([]string{"192.0.2.53:53", "192.0.2.54:53"}, nil)), cause: "the name servers 192.0.2.53 and 192.0.2.54 do not answer", remedy: "/etc/resolv.conf", within: 5 * time.Second},

	// Connections
	{name: "dropped", world: fated(relaytest.BlackHole), cause: "no answer: the packets are dropped", remedy: "on another machine"},
	{name: "refused", world: fated(relaytest.Refused), cause: "the connection was refused", remedy: "Compare SMTP_HOST and SMTP_PORTS"},
	{name: "refused on this machine", world: and(host("localhost"), fated(relaytest.Refused)), cause: "the connection was refused", remedy: "Start the relay"},
	{name: "rejected by a router", world: fated(relaytest.Rejected), cause: "a router or firewall on the way rejects the connection", remedy: "administrator of the firewall", no: []string{"no route"}},
	{name: "no route", world: fated(relaytest.NoRoute), cause: "this machine has no route to relay.test", remedy: "ip route"},
	{name: "forbidden by the system", world: fated(relaytest.Forbidden), cause: "this system forbids mailsidecar to connect", remedy: "IPAddressDeny"},
	{name: "dropped, and 465 open", world: and(fated(relaytest.BlackHole), func(w *world) { w.relay(relaytest.Options{Implicit: true}, nil, 465) }), cause: "no answer", remedy: "Port 465 answers as it should: set SMTP_PORTS=465.", no: []string{"another machine"}},
	{name: "refused, and 465 open", world: and(fated(relaytest.Refused), func(w *world) { w.relay(relaytest.Options{Implicit: true}, nil, 465) }), cause: "the connection was refused", remedy: "Port 465 answers as it should: set SMTP_PORTS=465."},
	{name: "dropped, and a port of the preset open", world: and(host("mail.smtp2go.com"), func(w *world) { w.options.ServerName = relaytest.Host }, fated(relaytest.BlackHole), func(w *world) { w.relay(relaytest.Options{Implicit: true}, nil, 8465, 443) }), cause: "no answer", remedy: "Ports 8465 and 443 answer as they should: set SMTP_PORTS=8465,443."},
	{name: "preset without another port", world: and(host("smtp.office365.com"), fated(relaytest.BlackHole)), cause: "no answer", remedy: "Other ports were tried, too"},

	// IPv4 and IPv6
	{name: "IPv6 dropped, IPv4 good", world: and(bothFamilies, all(relaytest.Options{}, nil), func(w *world) { w.network.Address = map[string]any{"2001:db8::1": relaytest.BlackHole} }), cause: "IPv6 does not work: there is no answer. IPv4 does.", remedy: "Nothing has to be done", result: "takes the login"},
	{name: "IPv4 refused, IPv6 good", world: and(bothFamilies, all(relaytest.Options{}, nil), func(w *world) { w.network.Address = map[string]any{"192.0.2.1": relaytest.Refused} }), cause: "IPv4 does not work: the connection is refused. IPv6 does.", remedy: "Nothing has to be done", result: "takes the login"},
	{name: "IPv6 forbidden, IPv4 good", world: and(bothFamilies, all(relaytest.Options{}, nil), func(w *world) { w.network.Address = map[string]any{"2001:db8::1": relaytest.Forbidden} }), cause: "IPv6 does not work: a router or firewall rejects the connection. IPv4 does.", remedy: "Nothing has to be done", result: "takes the login"},
	{name: "no IPv6 on this machine", world: and(bothFamilies, all(relaytest.Options{}, nil), func(w *world) { w.network.Address = map[string]any{"2001:db8::1": relaytest.NoRoute} }), result: "takes the login"},
	{name: "IPv4 dropped, no IPv6 on this machine", world: and(bothFamilies, func(w *world) {
		w.network.Address = map[string]any{"2001:db8::1": relaytest.NoRoute, "192.0.2.1": relaytest.BlackHole}
	}), cause: "no answer: the packets are dropped. That is how hosting providers and firewalls block mail ports; a host that is down looks the same. That is so over IPv4; over IPv6 this machine has no route there.", remedy: "hosting provider"},
	{name: "IPv6 alone, and none on this machine", world: and(func(w *world) { w.addresses = []string{"2001:db8::1"} }, fated(relaytest.NoRoute)), cause: "the relay has IPv6 addresses only", remedy: "Give this machine or its container IPv6"},

	// Stalls and closed connections, by how far they come
	{name: "silent after TCP", world: all(relaytest.Options{}, relaytest.Script{"greeting": "silence"}), cause: "no greeting came", remedy: "load balancer", within: 21 * time.Second, no: []string{"/tls"}},
	{name: "silent after the greeting", world: all(relaytest.Options{}, relaytest.Script{"EHLO": "silence"}), cause: "sent its greeting, and after our own (EHLO) it said nothing more", remedy: "inspect mail", within: 21 * time.Second},
	{name: "silent after STARTTLS", world: all(relaytest.Options{}, relaytest.Script{"STARTTLS": "silence"}), cause: "offers STARTTLS, and after that command it said nothing more", remedy: "inspect mail", within: 21 * time.Second},
	{name: "silent in the handshake", world: all(relaytest.Options{}, relaytest.Script{"TLS": "silence"}), cause: "does not answer the TLS handshake", remedy: "MTU", within: 21 * time.Second},
	{name: "silent after TLS", world: all(relaytest.Options{}, relaytest.Script{"EHLO": "default then silence"}), cause: "TLS is up and the certificate is good, and then the relay said nothing more", remedy: "no mail server", within: 21 * time.Second},
	{name: "silent after AUTH", world: all(relaytest.Options{}, relaytest.Script{"AUTH": "silence"}), cause: "broke off the login, or did not answer it", remedy: "Try again in some minutes", within: 21 * time.Second},
	{name: "silent after MAIL", world: and(all(relaytest.Options{}, relaytest.Script{"MAIL": "silence"}), from("shop@example.com")), cause: "at the sender (MAIL) it said nothing more", remedy: "ask the provider", within: 21 * time.Second},
	{name: "closed after TCP", world: all(relaytest.Options{}, relaytest.Script{"greeting": "drop"}), cause: "closed before a greeting came", remedy: "addresses that they block", no: []string{"/tls"}},
	{name: "reset after TCP", world: fated(relaytest.Reset), cause: "closed before a greeting came", remedy: "addresses that they block", no: []string{"/tls", "router"}},
	{name: "closed after the greeting", world: all(relaytest.Options{}, relaytest.Script{"EHLO": "drop"}), cause: "after our own (EHLO) it closed the connection", remedy: "inspect mail"},
	{name: "closed after STARTTLS", world: all(relaytest.Options{}, relaytest.Script{"STARTTLS": "drop"}), cause: "offers STARTTLS, and after that command it closed the connection", remedy: "inspect mail"},
	{name: "closed in the handshake", world: all(relaytest.Options{}, relaytest.Script{"TLS": "drop"}), cause: "closed in the TLS handshake", remedy: "inspects it"},
	{name: "closed after TLS", world: all(relaytest.Options{}, relaytest.Script{"EHLO": "default then drop"}), cause: "TLS is up and the certificate is good, and then the relay closed the connection", remedy: "ask its operator"},
	{name: "closed after AUTH", world: all(relaytest.Options{}, relaytest.Script{"AUTH": "drop"}), cause: "broke off the login", remedy: "failed logins"},
	{name: "a slow greeting", world: all(relaytest.Options{}, relaytest.Script{"greeting": "after 12s 220 relay.test ESMTP"}), result: "takes the login on port 587", within: 13 * time.Second},

	// What answers
	{name: "turned away", world: all(relaytest.Options{}, relaytest.Script{"greeting": "554 5.7.1 192.0.2.9 is on a block list"}), cause: "refuses connections from this machine's address. The relay said: 554 5.7.1", remedy: "let it in"},
	{name: "too busy", world: all(relaytest.Options{}, relaytest.Script{"greeting": "bye 421 4.7.0 too many connections"}), cause: "takes no mail from here just now. The relay said: 421", remedy: "Try again in some minutes"},
	{name: "EHLO refused", world: all(relaytest.Options{}, relaytest.Script{"EHLO": "550 5.7.1 invalid HELO"}), cause: "refuses the name with which mailsidecar greets it", remedy: "SMTP_HELO"},
	{name: "IMAP", world: all(relaytest.Options{}, relaytest.Script{"greeting": "* OK IMAP4rev1 ready"}), cause: "speaks IMAP and not SMTP", remedy: "Compare SMTP_HOST and SMTP_PORTS"},
	{name: "SSH", world: all(relaytest.Options{}, relaytest.Script{"greeting": "SSH-2.0-OpenSSH_9.9"}), cause: "speaks SSH and not SMTP", remedy: "Compare SMTP_HOST and SMTP_PORTS"},

	// TLS
	{name: "TLS from the first octet", world: all(relaytest.Options{Implicit: true}, nil), cause: "the port expects TLS from the first octet, and STARTTLS is configured", remedy: "/tls", within: 6 * time.Second},
	{name: "TLS from the first octet, and none configured", world: and(clearText, all(relaytest.Options{Implicit: true}, nil)), cause: "expects TLS from the first octet, and SMTP_TLS=none", remedy: "Remove SMTP_TLS=none", within: 6 * time.Second},
	{name: "no STARTTLS", world: all(relaytest.Options{Extensions: []string{"SIZE"}}, nil), cause: "the relay offers no STARTTLS", remedy: "Use a port with TLS"},
	{name: "no STARTTLS, and 465 open", world: and(all(relaytest.Options{Extensions: []string{"SIZE"}}, nil), func(w *world) { w.relay(relaytest.Options{Implicit: true}, nil, 465) }), cause: "the relay offers no STARTTLS", remedy: "set SMTP_PORTS=465."},
	{name: "STARTTLS refused", world: all(relaytest.Options{}, relaytest.Script{"STARTTLS": "554 5.7.3 TLS is broken"}), cause: "offers STARTTLS, and then refuses it. The relay said: 554", remedy: "mend its TLS"},
	{name: "STARTTLS refused for now", world: all(relaytest.Options{}, relaytest.Script{"STARTTLS": "454 4.7.0 TLS not available"}), cause: "takes no mail from here just now. The relay said: 454", remedy: "Try again"},
	{name: "old TLS", world: all(relaytest.Options{MaxTLS: 0x0302}, nil), cause: "the TLS handshake failed: no version or cipher in common", remedy: "TLS 1.2"},
	{name: "intercepted by antivirus software", world: all(relaytest.Options{Certificate: relaytest.Intercepted}, nil), cause: "intercepted: the certificate is made by Avast", remedy: "Do not trust this certificate", no: []string{"SMTP_TLS_CA_FILE", "SMTP_TLS_PIN", "SMTP_TLS_SERVER_NAME"}},
	{name: "self-signed", world: all(relaytest.Options{Certificate: relaytest.SelfSigned}, nil), cause: "signed by itself", remedy: "or its key in SMTP_TLS_PIN. For any other one, something may intercept the connection: ask the relay's operator, and do not trust the certificate. The key seen from here is sha256/"},
	{name: "self-signed in the place of a preset", world: and(host("smtp.gmail.com"), all(relaytest.Options{Certificate: relaytest.SelfSigned}, nil)), cause: "what answers is not smtp.gmail.com: its certificate is signed by itself", remedy: "Do not trust this certificate", no: []string{"SMTP_TLS_CA_FILE", "SMTP_TLS_PIN", "SMTP_TLS_SERVER_NAME", "set SMTP_HOST"}},
	{name: "expired", world: all(relaytest.Options{Certificate: relaytest.Expired}, nil), cause: "expired on 1 January 1995", remedy: "must renew"},
	{name: "not yet valid", world: all(relaytest.Options{Certificate: relaytest.NotYetValid}, nil), cause: "not valid yet: most likely this machine's clock is behind", remedy: "Set the clock"},
	{name: "another name", world: all(relaytest.Options{Certificate: relaytest.WrongName}, nil), cause: "for another name than relay.test. It is for other.test.", remedy: "do not trust the name"},
	{name: "another name in the place of a preset", world: and(host("smtp.gmail.com"), all(relaytest.Options{Certificate: relaytest.WrongName}, nil)), cause: "what answers is not smtp.gmail.com: its certificate is for another name. It is for other.test.", remedy: "Do not trust this certificate", no: []string{"SMTP_TLS_SERVER_NAME", "set SMTP_HOST"}},
	{name: "another name, by a stranger", world: all(relaytest.Options{Certificate: relaytest.Stranger}, nil), cause: "an authority that this machine does not know", remedy: "do not trust the authority", no: []string{"set SMTP_HOST", "SMTP_TLS_SERVER_NAME"}},
	{name: "an IP address for the host", world: and(host("192.0.2.1"), all(relaytest.Options{}, nil)), cause: "SMTP_HOST is an IP address, and the relay's certificate is for a name. It is for relay.test", remedy: "Set SMTP_HOST to the name"},
	{name: "no name in the certificate", world: all(relaytest.Options{Certificate: relaytest.Nameless}, nil), cause: "does not have the name relay.test", remedy: "subject alternative name"},
	{name: "unknown authority", world: all(relaytest.Options{Certificate: relaytest.UnknownCA}, nil), cause: "an authority that this machine does not know. The authority is CN=unknown CA.", remedy: "The key seen from here is sha256/"},
	{name: "unknown authority, sent with its own certificate", world: all(relaytest.Options{Certificate: relaytest.IssuedByOwner}, nil), cause: "an authority that this machine does not know. The authority is CN=owner CA.", remedy: "SMTP_TLS_CA_FILE"},
	{name: "an intermediate authority", world: all(relaytest.Options{Certificate: relaytest.Chained}, nil), result: "takes the login"},
	{name: "no certificate of the intermediate authority", world: all(relaytest.Options{Certificate: relaytest.Incomplete}, nil), cause: "incomplete chain", remedy: "the whole chain"},
	{name: "the intermediate authority's certificate expired", world: all(relaytest.Options{Certificate: relaytest.ChainExpired}, nil), cause: "a certificate of its authority that expired on 1 January 1995", remedy: "newer certificate"},
	{name: "a certificate for clients", world: all(relaytest.Options{Certificate: relaytest.ClientOnly}, nil), cause: "certificate is not valid. The error is: ", remedy: "must replace it"},

	// Logins
	{name: "wrong password", world: all(relaytest.Options{Password: "other"}, nil), cause: "the relay refused the user name or the password. The relay said: 535", remedy: "SMTP_USERNAME and SMTP_PASSWORD", no: []string{"is not set"}},
	{name: "app password", world: and(host("smtp.gmail.com"), func(w *world) { w.options.ServerName = relaytest.Host }, all(relaytest.Options{}, relaytest.Script{"AUTH": "534 5.7.9 Application-specific password required."})), cause: "two-step verification need an app password", remedy: "Create an app password"},
	{name: "logins later", world: all(relaytest.Options{}, relaytest.Script{"AUTH": "454 4.7.0 Temporary authentication failure"}), cause: "cannot check logins just now", remedy: "Try again"},
	{name: "no AUTH", world: all(relaytest.Options{TLSExtensions: []string{"SIZE"}}, nil), cause: "the relay offers no login there", remedy: "SMTP_AUTH=none"},
	{name: "AUTH after TLS alone", world: and(clearText, func(w *world) { w.options.Mechanism = "" }, all(relaytest.Options{Extensions: []string{"SIZE", "STARTTLS"}}, nil)), cause: "no login in the clear: it wants STARTTLS first", remedy: "Remove SMTP_TLS=none"},
	{name: "XOAUTH2 alone", world: all(relaytest.Options{TLSExtensions: []string{"AUTH XOAUTH2"}}, nil), cause: "no AUTH mechanism that takes a password. It offers XOAUTH2.", remedy: "OAuth2"},
	{name: "GSSAPI alone", world: all(relaytest.Options{TLSExtensions: []string{"AUTH GSSAPI"}}, nil), cause: "It offers GSSAPI.", remedy: "PLAIN or LOGIN"},
	{name: "GSSAPI and NTLM", world: all(relaytest.Options{TLSExtensions: []string{"AUTH GSSAPI NTLM"}}, nil), cause: "It offers GSSAPI NTLM.", remedy: "SMTP_AUTH=ntlm"},
	{name: "no login, where one is offered", world: and(noLogin, all(relaytest.Options{}, nil)), cause: "no login was tried, for SMTP_USERNAME is not set", remedy: "SMTP_USERNAME and SMTP_PASSWORD", result: "answers on port 587 as it should. No sender was tried"},
	{name: "no login, as is meant", world: and(noLogin, func(w *world) { w.settings.NoLogin = true }, all(relaytest.Options{}, nil)), result: "answers on port 587 as it should. No sender was tried", no: []string{"SMTP_USERNAME"}},

	// Senders
	{name: "sender refused", world: and(all(relaytest.Options{}, relaytest.Script{"MAIL": "553 5.7.1 Sender address rejected: not owned by user"}), from("shop@example.com")), cause: "the relay refuses mail from the sender shop@example.com. The relay said: 553", remedy: "MAILSIDECAR_FROM (for a try: --from)"},
	{name: "another key than the pinned one", world: and(all(relaytest.Options{}, nil), pinned(relaytest.Client().Leaf)), cause: "has none of the keys that SMTP_TLS_PIN names. It has the key sha256/", remedy: "to SMTP_TLS_PIN"},
	{name: "another key, by an unknown authority", world: and(all(relaytest.Options{Certificate: relaytest.UnknownCA}, nil), pinned(relaytest.Client().Leaf)), cause: "has none of the keys", remedy: "to SMTP_TLS_PIN"},
	{name: "the pinned key, signed by itself", world: and(all(relaytest.Options{Certificate: relaytest.SelfSigned}, nil), pinned(relaytest.SelfSigned.Leaf())), result: "takes the login on port 587"},
	{name: "no client certificate", world: all(relaytest.Options{ClientCAs: relaytest.RootCAs()}, nil), cause: "takes only clients with a certificate that it knows", remedy: "Set SMTP_TLS_CERT_FILE and SMTP_TLS_KEY_FILE"},
	{name: "no client certificate, TLS 1.2", world: all(relaytest.Options{ClientCAs: relaytest.RootCAs(), MaxTLS: tls.VersionTLS12}, nil), cause: "takes only clients with a certificate that it knows", remedy: "Set SMTP_TLS_CERT_FILE"},
	{name: "no client certificate, TLS from the first octet", world: and(all(relaytest.Options{ClientCAs: relaytest.RootCAs(), Implicit: true}, nil), implicitTLS), cause: "takes only clients with a certificate that it knows", remedy: "Set SMTP_TLS_CERT_FILE"},
	{name: "a client certificate of another authority", world: and(all(relaytest.Options{ClientCAs: relaytest.RootCAs()}, nil), clientCertificate(relaytest.UnknownCA.Pair())), cause: "does not take the client certificate in SMTP_TLS_CERT_FILE", remedy: "Ask the relay's operator"},
	{name: "no client certificate, at Postfix", world: all(relaytest.Options{}, relaytest.Script{"EHLO": "default then bye 421 4.7.1 relay.test Error: No client certificate presented"}), cause: "takes only clients with a certificate that it knows, and none is configured. The relay said: 421 4.7.1", remedy: "Set SMTP_TLS_CERT_FILE", within: 21 * time.Second},
	{name: "a client certificate of another authority, at Postfix", world: and(all(relaytest.Options{}, relaytest.Script{"EHLO": "default then bye 421 4.7.1 relay.test Error: Client certificate not trusted"}), clientCertificate(relaytest.UnknownCA.Pair())), cause: "does not take the client certificate in SMTP_TLS_CERT_FILE. The relay said: 421 4.7.1", remedy: "Ask the relay's operator", within: 21 * time.Second},
	{name: "a client certificate", world: and(all(relaytest.Options{ClientCAs: relaytest.RootCAs()}, nil), clientCertificate(relaytest.Client())), result: "takes the login on port 587"},
	{name: "no TLS 1.3", world: and(all(relaytest.Options{MaxTLS: tls.VersionTLS12}, nil), func(w *world) { w.options.MinTLS, w.settings.TLS13 = tls.VersionTLS13, true }), cause: "the TLS handshake failed", remedy: "remove SMTP_TLS_MIN_VERSION"},
	{name: "the relay's own sender refused", world: and(all(relaytest.Options{}, relaytest.Script{"MAIL FROM:<bounces@example.com>": "550 5.7.1 domain not verified"}), from("shop@example.com"), func(w *world) {
		w.options.ForceFrom.Email, w.options.ReturnPath, w.settings.Forced = "news@example.com", "bounces@example.com", "RETURN_PATH"
	}), cause: "the relay refuses mail from the sender bounces@example.com. The relay said: 550", remedy: "Set SMTP_RETURN_PATH to an address"},
	{name: "sender refused without a login", world: and(noLogin, all(relaytest.Options{TLSExtensions: []string{"SIZE"}}, relaytest.Script{"MAIL": "550 5.1.8 unknown domain"}), from("shop@example.com")), cause: "refuses mail from the sender shop@example.com", remedy: "MAILSIDECAR_FROM"},
	{name: "login wanted at MAIL", world: and(noLogin, all(relaytest.Options{TLSExtensions: []string{"SIZE"}}, relaytest.Script{"MAIL": "530 5.7.0 Authentication required"}), from("shop@example.com")), cause: "the session is not logged in", remedy: "Set SMTP_USERNAME"},
	{name: "sender refused for now", world: and(all(relaytest.Options{}, relaytest.Script{"MAIL": "451 4.3.0 try later"}), from("shop@example.com")), cause: "takes no mail from here just now", remedy: "Try again"},
	{name: "international sender", world: and(all(relaytest.Options{TLSExtensions: relaytest.Without("SMTPUTF8")}, nil), from("jürgen@example.com")), cause: "the sender jürgen@example.com needs SMTPUTF8", remedy: "in ASCII"},
}

// mixed are situations in which the ports differ.
var mixed = []struct {
	situation
	ports []int
}{
	{situation{name: "first dropped, second good", world: func(w *world) {
		w.network.Set(587, relaytest.BlackHole)
		w.relay(relaytest.Options{}, nil, 2525)
	}, cause: "no answer", remedy: "Nothing has to be done: port 2525 serves.", result: "takes the login on port 2525"}, []int{587, 2525}},
	{situation{name: "login refused, second dropped", world: func(w *world) {
		w.relay(relaytest.Options{Password: "other"}, nil, 587)
		w.network.Set(2525, relaytest.BlackHole)
	}, cause: "refused the user name or the password", remedy: "SMTP_PASSWORD", no: []string{"another machine", "is not set"}}, []int{587, 2525}},
	{situation{name: "first dropped, login refused on the second", world: func(w *world) {
		w.network.Set(587, relaytest.BlackHole)
		w.relay(relaytest.Options{Password: "other"}, nil, 2525)
	}, cause: "refused the user name or the password", remedy: "SMTP_PASSWORD", no: []string{"another machine"}}, []int{587, 2525}},
	{situation{name: "login broken off, and not tried again at once", world: func(w *world) {
		w.relay(relaytest.Options{}, relaytest.Script{"AUTH": "drop"}, 587)
		w.relay(relaytest.Options{Password: "other"}, nil, 2525)
	}, cause: "broke off the login", remedy: "Try again", no: []string{"earlier login"}}, []int{587, 2525}},
	{situation{name: "one dropped, one refused", world: func(w *world) {
		w.network.Set(587, relaytest.BlackHole)
		w.network.Set(2525, relaytest.Refused)
	}, cause: "no port of relay.test takes a connection: 587 gives no answer and 2525 is refused.", remedy: "on another machine"}, []int{587, 2525}},
	{situation{name: "intercepted, and the second refused", world: func(w *world) {
		w.relay(relaytest.Options{Certificate: relaytest.Intercepted}, nil, 587)
		w.network.Set(2525, relaytest.Refused)
	}, cause: "intercepted", remedy: "Do not trust this certificate"}, []int{587, 2525}},
	{situation{name: "intercepted, and the second good", world: func(w *world) {
		w.relay(relaytest.Options{Certificate: relaytest.Intercepted}, nil, 587)
		w.relay(relaytest.Options{}, nil, 2525)
	}, cause: "intercepted", remedy: "port 2525 serves", result: "takes the login on port 2525"}, []int{587, 2525}},
	{situation{name: "587 and 2525 dropped, no route on 25, silent on 8025", world: func(w *world) {
		w.network.Set(587, relaytest.BlackHole)
		w.network.Set(2525, relaytest.BlackHole)
		w.network.Set(25, relaytest.NoRoute)
		w.relay(relaytest.Options{}, relaytest.Script{"greeting": "silence"}, 8025)
	}, cause: "no greeting came", remedy: "load balancer", within: 21 * time.Second}, []int{587, 2525, 25, 8025}},
	{situation{name: "a stall on the first, the second good", world: func(w *world) {
		w.relay(relaytest.Options{}, relaytest.Script{"greeting": "silence"}, 587)
		w.relay(relaytest.Options{}, nil, 2525)
	}, cause: "no greeting came", remedy: "port 2525 serves", result: "takes the login on port 2525", within: 21 * time.Second}, []int{587, 2525}},
	{situation{name: "sender refused, second open", world: func(w *world) {
		w.relay(relaytest.Options{}, relaytest.Script{"MAIL": "550 5.7.1 not yours"}, 587)
		w.relay(relaytest.Options{}, nil, 2525)
		w.sender = "shop@example.com"
	}, cause: "refuses mail from the sender shop@example.com", remedy: "MAILSIDECAR_FROM"}, []int{587, 2525}},
	{situation{name: "every port another fault", world: func(w *world) {
		w.network.Set(587, relaytest.BlackHole)
		w.network.Set(2525, relaytest.Rejected)
		w.relay(relaytest.Options{Extensions: []string{"SIZE"}}, nil, 25)
		w.relay(relaytest.Options{Password: "other"}, nil, 8025)
	}, cause: "refused the user name or the password", remedy: "SMTP_PASSWORD"}, []int{587, 2525, 25, 8025}},
}

// TestSituations: what is said of each situation, with ladders of one, two and four
// ports: one cause, one remedy, in time, and with one login.
func TestSituations(t *testing.T) {
	var texts bytes.Buffer
	for _, s := range situations {
		for _, ports := range ladders {
			checkSituation(t, s, ports, &texts)
		}
	}
	for _, m := range mixed {
		checkSituation(t, m.situation, m.ports, &texts)
	}
	if *update {
		if err := os.WriteFile(golden, pins.ReplaceAll(texts.Bytes(), []byte("sha256/PIN")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(pins.ReplaceAll(texts.Bytes(), []byte("sha256/PIN"))); got != string(want) {
		t.Errorf("%s differs (go test ./diagnosis -update writes it): %s", golden, firstDifference(got, string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\ngot  %s\nwant %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

func checkSituation(t *testing.T, s situation, ports []int, texts *bytes.Buffer) {
	t.Run(fmt.Sprintf("%s with %d", s.name, len(ports)), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, ports)
			s.world(w)
			begin := time.Now()
			report := w.check()
			if took, most := time.Since(begin), orDefault(s.within, 6*time.Second); took > most {
				t.Errorf("the check took %v, want %v at most", took, most)
			}
			advice, result := diagnosis.OfReport(report, w.settings), diagnosis.Conclusion(report)
			s.judge(t, report, advice, result)
			if n := w.logins(); n > 1 {
				t.Errorf("the check logged in %d times, want once", n)
			}
			if n := w.network.Open(); n != 0 {
				t.Errorf("%d connections are left open", n)
			}
			fmt.Fprintf(texts, "# %s, ports %s\n", s.name, strings.Trim(fmt.Sprint(ports), "[]"))
			for _, a := range advice {
				fmt.Fprintf(texts, "%v %s\n", a.Ports, a.Found)
				if a.Do != "" {
					fmt.Fprintf(texts, "  -> %s\n", a.Do)
				}
			}
			fmt.Fprintf(texts, "%s\n\n", result)
		})
	})
}

// judge compares what is said with what is wanted.
func (s situation) judge(t *testing.T, report smtp.Report, advice []diagnosis.Advice, result string) {
	t.Helper()
	first := diagnosis.Advice{}
	if len(advice) > 0 {
		first = advice[0]
	}
	if !strings.Contains(first.Found, s.cause) || !strings.Contains(first.Do, s.remedy) || s.cause == "" && len(advice) > 0 {
		t.Errorf("advice = %+v\nwant %q and %q first", advice, s.cause, s.remedy)
	}
	if want := orDefault(s.result, "no mail can go"); !strings.Contains(result, want) || report.OK != (s.result != "") {
		t.Errorf("result = %q, OK %v, want %q", result, report.OK, want)
	}
	for i, a := range advice {
		if i > 0 && !report.OK && a.Do != "" {
			t.Errorf("there is a second remedy: %+v", a)
		}
		for _, no := range append(s.no, "$", "..") {
			if strings.Contains(a.Found+a.Do, no) {
				t.Errorf("advice = %+v, want no %q", a, no)
			}
		}
	}
}

func orDefault[T comparable](v, otherwise T) T {
	if v == *new(T) {
		return otherwise
	}
	return v
}

func newWorld(t *testing.T, ports []int) *world {
	w := &world{t: t, network: &relaytest.Network{Port: map[int]any{}}, ports: ports, addresses: []string{"192.0.2.1"}, settings: diagnosis.Settings{Ends: true}}
	w.options = smtp.Options{
		Host: relaytest.Host, Username: "user", Password: "secret", RootCAs: relaytest.RootCAs(), Dial: w.network.Dial,
		Timeouts: smtp.Timeouts{Connect: 5 * time.Second, Hello: 20 * time.Second},
	}
	for _, port := range ports {
		w.options.Ladder = append(w.options.Ladder, mailer.Rung{Port: port})
	}
	w.lookup = func(context.Context, string) ([]string, error) { return w.addresses, nil }
	return w
}

// check checks the relay as the command does, within 20 seconds.
func (w *world) check() smtp.Report {
	w.t.Helper()
	w.options.Names = &smtp.Names{Lookup: w.lookup, Servers: func() []string { return w.servers }, LookupAt: w.lookupAt}
	relay, err := smtp.New(w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	defer relay.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	return relay.Check(ctx, w.sender)
}

// logins counts those that were tried, as the relays heard them.
func (w *world) logins() int {
	n := 0
	for _, r := range w.relays {
		n += r.Said("AUTH")
	}
	return n
}
