package cli

import (
	"context"
	"strings"
	"testing"

	"mailsidecar/config"
)

func TestPickRelay(t *testing.T) {
	relay := func(n int, provider string) config.Relay {
		return config.Relay{Number: n, Host: "relay", OAuth2: config.OAuth2{Provider: provider, ClientID: "id"}}
	}
	plain := config.Relay{Number: 1, Host: "plain"}
	machine := relay(1, "microsoft")
	machine.OAuth2.ClientSecret = config.NewSecret("secret")
	with := func(o config.OAuth2) []config.Relay { return []config.Relay{{Number: 1, Host: "relay", OAuth2: o}} }
	for _, tt := range []struct {
		name   string
		all    []config.Relay
		issuer string
		number int
		want   int // 0: none
		status int
		say    string
	}{
		{"the only one", []config.Relay{relay(1, "google")}, "", 0, 1, 0, ""},
		{"the only one with OAuth2", []config.Relay{plain, relay(2, "google")}, "", 0, 2, 0, ""},
		{"by its issuer", []config.Relay{relay(1, "google"), relay(2, "microsoft")}, "microsoft", 0, 2, 0, ""},
		{"by its number", []config.Relay{relay(1, "google"), relay(2, "google")}, "google", 2, 2, 0, ""},
		{"by its token endpoint", []config.Relay{{Number: 1, OAuth2: config.OAuth2{ClientID: "id", TokenURL: "https://login.microsoftonline.com/t/oauth2/v2.0/token"}}}, "microsoft", 0, 1, 0, ""},
		{"one of two needs no person", []config.Relay{machine, relay(2, "microsoft")}, "microsoft", 0, 2, 0, ""},
		{"two", []config.Relay{relay(1, "google"), relay(3, "google")}, "google", 0, 0, exitUsage, "--relay 1"},
		{"another issuer", []config.Relay{relay(1, "google")}, "microsoft", 0, 0, exitUsage, "SMTP_OAUTH2_PROVIDER names another"},
		{"no such number", []config.Relay{relay(1, "google")}, "", 4, 0, exitUsage, "SMTP4_"},
		{"no client id", []config.Relay{plain}, "google", 0, 0, exitConfig, "SMTP_OAUTH2_CLIENT_ID is not set"},
		{"no person", []config.Relay{machine}, "", 0, 0, exitConfig, "no person has to log in for the relay relay: SMTP_OAUTH2_CLIENT_SECRET gives"},
		{"a certificate", with(config.OAuth2{ClientID: "id", CertFile: "/c"}), "", 0, 0, exitConfig, "no person has to log in for the relay relay: SMTP_OAUTH2_CERT_FILE"},
		{"an assertion", with(config.OAuth2{ClientID: "id", AssertionFile: "/a"}), "microsoft", 0, 0, exitConfig, "no person has to log in for the relay relay: SMTP_OAUTH2_ASSERTION_FILE"},
		{"a service account", with(config.OAuth2{Provider: "google", ServiceAccountFile: "/s"}), "google", 0, 0, exitConfig, "no person has to log in for the relay relay: SMTP_OAUTH2_SERVICE_ACCOUNT_FILE"},
		{"a token file", with(config.OAuth2{AccessTokenFile: "/t"}), "", 1, 0, exitConfig, "no person has to log in for the relay relay: SMTP_OAUTH2_ACCESS_TOKEN_FILE"},
		{"a token", with(config.OAuth2{AccessToken: config.NewSecret("t")}), "", 0, 0, exitConfig, "no person has to log in for the relay relay: SMTP_OAUTH2_ACCESS_TOKEN gives"},
		{"a token file after a relay without OAuth2", []config.Relay{plain, {Number: 2, Host: "relay", OAuth2: config.OAuth2{AccessTokenFile: "/t"}}}, "", 0, 0, exitConfig, "no person has to log in for the relay relay: SMTP2_OAUTH2_ACCESS_TOKEN_FILE"},
	} {
		got, err := pickRelay(tt.all, tt.issuer, tt.number)
		if tt.want != 0 {
			if err != nil || got.Number != tt.want {
				t.Errorf("%s: pickRelay() = %d, %v, want %d", tt.name, got.Number, err, tt.want)
			}
			continue
		}
		if err == nil || exitStatus(err) != tt.status || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%s: pickRelay() = %v, want status %d and %q", tt.name, err, tt.status, tt.say)
		}
	}
}

// TestInterrupted: a login that was stored before the person interrupts it is not said
// to be lost.
func TestInterrupted(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		err  error
		want string
	}{
		{"done", ended, nil, ""},
		{"while it waits", ended, &statusError{exitNoPerm, &loginRefused{err: ended.Err()}}, "interrupted: "},
		{"after it was stored", ended, exit(exitUnavailable, "no mail can go to the relay yet"), "no mail can go"},
		{"not at all", t.Context(), exit(exitUnavailable, "no mail can go to the relay yet"), "no mail can go"},
	} {
		got := ""
		if err := orInterrupted(tt.ctx, tt.err); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestLoginUsage: options that cannot be meant are refused before anything else.
func TestLoginUsage(t *testing.T) {
	for args, want := range map[string]string{
		"--timeout 0":          "--timeout must be longer than 0",
		"--device --port 80":   "--port is for a browser",
		"--port 65536":         "is no port",
		"--port 1 --timeout 0": "--timeout must be longer than 0",
	} {
		cmd := newLogin()
		cmd.SetArgs(strings.Fields(args))
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		if err := cmd.Execute(); err == nil || exitStatus(err) != exitUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("login %s = %v, want status %d and %q", args, err, exitUsage, want)
		}
	}
}

func TestEdited(t *testing.T) {
	for line, want := range map[string]string{
		"":                    "",
		"http://localhost/":   "http://localhost/",
		"ab\x7fc":             "ac",
		"\b\bx":               "x",
		"wrong\x15right\x7f.": "righ.",
		"ü\x7fu":              "u",
	} {
		if got := edited(line); got != want {
			t.Errorf("edited(%q) = %q, want %q", line, got, want)
		}
	}
}

func TestBrowserCommand(t *testing.T) {
	for _, tt := range []struct{ system, env, want string }{
		{"linux", "", ""},
		{"linux", "DISPLAY=:0", "xdg-open"},
		{"linux", "WAYLAND_DISPLAY=wayland-0", "xdg-open"},
		{"linux", "DISPLAY=localhost:10.0 SSH_CONNECTION=x", ""},
		{"darwin", "", "open"},
		{"darwin", "SSH_TTY=/dev/ttys001", ""},
		{"windows", "", "rundll32"},
	} {
		getenv := func(name string) string {
			for _, v := range strings.Fields(tt.env) {
				if key, value, _ := strings.Cut(v, "="); key == name {
					return value
				}
			}
			return ""
		}
		if got, _ := browserCommand(tt.system, getenv); got != tt.want {
			t.Errorf("browserCommand(%q) with %q = %q, want %q", tt.system, tt.env, got, tt.want)
		}
	}
}
