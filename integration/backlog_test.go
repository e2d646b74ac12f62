package integration

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"mailsidecar/integration/postfix"
)

// testBacklog sends more messages at a time than there are connections, so that the
// envelope of one goes out behind the content of another. Each recipient gets the
// right message once; a refused recipient does not affect the others.
func testBacklog(t *testing.T, relay *postfix.Server) {
	env := stored(t, relay, relay.Submission)
	env["SMTP_MAX_CONNECTIONS"] = "2"
	env["SMTP_MESSAGES_PER_CONNECTION"] = "15"
	s := serve(t, env)
	const boxes, each = 4, 15
	to := make([]string, boxes)
	for i := range to {
		to[i] = relay.Recipient(t)
	}
	var senders sync.WaitGroup
	for i := range boxes {
		senders.Go(func() {
			for n := range each {
				m := hello(to[i])
				m["subject"] = fmt.Sprintf("%d for %s", n, to[i])
				if a := s.send(t, m); a.HTTPStatus != http.StatusAccepted {
					t.Errorf("status %d, want 202: %s", a.HTTPStatus, a.Body)
				}
				if n%3 == 0 {
					s.send(t, hello("unknown@"+postfix.Domain))
				}
			}
		})
	}
	senders.Wait()
	for _, box := range to {
		subjects := map[string]int{}
		for _, m := range relay.Await(t, box, each) {
			subject := message(t, m.Data).Header.Get("Subject")
			subjects[subject]++
			if !strings.HasSuffix(subject, " for "+box) || subjects[subject] > 1 {
				t.Errorf("%s got %q %d times", box, subject, subjects[subject])
			}
		}
		if len(subjects) != each {
			t.Errorf("%s got %d messages, want %d", box, len(subjects), each)
		}
	}
	if log := relay.Log(); strings.Contains(log, "improper command pipelining") {
		t.Error("Postfix complains about the pipelining")
	}
}
