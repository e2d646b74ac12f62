package cli

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/service"
)

// run runs a command as main does, with nothing on standard input.
func run(ctx context.Context, args ...string) (status int, out, errOut string) {
	var o, e bytes.Buffer
	status = Run(ctx, args, Streams{In: strings.NewReader(""), Out: &o, Err: &e})
	return status, o.String(), e.String()
}

// clearEnv takes away what the machine's own environment could change.
func clearEnv(t *testing.T) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "SMTP") || strings.HasPrefix(name, "MAILSIDECAR_") {
			t.Setenv(name, "")
		}
	}
}

func TestStatus(t *testing.T) {
	clearEnv(t)
	answers := map[string]http.HandlerFunc{
		"ready":     answerWith(200, "ok\n"),
		"not ready": answerWith(503, "not ready\n"),
		"delivered": answerWith(200, `{"id":"M","status":"delivered","recipients":[{"email":"a@example.org","state":"delivered"}]}`),
		"queued":    answerWith(202, `{"id":"M","status":"queued","recipients":[{"email":"a@example.org","state":"queued"}]}`),
		"paused": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/relays" {
				answerWith(200, `{"relays":[{"name":"good","status":"up"},{"name":"bad","status":"paused","paused_until":"2030-01-31T08:00:00Z",
					"failure":{"stage":"auth","reply_code":535,"enhanced_code":"5.7.8","text":"wrong password"}}]}`)(w, r)
				return
			}
			answerWith(202, `{"id":"M","status":"queued","recipients":[{"email":"a@example.org","state":"queued"}]}`)(w, r)
		},
		"one bounced": answerWith(200, `{"id":"M","status":"partial","recipients":[{"email":"a@example.org","state":"bounced"}]}`),
		"rejected":    answerWith(422, `{"title":"Refused","code":"rejected"}`),
		"no key":      answerWith(401, `{"title":"Key","code":"unauthorized"}`),
		"refused": answerWith(422, `{"title":"Refused","code":"rejected","request_id":"R","id":"M",
			"recipients":[{"email":"a@example.org","state":"bounced"}]}`),
		"fields": answerWith(422, `{"title":"Not as it is","code":"invalid_message","detail":"from: is missing",
			"errors":[{"field":"from","message":"is missing"}]}`),
		"deferred":  answerWith(502, `{"title":"Later","code":"relay_deferred","retryable":true}`),
		"uncertain": answerWith(504, `{"title":"Who knows","code":"uncertain"}`),
		"internal":  answerWith(500, `{"title":"Broken","code":"internal"}`),
		"a proxy":   answerWith(502, `<html>Bad Gateway</html>`),
		"cut":       answerWith(200, `{"status":`),
		"dropped":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	send := []string{"send", "--to", "a@example.org", "--text", "x"}
	for _, c := range []struct {
		answer string
		args   []string
		want   int
		say    string // on either output
	}{
		{"ready", []string{"healthcheck"}, 0, "ready: http://"},
		{"not ready", []string{"healthcheck"}, 1, "503 Service Unavailable"},
		{"not ready", []string{"healthcheck", "--wait", "30ms"}, 1, "503 Service Unavailable"},
		{"delivered", send, 0, "a@example.org   delivered"},
		{"queued", send, 0, "queued"},
		{"paused", send, 0, "queued   \nThe relay bad is paused until " + localTime(time.Date(2030, 1, 31, 8, 0, 0, 0, time.UTC)) + ": auth: 535 5.7.8 wrong password\n"},
		{"queued", append(send, "--expires-in", "1d12h", "--wait", "3"), 0, "queued"},
		{"queued", append(send, "--wait", "2m"), 64, "60 s at most"},
		{"ready", []string{"healthcheck", "--wait", "1"}, 0, "ready"},
		{"one bounced", send, 65, "bounced"},
		{"rejected", send, 65, "Refused"},
		{"rejected", append(send, "--json"), 65, `"code": "rejected"`},
		{"no key", send, 77, "no key was sent: set MAILSIDECAR_API_KEY to the secret"},
		{"refused", send, 65, "message M: failed\n  a@example.org   bounced"},
		{"refused", send, 65, "(HTTP 422, rejected, request R)"},
		{"fields", send, 65, "as it is\n  --from: is missing\n  (HTTP 422"},
		{"deferred", send, 75, "Later"},
		{"uncertain", send, 76, "Who knows"},
		{"internal", send, 69, "Broken"},
		{"a proxy", send, 69, "cannot be read"},
		{"cut", send, 76, "cannot be read"},
		{"dropped", send, 76, "may have done"},
		{"ready", []string{"chekc"}, 64, "did you mean check?"},
		{"ready", []string{"healthcheck", "now"}, 64, "takes no argument"},
		{"ready", []string{"send", "--text", "x"}, 64, "--to is missing"},
		{"ready", []string{"queue", "show"}, 64, "takes the id of a message"},
		{"ready", []string{"queue", "retry"}, 64, "name messages by their ids"},
		{"ready", []string{"queue", "list", "--since", "soon"}, 64, "--since"},
	} {
		server := httptest.NewServer(answers[c.answer])
		t.Setenv("MAILSIDECAR_URL", server.URL)
		status, out, errOut := run(t.Context(), c.args...)
		if status != c.want || !strings.Contains(out+errOut, c.say) {
			t.Errorf("%s: Run(%q) = %d, want %d and %q; it says\n%s%s", c.answer, c.args, status, c.want, c.say, out, errOut)
		}
		server.Close()
	}
}

