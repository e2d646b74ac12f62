package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// FuzzLoad: reading any environment does not panic, and
// neither errors, warnings nor the effective configuration show a secret.
func FuzzLoad(f *testing.F) {
	f.Add("587,2525", "shop", "x", "25MiB", "7d", "sqlite", "gmail")
	f.Add("465/tls,587/starttls", "", ",b:c", "1 kb", "1d12h", "none", "ses:eu-west-1")
	f.Add("0", "a,b", "\n", "9223372036854775807GiB", "32767d2562047h", "postgres://u:p@h/d", "x")
	f.Add("587/", "a:b", " ", "", "-1s", "sqlite::memory:", "outlook")
	f.Add(" ", "a", ",", "0x10", "1dd", ":", ":")
	f.Fuzz(func(t *testing.T, ports, keyName, keyRest, size, duration, queue, provider string) {
		const secret = "s3cr3t-0f-th3-fuzz3r"
		e := env{
			"SMTP_HOST=relay.example.com", "SMTP_PORTS=" + ports, "SMTP_PROVIDER=" + provider,
			"SMTP_USERNAME=" + keyName, "SMTP_PASSWORD=" + secret + keyRest, "SMTP_SENDERS=" + keyName, "SMTP_HELO=" + keyName,
			"SMTP_OAUTH2_CLIENT_ID=" + keyName, "SMTP_OAUTH2_CLIENT_SECRET=" + secret, "SMTP_OAUTH2_TENANT=" + keyName, "SMTP_OAUTH2_PROVIDER=microsoft",
			"SMTP_OAUTH2_TOKEN_URL=" + queue, "SMTP2_HOST=" + queue, "SMTP2_PASSWORD_FILE=" + secret, "SMTP2_AUTH=" + secret,
			"MAILSIDECAR_API_KEYS=" + keyName + ":" + secret + keyRest, "MAILSIDECAR_ADDR=" + ports, "MAILSIDECAR_FROM=" + keyName,
			"MAILSIDECAR_QUEUE=" + queue, "MAILSIDECAR_DATA_DIR=/data",
			"MAILSIDECAR_MAX_MESSAGE_SIZE=" + size, "MAILSIDECAR_MAX_IN_FLIGHT=" + size, "MAILSIDECAR_MAX_RECIPIENTS=" + size,
			"MAILSIDECAR_RETENTION=" + duration, "MAILSIDECAR_EXPIRES_IN=" + duration, "MAILSIDECAR_WAIT=" + duration,
			"MAILSIDECAR_ALERTS=https://hooks.slack.com/services/" + secret + "," + queue, "MAILSIDECAR_HEARTBEAT_URL=https://hc-ping.com/" + secret + keyRest,
			"MAILSIDECAR_URL=" + queue, "MAILSIDECAR_API_KEY=" + secret, "MAILSIDECAR_APIKEY=" + secret,
		}
		for _, entry := range e {
			if strings.ContainsRune(entry, 0) {
				t.Skip("no environment can hold it")
			}
		}
		setenv(t, e)
		c, warnings, err := Load()
		client, clientErr := LoadClient()
		data, jsonErr := json.Marshal(c)
		if jsonErr != nil {
			t.Fatal(jsonErr)
		}
		printed := fmt.Sprintln(warnings, err, clientErr, c.Effective(), c.LogValue(), string(data)) + fmt.Sprintf("%v %+v %#v %v", c, c, c, client)
		if i := strings.Index(printed, secret); i >= 0 {
			t.Errorf("a secret was printed: %q", printed[max(0, i-60):i+len(secret)])
		}
	})
}

// FuzzValues: what a value prints as is read back as the same value.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"587,465/starttls,2525/tls", "sqlite:/x", "none"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var l, l2 Ladder
		if l.Decode(s) == nil && (l2.Decode(l.String()) != nil || l2.String() != l.String() || len(l) == 0) {
			t.Errorf("Ladder.Decode(%q) = %s, which reads as %s", s, l, l2)
		}
		var q, q2 Queue
		if q.Decode(s) == nil && (q2.Decode(q.String()) != nil || q2 != q) {
			t.Errorf("Queue.Decode(%q) = %s, which reads as %s", s, q, q2)
		}
	})
}
