package service

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/config"
)

// TestSettings: GET /v1/settings has what was configured, where it came from, and no secret.
func TestSettings(t *testing.T) {
	const secret = "hunter2-hunter2-hunter2"
	for name, value := range map[string]string{
		"SMTP_PROVIDER": "sendgrid", "SMTP_PASSWORD": secret, "MAILSIDECAR_QUEUE": "none", "MAILSIDECAR_API_KEYS": "ops:" + secret,
		"MAILSIDECAR_KEY_ROLES": "ops:admin", "MAILSIDECAR_ADDR": "127.0.0.1:0",
	} {
		t.Setenv(name, value)
	}
	c, _, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	s, stop := start(t, c)
	defer func() { _ = stop() }()
	client, err := api.New(s.URL(), secret, "test", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.HTTP.CloseIdleConnections()
	a, err := client.Do(t.Context(), http.MethodGet, "/v1/settings", nil, nil)
	var got api.Settings
	if err != nil || json.Unmarshal(a.Body, &got) != nil || strings.Contains(string(a.Body), secret) {
		t.Fatalf("GET /v1/settings = %d %s, %v", a.Status, a.Body, err)
	}
	for _, want := range []api.Setting{
		{Name: "SMTP_HOST", Value: "smtp.sendgrid.net", Source: api.SourceProvider, About: "Host name or IP address of the relay."},
		{Name: "SMTP_PASSWORD", Value: "[redacted]", Source: api.SourceVariable},
		{Name: "MAILSIDECAR_API_KEYS", Value: "[redacted]", Source: api.SourceVariable},
		{Name: "MAILSIDECAR_RETENTION", Value: "7d", Source: api.SourceDefault},
	} {
		found := false
		for _, s := range got.Settings {
			if s.Name == want.Name {
				found = s.Value == want.Value && s.Source == want.Source && (want.About == "" || s.About == want.About)
			}
		}
		if !found {
			t.Errorf("GET /v1/settings = %s, want %+v in it", a.Body, want)
		}
	}
}