// TestQueueListGoesOn: a search whose pages are cut short goes on to the end, and says
// how far it is.
func TestQueueListGoesOn(t *testing.T) {
	clearEnv(t)
	pages := map[string]string{
		"":   `{"messages": [], "next": "c1", "searched_back_to": "2030-01-31T08:00:00Z"}`,
		"c1": `{"messages": [{"id": "id-1"}], "next": "c2", "searched_back_to": "2030-01-30T08:00:00Z"}`,
		"c2": `{"messages": [{"id": "id-2"}]}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answerWith(200, pages[r.URL.Query().Get("cursor")])(w, r)
	}))
	defer server.Close()
	t.Setenv("MAILSIDECAR_URL", server.URL)
	status, out, errOut := run(t.Context(), "queue", "list", "--recipient", "ana@example.org")
	told := strings.Count(errOut, "Searched back to ") == 2 && strings.Contains(errOut, "1 found; going on. --since and --until")
	if status != 0 || !strings.Contains(out, "id-1") || !strings.Contains(out, "id-2") || !told {
		t.Errorf("queue list over pages that are cut short = %d, says\n%s%s", status, out, errOut)
	}
}

func answerWith(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(api.HeaderOwn, "1")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestSendPriority(t *testing.T) {
	clearEnv(t)
	eml := filepath.Join(t.TempDir(), "a.eml")
	if err := os.WriteFile(eml, []byte("From: a@example.com\r\n\r\nx\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args          []string
		field, inBody string
	}{
		{[]string{"--text", "x"}, "", `"text":"x"}`},
		{[]string{"--text", "x", "--priority", "bulk"}, "", `"priority":"bulk"`},
		{[]string{"--eml", eml, "--priority", "high"}, "high", "From: "},
	} {
		var field, body string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			data, _ := io.ReadAll(r.Body)
			field, body = r.Header.Get("Envelope-Priority"), string(data)
			answerWith(202, `{"id":"M","status":"queued"}`)(w, r)
		}))
		t.Setenv("MAILSIDECAR_URL", server.URL)
		args := append([]string{"send", "--to", "a@example.org"}, c.args...)
		if status, _, errOut := run(t.Context(), args...); status != 0 || field != c.field || !strings.Contains(body, c.inBody) {
			t.Errorf("Run(%q) = %d %s, sends Envelope-Priority %q and %q, want %q and %q", args, status, errOut, field, body, c.field, c.inBody)
		}
		server.Close()
	}
}

// What the service says of the configuration decides the status, however it is
// wrapped.
func TestExitStatus(t *testing.T) {
	wrong := &service.ConfigError{Setting: "SMTP_HOST", Err: errors.New("is wrong")}
	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("x"), exitFailure},
		{fmt.Errorf("start: %w", errors.Join(wrong, errors.New("x"))), exitConfig},
		{&service.ListenError{Setting: "MAILSIDECAR_ADDR", Addr: ":1", Err: errors.New("x")}, exitFailure},
		{exit(exitTransient, "later: %w", wrong), exitTransient},
	} {
		if got := exitStatus(c.err); got != c.want {
			t.Errorf("exitStatus(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

// A server with a certificate of a private authority is trusted by name of file.
func TestClientTrust(t *testing.T) {
	clearEnv(t)
	server := httptest.NewUnstartedServer(answerWith(200, "ok\n"))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	t.Setenv("MAILSIDECAR_URL", server.URL)
	if status, _, errOut := run(t.Context(), "healthcheck"); status != 1 {
		t.Errorf("healthcheck without the authority = %d %q, want 1", status, errOut)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MAILSIDECAR_TLS_CA_FILE", file)
	if status, _, errOut := run(t.Context(), "healthcheck"); status != 0 {
		t.Errorf("healthcheck with the authority = %d %q, want 0", status, errOut)
	}
}

// The demo is the whole product: server, relay connection and relay.
func TestDemo(t *testing.T) {
	clearEnv(t)
	status, out, errOut := run(t.Context(), "demo", "--once")
	if status != 0 || errOut != "" {
		t.Fatalf("demo --once = %d, %q", status, errOut)
	}
	if strings.Contains(out, "curl") {
		t.Errorf("demo --once offers a server that is gone:\n%s", out)
	}
	for _, want := range []string{"port 587 ", "port 2525 ", "TLS 1.3", "AUTH ", "250 2.0.0", "200 OK", "| Subject: Your order 1042"} {
		if !strings.Contains(out, want) {
			t.Errorf("demo --once prints\n%s\nwant %q", out, want)
		}
	}
	// The dial of a dead port ends after 5 s.
	m := regexp.MustCompile(`port 587    no answer after (\S+):`).FindStringSubmatch(out)
	if len(m) == 0 {
		t.Fatalf("demo --once prints\n%s\nwant how long port 587 did not answer", out)
	}
	if took, err := time.ParseDuration(m[1]); err != nil || took >= 5*time.Second {
		t.Errorf("demo --once waited %s for the dead port", m[1])
	}
}

func TestDemoAddressTaken(t *testing.T) {
	clearEnv(t)
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	addr := server.Listener.Addr().String()
	if status, _, errOut := run(t.Context(), "demo", "--addr", addr); status != exitFailure || !strings.Contains(errOut, "--addr: "+addr+" is taken") {
		t.Errorf("demo --addr %s = %d, %q", addr, status, errOut)
	}
}

// endWriter keeps what is written, and calls end once it has the text until.
type endWriter struct {
	bytes.Buffer
	until string
	end   func()
}

func (w *endWriter) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if strings.Contains(w.String(), w.until) {
		w.end()
	}
	return n, err
}

// The demo says which address shows a bounce, and its relay refuses that address.
func TestDemoRefuses(t *testing.T) {
	clearEnv(t)
	const refused = "nobody@example.org"
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out := &endWriter{until: "Ctrl-C ends the demo", end: cancel}
	d := demo{out: out, errOut: io.Discard, addr: "127.0.0.1:0"}
	if err := d.run(ctx); err != nil || !strings.Contains(out.String(), refused) {
		t.Errorf("demo = %v, prints\n%s\nwant what its relay refuses, %s", err, out, refused)
	}
	if err := new(demoSession).Rcpt(refused, nil); err == nil {
		t.Errorf("the demo's relay takes mail to %s", refused)
	}
}

// A demo that is interrupted ends in order, wherever it is.
func TestDemoInterrupted(t *testing.T) {
	clearEnv(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if status, _, errOut := run(ctx, "demo"); status != 0 || errOut != "" {
		t.Errorf("interrupted demo = %d, %q", status, errOut)
	}
}
