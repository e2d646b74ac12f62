package handler

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/queue"
	"mailsidecar/units"
)

// permit is a route, and a request there that nothing is wrong with.
type permit struct {
	route string // as echo has it
	// target is the path of the request; empty: that of the route, with id-1 as its id.
	target      string
	contentType string
	body        string
	header      []string // further fields, "Name: value"
	// provider is whose clients ask there; empty for the native API.
	provider string
	// open says that no key is needed.
	open bool
	// needs are the roles without which it is closed.
	needs keys.Role
	// sends says that the request sends mail of shop@example.com, names that the request
	// is for a sender.
	sends, names bool
	// looks says that the sender is that of a stored message, which is looked up first.
	looks bool
	// status is that of the answer if nothing is denied; default 200.
	status int
	// senderStatus is that for a wrong sender; default the provider's.
	senderStatus int
}

// permits has one for each route, at least. A new route needs one here, or the test fails.
func permits() []permit {
	compat := func(provider, route, body string) permit {
		return permit{route: "POST " + route, provider: provider, contentType: apis[provider].contentType, body: body, needs: keys.Send, sends: true, status: apis[provider].status}
	}
	refused := func(path string) permit {
		d := compat("postmark", path, "{}")
		d.sends, d.status = false, 422
		return d
	}
	all := []permit{
		{route: "GET /livez", open: true},
		{route: "HEAD /livez", open: true},
		{route: "GET /readyz", open: true},
		{route: "HEAD /readyz", open: true},
		{route: "GET /healthz/flow", open: true},
		{route: "HEAD /healthz/flow", open: true},
		{route: "GET /v1/stats", needs: keys.Read},
		{route: "GET /v1/stats", needs: keys.Read, target: "/v1/stats?key=shop"},
		{route: "GET /v1/stats", needs: keys.Admin, target: "/v1/stats?key=another"},
		{route: "GET /v1/stats", needs: keys.Read, target: "/v1/stats?days=7"},
		{route: "GET /v1/keys", needs: keys.Admin},
		{route: "GET /v1/settings", needs: keys.Admin},
		{route: "GET /v1/events", needs: keys.Admin},
		{route: "GET /openapi.yaml"},
		{route: "GET /metrics", needs: keys.Admin},
		{route: "GET /v1/relays"},
		{route: "POST /v1/relays/check"},
		{route: "POST /v1/relays/check", target: "/v1/relays/check?from=shop@example.com", names: true},
		{route: "POST /v1/relays/:name/pause", target: "/v1/relays/relay/pause", needs: keys.Admin, body: `{"for":"2h"}`},
		{route: "POST /v1/relays/:name/resume", target: "/v1/relays/relay/resume", needs: keys.Admin},
		{route: "GET /v1/drain", needs: keys.Admin},
		{route: "POST /v1/drain", needs: keys.Admin},
		{route: "DELETE /v1/drain", needs: keys.Admin},
		{route: "POST /v1/messages", needs: keys.Send, sends: true, body: goodMessage, status: 202},
		{route: "POST /v1/messages", needs: keys.Send, sends: true, status: 202, contentType: intake.TypeForm + "; boundary=x", body: formMessage},
		{
			route: "POST /v1/messages", needs: keys.Send, sends: true, status: 202, contentType: intake.TypeRFC822,
			body: "From: shop@example.com\r\nTo: ana@example.org\r\n\r\nHello\r\n",
		},
		{
			route: "POST /v1/messages", needs: keys.Send, sends: true, status: 202, contentType: intake.TypeRFC822,
			header: []string{"Envelope-To: ana@example.org"}, body: "From: shop@example.com\r\n\r\nHello\r\n",
		},
		{route: "POST /v1/messages/batch", needs: keys.Send, sends: true, body: `{"messages":[` + goodMessage + `]}`, status: 202, senderStatus: 422},
		{route: "GET /v1/messages", needs: keys.Read},
		{route: "GET /v1/messages", needs: keys.Admin, target: "/v1/messages?key=another"},
		{route: "GET /v1/messages", needs: keys.Read, target: "/v1/messages?key=shop"},
		{route: "GET /v1/messages/:id", needs: keys.Read},
		{route: "GET /v1/messages/:id/content", needs: keys.Read},
		{route: "POST /v1/messages/:id/retry", needs: keys.Send | keys.Read},
		{route: "POST /v1/messages/retry", needs: keys.Send | keys.Read, body: `{"status":"failed"}`},
		{route: "POST /v1/messages/retry", needs: keys.Admin, body: `{"key":"another"}`},
		{route: "GET /v1/messages/count", needs: keys.Read},
		{route: "GET /v1/messages/count", needs: keys.Admin, target: "/v1/messages/count?key=another"},
		{route: "POST /v1/messages/cancel", needs: keys.Send | keys.Read, body: `{"status":"queued"}`},
		{route: "POST /v1/messages/cancel", needs: keys.Admin, body: `{"key":"another","dry_run":true}`},
		{route: "POST /v1/messages/:id/resend", needs: keys.Send | keys.Read, sends: true, looks: true, body: `{"to":"ana@example.org"}`, status: 202},
		{route: "DELETE /v1/messages/:id", needs: keys.Send | keys.Read},

		compat("mailgun", "/v3/:domain/messages", formBody),
		compat("mailgun", "/v3/:domain/messages.mime", ""),
		compat("postmark", "/email/batch", "["+apis["postmark"].body+"]"),
		refused("/email/withTemplate"), refused("/email/batchWithTemplates"), refused("/email/bulk"),
		compat("resend", "/emails/batch", "["+apis["resend"].body+"]"),
		{route: "GET /emails/:id", provider: "resend", needs: keys.Read},
		{route: "PATCH /emails/:id", provider: "resend", needs: keys.Send | keys.Read, body: `{"scheduled_at":"in 10 minutes"}`},
		{route: "POST /emails/:id/cancel", provider: "resend", needs: keys.Send | keys.Read},
		compat("mailersend", "/v1/bulk-email", "["+apis["mailersend"].body+"]"),
	}
	for name, a := range apis {
		if name != "mailgun" {
			all = append(all, compat(name, a.path, a.body))
		}
	}
	for i := range all {
		switch d := &all[i]; d.route {
		case "POST /email/batch": // an answer for each message
			d.senderStatus = 200
		case "POST /v3/:domain/messages.mime":
			d.contentType = intake.TypeForm + "; boundary=x"
			d.body = "--x\r\nContent-Disposition: form-data; name=\"to\"\r\n\r\nana@example.org\r\n" +
				"--x\r\nContent-Disposition: form-data; name=\"message\"; filename=\"m\"\r\n\r\nFrom: shop@example.com\r\nTo: ana@example.org\r\n\r\nHello\r\n\r\n--x--\r\n"
		}
	}
	return all
}

