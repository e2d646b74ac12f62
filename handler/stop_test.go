package handler

import (
	"bufio"
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/api"
	"mailsidecar/queue"
)

// TestStopEndsComposing: at each door a message that is still being composed when the
// time for a stop runs out gets an answer, and is not stored.
func TestStopEndsComposing(t *testing.T) {
	q := &fakeQueue{durable: true}
	s := newTestServer(t, q, nil)
	requests := map[string]func() *http.Request{
		"JSON": func() *http.Request { return newRequest("POST", "/v1/messages", goodMessage) },
		"batch": func() *http.Request {
			return newRequest("POST", "/v1/messages/batch", `{"messages":[`+goodMessage+`]}`)
		},
		"raw": func() *http.Request {
			return newRequest("POST", "/v1/messages", "From: a@example.com\r\nTo: b@example.com\r\n\r\nHi\r\n", "Content-Type: message/rfc822")
		},
		"form": func() *http.Request {
			body := form("x", "name=from\na@example.com", "name=to\nb@example.com", "name=text\nHi")
			return newRequest("POST", "/v1/messages", body, "Content-Type: multipart/form-data; boundary=x")
		},
	}
	for name, one := range apis {
		requests[name] = func() *http.Request { return one.request(name, strings.NewReader(one.body)) }
	}
	for _, name := range slices.Sorted(maps.Keys(requests)) {
		if a := serve(s, requests[name]()); a.status/100 != 2 {
			t.Errorf("%s before the stop = %d %s, want success", name, a.status, text(a))
		}
	}
	stored := len(q.submissions())
	s.stopComposing()
	for _, name := range slices.Sorted(maps.Keys(requests)) {
		if a := serve(s, requests[name]()); a.status/100 != 5 || !strings.Contains(text(a), "shutting down") {
			t.Errorf("%s at the end of the stop = %d %s, want 5xx, shutting down", name, a.status, text(a))
		}
	}
	if got := len(q.submissions()); got != stored {
		t.Errorf("%d messages were stored at the end of the stop", got-stored)
	}
	if p := read[api.Problem](t, serve(s, requests["JSON"]())); p.Code != api.CodeShuttingDown {
		t.Errorf("code = %s, want %s", p.Code, api.CodeShuttingDown)
	}
}

// TestStopLeavesTime: composing is given up when a quarter of the time is left.
func TestStopLeavesTime(t *testing.T) {
	q := &fakeQueue{durable: true, delay: 7 * time.Second}
	withServer(t, q, func(t *testing.T, s *Server, conn net.Conn, r *bufio.Reader) {
		send(t, conn, post+"Content-Length: "+strconv.Itoa(len(goodMessage))+"\r\n\r\n"+goodMessage)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		began := time.Now()
		ended := make(chan time.Duration, 1)
		context.AfterFunc(s.composing, func() { ended <- time.Since(began) })
		composing := s.untilStopped(t.Context())
		if err := composing.Err(); err != nil {
			t.Errorf("before the stop: %v", err)
		}
		stopped := make(chan error, 1)
		go func() { stopped <- s.Shutdown(ctx) }()
		if a := readAnswer(t, r); a.status != http.StatusAccepted {
			t.Errorf("a message that is being stored = %d, want 202", a.status)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if took := <-ended; took != 6*time.Second || !errors.Is(composing.Err(), queue.ErrShuttingDown) {
			t.Errorf("composing was given up after %v with %v, want 6s", took, composing.Err())
		}
	})
}
