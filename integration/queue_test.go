package integration

import (
	"net/http"
	"strings"
	"testing"

	"mailsidecar/integration/machine"
	"mailsidecar/integration/postfix"
)

// stored is the configuration for one relay with the default queue.
func stored(t *testing.T, relay realRelay, ports ...any) environment {
	t.Helper()
	env := bridge(t, relay, ports...)
	delete(env, "MAILSIDECAR_QUEUE")
	env["MAILSIDECAR_DATA_DIR"] = t.TempDir()
	return env
}

// testQueued: the answer comes once the message is stored; the mail follows.
func testQueued(t *testing.T, relay *postfix.Server) {
	to := relay.Recipient(t)
	s := serve(t, stored(t, relay, machine.FreePort(t), relay.Submission))
	a := s.send(t, hello(to))
	wantStatus(t, a, http.StatusAccepted)
	relay.Await(t, to, 1)
	if got := s.awaitStatus(t, a.ID, "delivered"); got.Recipients[0].ReplyCode != 250 {
		t.Errorf("recipient = %+v, want delivered with 250", got.Recipients[0])
	}
}

// testQueuedWait: Prefer: wait answers with the first attempt's outcome.
func testQueuedWait(t *testing.T, relay *postfix.Server) {
	s := serve(t, stored(t, relay, relay.Submission))
	header := http.Header{"Prefer": {"wait=10"}, "Envelope-From": {"shop@example.com"}}
	to := relay.Recipient(t)
	header.Set("Envelope-To", to)
	a := s.post(t, "message/rfc822", []byte(finished), header)
	wantStatus(t, a, http.StatusOK)
	if got := relay.Await(t, to, 1)[0]; string(got.Data) != finished {
		t.Errorf("delivered:\n%q\nwant:\n%q", got.Data, finished)
	}
	header.Set("Envelope-To", "unknown@"+postfix.Domain)
	a = s.post(t, "message/rfc822", []byte(finished), header)
	wantStatus(t, a, http.StatusUnprocessableEntity)
	if a.Code != "rejected" || !strings.Contains(a.Body, "User unknown in virtual mailbox table") {
		t.Errorf("answer = %s, want rejected with Postfix's own words", a.Body)
	}
}

// testKilled is the promise: mail that was accepted while no relay could be reached
// goes out once, although the process is killed.
func testKilled(t *testing.T, relay *postfix.Server) {
	to := relay.Recipient(t)
	env := stored(t, relay, machine.FreePort(t))
	s := serve(t, env)
	var ids []string
	for range 5 {
		a := s.send(t, hello(to))
		wantStatus(t, a, http.StatusAccepted)
		ids = append(ids, a.ID)
	}
	s.kill(t)

	env["SMTP_PORTS"] = bridge(t, relay, relay.Submission)["SMTP_PORTS"]
	s = serve(t, env)
	for _, id := range ids {
		s.awaitStatus(t, id, "delivered")
	}
	if n := len(relay.Await(t, to, len(ids))); n != len(ids) {
		t.Errorf("%d messages delivered, want %d", n, len(ids))
	}
}

// awaitStatus asks for a message until it has the status. It retries a deferred
// message, so that the test need not wait for the schedule.
func (s *sidecar) awaitStatus(t *testing.T, id, want string) answer {
	t.Helper()
	var a answer
	reached := machine.Wait(func() bool {
		a = s.request(t, http.MethodGet, "/v1/messages/"+id, nil, nil)
		wantStatus(t, a, http.StatusOK)
		if a.Status == "deferred" && want != "deferred" {
			s.request(t, http.MethodPost, "/v1/messages/"+id+"/retry", nil, nil)
		}
		return a.Status == want
	})
	if !reached {
		t.Fatalf("status = %v, want %s\n%s", a.Status, want, a.Body)
	}
	return a
}