const formMessage = "--x\r\nContent-Disposition: form-data; name=\"from\"\r\n\r\nshop@example.com\r\n" +
	"--x\r\nContent-Disposition: form-data; name=\"to\"\r\n\r\nana@example.org\r\n" +
	"--x\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nHello\r\n--x--\r\n"

func (d permit) request(secret string) *http.Request {
	method, path, _ := strings.Cut(d.route, " ")
	if d.target != "" {
		path = d.target
	}
	path = strings.NewReplacer(":id", "id-1", ":domain", "mg.example.com").Replace(path)
	r := httptest.NewRequest(method, path, strings.NewReader(d.body))
	if d.body == "" {
		r.Body = http.NoBody
	}
	r.Header.Set("Content-Type", intake.TypeJSON)
	if d.contentType != "" {
		r.Header.Set("Content-Type", d.contentType)
	}
	for _, f := range d.header {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Set(name, value)
	}
	if secret != "" {
		authorize(r, d.provider, secret)
	}
	return r
}

// asker is what the server knows of the one who asks.
type asker struct {
	secret string // what is sent
	roles  []string
	sender bool // of another address than the key may use
	rated  bool // the key's rate is used up
}

// has are the asker's roles.
func (c asker) has() keys.Role {
	roles, err := keys.ParseRoles(c.roles)
	if err != nil {
		panic(err)
	}
	return roles
}

