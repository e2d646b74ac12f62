package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

const hookSecret = "T0/B0/s3cretOfTheHook012345678"

func TestAlerts(t *testing.T) {
	file := write(t, "alerts", "# for the admins\nhttps://hooks.slack.com/services/"+hookSecret+"\n\nntfy+https://:tk_s3cret@ntfy.example.com/mail\n")
	c, warnings := mustLoad(t, good.with("MAILSIDECAR_ALERTS_FILE="+file, "MAILSIDECAR_HEARTBEAT_URL= https://hc-ping.com/s3cret-uuid "))
	if len(warnings) > 0 {
		t.Errorf("warnings = %q", warnings)
	}
	if got, want := fmt.Sprint(c.Service.AlertTargets, c.Service.Heartbeat), "[https://hooks.slack.com/[redacted] (entry 1) ntfy+https://ntfy.example.com/[redacted] (entry 2)] https://hc-ping.com/[redacted]"; got != want {
		t.Errorf("targets = %s, want %s", got, want)
	}
	if text := fmt.Sprintf("%+v %#v %v", c, c, c.Effective()); strings.Contains(text, "s3cret") {
		t.Errorf("a secret is shown: %s", text)
	}
	c, _ = mustLoad(t, good.with("MAILSIDECAR_ALERTS=ntfy+http://ntfy/mail, json+http://10.0.0.1/x", "MAILSIDECAR_HEARTBEAT_URL=http://kuma:3001/api/push/x?status=up", "MAILSIDECAR_ALERTS_ALLOW_PRIVATE=true"))
	if len(c.Service.AlertTargets) != 2 || !c.Service.Heartbeat.Set() {
		t.Errorf("with private addresses allowed: %v, %v", c.Service.AlertTargets, c.Service.Heartbeat)
	}
}

// TestAlertProblems: every wrong URL is told at once with the others, by its place and with
// its remedy, and shows nothing.
func TestAlertProblems(t *testing.T) {
	bot := "telegram://123456:" + strings.Repeat("A", 35) + "@1"
	setenv(t, good.with("MAILSIDECAR_ADDR=x",
		"MAILSIDECAR_ALERTS="+strings.Join([]string{"https://s3cret.example.com/x", bot, bot, "gopher://s3cret/", "ntfy+http://s3cret/mail"}, ","),
		"MAILSIDECAR_HEARTBEAT_URL=http://s3cret/x", "MAILSIDECAR_ALERTS_MAX_AGE=1s"))
	_, _, err := Load()
	problems, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("Load = %v, want problems", err)
	}
	got := map[string]string{}
	for _, p := range problems.Problems {
		got[p.Name] = p.What
		if p.Remedy == "" {
			t.Errorf("%v has no remedy", p)
		}
	}
	for name, what := range map[string]string{
		"MAILSIDECAR_ADDR":             "is no address and port",
		"MAILSIDECAR_ALERTS (entry 1)": "does not say for which service it is",
		"MAILSIDECAR_ALERTS (entry 3)": "leads to the same place as an entry before it",
		"MAILSIDECAR_ALERTS (entry 4)": "has a scheme that is not known",
		"MAILSIDECAR_ALERTS (entry 5)": "is an http URL, and what it holds would cross the network in clear text",
		"MAILSIDECAR_HEARTBEAT_URL":    "is an http URL, and what it holds would cross the network in clear text",
		"MAILSIDECAR_ALERTS_MAX_AGE":   "is 1s, which is too low",
	} {
		if got[name] != what {
			t.Errorf("problem of %s = %q, want %q", name, got[name], what)
		}
	}
	if strings.Contains(err.Error(), "s3cret") || len(got) != 7 {
		t.Errorf("Load = %v, want 7 problems and no secret", err)
	}
	// Where it cannot be read whether http is allowed, that is told, and not what would follow.
	setenv(t, good.with("MAILSIDECAR_ALERTS=ntfy+http://ntfy/mail,json+http://10.0.0.1/x", "MAILSIDECAR_HEARTBEAT_URL=http://kuma/x", "MAILSIDECAR_ALERTS_ALLOW_PRIVATE=yes"))
	const want = `configuration: MAILSIDECAR_ALERTS_ALLOW_PRIVATE is "yes", which is neither true nor false; set true or false`
	if _, _, err := Load(); err == nil || err.Error() != want {
		t.Errorf("Load = %v, want %s", err, want)
	}
	if _, _, err := LoadAlerts(); err == nil || err.Error() != want {
		t.Errorf("LoadAlerts = %v, want %s", err, want)
	}
	for value, want := range map[string]string{
		",":                               "holds no URL",
		strings.Repeat("x,", maxAlerts+1): "has 21 URLs",
		"https://hooks.slack.com/services/T0/B0/cut": "is a webhook of Slack that is not whole",
		"\x01": "holds a control character",
	} {
		setenv(t, good.with("MAILSIDECAR_ALERTS="+value))
		if _, _, err := Load(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load with %q = %v, want %q", value, err, want)
		}
	}
}

// TestLoadAlerts: the command needs no other setting, and judges none.
func TestLoadAlerts(t *testing.T) {
	setenv(t, env{"MAILSIDECAR_ADDR=x", "MAILSIDECAR_RETENTION=soon", "MAILSIDECAR_ALERTS=https://ntfy.sh/topic", "MAILSIDECAR_ALERT=x"})
	s, warnings, err := LoadAlerts()
	if err != nil || len(s.AlertTargets) != 1 || len(warnings) != 1 || !strings.Contains(warnings[0], "MAILSIDECAR_ALERTS") {
		t.Errorf("LoadAlerts = %v, %q, %v", s.AlertTargets, warnings, err)
	}
	setenv(t, env{"MAILSIDECAR_ALERTS_FILE=/does/not/exist"})
	if _, _, err := LoadAlerts(); err == nil || !strings.Contains(err.Error(), "MAILSIDECAR_ALERTS_FILE") {
		t.Errorf("LoadAlerts without the file = %v", err)
	}
}
