package handler

import (
	"bytes"
	"net/http"
	"net/mail"
	"strings"
	"testing"
	"time"

	"mailsidecar/queue"
)

// wantDate checks that a message has the Date at which it is sent; zero means now.
func wantDate(t *testing.T, name string, s queue.Submission, at time.Time) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(s.Content.Data))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	date, err := m.Header.Date()
	if at.IsZero() {
		at = time.Now()
	}
	if err != nil || date.Sub(at).Abs() > 2*time.Minute {
		t.Errorf("%s: Date = %v, %v, want %v", name, date, err, at)
	}
}

// TestScheduledDate: a message that waits has the Date at which it is sent, in each form
// of a request, unless it has its own.
func TestScheduledDate(t *testing.T) {
	own := time.Date(2026, 2, 2, 15, 4, 5, 0, time.UTC)
	for _, wait := range []time.Duration{30 * time.Hour, -30 * time.Hour, 0} {
		at, want := time.Now().Add(wait).Truncate(time.Second), time.Time{}
		if wait > 0 {
			want = at
		}
		when := at.Format(time.RFC3339)
		message := `{"from":"a@example.com","to":"b@example.org","subject":"x","text":"x","send_at":"` + when + `"}`
		dated := strings.Replace(message, "{", `{"headers":{"Date":"Mon, 02 Feb 2026 15:04:05 +0000"},`, 1)
		form := func(path string, parts ...string) *http.Request {
			var b strings.Builder
			for i := 0; i < len(parts); i += 2 {
				b.WriteString("--x\r\nContent-Disposition: form-data; name=" + parts[i] + "\r\n\r\n" + parts[i+1] + "\r\n")
			}
			return formRequest(path, "multipart/form-data; boundary=x", b.String()+"--x--\r\n")
		}
		for name, tt := range map[string]struct {
			r    *http.Request
			want time.Time
		}{
			"JSON":             {newRequest("POST", "/v1/messages", message), want},
			"JSON with a Date": {newRequest("POST", "/v1/messages", dated), own},
			"batch":            {newRequest("POST", "/v1/messages/batch", `{"messages":[`+message+`]}`), want},
			"form":             {form("/v1/messages", "from", "a@example.com", "to", "b@example.org", "text", "x", "send_at", when), want},
		} {
			q := &fakeQueue{durable: true}
			s := newTestServer(t, q, nil)
			if a := serve(s, tt.r); a.status >= 300 || len(q.submissions()) != 1 {
				t.Errorf("%s: %d %s", name, a.status, text(a))
				continue
			}
			wantDate(t, name, q.submissions()[0], tt.want)
		}
	}
}