// denied says why the request is refused, and its status; empty where it is not.
func (d permit) denied(c asker) (code api.Code, status int) {
	special := func(byDefault int, of map[string]int) int {
		if s, ok := of[d.provider]; ok {
			return s
		}
		return byDefault
	}
	or := func(given, byDefault int) int {
		if given != 0 {
			return given
		}
		return byDefault
	}
	switch {
	case d.open:
		return "", 0
	case c.secret == "":
		return api.CodeUnauthorized, special(401, map[string]int{"ses": 403})
	case c.secret != testKey:
		return api.CodeUnauthorized, special(401, map[string]int{"ses": 403, "resend": 403})
	case c.has()&d.needs != d.needs:
		return api.CodeRoleRequired, special(403, map[string]int{"postmark": 401, "resend": 401})
	case c.sender && (d.sends || d.names):
		return api.CodeSenderNotAllowed, or(d.senderStatus, special(403, map[string]int{"postmark": 422, "ses": 400}))
	case c.rated && d.sends:
		return api.CodeRateLimited, 429
	}
	return "", 0
}

// clients are all kinds there are.
func askers() []asker {
	all := []asker{{}, {secret: "wrong"}}
	for _, roles := range [][]string{nil, {"send"}, {"read"}, {"send", "read"}, {"admin"}} {
		for _, sender := range []bool{false, true} {
			for _, rated := range []bool{false, true} {
				all = append(all, asker{secret: testKey, roles: roles, sender: sender, rated: rated})
			}
		}
	}
	return all
}

func (c asker) server(t *testing.T, q *fakeQueue) *Server {
	return newTestServer(t, q, func(o *Options) {
		k := &o.Keys[0]
		k.Roles = c.roles
		if c.sender {
			k.Senders = []string{"example.net"}
		}
		if c.rated {
			k.Rate = units.Rate{Messages: 1, Per: time.Hour}
		}
		operator := &fakeOperator{}
		o.Operator, o.Relays = operator, &operatedRelays{operator: operator}
		o.Metrics, o.Settings, o.Events = noMetrics, noSettings, noEvents
	})
}

// TestDenials: every kind of asker at every route. What is refused reaches neither queue
// nor relay, and says why.
func TestDenials(t *testing.T) {
	for _, d := range permits() {
		for _, c := range askers() {
			t.Run(fmt.Sprintf("%s/%+v", d.route, c), func(t *testing.T) {
				q := stored()
				q.message = queue.Message{ID: "id-1", Sender: "shop@example.com", Recipients: []queue.Recipient{{ForwardPath: "ana@example.org", State: queue.Canceled}}}
				q.content = []byte("From: shop@example.com\r\n\r\nhello\r\n")
				s := c.server(t, q)
				if c.rated {
					useUp(s.keys.Rated())
				}
				q.filter, q.limit = queue.Filter{}, 0 // the server has looked for what uses the rates
				got := serve(s, d.request(c.secret))
				code, status := d.denied(c)
				if code == "" {
					d.checkServed(t, c, q, got)
					return
				}
				if got.status != status || d.provider == "" && !strings.Contains(text(got), `"`+string(code)+`"`) {
					t.Errorf("answer = %d %s, want %d for %s", got.status, text(got), status, code)
				}
				if n := len(q.submissions()); n > 0 || q.scope != nil && !d.looks || q.limit != 0 || q.filter.Key != "" {
					t.Errorf("%d messages were submitted, and %v %+v looked for", n, q.scope, q.filter)
				}
				if code == api.CodeRoleRequired && !strings.Contains(text(got), fmt.Sprintf("the key shop has the %s only", c.has())) {
					t.Errorf("answer = %s, want the roles", text(got))
				}
				if d.provider != "" && got.status >= 400 {
					checkShape(t, d.provider, d.route, got, text(got))
				}
			})
		}
	}
}

