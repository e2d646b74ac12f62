package handler

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/keys"
	"mailsidecar/mailer"
	"mailsidecar/queue"
	store "mailsidecar/queue/memory"
	"mailsidecar/queue/queuetest"
)

// TestWhyOverHTTP: each attempt of a message says which relay it was and why, also after
// another relay failed, and after one may have taken the message.
func TestWhyOverHTTP(t *testing.T) {
	type attempt struct{ relay, why string }
	for name, tt := range map[string]struct {
		first, second queuetest.Verdict
		weights       [2]int
		keys          map[string]int // of the second
		want          []attempt
	}{
		"in order":                   {queuetest.Accept, queuetest.Accept, [2]int{}, nil, []attempt{{"first", "first"}}},
		"by weight":                  {queuetest.Accept, queuetest.Accept, [2]int{1, 1}, nil, []attempt{{"first", "weight"}}},
		"by key":                     {queuetest.Accept, queuetest.Accept, [2]int{}, map[string]int{"shop": 1}, []attempt{{"second", "key"}}},
		"after the first failed":     {queuetest.Unreachable, queuetest.Accept, [2]int{}, nil, []attempt{{"first", "first"}, {"second", "failover: first failed"}}},
		"after it may have taken it": {lostOnce(queuetest.Accept), queuetest.Accept, [2]int{}, nil, []attempt{{"first", "first"}, {"first", "may_have_taken"}}},
		"the second may have taken it": {
			queuetest.Unreachable, lostOnce(queuetest.Accept),
			[2]int{},
			nil,
			[]attempt{{"first", "first"}, {"second", "failover: first failed"}, {"second", "may_have_taken"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second := queuetest.NamedRelay("first", tt.first), queuetest.NamedRelay("second", tt.second)
				q := queuetest.Start(t, store.New(store.Options{}), func(o *queue.Options) {
					o.Routes = queue.Routes{{Relay: first, Weight: tt.weights[0]}, {Relay: second, Weight: tt.weights[1], Keys: tt.keys}}
				})
				s, err := New(Options{Submitter: q.Durable, Ledger: q.Durable, Keys: []keys.Entry{{Name: "shop", Secret: testKey}}})
				if err != nil {
					t.Fatal(err)
				}
				posted := read[api.Receipt](t, serve(s, newRequest(http.MethodPost, "/v1/messages", `{"from":"shop@example.com","to":["ana@example.org"],"subject":"Hi","text":"Hello"}`)))
				time.Sleep(time.Hour)
				m := read[api.Message](t, serve(s, newRequest(http.MethodGet, "/v1/messages/"+posted.ID, "")))
				var got []attempt
				for _, a := range m.Attempts {
					got = append(got, attempt{a.Relay, a.Why})
				}
				if len(got) != len(tt.want) || m.Status != "delivered" {
					t.Fatalf("attempts %q and status %s, want %q and delivered", got, m.Status, tt.want)
				}
				for i, want := range tt.want {
					if got[i] != want {
						t.Errorf("attempt %d: %q, want %q", i+1, got[i], want)
					}
				}
			})
		})
	}
}

// lostOnce loses the reply to the first message, and then says what v does.
func lostOnce(v queuetest.Verdict) queuetest.Verdict {
	return func(n int, path string) *mailer.Failure {
		if n == 1 {
			return queuetest.LostReply(n, path)
		}
		return v(n, path)
	}
}
