package service

import (
	"crypto/x509"
	"errors"
	"reflect"
	"strings"
	"testing"

	"mailsidecar/config"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
)

func TestRelayOptions(t *testing.T) {
	relay := func(change func(*config.Relay)) config.Relay {
		r := config.Default().Relays[0]
		r.Host, r.Username, r.Password = "smtp.example.com", "me", config.NewSecret("secret")
		r.Ports = config.Ladder{{Port: 587}, {Port: 465, Implicit: true}}
		change(&r)
		return r
	}
	authorities := x509.NewCertPool()
	for _, c := range []struct {
		name  string
		relay config.Relay
		check func(smtp.Options) bool
	}{
		{"plain", relay(func(*config.Relay) {}), func(o smtp.Options) bool {
			return o.Host == "smtp.example.com" && o.Username == "me" && o.Password == "secret" && o.TokenSource == nil && !o.Cleartext &&
				reflect.DeepEqual(o.Ladder, []mailer.Rung{{Port: 587}, {Port: 465, Implicit: true}})
		}},
		{"SMTP_AUTH=none", relay(func(r *config.Relay) { r.Auth = "none" }), func(o smtp.Options) bool {
			return o.Username == "" && o.Password == "" && o.Mechanism == ""
		}},
		{"SMTP_TLS=none", relay(func(r *config.Relay) { r.TLS, r.Ports = "none", config.Ladder{{Port: 25}} }), func(o smtp.Options) bool {
			return o.Cleartext && !o.AllowCleartext && reflect.DeepEqual(o.Ladder, []mailer.Rung{{Port: 25, Clear: true}})
		}},
		{"SMTP_FORCE_FROM", relay(func(r *config.Relay) {
			r.ForceFrom, r.ReturnPath = "Shop <shop@bücher.example>", "Bounces@example.com"
		}), func(o smtp.Options) bool {
			return o.ForceFrom == mailer.Address{Name: "Shop", Email: "shop@xn--bcher-kva.example"} && o.ReturnPath == "Bounces@example.com"
		}},
		{"SMTP_TLS_CA_FILE", relay(func(r *config.Relay) { r.RootCAs = authorities }), func(o smtp.Options) bool {
			return o.RootCAs == authorities
		}},
	} {
		if o := relayOptions(c.relay, "name", nil); o.Name != "name" || !c.check(o) {
			t.Errorf("%s: relayOptions = %+v", c.name, o)
		}
	}
}

func TestRelayNames(t *testing.T) {
	got := relayNames([]config.Relay{{Number: 1, Host: "a"}, {Number: 2, Host: "b"}, {Number: 3, Host: "a"}})
	if want := []string{"a#1", "b", "a#3"}; !reflect.DeepEqual(got, want) {
		t.Errorf("relayNames = %q, want %q", got, want)
	}
}

// What only the making of a relay shows to be wrong names the variable.
func TestNewRelaysConfigError(t *testing.T) {
	relays := []config.Relay{{Number: 1, Host: "smtp.example.com", Ports: config.Ladder{{Port: 587}}}, {Number: 2}}
	_, err := NewRelays(relays, RelayOptions{})
	e, ok := errors.AsType[*ConfigError](err)
	if !ok || e.Setting != "SMTP2_HOST" || !strings.HasPrefix(err.Error(), "SMTP2_HOST: ") {
		t.Errorf("NewRelays without a host = %v, want a ConfigError of SMTP2_HOST", err)
	}
}