// checkServed checks an answer that nothing was in the way of: the request saw the messages
// that it may see.
func (d permit) checkServed(t *testing.T, c asker, q *fakeQueue, got answer) {
	t.Helper()
	want := 200
	if d.status != 0 {
		want = d.status
	}
	if got.status != want {
		t.Errorf("answer = %d %s, want %d", got.status, text(got), want)
	}
	if n := len(q.submissions()); d.sends != (n == 1) {
		t.Errorf("%d messages were submitted", n)
	}
	scope := "shop"
	switch {
	case strings.Contains(d.target+d.body, "another"):
		scope = "another"
	case d.open || c.has()&keys.Admin != 0 && !strings.HasSuffix(d.target, "?key=shop"):
		scope = "*"
	}
	if q.scope != nil && q.scope[0] != scope || q.filter.Key != "" && q.filter.Key != scope {
		t.Errorf("looked for %v %+v, want those of %s", q.scope, q.filter, scope)
	}
	if strings.Contains(d.route, "/messages/:id") && q.scope == nil || strings.HasSuffix(d.route, "/emails/:id") && q.scope == nil || strings.HasSuffix(d.route, "/stats") && q.scope == nil {
		t.Error("nothing was looked for")
	}
}

// noMetrics takes the place of those of the package that has them.
var noMetrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
})

// noEvents takes the place of those of the service.
func noEvents() api.Events { return api.Events{Events: []api.Event{}} }

// noSettings takes the place of those of the configuration.
func noSettings() []api.Setting { return []api.Setting{} }

func useUp(rated []*keys.Key) {
	for _, k := range rated {
		if err := k.Charge(1); err != nil {
			panic(err)
		}
	}
}

// TestEveryRouteHasAPermit: a route that is new must say who may use it.
func TestEveryRouteHasAPermit(t *testing.T) {
	s := newTestServer(t, stored(), func(o *Options) {
		o.Relays, o.Operator, o.Metrics, o.Settings, o.Events = &quickRelays{}, &fakeOperator{}, noMetrics, noSettings, noEvents
	})
	known := map[string]bool{}
	for _, d := range permits() {
		known[d.route] = true
	}
	served := map[string]bool{}
	for _, r := range s.echo.Routes() {
		if r.Method == echo.RouteNotFound {
			continue
		}
		route := r.Method + " " + r.Path
		if served[route] = true; !known[route] {
			t.Errorf("%s: nothing says who may use it: give it a line in permits()", route)
		}
	}
	for route := range known {
		if !served[route] {
			t.Errorf("%s is not served", route)
		}
	}
}

// TestKeylessIsAdmin: without keys whoever is on this host sees all messages, also those
// that were submitted with a key before.
func TestKeylessIsAdmin(t *testing.T) {
	q := stored()
	s := newTestServer(t, q, func(o *Options) { o.Keys = nil })
	for _, target := range []string{"/v1/messages", "/v1/messages/id-1", "/emails/id-1"} {
		q.scope, q.filter = nil, queue.Filter{}
		serve(s, newRequest("GET", "http://localhost"+target, "", "Authorization: "))
		if got := fmt.Sprint(q.scope, q.filter.Key); !strings.Contains(got, "*") {
			t.Errorf("GET %s looked for %s, want all", target, got)
		}
	}
}

// TestTestTokenReadsNothing: the token that everybody knows opens what sends nothing.
func TestTestTokenReadsNothing(t *testing.T) {
	for _, d := range permits() {
		q := stored()
		r := d.request("")
		authorize(r, "postmark", "POSTMARK_API_TEST")
		got := serve(asker{}.server(t, q), r)
		if d.open || d.provider == "postmark" {
			continue
		}
		if got.status < 400 || q.scope != nil || len(q.submissions()) > 0 {
			t.Errorf("%s = %d %s", d.route, got.status, text(got))
		}
	}
}

// quickRelays are checked in no time.
type quickRelays struct{ fakeRelays }

func (*quickRelays) Check(context.Context, string) []RelayReport { return []RelayReport{} }
