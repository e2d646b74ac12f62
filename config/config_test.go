package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/units"
)

// env holds variables as NAME=value.
type env []string

// good is an environment without problems or warnings.
var good = env{
	"SMTP_HOST=relay.example.com", "SMTP_USERNAME=shop", "SMTP_PASSWORD=hunter2",
	"MAILSIDECAR_API_KEYS=shop:0123456789abcdef", "MAILSIDECAR_DATA_DIR=/data",
}

// with returns e with more variables; NAME= takes one away.
func (e env) with(more ...string) env { return append(slices.Clone(e), more...) }

// setenv makes e the whole environment as far as we look at it.
func setenv(t *testing.T, e env) {
	t.Helper()
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if ourPrefix(name) != "" || name == "XDG_STATE_HOME" || name == "HOME" {
			t.Setenv(name, "") // so that the test's end restores it
			_ = os.Unsetenv(name)
		}
	}
	for _, entry := range e {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustLoad(t *testing.T, e env) (Config, []string) {
	t.Helper()
	setenv(t, e)
	c, warnings, err := Load()
	if err != nil {
		t.Fatalf("Load(%q) = %v", e, err)
	}
	return c, warnings
}

func TestLoad(t *testing.T) {
	c, warnings := mustLoad(t, good)
	if len(warnings) > 0 {
		t.Errorf("warnings = %q, want none", warnings)
	}
	want := Config{
		Relays: []Relay{{
			Number: 1, Host: "relay.example.com", Ports: Ladder{{Port: 587}, {Port: 2525}},
			Username: "shop", Password: NewSecret("hunter2"), Auth: "auto", TLS: "required", TLSMinVersion: "1.2", OAuth2: OAuth2{ClientAuth: "post"}, MaxRecipients: 100,
			MaxConnections: 8, MessagesPerConnection: 100, IdleTimeout: units.Duration(30 * time.Second),
		}},
		Service: Service{
			Keys: []APIKey{{Name: "shop", Secret: NewSecret("0123456789abcdef")}},
			Addr: ":8587", APIKeys: NewSecret("shop:0123456789abcdef"),
			Queue: Queue{Store: "sqlite", Path: "/data/queue.db"}, Lease: units.Duration(time.Minute), DataDir: "/data",
			MaxMessageSize: 25 << 20, MaxRecipients: 1000, MaxInFlight: 128 << 20, MaxConnections: 2000,
			RequestTimeout: units.Duration(30 * time.Second), ShutdownTimeout: units.Duration(8 * time.Second),
			UI: "on", LogLevel: slog.LevelInfo, LogFormat: "json",
			QueueMaxMessages: 100000, QueueMaxSize: 10 << 30, MinFreeDisk: 256 << 20,
			Retention: units.Duration(7 * units.Day), ExpiresIn: units.Duration(5 * units.Day), Uncertain: "retry", AlertsMaxAge: units.Duration(15 * time.Minute), Compat: List{"all"}, TLSAddr: ":8443",
		},
		sources: c.sources,
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("Load() = %+v\nwant %+v", c, want)
	}
}

func TestLoadEveryVariable(t *testing.T) {
	c, warnings := mustLoad(t, env{
		"SMTP_PROVIDER=Mailgun", "SMTP_HOST= 192.0.2.7 ", "SMTP_PORT=465, 2525/tls,587/STARTTLS", "SMTP_USERNAME=u", "SMTP_PASSWORD=p:,ü",
		"SMTP_AUTH=Plain", "SMTP_TLS=required", "SMTP_ALLOW_CLEARTEXT=0", "SMTP_TLS_SERVER_NAME=relay.example.com",
		"SMTP_HELO=[IPv6:2001:db8::1]", "SMTP_MAX_RECIPIENTS=7", "SMTP_MAX_CONNECTIONS=20", "SMTP_MESSAGES_PER_CONNECTION=5", "SMTP_IDLE_TIMEOUT=1m", "SMTP_RATE=30/m", "SMTP_SENDERS=Shop@Example.com, @example.org.,\"A..B\"@docomo.test,bücher.test", "SMTP2_HOST=second", "SMTP2_AUTH=none",
		"MAILSIDECAR_ADDR=[::1]:0", "MAILSIDECAR_QUEUE=sqlite:/q/x.db", "MAILSIDECAR_DATA_DIR=/q", "MAILSIDECAR_FROM=Shop <shop@example.com>", "MAILSIDECAR_FORCE_FROM=shop@example.org",
		"MAILSIDECAR_MAX_MESSAGE_SIZE=1 mb", "MAILSIDECAR_MAX_RECIPIENTS=5", "MAILSIDECAR_MAX_IN_FLIGHT=1500001", "MAILSIDECAR_MAX_CONNECTIONS=50", "MAILSIDECAR_REQUEST_TIMEOUT=1m30s",
		"MAILSIDECAR_SHUTDOWN_TIMEOUT=20s", "MAILSIDECAR_UI=None", "MAILSIDECAR_UI_PATH=/mail", "MAILSIDECAR_LOG_LEVEL=DEBUG", "MAILSIDECAR_LOG_FORMAT=Text", "MAILSIDECAR_COMPAT=Resend, ses", "MAILSIDECAR_TLS=Self-Signed", "MAILSIDECAR_TLS_ADDR=127.0.0.1:9443", "MAILSIDECAR_QUEUE_MAX_MESSAGES=0",
		"MAILSIDECAR_QUEUE_MAX_SIZE=0", "MAILSIDECAR_MIN_FREE_DISK=1GB", "MAILSIDECAR_RETENTION=1d12h", "MAILSIDECAR_KEEP_BODIES=1d",
		"MAILSIDECAR_EXPIRES_IN=2h", "MAILSIDECAR_UNCERTAIN=hold",
	})
	if len(warnings) > 0 {
		t.Errorf("warnings = %q, want none", warnings)
	}
	want := Config{
		Relays: []Relay{{
			Number: 1, Others: true, Advice: c.Relays[0].Advice, Provider: "mailgun", Host: "192.0.2.7",
			Ports:    Ladder{{465, true}, {2525, true}, {587, false}},
			Username: "u", Password: NewSecret("p:,ü"), Auth: "plain", TLS: "required", TLSMinVersion: "1.2", TLSServerName: "relay.example.com",
			OAuth2: OAuth2{ClientAuth: "post"}, HELO: "[IPv6:2001:db8::1]", MaxRecipients: 7,
			MaxConnections: 20, MessagesPerConnection: 5, IdleTimeout: units.Duration(time.Minute), Rate: units.Rate{Messages: 30, Per: time.Minute},
			Senders: List{"shop@example.com", "example.org", "a..b@docomo.test", "xn--bcher-kva.test"},
		}, {
			Number: 2, Others: true, Host: "second", Ports: Ladder{{Port: 587}, {Port: 2525}}, Auth: "none", TLS: "required", TLSMinVersion: "1.2", OAuth2: OAuth2{ClientAuth: "post"}, MaxRecipients: 100,
			MaxConnections: 8, MessagesPerConnection: 100, IdleTimeout: units.Duration(30 * time.Second),
		}},
		Service: Service{
			Addr: "[::1]:0", Queue: Queue{Store: "sqlite", Path: "/q/x.db"}, Lease: units.Duration(time.Minute), DataDir: "/q", From: "Shop <shop@example.com>", ForceFrom: "shop@example.org",
			MaxMessageSize: 1e6, MaxRecipients: 5, MaxInFlight: 1500001, MaxConnections: 50,
			RequestTimeout: units.Duration(90 * time.Second), ShutdownTimeout: units.Duration(20 * time.Second),
			UI: "none", UIPath: "/mail", LogLevel: slog.LevelDebug, LogFormat: "text", MinFreeDisk: 1e9,
			Retention: units.Duration(36 * time.Hour), KeepBodies: units.Duration(units.Day), ExpiresIn: units.Duration(2 * time.Hour), Uncertain: "hold", AlertsMaxAge: units.Duration(15 * time.Minute), Compat: List{"resend", "ses"},
			TLS: "self-signed", TLSAddr: "127.0.0.1:9443",
		},
		sources: c.sources,
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("Load() = %+v\nwant %+v", c, want)
	}
}

// TestUnset: what is set to nothing or blanks, and what Kubernetes injects, is
// as good as unset.
func TestUnset(t *testing.T) {
	e := good.with("HOST=elsewhere.example.com", "PASSWORD=other", // without our prefix: not ours
		"SMTP_PORT=tcp://10.0.0.7:25", "SMTP_PORT_25_TCP=tcp://10.0.0.7:25", "SMTP_PORT_25_TCP_ADDR=10.0.0.7",
		"SMTP_SERVICE_HOST=10.0.0.7", "SMTP_SERVICE_PORT=25", "SMTP_SERVICE_PORT_SMTP=25", "SMTP2_PORT=tcp://10.0.0.8:25",
		"MAILSIDECAR_PORT=tcp://10.0.0.9:8587", "MAILSIDECAR_SERVICE_HOST=10.0.0.9",
		"MAILSIDECAR_URL=http://x", "MAILSIDECAR_API_KEY=x", "MAILSIDECAR_API_KEY_FILE=x", "MAILSIDECAR_TLS_CA_FILE=x", "MAILSIDECAR_WAIT=1s",
		"SMTP_PORTS=", "SMTP_MAX_RECIPIENTS=", "SMTP_ALLOW_CLEARTEXT=", "SMTP_TLS=  ", "SMTP_PASSWORD_FILE=", "SMTP_UNKNOWN=", "SMTP3_HOST=")
	for v := range variables(servicePrefix, &Service{}) {
		if v.name != "MAILSIDECAR_API_KEYS" && v.name != "MAILSIDECAR_DATA_DIR" {
			e = append(e, v.name+"=")
		}
	}
	want, _ := mustLoad(t, good)
	got, warnings := mustLoad(t, e)
	if !reflect.DeepEqual(got, want) || len(warnings) > 0 {
		t.Errorf("Load() = %+v, warnings %q\nwant %+v", got, warnings, want)
	}
}

// TestOneProblemEach: a value that cannot be read is one problem, not several that follow from it, whatever else
// is set.
func TestOneProblemEach(t *testing.T) {
	rich := good.with("SMTP_HOST=203.0.113.5", "SMTP_TLS=none", "SMTP_ALLOW_CLEARTEXT=true", "SMTP_USERNAME=", "SMTP_PASSWORD=", "SMTP_AUTH=none",
		"MAILSIDECAR_ALERTS=ntfy+http://ntfy/mail,json+http://10.0.0.1/x", "MAILSIDECAR_HEARTBEAT_URL=http://kuma/x", "MAILSIDECAR_ALERTS_ALLOW_PRIVATE=true",
		"MAILSIDECAR_API_KEYS=shop:0123456789abcdef,news:fedcba9876543210", "MAILSIDECAR_KEY_SENDERS=shop:example.com", "MAILSIDECAR_KEY_RATES=shop:1/s",
		"MAILSIDECAR_KEY_ROLES=news:read", "MAILSIDECAR_KEY_RELAYS=shop:1", "MAILSIDECAR_METRICS_ADDR=:9587", "MAILSIDECAR_FROM=shop@example.com")
	mustLoad(t, rich)
	var relay Relay
	var service Service
	for _, part := range []struct {
		prefix string
		spec   any
	}{{"SMTP", &relay}, {servicePrefix, &service}} {
		for v := range variables(part.prefix, part.spec) {
			if v.secret() || strings.HasSuffix(v.name, "_FILE") {
				continue
			}
			bad := "\x01" // which no text may have
			if kind := v.value.Kind(); kind == reflect.Bool || kind == reflect.Int || kind == reflect.Int64 {
				bad = "yes!"
			}
			setenv(t, rich.with(v.name+"="+bad))
			_, _, err := Load()
			problems, _ := errors.AsType[*Error](err)
			if problems == nil || len(problems.Problems) != 1 || problems.Problems[0].Name != v.name || problems.Problems[0].Remedy == "" {
				t.Errorf("with a bad %s Load = %v, want one problem", v.name, err)
			}
		}
	}
}

func TestProblems(t *testing.T) {
	dir, empty, two := t.TempDir(), write(t, "empty", "\n"), write(t, "two", "first\nsecond\n")
	notPEM := write(t, "ca.pem", "hello")
	oauth := good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_CLIENT_ID=id", "SMTP_OAUTH2_REFRESH_TOKEN=1//rt", "SMTP_OAUTH2_PROVIDER=google")
	tests := []struct {
		env  env
		want string
	}{
		// One variable.
		{good.with("SMTP_PROVIDER=gmial"), `SMTP_PROVIDER is "gmial", which is no provider we know; set gmail, or leave it out and set SMTP_HOST`},
		{good.with("SMTP_PROVIDER=gmail:eu"), `SMTP_PROVIDER is "gmail:eu", and Gmail has no regions; set gmail, or leave it out and set SMTP_HOST`},
		{good.with("SMTP_PROVIDER=nothing like it"), `SMTP_PROVIDER is "nothing like it", which is no provider we know; set one that "mailsidecar presets" lists, or leave it out and set SMTP_HOST`},
		{good.with("SMTP_PROVIDER=mailgun:asia"), `SMTP_PROVIDER is "mailgun:asia", and Mailgun has no such region; set mailgun:us or mailgun:eu, or leave it out and set SMTP_HOST`},
		{good.with("SMTP_HOST="), "SMTP_HOST is not set; set it to the relay's host name, or set SMTP_PROVIDER"},
		{good.with("SMTP_HOST=", "SMTP_PROVIDER=ses"), `SMTP_HOST is not set, and ses needs a region; set SMTP_PROVIDER=ses:REGION ("mailsidecar presets ses" shows how)`},
		{good.with("SMTP_HOST=smtp://u:hunter2@relay.example.com"), "SMTP_HOST is no host name; set the bare name or IP address; ports go into SMTP_PORTS"},
		{good.with("SMTP_HOST=relay.example.com:587"), "SMTP_HOST is no host name; set the bare name or IP address; ports go into SMTP_PORTS"},
		{good.with("SMTP_HOST=a\rb"), "SMTP_HOST holds a control character; remove it (a line break, or the line ends of a file made on Windows?)"},
		{good.with("SMTP_HOST=\xff"), "SMTP_HOST is not valid UTF-8; write it in UTF-8"},
		{good.with("SMTP_PORTS=587,smtp"), `SMTP_PORTS has "smtp", which is no port; write ports such as 587,2525 or 465/tls,587/starttls`},
		{good.with("SMTP_PORT=0"), `SMTP_PORT has "0", which is no port; write ports such as 587,2525 or 465/tls,587/starttls`},
		{good.with("SMTP_PORTS=smtp,587,99999"), `SMTP_PORTS has "smtp" and "99999", which are no ports; write ports such as 587,2525 or 465/tls,587/starttls`},
		{good.with("MAILSIDECAR_API_KEYS=# all\n"), "MAILSIDECAR_API_KEYS holds no entry; write name:secret"},
		{good.with("SMTP_PORTS=587/ssl"), `SMTP_PORTS has "587/ssl", which is no port; write ports such as 587,2525 or 465/tls,587/starttls`},
		{good.with("SMTP_PORTS=587,587/tls"), "SMTP_PORTS names port 587 twice; name each port once"},
		{good.with("SMTP_PORTS=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"), "SMTP_PORTS names too many ports; name 16 at most"},
		{good.with("SMTP_PORTS=587", "SMTP_PORT=25"), "SMTP_PORT is set beside SMTP_PORTS and differs; set only SMTP_PORTS"},
		{good.with("SMTP_AUTH=shop:hunter2"), "SMTP_AUTH has no value we know; set one of auto, scram-sha-256-plus, scram-sha-256, scram-sha-1-plus, scram-sha-1, plain, login, cram-md5, ntlm, xoauth2, oauthbearer, none"},
		{good.with("SMTP_TLS=starttls"), "SMTP_TLS has no value we know; set one of required, none"},
		{good.with("SMTP_ALLOW_CLEARTEXT=yes"), `SMTP_ALLOW_CLEARTEXT is "yes", which is neither true nor false; set true or false`},
		{good.with("SMTP_TLS_CA_FILE=" + dir + "/none.pem"), `SMTP_TLS_CA_FILE names "` + dir + `/none.pem", which cannot be read: no such file or directory; name a PEM file that this process may read`},
		{good.with("SMTP_TLS_CA_FILE=" + notPEM), `SMTP_TLS_CA_FILE names "` + notPEM + `", which holds no certificate; name a file with certificates in PEM form`},
		{good.with("SMTP_TLS_SERVER_NAME=a b"), "SMTP_TLS_SERVER_NAME is no host name; set the name that stands in the relay's certificate"},
		{good.with("SMTP_HELO=-app"), "SMTP_HELO is no domain; set a domain in ASCII, such as app.example.com, or an address literal, such as [192.0.2.1]"},
		{good.with("SMTP_HELO=[2001:db8::1]"), "SMTP_HELO is no domain; set a domain in ASCII, such as app.example.com, or an address literal, such as [192.0.2.1]"},
		{good.with("SMTP_MAX_RECIPIENTS=many"), `SMTP_MAX_RECIPIENTS is "many", which is no whole number; set a number in digits`},
		{good.with("SMTP_MAX_RECIPIENTS=0"), "SMTP_MAX_RECIPIENTS is 0, which is too low; set 1 or more"},
		{good.with("SMTP_MAX_RECIPIENTS=10001"), "SMTP_MAX_RECIPIENTS is 10001, which is too high; set 10000 or less"},
		{good.with("SMTP_SENDERS=a@b@example.com"), `SMTP_SENDERS has an entry that is neither address nor domain: "a@b@example.com", the part before the @ is not valid; write them bare, such as shop@example.com,example.org`},
		{good.with("SMTP_SENDERS=b\u00adücher.example"), `SMTP_SENDERS has an entry that is neither address nor domain: "b\u00adücher.example", the invisible character U+00AD is not allowed in an address; write them bare, such as shop@example.com,example.org`},
		{good.with("MAILSIDECAR_ADDR=8587"), "MAILSIDECAR_ADDR is no address and port; write one such as :8587 or 127.0.0.1:8587"},
		{good.with("MAILSIDECAR_ADDR=:http"), "MAILSIDECAR_ADDR is no address and port; write one such as :8587 or 127.0.0.1:8587"},
		{good.with("MAILSIDECAR_TLS=on"), "MAILSIDECAR_TLS has no value we know; set one of self-signed"},
		{good.with("MAILSIDECAR_TLS_KEY_FILE=/k"), "MAILSIDECAR_TLS_CERT_FILE is not set, and MAILSIDECAR_TLS_KEY_FILE is; name the file with the certificate and its chain, in PEM form"},
		{good.with("MAILSIDECAR_TLS_CERT_FILE=/c"), "MAILSIDECAR_TLS_KEY_FILE is not set, and MAILSIDECAR_TLS_CERT_FILE is; name the file with the private key, in PEM form"},
		{good.with("MAILSIDECAR_TLS_CERT_FILE=/c", "MAILSIDECAR_TLS_KEY_FILE=/k", "MAILSIDECAR_TLS=self-signed"), "MAILSIDECAR_TLS asks for a certificate of our own, and MAILSIDECAR_TLS_CERT_FILE names another; keep one of them"},
		{good.with("MAILSIDECAR_TLS=self-signed", "MAILSIDECAR_TLS_ADDR=8443"), "MAILSIDECAR_TLS_ADDR is no address and port; write one such as :8443 or 127.0.0.1:8443"},
		{good.with("MAILSIDECAR_TLS=self-signed", "MAILSIDECAR_TLS_ADDR=:8587"), "MAILSIDECAR_TLS_ADDR has the port of MAILSIDECAR_ADDR; give each its own"},
		{good.with("MAILSIDECAR_TLS=self-signed", "MAILSIDECAR_API_KEYS=", "MAILSIDECAR_ADDR=127.0.0.1:8587"), "MAILSIDECAR_API_KEYS is not set, and MAILSIDECAR_TLS_ADDR (:8443) is open to the network; set it to name:secret (or MAILSIDECAR_API_KEYS_FILE), or listen on 127.0.0.1:8587"},
		{good.with("MAILSIDECAR_COMPAT=none,ses"), "MAILSIDECAR_COMPAT does not name providers; write all, none, or some of mailgun,postmark,resend,sendgrid,ses,mailersend,brevo"},
		{good.with("MAILSIDECAR_COMPAT=sendgird"), "MAILSIDECAR_COMPAT does not name providers; write all, none, or some of mailgun,postmark,resend,sendgrid,ses,mailersend,brevo"},
		{good.with("MAILSIDECAR_QUEUE=postgres://u:hunter2@db"), "MAILSIDECAR_QUEUE names no database; write postgres://USER:PASSWORD@HOST:5432/DATABASE, with %XX for special characters of the password"},
		{good.with("MAILSIDECAR_QUEUE=postgres:///q?user=u&password=hunter2"), "MAILSIDECAR_QUEUE names no host; write postgres://USER:PASSWORD@HOST:5432/DATABASE, with %XX for special characters of the password"},
		{good.with("MAILSIDECAR_QUEUE=postgres://u:hunter2%zz@db/q"), "MAILSIDECAR_QUEUE is no URL that can be read; " + unreadURL},
		{good.with("MAILSIDECAR_QUEUE=postgres://u:hunter2@db/q?sslmode=disable&sslmode=require"), "MAILSIDECAR_QUEUE has the parameter sslmode twice; keep one"},
		{good.with("MAILSIDECAR_LEASE=9s"), "MAILSIDECAR_LEASE is 9s, which is too low; set 10s or more"},
		{good.with("MAILSIDECAR_QUEUE=postgres://u:hunter2@db/q", "MAILSIDECAR_TLS=self-signed"), "MAILSIDECAR_TLS asks for a certificate authority of this instance's own, and with PostgreSQL clients may reach any instance; set MAILSIDECAR_TLS_CERT_FILE and MAILSIDECAR_TLS_KEY_FILE"},
		{good.with("MAILSIDECAR_QUEUE=sqlite::memory:"), "MAILSIDECAR_QUEUE keeps the queue in memory, where nothing is durable; set sqlite:PATH, or none"},
		{good.with("MAILSIDECAR_QUEUE=redis://:hunter2@db"), `MAILSIDECAR_QUEUE is redis://…, which is no store we know; set sqlite, sqlite:PATH, postgres://… or none`},
		{good.with("MAILSIDECAR_QUEUE=hunter2"), "MAILSIDECAR_QUEUE names no store we know (not shown, for it may have a password); set sqlite, sqlite:PATH, postgres://… or none"},
		{good.with("MAILSIDECAR_QUEUE=password=hunter2 host=127.0.0.1"), "MAILSIDECAR_QUEUE names no store we know (not shown, for it may have a password); set sqlite, sqlite:PATH, postgres://… or none"},
		{good.with("MAILSIDECAR_QUEUE=hunter2:x"), "MAILSIDECAR_QUEUE names no store we know (not shown, for it may have a password); set sqlite, sqlite:PATH, postgres://… or none"},
		{good.with("MAILSIDECAR_QUEUE=hunter2://x"), "MAILSIDECAR_QUEUE names no store we know (not shown, for it may have a password); set sqlite, sqlite:PATH, postgres://… or none"},
		{good.with("MAILSIDECAR_QUEUE=sqlite:postgres://app:hunter2@host/mail"), "MAILSIDECAR_QUEUE has a URL in place of the path of a file (not shown, for it may have a password); set sqlite:PATH, or the URL of a PostgreSQL without sqlite: in front"},
		{good.with("MAILSIDECAR_QUEUE=hunter2@db:5432"), "MAILSIDECAR_QUEUE names no store we know (not shown, for it may have a password); set sqlite, sqlite:PATH, postgres://… or none"},
		{good.with("MAILSIDECAR_QUEUE=postgres://app:12/hunter2@host/mail"), "MAILSIDECAR_QUEUE is no URL that can be read; " + unreadURL},
		{good.with("MAILSIDECAR_QUEUE=postgres://app:12?hunter2&x@host/mail"), "MAILSIDECAR_QUEUE has parameters that cannot be read; " + exampleURL + parameterAt},
		{good.with("MAILSIDECAR_DATA_DIR="), "MAILSIDECAR_DATA_DIR is not set, and there is no home directory; set it to a directory on a volume that lasts"},
		{good.with("SMTP_TLS_MIN_VERSION=1.1"), "SMTP_TLS_MIN_VERSION has no value we know; set one of 1.2, 1.3"},
		{good.with("SMTP_TLS_PIN=sha256/AAAA"), "SMTP_TLS_PIN has an entry that has not the length of a SHA-256; write sha256/ and 44 characters of base64, or 64 hexadecimal digits; mailsidecar check --json shows the pin of a relay"},
		{good.with("SMTP_TLS_PIN=00ff"), "SMTP_TLS_PIN has an entry that has not the length of a SHA-256; write sha256/ and 44 characters of base64, or 64 hexadecimal digits; mailsidecar check --json shows the pin of a relay"},
		{good.with("SMTP_TLS_PIN=sha256/====="), "SMTP_TLS_PIN has an entry that is no base64; write sha256/ and 44 characters of base64, or 64 hexadecimal digits; mailsidecar check --json shows the pin of a relay"},
		{good.with("SMTP_TLS_PIN=md5:x"), "SMTP_TLS_PIN has an entry that is neither sha256/BASE64 nor hexadecimal; write sha256/ and 44 characters of base64, or 64 hexadecimal digits; mailsidecar check --json shows the pin of a relay"},
		{good.with("SMTP_TLS_KEY_FILE=/k.pem"), "SMTP_TLS_CERT_FILE is not set, and SMTP_TLS_KEY_FILE is; name the file with the certificate and its chain, in PEM form"},
		{good.with("SMTP_FORCE_FROM=Shop"), "SMTP_FORCE_FROM is no address: an address needs an @; write one such as shop@example.com or Shop <shop@example.com>"},
		{good.with("SMTP2_HOST=second", "SMTP2_AUTH=none", "SMTP2_FORCE_FROM=ü@example.com"), `SMTP2_FORCE_FROM is "ü@example.com", which relays without SMTPUTF8 do not take; set an address in ASCII such as shop@example.com or Shop <shop@example.com>`},
		{good.with("SMTP_RETURN_PATH=<>"), "SMTP_RETURN_PATH is the null reverse-path, with which no bounce would come back; set an address whose mail is read, such as bounces@example.com"},
		{good.with("SMTP_RETURN_PATH=Shop <shop@example.com>"), "SMTP_RETURN_PATH has more than an address; write it bare, such as bounces@example.com"},
		{good.with("SMTP_RETURN_PATH=example.com"), "SMTP_RETURN_PATH is no address: an address needs an @; write one such as shop@example.com"},
		{good.with("MAILSIDECAR_FORCE_FROM=Shop"), "MAILSIDECAR_FORCE_FROM is no address: an address needs an @; write one such as shop@example.com or Shop <shop@example.com>"},
		{good.with("MAILSIDECAR_FORCE_FROM=a@example.com,b@example.com"), "MAILSIDECAR_FORCE_FROM is no address: one address is wanted, not a list; write one such as shop@example.com or Shop <shop@example.com>"},
		{good.with("MAILSIDECAR_FORCE_FROM=Shop <shop@example.com>", "SMTP_SENDERS=blog.example.com,a@example.com"), `MAILSIDECAR_FORCE_FROM is "shop@example.com", which no relay takes: SMTP_SENDERS names others; add it there, or let one relay have no SENDERS`},
		{good.with("MAILSIDECAR_FROM=Shop"), "MAILSIDECAR_FROM is no address: an address needs an @; write one such as shop@example.com or Shop <shop@example.com>"},
		{good.with("MAILSIDECAR_MAX_MESSAGE_SIZE=25 potatoes and a half"), `MAILSIDECAR_MAX_MESSAGE_SIZE is "25 potatoes and a half", which is no size; write a size such as 25MiB, 500KB or 26214400`},
		{good.with("MAILSIDECAR_MAX_MESSAGE_SIZE=1"), "MAILSIDECAR_MAX_MESSAGE_SIZE is 1B, which is too low; set 1KiB or more"},
		{good.with("MAILSIDECAR_MAX_IN_FLIGHT=30MiB"), "MAILSIDECAR_MAX_IN_FLIGHT is 30MiB, too little for one message of MAILSIDECAR_MAX_MESSAGE_SIZE (25MiB); set 38400KiB or more"},
		{good.with("MAILSIDECAR_RETENTION=7 days"), `MAILSIDECAR_RETENTION is "7 days", which is no duration; write a duration such as 30s, 15m, 12h or 7d`},
		{good.with("MAILSIDECAR_REQUEST_TIMEOUT=30"), `MAILSIDECAR_REQUEST_TIMEOUT is "30", which is no duration; write a duration such as 30s, 15m, 12h or 7d`},
		{good.with("MAILSIDECAR_SHUTDOWN_TIMEOUT=10ms"), "MAILSIDECAR_SHUTDOWN_TIMEOUT is 10ms, which is too low; set 1s or more"},
		{good.with("MAILSIDECAR_LOG_LEVEL=loud"), "MAILSIDECAR_LOG_LEVEL has no value we know; set one of debug, info, warn, error"},
		{good.with("MAILSIDECAR_UNCERTAIN=maybe"), "MAILSIDECAR_UNCERTAIN has no value we know; set one of retry, hold"},

		// API keys.
		{good.with("MAILSIDECAR_API_KEYS="), "MAILSIDECAR_API_KEYS is not set, and MAILSIDECAR_ADDR (:8587) is open to the network; set it to name:secret (or MAILSIDECAR_API_KEYS_FILE), or listen on 127.0.0.1:8587"},
		{good.with("MAILSIDECAR_API_KEYS=a:0123456789abcdef,hunter2"), "MAILSIDECAR_API_KEYS entry 2 has no name; write name:secret"},
		{good.with("MAILSIDECAR_API_KEYS=hunter2!:x"), "MAILSIDECAR_API_KEYS entry 1 has a name that is not made of letters, digits, dots, hyphens and underscores; write name:secret"},
		{good.with("MAILSIDECAR_API_KEYS=a:"), "MAILSIDECAR_API_KEYS entry 1 has no secret, or one with blanks or characters outside ASCII; write name:secret, such as the output of openssl rand -hex 24"},
		{good.with("MAILSIDECAR_API_KEYS=a:hunter2 hunter2"), "MAILSIDECAR_API_KEYS entry 1 has no secret, or one with blanks or characters outside ASCII; write name:secret, such as the output of openssl rand -hex 24"},
		{good.with("MAILSIDECAR_API_KEYS=a:hunter2,a:hunter3"), "MAILSIDECAR_API_KEYS entry 2 repeats the name or the secret of entry 1; give each its own"},
		{good.with("MAILSIDECAR_API_KEYS=a:hunter2,b:x,c:hunter2"), "MAILSIDECAR_API_KEYS entry 3 repeats the name or the secret of entry 1; give each its own"},
		{good.with("MAILSIDECAR_KEY_SENDERS=0123456789abcdef:example.com"), "MAILSIDECAR_KEY_SENDERS entry 1 names no key of MAILSIDECAR_API_KEYS (shop); write name:sender|sender, such as shop:shop@example.com|example.org"},
		{good.with("MAILSIDECAR_KEY_SENDERS=shop:example.com|a@b@example.org"), "MAILSIDECAR_KEY_SENDERS entry 1 gives key shop a sender \"a@b@example.org\" that is neither address nor domain; write name:sender|sender, such as shop:shop@example.com|example.org"},
		{good.with("MAILSIDECAR_KEY_SENDERS=shop"), "MAILSIDECAR_KEY_SENDERS entry 1 has no colon after a key's name; write name:sender|sender, such as shop:shop@example.com|example.org"},
		{good.with("MAILSIDECAR_KEY_SENDERS=shop:"), "MAILSIDECAR_KEY_SENDERS entry 1 gives key shop a sender that is neither address nor domain; write name:sender|sender, such as shop:shop@example.com|example.org"},
		{good.with("MAILSIDECAR_KEY_SENDERS=shop:example.com,shop:example.org"), "MAILSIDECAR_KEY_SENDERS entry 2 names key shop for the second time; write name:sender|sender, such as shop:shop@example.com|example.org"},
		{good.with("MAILSIDECAR_KEY_ROLES=shop:sent,shop:send,blog:read,shop,admin"), "MAILSIDECAR_KEY_ROLES entry 1 gives key shop a role \"sent\" that does not exist, entry 2 names key shop for the second time, entry 3 names no key of MAILSIDECAR_API_KEYS (shop), entry 4 has no colon after a key's name, entry 5 has no colon after a key's name; write name:role|role, such as shop:send or monitor:read or ops:admin; the roles are send, read, admin"},
		{good.with("MAILSIDECAR_KEY_ROLES=shop:0123456789abcdef"), "MAILSIDECAR_KEY_ROLES entry 1 gives key shop a role that does not exist; write name:role|role, such as shop:send or monitor:read or ops:admin; the roles are send, read, admin"},
		{good.with("MAILSIDECAR_KEY_ROLES=shop:89abcdef"), "MAILSIDECAR_KEY_ROLES entry 1 gives key shop a role that does not exist; write name:role|role, such as shop:send or monitor:read or ops:admin; the roles are send, read, admin"},
		{good.with("MAILSIDECAR_KEY_ROLES=shop:"), "MAILSIDECAR_KEY_ROLES entry 1 gives key shop a role that does not exist; write name:role|role, such as shop:send or monitor:read or ops:admin; the roles are send, read, admin"},
		{good.with("MAILSIDECAR_KEY_ROLES=shop:send|read|send"), "MAILSIDECAR_KEY_ROLES entry 1 gives key shop the role send twice; write name:role|role, such as shop:send or monitor:read or ops:admin; the roles are send, read, admin"},
		{good.with("MAILSIDECAR_KEY_RATES=shop:100"), "MAILSIDECAR_KEY_RATES entry 1 gives key shop a rate \"100\" that cannot be read; write name:rate, such as shop:10/s, shop:30/m, shop:500/h or shop:2000/d"},
		{good.with("MAILSIDECAR_KEY_RATES=blog:1/m"), "MAILSIDECAR_KEY_RATES entry 1 names no key of MAILSIDECAR_API_KEYS (shop); write name:rate, such as shop:10/s, shop:30/m, shop:500/h or shop:2000/d"},
		{good.with("MAILSIDECAR_API_KEYS=,,"), "MAILSIDECAR_API_KEYS holds no entry; write name:secret"},
		{good.with("MAILSIDECAR_API_KEYS=", "MAILSIDECAR_API_KEYS_FILE="+two), "MAILSIDECAR_API_KEYS_FILE entry 1 has no name; write name:secret"},

		// Files.
		{good.with("SMTP_PASSWORD_FILE=" + two), "SMTP_PASSWORD_FILE is set and so is SMTP_PASSWORD; set only one of them"},
		{good.with("SMTP_PASSWORD=", "SMTP_PASSWORD_FILE="+dir), `SMTP_PASSWORD_FILE names "` + dir + `", which cannot be read: it is a directory; name a file that this process may read`},
		{good.with("SMTP_PASSWORD=", "SMTP_PASSWORD_FILE=/nonexistent/secret"), `SMTP_PASSWORD_FILE names "/nonexistent/secret", which cannot be read: no such file or directory; name a file that this process may read`},
		{good.with("SMTP_PASSWORD=", "SMTP_PASSWORD_FILE=hunter2"), "SMTP_PASSWORD_FILE names a file (not shown: it is no absolute path, and may be the secret itself), which cannot be read: no such file or directory; name a file that this process may read"},
		{good.with("SMTP_PASSWORD=", "SMTP_PASSWORD_FILE="+empty), `SMTP_PASSWORD_FILE names "` + empty + `", which is empty; write the secret into that file`},
		{good.with("SMTP_PASSWORD=", "SMTP_PASSWORD_FILE="+two), "SMTP_PASSWORD_FILE names a file that holds a control character; remove it (a line break, or the line ends of a file made on Windows?)"},
		{good.with("SMTP_PASSWORD=", "SMTP_PASSWORD_FILE=/dev/zero"), `SMTP_PASSWORD_FILE names "/dev/zero", which cannot be read: it is over 1048576 octets long; name a file that this process may read`},
		{good.with("SMTP_PASSWORD=hunter2\nhunter3"), "SMTP_PASSWORD holds a control character; remove it (a line break, or the line ends of a file made on Windows?)"},

		// TLS and credentials.
		{good.with("SMTP_TLS=none", "SMTP_PORTS=587,465"), "SMTP_PORTS has port 465, which means implicit TLS, and SMTP_TLS is none; leave that port out, or set SMTP_TLS=required"},
		{good.with("SMTP_PASSWORD="), "SMTP_PASSWORD is not set, but SMTP_USERNAME is; set it or SMTP_PASSWORD_FILE"},
		{good.with("SMTP_PASSWORD=", "SMTP_PROVIDER=yahoo"), "SMTP_PASSWORD is not set, but SMTP_USERNAME is; set it or SMTP_PASSWORD_FILE (Yahoo takes an app password only)"},
		{good.with("SMTP_PASSWORD=", "SMTP_USERNAME=", "SMTP_PROVIDER=resend"), "SMTP_PASSWORD is not set, but resend logs in as resend; set it or SMTP_PASSWORD_FILE (the user name is the word resend, the password an API key)"},
		{good.with("SMTP_USERNAME="), "SMTP_USERNAME is not set, but SMTP_PASSWORD is; set the user name that belongs to it"},
		{good.with("SMTP_USERNAME=", "SMTP_PASSWORD=", "SMTP_AUTH=plain"), "SMTP_USERNAME is not set, and SMTP_AUTH is plain; set it and SMTP_PASSWORD"},
		{good.with("SMTP_AUTH=none"), "SMTP_AUTH is none, yet there are credentials; set SMTP_AUTH=auto, or leave the credentials out"},
		{oauth.with("SMTP_AUTH=plain"), "SMTP_AUTH is plain, which takes no OAuth2 token; set SMTP_AUTH=auto, or leave SMTP_OAUTH2_… out"},
		{good.with("SMTP_AUTH=OAuthBearer"), "SMTP_OAUTH2_REFRESH_TOKEN is not set, and SMTP_AUTH is oauthbearer; set it with SMTP_OAUTH2_CLIENT_ID, or set SMTP_OAUTH2_ACCESS_TOKEN_FILE"},
		{good.with("SMTP_AUTH=xoauth2"), "SMTP_OAUTH2_REFRESH_TOKEN is not set, and SMTP_AUTH is xoauth2; set it with SMTP_OAUTH2_CLIENT_ID, or set SMTP_OAUTH2_ACCESS_TOKEN_FILE"},

		// OAuth2.
		{oauth.with("SMTP_USERNAME="), "SMTP_USERNAME is not set, and OAuth2 needs one; set it to the mailbox's address"},
		{oauth.with("SMTP_OAUTH2_CLIENT_ID="), "SMTP_OAUTH2_CLIENT_ID is not set; set the id of the client that the token was issued to"},
		{oauth.with("SMTP_OAUTH2_ACCESS_TOKEN=ya29"), "SMTP_OAUTH2_CLIENT_ID is set beside an access token; set the access token or what fetches one, not both"},
		{good.with("SMTP_OAUTH2_ACCESS_TOKEN=ya29", "SMTP_OAUTH2_ACCESS_TOKEN_FILE="+two), "SMTP_OAUTH2_ACCESS_TOKEN_FILE is set and so is SMTP_OAUTH2_ACCESS_TOKEN; set only one of them"},
		{oauth.with("SMTP_OAUTH2_PROVIDER=yahoo"), "SMTP_OAUTH2_PROVIDER has no value we know; set one of google, microsoft"},
		{oauth.with("SMTP_OAUTH2_PROVIDER="), "SMTP_OAUTH2_TOKEN_URL is not set; set it, or set SMTP_OAUTH2_PROVIDER to google or microsoft"},
		{oauth.with("SMTP_OAUTH2_TOKEN_URL=http://login.example.com/token"), "SMTP_OAUTH2_TOKEN_URL is no https URL; set one such as https://login.example.com/oauth2/token, without user name or password"},
		{oauth.with("SMTP_OAUTH2_AUTHORIZE_URL=http://login.example.com/authorize"), "SMTP_OAUTH2_AUTHORIZE_URL is no https URL; set one such as https://login.example.com/oauth2/authorize, without user name or password"},
		{oauth.with("SMTP_OAUTH2_DEVICE_URL=login.example.com"), "SMTP_OAUTH2_DEVICE_URL is no https URL; set one such as https://login.example.com/oauth2/device, without user name or password"},
		{oauth.with("SMTP_OAUTH2_TOKEN_URL=https://u:hunter2@login.example.com/token"), "SMTP_OAUTH2_TOKEN_URL is no https URL; set one such as https://login.example.com/oauth2/token, without user name or password"},
		{oauth.with("SMTP_OAUTH2_REFRESH_TOKEN=", "SMTP_OAUTH2_PROVIDER=microsoft", "SMTP_OAUTH2_CLIENT_SECRET=hunter2"), "SMTP_OAUTH2_TENANT is not set, and without a refresh token Microsoft needs it; set the directory's id or domain"},

		// Another relay.
		{good.with("SMTP3_SENDERS=example.org", "SMTP3_AUTH=none"), "SMTP3_HOST is not set; set it to the relay's host name, or set SMTP3_PROVIDER"},
	}
	for _, test := range tests {
		setenv(t, test.env)
		_, warnings, err := Load()
		var problems *Error
		if !errors.As(err, &problems) {
			t.Errorf("Load() = %v, want *Error: %s", err, test.want)
			continue
		}
		if len(problems.Problems) != 1 || problems.Problems[0].String() != test.want {
			t.Errorf("Load() = %v\nwant %s", err, test.want)
		}
		if text := err.Error() + fmt.Sprint(warnings); strings.Contains(text, "hunter") {
			t.Errorf("a secret was printed: %s", text)
		}
	}
}

func TestProblemsAllAtOnce(t *testing.T) {
	setenv(t, env{"SMTP_HOSTT=relay.example.com", "SMTP_PORTS=x", "SMTP2_TLS=ssl", "SMTP2_HOST=b", "MAILSIDECAR_EXPIRES_IN=soon"})
	_, warnings, err := Load()
	want := `configuration: 6 problems:
SMTP_PORTS has "x", which is no port; write ports such as 587,2525 or 465/tls,587/starttls
SMTP_HOST is not set; set it to the relay's host name, or set SMTP_PROVIDER
SMTP2_TLS has no value we know; set one of required, none
MAILSIDECAR_EXPIRES_IN is "soon", which is no duration; write a duration such as 30s, 15m, 12h or 7d
MAILSIDECAR_DATA_DIR is not set, and there is no home directory; set it to a directory on a volume that lasts
MAILSIDECAR_API_KEYS is not set, and MAILSIDECAR_ADDR (:8587) is open to the network; set it to name:secret (or MAILSIDECAR_API_KEYS_FILE), or listen on 127.0.0.1:8587`
	if err == nil || err.Error() != want {
		t.Errorf("Load() = %v\nwant %v", err, want)
	}
	if hint := "SMTP_HOSTT is not a variable of mailsidecar and is ignored; did you mean SMTP_HOST?"; !slices.Contains(warnings, hint) {
		t.Errorf("warnings = %q, want %q among them", warnings, hint)
	}
}

func TestWarnings(t *testing.T) {
	const ignored = " is not a variable of mailsidecar and is ignored"
	token := write(t, "token", "ya29")
	tests := []struct {
		env  env
		want string
	}{
		{good.with("SMTP_PASWORD=hunter2"), "SMTP_PASWORD" + ignored + "; did you mean SMTP_PASSWORD?"},
		{good.with("SMTP_USER=x"), "SMTP_USER" + ignored + "; did you mean SMTP_USERNAME?"},
		{good.with("SMTP2_HOST=b", "SMTP2_AUTH=none", "SMTP2_PASS=x"), "SMTP2_PASS" + ignored + "; did you mean SMTP2_PASSWORD?"},
		{good.with("SMTP_FROM=x"), "SMTP_FROM" + ignored + "; did you mean MAILSIDECAR_FROM?"},
		{good.with("SMTP1_HOST=x"), "SMTP1_HOST is ignored: relays are numbered SMTP_…, SMTP2_… to SMTP9_…"},
		{good.with("SMTP10_HOST=x"), "SMTP10_HOST is ignored: relays are numbered SMTP_…, SMTP2_… to SMTP9_…"},
		{good.with("SMTP_PASSWORD_FLIE=/x"), "SMTP_PASSWORD_FLIE" + ignored + "; did you mean SMTP_PASSWORD_FILE?"},
		{good.with("MAILSIDECAR_APIKEYS=a:b"), "MAILSIDECAR_APIKEYS" + ignored + "; did you mean MAILSIDECAR_API_KEYS?"},
		{good.with("MAILSIDECAR_PORT=8587"), "MAILSIDECAR_PORT" + ignored + "; did you mean MAILSIDECAR_ADDR?"},
		{good.with("SMTP_SOMETHING_QUITE_ELSE=1"), "SMTP_SOMETHING_QUITE_ELSE" + ignored},

		{good.with("SMTP_TLS=none"), "SMTP_TLS=none: credentials and mail go to the relay in clear text"},
		{good.with("SMTP_TLS=none", "SMTP_USERNAME=", "SMTP_PASSWORD=", "SMTP_AUTH=none"), "SMTP_TLS=none: mail goes to the relay in clear text"},
		{good.with("SMTP_ALLOW_CLEARTEXT=true"), "SMTP_ALLOW_CLEARTEXT has no effect without SMTP_TLS=none"},
		{good.with("SMTP_USERNAME=", "SMTP_PASSWORD="), "SMTP_USERNAME and SMTP_PASSWORD are not set: mail is handed over without AUTH; SMTP_AUTH=none says that this is meant"},
		{good.with(`SMTP_PASSWORD="hunter2"`), "SMTP_PASSWORD begins and ends with a quote, which docker --env-file keeps as part of the value"},
		{good.with("SMTP_OAUTH2_TENANT=x"), "SMTP_OAUTH2_TENANT has no effect without SMTP_OAUTH2_CLIENT_ID"},
		{good.with("SMTP_OAUTH2_ACCESS_TOKEN=ya29"), "SMTP_PASSWORD has no effect, because the login is with OAuth2"},
		{good.with("SMTP_OAUTH2_ACCESS_TOKEN=ya29", "SMTP_AUTH=login"), "SMTP_OAUTH2_… has no effect, because SMTP_AUTH is login, which takes the password"},
		{good.with("SMTP_PROVIDER=outlook"), "SMTP_PASSWORD is set, but Outlook.com takes OAuth2 only, by the login of a person, and no password: docs/oauth2.md"},
		{good.with("SMTP_PASSWORD=", "SMTP_OAUTH2_ACCESS_TOKEN_FILE="+token+"2"), `SMTP_OAUTH2_ACCESS_TOKEN_FILE names "` + token + `2", which cannot be read now: no such file or directory; it is tried again for each login`},
		{good.with("MAILSIDECAR_RETENTION=12h"), "MAILSIDECAR_RETENTION is 12h, and counts as 1d, the minimum, because repeated requests are recognised that long"},
		{good.with("MAILSIDECAR_KEEP_BODIES=30d"), "MAILSIDECAR_KEEP_BODIES is over MAILSIDECAR_RETENTION: content goes with the message's record, after 7d"},
		{good.with("MAILSIDECAR_API_KEYS=shop:hunter2"), "MAILSIDECAR_API_KEYS: the secret of shop is shorter than 16 characters and might be guessed"},
	}
	for _, test := range tests {
		if _, warnings := mustLoad(t, test.env); len(warnings) != 1 || warnings[0] != test.want {
			t.Errorf("warnings = %q\nwant %q", warnings, test.want)
		}
	}
}

func TestKeyIsNotNeededOnLoopback(t *testing.T) {
	for addr, open := range map[string]bool{
		"127.0.0.1:8587": false, "127.8.9.1:1": false, "[::1]:8587": false, "localhost:8587": false, "[::ffff:127.0.0.1]:1": false,
		":8587": true, "0.0.0.0:8587": true, "[::]:8587": true, "10.0.0.1:8587": true, "localhost.example.com:1": true,
	} {
		setenv(t, good.with("MAILSIDECAR_API_KEYS=", "MAILSIDECAR_ADDR="+addr))
		if _, _, err := Load(); (err != nil) != open {
			t.Errorf("Load() with %s and no key = %v, want an error: %v", addr, err, open)
		}
	}
}

func TestSecretsFromFiles(t *testing.T) {
	e := good.with("SMTP_PASSWORD=", "MAILSIDECAR_API_KEYS=",
		"SMTP_PASSWORD_FILE="+write(t, "password", " pass word \r\n"),
		"MAILSIDECAR_API_KEYS_FILE="+write(t, "keys", "shop:0123456789abcdef\r\n\n blog:fedcba9876543210,\na.b-c_1:x:y0123456789abc\n"))
	c, warnings := mustLoad(t, e)
	if got := c.Relays[0].Password.Reveal(); got != " pass word " || len(warnings) > 0 {
		t.Errorf("password = %q, warnings %q", got, warnings)
	}
	want := []APIKey{
		{Name: "shop", Secret: NewSecret("0123456789abcdef")},
		{Name: "blog", Secret: NewSecret("fedcba9876543210")},
		{Name: "a.b-c_1", Secret: NewSecret("x:y0123456789abc")},
	}
	if !reflect.DeepEqual(c.Service.Keys, want) {
		t.Errorf("keys are not as in the file")
	}
}

// TestKeySettings: what is set for single keys finds them, and every entry that is
// wrong is reported.
func TestKeySettings(t *testing.T) {
	keys := good.with("MAILSIDECAR_API_KEYS=shop:0123456789abcdef,blog:fedcba9876543210,cron:0011223344556677")
	c, warnings := mustLoad(t, keys.with("MAILSIDECAR_KEY_SENDERS=shop: Shop@Example.com | @example.org. | Ä..b@Bücher.test, blog:example.net", "MAILSIDECAR_KEY_RATES=blog:100/m, cron:2/D", "MAILSIDECAR_KEY_ROLES=shop: Send | read,blog:admin"))
	want := []APIKey{
		{Name: "shop", Secret: NewSecret("0123456789abcdef"), Senders: []string{"shop@example.com", "example.org", "ä..b@xn--bcher-kva.test"}, Roles: []string{"send", "read"}},
		{Name: "blog", Secret: NewSecret("fedcba9876543210"), Senders: []string{"example.net"}, Rate: units.Rate{Messages: 100, Per: time.Minute}, Roles: []string{"admin"}},
		{Name: "cron", Secret: NewSecret("0011223344556677"), Rate: units.Rate{Messages: 2, Per: units.Day}},
	}
	if !reflect.DeepEqual(c.Service.Keys, want) || len(warnings) > 0 {
		t.Errorf("keys = %+v, warnings %q, want %+v", c.Service.Keys, warnings, want)
	}
	setenv(t, keys.with("MAILSIDECAR_KEY_SENDERS=nobody:example.com,shop:,blog:a b@example.com", "MAILSIDECAR_KEY_RATES=shop:fast,shop:1/s,0011223344556677:1/s"))
	_, _, err := Load()
	wrong := `configuration: 2 problems:
MAILSIDECAR_KEY_SENDERS entry 1 names no key of MAILSIDECAR_API_KEYS (shop, blog, cron), entry 2 gives key shop a sender that is neither address nor domain, entry 3 gives key blog a sender "a b@example.com" that is neither address nor domain; write name:sender|sender, such as shop:shop@example.com|example.org
MAILSIDECAR_KEY_RATES entry 1 gives key shop a rate "fast" that cannot be read, entry 2 names key shop for the second time, entry 3 names no key of MAILSIDECAR_API_KEYS (shop, blog, cron); write name:rate, such as shop:10/s, shop:30/m, shop:500/h or shop:2000/d`
	if err == nil || err.Error() != wrong {
		t.Errorf("Load() = %v\nwant %s", err, wrong)
	}
}

func TestEffective(t *testing.T) {
	c, _ := mustLoad(t, good.with("SMTP_PROVIDER=sendgrid", "SMTP_HOST=", "SMTP_USERNAME=", "SMTP2_HOST=b", "SMTP2_USERNAME=token", "SMTP2_PASSWORD=token",
		"SMTP_PASSWORD=", "SMTP_PASSWORD_FILE="+write(t, "password", "hunter2")))
	got := map[string]Setting{}
	for _, s := range c.Effective() {
		if s.About == "" || strings.ContainsAny(s.About, "{}") {
			t.Errorf("Effective()[%s] says of itself %q", s.Name, s.About)
		}
		s.About = ""
		got[s.Name] = s
	}
	for _, want := range []Setting{
		{Name: "SMTP_PROVIDER", Value: "sendgrid", Source: FromVariable},
		{Name: "SMTP_HOST", Value: "smtp.sendgrid.net", Source: FromPreset},
		{Name: "SMTP_PORTS", Value: "587,2525,465", Source: FromPreset},
		{Name: "SMTP_USERNAME", Value: "apikey", Source: FromPreset},
		{Name: "SMTP_PASSWORD", Value: redacted, Source: FromFile},
		{Name: "SMTP_TLS", Value: "required", Source: FromDefault},
		{Name: "SMTP2_USERNAME", Value: redacted, Source: FromVariable}, // the same as the password
		{Name: "SMTP2_PASSWORD", Value: redacted, Source: FromVariable},
		{Name: "MAILSIDECAR_API_KEYS", Value: redacted, Source: FromVariable},
		{Name: "MAILSIDECAR_QUEUE", Value: "sqlite:/data/queue.db", Source: FromDefault},
		{Name: "MAILSIDECAR_RETENTION", Value: "7d", Source: FromDefault},
		{Name: "MAILSIDECAR_LOG_LEVEL", Value: "info", Source: FromDefault},
		{Name: "MAILSIDECAR_FROM", Value: "", Source: ""}, // no value, no line
	} {
		if want.Value == "" {
			want = Setting{}
		}
		if got[want.Name] != want {
			t.Errorf("Effective()[%s] = %v, want %v", want.Name, got[want.Name], want)
		}
	}
}

// TestNothingPrintsSecrets prints the configuration in every way we know.
func TestNothingPrintsSecrets(t *testing.T) {
	c, _ := mustLoad(t, good.with("MAILSIDECAR_API_KEYS=shop:hunter2-hunter2", "SMTP_OAUTH2_ACCESS_TOKEN=hunter2"))
	secret := c.Relays[0].Password
	hidden := struct{ s Secret }{secret}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewJSONHandler(&log, nil), slog.NewTextHandler(&log, nil)} {
		slog.New(h).Info("effective configuration", "config", c, "relay", c.Relays[0], "password", secret)
	}
	data, err := json.Marshal(map[string]any{"config": c, "password": secret})
	if err != nil {
		t.Fatal(err)
	}
	printed := log.String() + string(data)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		printed += fmt.Sprintf(verb, c) + fmt.Sprintf(verb, secret) + fmt.Sprintf(verb, &secret) + fmt.Sprintf(verb, hidden)
	}
	for _, plain := range []string{"hunter2", fmt.Sprintf("%x", "hunter2")} {
		if i := strings.Index(printed, plain); i >= 0 {
			t.Errorf("a secret was printed: %s", printed[max(0, i-80):i+len(plain)])
		}
	}
	if !strings.Contains(log.String(), `"SMTP_PASSWORD":"[redacted] (variable)"`) {
		t.Errorf("log = %s", log.String())
	}
	if got := fmt.Sprintf("%v %s %q %#v", secret, secret, secret, secret); got != "[redacted] [redacted] [redacted] [redacted]" {
		t.Errorf("printed as %s", got)
	}
}

