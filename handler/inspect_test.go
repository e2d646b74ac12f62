package handler

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/keys"
	"mailsidecar/units"
)

// TestGetKeys: names, roles, rates and use of the keys, and no secrets.
func TestGetKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := newTestServer(t, stored(), func(o *Options) {
			o.Keys = []keys.Entry{
				{Name: "ops", Secret: testKey, Roles: []string{"admin"}},
				{Name: "shop", Secret: "secret-of-shop", Rate: units.Rate{Messages: 10, Per: time.Minute}, Senders: []string{"shop@example.com"}},
				{Name: "idle", Secret: "secret-of-idle", Roles: []string{"send"}},
			}
		})
		time.Sleep(time.Hour)
		if a := serve(s, newRequest("POST", "/v1/messages", goodMessage, "Authorization: Bearer secret-of-shop")); a.status != 202 {
			t.Fatalf("POST = %d %s", a.status, a.body)
		}
		a := serve(s, newRequest("GET", "/v1/keys", ""))
		var got api.Keys
		if err := json.Unmarshal(a.body, &got); err != nil || a.status != 200 {
			t.Fatalf("GET /v1/keys = %d %s", a.status, a.body)
		}
		used := start.Add(time.Hour)
		one := 1
		want := api.Keys{Since: start.UTC(), Keys: []api.Key{
			{Name: "ops", Roles: []string{"admin"}, LastUsed: used.UTC()},
			{Name: "shop", Roles: []string{"send", "read"}, Senders: []string{"shop@example.com"}, Rate: &api.KeyRate{Messages: 10, Per: "1m0s", Used: &one}, LastUsed: used.UTC()},
			{Name: "idle", Roles: []string{"send"}},
		}}
		wanted, _ := json.Marshal(want)
		if compact, _ := json.Marshal(got); string(compact) != string(wanted) {
			t.Errorf("GET /v1/keys = %s\nwant %s", compact, wanted)
		}
		if strings.Contains(string(a.body), "secret-of") || strings.Contains(string(a.body), testKey) {
			t.Errorf("a secret is in %s", a.body)
		}
	})
}

// TestGetSettings: what the configuration says, and 404 where there is none.
func TestGetSettings(t *testing.T) {
	settings := []api.Setting{{Name: "SMTP_HOST", Value: "smtp.example.net", Source: api.SourceProvider, About: "Host of the relay."}, {Name: "SMTP_PASSWORD", Value: "[redacted]", Source: api.SourceFile, About: "Password."}}
	s := newTestServer(t, stored(), func(o *Options) {
		o.Keys[0].Roles, o.Settings = []string{"admin"}, func() []api.Setting { return settings }
	})
	a := serve(s, newRequest("GET", "/v1/settings", ""))
	var got api.Settings
	if err := json.Unmarshal(a.body, &got); err != nil || a.status != 200 || fmt.Sprint(got.Settings) != fmt.Sprint(settings) {
		t.Errorf("GET /v1/settings = %d %s", a.status, a.body)
	}
	s = newTestServer(t, stored(), func(o *Options) { o.Keys[0].Roles = []string{"admin"} })
	if a := serve(s, newRequest("GET", "/v1/settings", "")); a.status != 404 {
		t.Errorf("GET /v1/settings without a configuration = %d, want 404", a.status)
	}
}
