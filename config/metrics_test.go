package config

import (
	"strings"
	"testing"
)

// TestMetricsAddr: what cannot be listened on is refused with a remedy, the port of another
// setting too.
func TestMetricsAddr(t *testing.T) {
	for _, tt := range []struct {
		metrics string
		env     map[string]string
		want    string // in the error; empty: none
	}{
		{metrics: ":9587"},
		{metrics: "127.0.0.1:9587"},
		{metrics: "[::1]:9587"},
		{metrics: "127.0.0.1:0", env: map[string]string{"MAILSIDECAR_ADDR": "127.0.0.1:0"}},
		{metrics: "9587", want: "MAILSIDECAR_METRICS_ADDR is no address and port; write one such as :9587"},
		{metrics: ":http-metrics", want: "is no address and port"},
		{metrics: "localhost:99999", want: "is no address and port"},
		{metrics: ":8587", want: "MAILSIDECAR_METRICS_ADDR has the port of MAILSIDECAR_ADDR; give each its own"},
		{metrics: "127.0.0.1:8587", want: "has the port of MAILSIDECAR_ADDR"},
		{metrics: ":8443"}, // HTTPS is not served
		{metrics: ":8443", env: map[string]string{"MAILSIDECAR_TLS": "self-signed"}, want: "has the port of MAILSIDECAR_TLS_ADDR"},
	} {
		t.Run(tt.metrics, func(t *testing.T) {
			t.Setenv("MAILSIDECAR_METRICS_ADDR", tt.metrics)
			t.Setenv("MAILSIDECAR_API_KEYS", "shop:0123456789abcdef0123")
			t.Setenv("MAILSIDECAR_DATA_DIR", t.TempDir())
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			_, _, err := LoadService()
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("METRICS_ADDR=%s: %v, want no error", tt.metrics, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("METRICS_ADDR=%s: %v, want %q", tt.metrics, err, tt.want)
			}
		})
	}
}
