package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"reflect"
	"testing"
	"time"

	"mailsidecar/config"
	"mailsidecar/handler"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
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
		{"SMTP_TLS_CA_FILE", relay(func(r *config.Relay) { r.RootCAs = authorities }), func(o smtp.Options) bool {
			return o.RootCAs == authorities
		}},
		{"OAuth2", relay(func(r *config.Relay) { r.OAuth2.AccessToken = config.NewSecret("token") }), func(o smtp.Options) bool {
			token, err := o.TokenSource(context.Background(), "")
			return err == nil && token == "token"
		}},
	} {
		o, err := relayOptions(c.relay, "name", nil)
		if err != nil || o.Name != "name" || !c.check(o) {
			t.Errorf("%s: relayOptions = %+v, %v", c.name, o, err)
		}
	}
}

func TestRelayNames(t *testing.T) {
	got := relayNames([]config.Relay{{Number: 1, Host: "a"}, {Number: 2, Host: "b"}, {Number: 3, Host: "a"}})
	if want := []string{"a#1", "b", "a#3"}; !reflect.DeepEqual(got, want) {
		t.Errorf("relayNames = %q, want %q", got, want)
	}
}

// The board shows what the last attempt told of each relay, and the pauses.
func TestRelayBoard(t *testing.T) {
	configs := []config.Relay{{Number: 1, Host: "127.0.0.1", Ports: config.Ladder{{Port: refusedPort(t)}}}}
	relays, err := buildRelays(configs, smtp.Timeouts{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer relays[0].Close()
	var seen []mailer.Attempt
	b := newRelayBoard(configs, relays, func(a mailer.Attempt) { seen = append(seen, a) })
	if s := b.Status(); len(s) != 1 || s[0].Failure != nil || s[0].Serving != (mailer.Rung{}) || s[0].Host != "127.0.0.1" {
		t.Errorf("Status before any attempt = %+v", s)
	}

	env := mailer.Envelope{ReversePath: "a@example.com", ForwardPaths: []string{"b@example.org"}}
	b.watch(0).Deliver(t.Context(), env, mailer.Content{Data: []byte("Subject: x\r\n\r\nx\r\n")})
	if s := b.Status(); len(seen) != 1 || s[0].Failure == nil || s[0].Failure.Stage != mailer.StageConnect {
		t.Errorf("Status after a refused connection = %+v, observed %+v", s, seen)
	}

	rung := mailer.Rung{Port: 2525}
	b.note(0, mailer.Attempt{Rung: rung, Results: []mailer.Result{{Failure: &mailer.Failure{Class: mailer.ClassPermanent, Err: errors.New("x")}}}})
	if s := b.Status(); s[0].Failure != nil || s[0].Serving != rung {
		t.Errorf("Status after a refused recipient = %+v, want the relay up", s)
	}
	b.note(0, mailer.Attempt{Results: []mailer.Result{{Failure: &mailer.Failure{Class: mailer.ClassRelay, Err: &mailer.RateError{}}}}})
	if s := b.Status(); s[0].Failure != nil || s[0].Serving != rung {
		t.Errorf("Status while the relay's rate is used up = %+v, want the relay up", s)
	}

	until := time.Now().Add(time.Minute)
	b.pauses = func() []queue.Pause {
		return []queue.Pause{{Relay: "127.0.0.1", Until: until, Reason: &mailer.Failure{}}}
	}
	if s := b.Status(); !s[0].PausedUntil.Equal(until) || s[0].Failure == nil {
		t.Errorf("Status of a paused relay = %+v", s)
	}
	var _ handler.Relays = b
}

func TestListenError(t *testing.T) {
	_, err := net.Listen("tcp", "192.0.2.1:1")
	if got, want := (&listenError{"MAILSIDECAR_ADDR", "192.0.2.1:1", err}).Error(), "MAILSIDECAR_ADDR: this machine does not have the address 192.0.2.1:1"; got != want {
		t.Errorf("listenError = %q, want %q", got, want)
	}
}