func TestLoadRelaysAndService(t *testing.T) {
	setenv(t, env{"SMTP_HOST=relay.example.com", "SMTP_AUTH=none"})
	if relays, warnings, err := LoadRelays(); err != nil || len(warnings) > 0 || len(relays) != 1 {
		t.Errorf("LoadRelays() = %v, %q, %v", relays, warnings, err)
	}
	setenv(t, env{"MAILSIDECAR_DATA_DIR=/data"})
	if s, warnings, err := LoadService(); err != nil || len(warnings) > 0 || s.Queue.Path != "/data/queue.db" {
		t.Errorf("LoadService() = %v, %q, %v", s.Queue, warnings, err)
	}
}

func TestDefault(t *testing.T) {
	setenv(t, good.with("HOME=/h", "MAILSIDECAR_ADDR=:1", "SMTP_PORTS=1")) // not looked at
	c := Default()
	if c.Service.Addr != ":8587" || len(c.Relays) != 1 || c.Relays[0].Host != "" || c.Relays[0].Ports.String() != "587,2525" || c.Service.Queue != (Queue{Store: "sqlite"}) {
		t.Errorf("Default() = %+v", c)
	}
}

func TestDataDir(t *testing.T) {
	tests := []struct {
		env  env
		want string
	}{
		{env{"MAILSIDECAR_DATA_DIR=/d", "HOME=/h"}, "sqlite:/d/queue.db"},
		{env{"XDG_STATE_HOME=/x", "HOME=/h"}, "sqlite:/x/mailsidecar/queue.db"},
		{env{"XDG_STATE_HOME=relative", "HOME=/h"}, "sqlite:/h/.local/state/mailsidecar/queue.db"},
		{env{"MAILSIDECAR_QUEUE=sqlite:", "HOME=/h"}, "sqlite:/h/.local/state/mailsidecar/queue.db"},
		{env{"MAILSIDECAR_QUEUE=sqlite:q.db"}, "sqlite:q.db"},
		{env{"MAILSIDECAR_QUEUE=NONE"}, "none"},
	}
	for _, test := range tests {
		setenv(t, test.env)
		if s, _, err := LoadService(); err != nil || s.Queue.String() != test.want {
			t.Errorf("LoadService() with %q = %v, %v, want %s", test.env, s.Queue, err, test.want)
		}
	}
}

