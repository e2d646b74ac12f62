package sendmail

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mailsidecar/api/apitest"
)

// TestImpostors: no answer but mailsidecar's own, with the message's id, counts as
// success, on the command line and in an SMTP session.
func TestImpostors(t *testing.T) {
	for name, handler := range apitest.Impostors() {
		t.Run(name, func(t *testing.T) {
			newRecordingServer(t, acceptedAnswer) // sets the environment
			server := httptest.NewServer(handler)
			t.Cleanup(server.Close)
			t.Setenv("MAILSIDECAR_URL", server.URL)
			if got := runWith(t, simpleMessage, "-t"); got.status != exitUnavailable || !strings.Contains(got.stderr, server.URL) {
				t.Errorf("sendmail = %+v, want status 69 and the server's address", got)
			}
			session := "EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
			if got := runWith(t, session, "-bs"); !strings.Contains(got.stdout, "\r\n451 4.") {
				t.Errorf("sendmail -bs = %+v, want 451 at the final dot", got)
			}
			if got := runWith(t, "", "-bp"); got.status == 0 {
				t.Errorf("mailq = %+v, want a failure", got)
			}
		})
	}
}

// TestOwnKey: each submission has an idempotency key of its own. A second message
// that is the same, Message-ID included, is a second message.
func TestOwnKey(t *testing.T) {
	server := newRecordingServer(t, acceptedAnswer)
	keys := map[string]bool{}
	for range 3 {
		if got := runWith(t, simpleMessage, "-t"); got != (outcome{}) {
			t.Fatalf("run = %+v, want status 0 and silence", got)
		}
		keys[server.requests[len(server.requests)-1].header.Get("Idempotency-Key")] = true
	}
	if len(keys) != 3 || keys[""] {
		t.Errorf("Idempotency-Keys = %v, want three different ones", keys)
	}
}

// TestBrokenConnection: a request whose connection broke is repeated once, with the same
// key, unless the server cannot tell what became of it.
func TestBrokenConnection(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers []string // empty: the connection breaks
		status  int
	}{
		{"then accepted", []string{"", acceptedAnswer}, 0},
		{"again", []string{"", ""}, exitUnavailable},
		{"then no queue", []string{"", `422 {"code":"queue_required","detail":"x"}`}, exitUnavailable},
		{"then under way", []string{"", `409 {"code":"idempotency_key_in_use","detail":"x"}`}, exitUnavailable},
		{"without a key", []string{`422 {"code":"queue_required","detail":"x"}`, ""}, exitUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			recorder := newRecordingServer(t, tt.answers...)
			keys := map[string]bool{}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				recorder.mu.Lock()
				keys[r.Header.Get("Idempotency-Key")] = true
				breaks := tt.answers[min(len(recorder.requests), len(tt.answers)-1)] == ""
				if breaks {
					recorder.requests = append(recorder.requests, recordedRequest{})
				}
				recorder.mu.Unlock()
				if breaks {
					_, _ = io.Copy(io.Discard, r.Body)
					panic(http.ErrAbortHandler)
				}
				recorder.serve(w, r)
			}))
			t.Cleanup(server.Close)
			t.Setenv("MAILSIDECAR_URL", server.URL)
			if got := runWith(t, simpleMessage, "-t"); got.status != tt.status {
				t.Errorf("run = %+v, want status %d", got, tt.status)
			}
			recorder.mu.Lock()
			defer recorder.mu.Unlock()
			if len(recorder.requests) != len(tt.answers) {
				t.Errorf("requests = %d, want %d", len(recorder.requests), len(tt.answers))
			}
			if delete(keys, ""); len(keys) != 1 {
				t.Errorf("keys = %v, want one", keys)
			}
		})
	}
}

// TestOlderServer: the answers of servers without the header are known by their form.
func TestOlderServer(t *testing.T) {
	older := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"01J","status":"queued","message_id":"<x@y>","recipients":[{"email":"ana@example.org","state":"queued"}]}`)
	}))
	t.Cleanup(older.Close)
	newRecordingServer(t, acceptedAnswer)
	t.Setenv("MAILSIDECAR_URL", older.URL)
	if got := runWith(t, simpleMessage, "-t"); got != (outcome{}) {
		t.Errorf("run = %+v, want status 0 and silence", got)
	}
}

// TestUntrusted: who meets a server whose certificate is not trusted is told which setting
// to change, and so is who speaks HTTP to the port of HTTPS.
func TestUntrusted(t *testing.T) {
	newRecordingServer(t, acceptedAnswer)
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	t.Setenv("MAILSIDECAR_URL", server.URL)
	if got := runWith(t, simpleMessage, "-t"); got.status != exitUnavailable || !strings.Contains(got.stderr, "MAILSIDECAR_TLS_CA_FILE must name a file") {
		t.Errorf("sendmail = %+v, want status 69 and MAILSIDECAR_TLS_CA_FILE", got)
	}
	misdirected := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Mailsidecar", "1")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusMisdirectedRequest)
		_, _ = io.WriteString(w, "use https:// in the client's URL\n")
	}))
	t.Cleanup(misdirected.Close)
	t.Setenv("MAILSIDECAR_URL", misdirected.URL)
	if got := runWith(t, simpleMessage, "-t"); got.status != exitUnavailable || !strings.Contains(got.stderr, "use https:// in the client's URL") {
		t.Errorf("sendmail = %+v, want status 69 and the server's words", got)
	}
}
