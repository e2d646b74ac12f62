package browser_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// The secrets of the keys: of an operator, and of a site that sees its own mail alone.
const (
	adminSecret = "secret-of-the-operator"
	shopSecret  = "secret-of-the-shop"
)

// settings are the environment of a server.
type settings map[string]string

// server is a running "mailsidecar serve".
type server struct {
	url     string
	log     machine.Buffer
	admin   *api.Client
	process *machine.Server
}

// newRelay starts a relay that refuses some recipients, and returns the settings of a server
// that hands its mail to it.
func newRelay(t *testing.T, script relaytest.Script) settings {
	t.Helper()
	all := relaytest.Script{
		"RCPT TO:<gone@":  "550 5.1.1 The email account that you tried to reach does not exist",
		"RCPT TO:<spam@":  "554 5.7.1 Message rejected as spam by content scanning",
		"RCPT TO:<later@": "450 4.2.1 The user you are trying to contact is receiving mail too quickly",
	}
	maps.Copy(all, script)
	relay := relaytest.New(t, relaytest.Options{}, all)
	return relaySettings(t, relay.Listen(t))
}

// relaySettings are those of a server whose relay is at that port of the loopback interface.
func relaySettings(t *testing.T, port int) settings {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, relaytest.AuthorityPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return settings{
		"SMTP_HOST": "127.0.0.1", "SMTP_PORTS": strconv.Itoa(port), "SMTP_TLS_CA_FILE": ca, "SMTP_USERNAME": "shop@example.com", "SMTP_PASSWORD": "secret",
		"MAILSIDECAR_FROM": "Shop <shop@example.com>",
	}
}

// withKeys adds the keys of an operator and of a site.
func (s settings) withKeys() settings {
	return s.with(settings{"MAILSIDECAR_API_KEYS": "admin:" + adminSecret + ",shop:" + shopSecret, "MAILSIDECAR_KEY_ROLES": "admin:admin"})
}

func (s settings) with(more settings) settings {
	all := maps.Clone(s)
	maps.Copy(all, more)
	return all
}

// serve starts a server, which ends with the test.
func serve(t *testing.T, s settings) *server {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	addr := machine.Address(machine.FreePort(t))
	srv := &server{url: "http://" + addr}
	cmd := exec.Command(path, "serve")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "MAILSIDECAR_ADDR=" + addr}
	if _, given := s["MAILSIDECAR_DATA_DIR"]; !given {
		cmd.Env = append(cmd.Env, "MAILSIDECAR_DATA_DIR="+t.TempDir())
	}
	for name, value := range s {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	slices.Sort(cmd.Env)
	srv.process = machine.Start(t, cmd, &srv.log, nil, func() bool {
		resp, err := http.Get(srv.url + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("mailsidecar logged:\n%.20000s", srv.log.String())
		}
	})
	srv.admin = srv.client(t, "")
	if s["MAILSIDECAR_API_KEYS"] != "" {
		srv.admin = srv.client(t, adminSecret)
	}
	return srv
}

func (s *server) client(t *testing.T, secret string) *api.Client {
	t.Helper()
	client, err := api.New(s.url, secret, "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// call makes a request and decodes its answer, which must have that status, into answer.
func call(t *testing.T, client *api.Client, method, path string, body, answer any, status int) {
	t.Helper()
	var data []byte
	header := http.Header{}
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
		header.Set("Content-Type", "application/json")
	}
	a, err := client.Do(t.Context(), method, path, header, data)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != status {
		t.Fatalf("%s %s = %d %s, want %d", method, path, a.Status, a.Body, status)
	}
	if answer == nil {
		return
	}
	if err := json.Unmarshal(a.Body, answer); err != nil {
		t.Fatal(err)
	}
}

// send submits a message and returns its id.
func (s *server) send(t *testing.T, client *api.Client, m api.Request) string {
	t.Helper()
	if m.Text == "" && m.HTML == "" {
		m.Text = "Thank you for your order.\n"
	}
	var r api.Receipt
	call(t, client, http.MethodPost, "/v1/messages", m, &r, http.StatusAccepted)
	return r.ID
}

// settle waits until a message has one of the statuses.
func (s *server) settle(t *testing.T, id string, statuses ...string) api.Message {
	t.Helper()
	var m api.Message
	machine.Await(t, fmt.Sprintf("message that is one of %v", statuses), func() bool {
		m = api.Message{}
		call(t, s.admin, http.MethodGet, "/v1/messages/"+id, nil, &m, http.StatusOK)
		return slices.Contains(statuses, m.Status)
	})
	return m
}

// batch submits n messages that the function makes, 500 at a time.
func (s *server) batch(t *testing.T, client *api.Client, n int, message func(i int) api.Request) {
	t.Helper()
	for first := 0; first < n; first += api.MaxBatch {
		all := []api.Request{}
		for i := first; i < min(n, first+api.MaxBatch); i++ {
			all = append(all, message(i))
		}
		var b api.Batch
		call(t, client, http.MethodPost, "/v1/messages/batch", map[string]any{"messages": all}, &b, http.StatusAccepted)
		if b.Stored != len(all) {
			t.Fatalf("a batch stored %d of %d messages: %+v", b.Stored, len(all), b.Results)
		}
	}
}

// mixedMail is what a small shop sends within a day: most of it arrives, some is refused, and
// some waits. The ids are of one message of each kind.
func (s *server) mixedMail(t *testing.T) (sent, failed, waits string) {
	t.Helper()
	shop := s.admin
	if s.admin.HasKey() {
		shop = s.client(t, shopSecret)
	}
	for i := range 24 {
		s.send(t, shop, api.Request{
			To: []string{fmt.Sprintf("Customer %d <customer%d@example.org>", i, i)}, Subject: fmt.Sprintf("Your order %d is on its way", 1042+i), Tags: map[string]string{"order": strconv.Itoa(1042 + i)},
		})
	}
	sent = s.send(t, shop, api.Request{
		To: []string{"Ana Silva <ana@example.org>"}, Cc: []string{"accounts@example.org"}, Subject: "Your order 1041 is confirmed",
		Text: "Dear Ana,\n\nthank you for your order 1041.\n", HTML: "<h1>Thank you, Ana</h1><p>Your order <b>1041</b> is confirmed.</p>",
		Tags: map[string]string{"order": "1041"}, Attachments: []api.Attachment{{Filename: "invoice-1041.txt", Content: []byte("Total: 42.00\n")}},
	})
	failed = s.send(t, shop, api.Request{To: []string{"gone@example.net"}, Subject: "Reset your password"})
	s.send(t, shop, api.Request{To: []string{"spam@example.net"}, Subject: "Special offers this week", Priority: "bulk"})
	waits = s.send(t, shop, api.Request{To: []string{"later@example.com", "bo@example.com"}, Subject: "Your invoice 7 for November"})
	s.settle(t, sent, api.StatusDelivered)
	s.settle(t, failed, api.StatusFailed)
	s.settle(t, waits, api.StatusDeferred)
	return sent, failed, waits
}