func TestLoadClient(t *testing.T) {
	tests := []struct {
		env       env
		url, key  string
		wait      time.Duration
		wantError string
	}{
		{env{}, "http://127.0.0.1:8587", "", 10 * time.Second, ""},
		{env{"MAILSIDECAR_URL=https://mail.example.com/sub/", "MAILSIDECAR_API_KEY=k", "MAILSIDECAR_WAIT=0"}, "https://mail.example.com/sub", "k", 0, ""},
		{env{"MAILSIDECAR_ADDR=:9000", "MAILSIDECAR_API_KEYS=a:k"}, "http://127.0.0.1:9000", "k", 10 * time.Second, ""},
		{env{"MAILSIDECAR_ADDR=[::1]:9000", "MAILSIDECAR_API_KEYS=a:k,b:l"}, "http://[::1]:9000", "", 10 * time.Second, ""},
		{env{"MAILSIDECAR_ADDR=[::]:9000", "MAILSIDECAR_API_KEY_FILE=" + write(t, "key", "k\n")}, "http://127.0.0.1:9000", "k", 10 * time.Second, ""},
		{env{"MAILSIDECAR_URL=http://u:hunter2@host"}, "http://u:hunter2@host", "", 10 * time.Second, "configuration: MAILSIDECAR_URL is no address of a server; write one such as http://127.0.0.1:8587, without user name or password"},
		{env{"MAILSIDECAR_URL=127.0.0.1:8587"}, "127.0.0.1:8587", "", 10 * time.Second, "configuration: MAILSIDECAR_URL is no address of a server; write one such as http://127.0.0.1:8587, without user name or password"},
		{env{"MAILSIDECAR_WAIT=3"}, "http://127.0.0.1:8587", "", 3 * time.Second, ""},
		{env{"MAILSIDECAR_WAIT=3x"}, "http://127.0.0.1:8587", "", 10 * time.Second, `configuration: MAILSIDECAR_WAIT is "3x", which is no duration; write seconds, such as 3, or a duration such as 3s or 1m`},
		{env{"MAILSIDECAR_WAIT=2m"}, "http://127.0.0.1:8587", "", 2 * time.Minute, "configuration: MAILSIDECAR_WAIT is 2m, which is too high; set 60s or less"},
	}
	for _, test := range tests {
		setenv(t, test.env)
		c, err := LoadClient()
		if fmt.Sprint(err) != test.wantError && (err != nil || test.wantError != "") {
			t.Errorf("LoadClient() with %q = %v, want %q", test.env, err, test.wantError)
		}
		if c.URL != test.url || c.APIKey.Reveal() != test.key || time.Duration(c.Wait) != test.wait {
			t.Errorf("LoadClient() with %q = %v %q, want %s %q %v", test.env, c, c.APIKey.Reveal(), test.url, test.key, test.wait)
		}
	}
}

// TestVariablesAreNotListed: to look at all variables, as the start does many times,
// takes little memory.
func TestVariablesAreNotListed(t *testing.T) {
	var before, after runtime.MemStats
	const looks = 100
	n := 0
	runtime.ReadMemStats(&before)
	for range looks {
		for range variables(servicePrefix, &Service{}) {
			n++
		}
	}
	runtime.ReadMemStats(&after)
	if octets := int(after.TotalAlloc-before.TotalAlloc) / n; octets > 200 {
		t.Errorf("a look takes %d octets for each variable, want 200 at most", octets)
	}
}

// TestNamesThatLookLikeOurs compares with patterns, which would take memory at each start.
func TestNamesThatLookLikeOurs(t *testing.T) {
	ours := regexp.MustCompile(`^(SMTP[0-9]*|MAILSIDECAR)_(.*)$`)
	kubernetes := regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT_[0-9]+_(TCP|UDP|SCTP)(_|$)`)
	parts := []string{"SMTP", "MAILSIDECAR", "SERVICE", "HOST", "PORT", "TCP", "SCTP", "587", "2", "_", "X", ""}
	for n := range len(parts) * len(parts) * len(parts) * len(parts) * len(parts) {
		var words []string
		for ; n > 0; n /= len(parts) {
			words = append(words, parts[n%len(parts)])
		}
		for _, name := range []string{strings.Join(words, "_"), strings.Join(words, "")} {
			want := ""
			if match := ours.FindStringSubmatch(name); match != nil {
				want = match[1]
			}
			if got := ourPrefix(name); got != want {
				t.Fatalf("ourPrefix(%q) = %q, want %q", name, got, want)
			}
			if got, want := isKubernetesName(name), kubernetes.MatchString(name); got != want {
				t.Fatalf("isKubernetesName(%q) = %v, want %v", name, got, want)
			}
		}
	}
}
