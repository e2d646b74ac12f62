//go:build linux

package integration

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/integration/postgres"
	"mailsidecar/mailer/relaytest"
)

var sharedMessages = flag.Int("shared", 2000, "how many messages TestShared sends; for each 700 of them an instance is killed")

func shared(t *testing.T, relay *relaytest.Relay, url string) environment {
	t.Helper()
	env := durable(t, relay)
	delete(env, "MAILSIDECAR_DATA_DIR")
	return env.with(environment{"MAILSIDECAR_QUEUE_FILE": writeFile(t, "url", url+"\n"), "MAILSIDECAR_LEASE": "10s"})
}

// TestShared: instances at one PostgreSQL are killed at random, one is stopped for longer than its lease, and the
// database is stopped in immediate mode and started again. Every message that was accepted arrives, and one that
// arrives twice has an uncertain attempt. Nothing that is printed has the password.
func TestShared(t *testing.T) {
	for _, instances := range []int{2, 3} {
		t.Run(fmt.Sprint(instances), func(t *testing.T) {
			t.Parallel()
			db := postgres.Start(t)
			relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{"RCPT": "10% 450 later"})
			env := shared(t, relay, db.URL())
			servers := make([]*sidecar, instances)
			all := make([]*clients, instances)
			l := &ledger{ids: map[string]string{}}
			var logs []*sidecar
			begin := func(i int) {
				servers[i] = serve(t, env)
				logs = append(logs, servers[i])
			}
			for i := range servers {
				begin(i)
				all[i] = newClients(t)
				all[i].turnTo(servers[i].url)
			}
			var work sync.WaitGroup
			for i, c := range all {
				work.Go(func() {
					for n := 0; c.ctx.Err() == nil; n++ {
						l.mu.Lock()
						full := len(l.ids) >= *sharedMessages
						l.mu.Unlock()
						if full {
							return
						}
						number := fmt.Sprintf("%d-%d", i, n)
						if id, err := c.postNumber(number); err == nil {
							l.mu.Lock()
							l.ids[number] = id
							l.mu.Unlock()
						} else {
							time.Sleep(5 * time.Millisecond)
						}
						time.Sleep(5 * time.Millisecond)
					}
				})
			}
			for round := range max(3, *sharedMessages/700) {
				time.Sleep(time.Duration(200+rand.IntN(800)) * time.Millisecond)
				i := rand.IntN(instances)
				servers[i].kill(t)
				begin(i)
				all[i].turnTo(servers[i].url)
				if round == 1 {
					db.Stop()
					time.Sleep(time.Second)
					db.Run(t)
				}
			}
			frozen := servers[rand.IntN(instances)]
			if err := frozen.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			time.Sleep(13 * time.Second)
			if err := frozen.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			work.Wait()
			servers[0].drain(t)
			l.wantArrived(t, relay, servers[0])
			for _, s := range logs {
				if strings.Contains(s.log.String(), "hunter2") {
					t.Error("a log has the password of the database")
				}
			}
			if !strings.Contains(frozen.log.String(), "lease lost") {
				t.Error("the instance that was stopped has not lost its lease: it was not long enough to tell anything")
			}
		})
	}
}

// serveUnready starts a server and waits until it listens.
func serveUnready(t *testing.T, env environment) *sidecar {
	t.Helper()
	s := startServer(t, env, func(*exec.Cmd) {})
	machine.Await(t, "listening", func() bool {
		resp, err := http.Get(s.url + "/livez")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
	return s
}

// asyncOrder is a message as JSON.
const asyncOrder = `{"from":"shop@example.com","to":["ana@example.org"],"subject":"Order","text":"x"}`

// wantAway: without its database an instance says so, quickly, whatever it is asked.
func (s *sidecar) wantAway(t *testing.T, id string) {
	t.Helper()
	resp, err := http.Get(s.url + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || string(text) != "not ready: the database of the queue does not answer\n" {
		t.Errorf("GET /readyz without a database = %d %q, want the reason", resp.StatusCode, text)
	}
	for _, tc := range []struct {
		method, path, body string
		within             time.Duration
	}{
		{"POST", "/v1/messages", asyncOrder, 2 * time.Second},
		{"POST", "/v1/messages/batch", `{"messages":[` + asyncOrder + `]}`, 2 * time.Second},
		{"GET", "/v1/messages/" + id, "", 4 * time.Second},
		{"GET", "/v1/messages", "", 4 * time.Second},
		{"GET", "/v1/messages?recipient=ana@example.org", "", 4 * time.Second},
		{"GET", "/v1/messages/count", "", 4 * time.Second},
		{"GET", "/v1/messages/" + id + "/content", "", 4 * time.Second},
		{"GET", "/v1/stats", "", 4 * time.Second},
		{"POST", "/v1/messages/" + id + "/retry", "", 4 * time.Second},
		{"POST", "/v1/messages/" + id + "/resend", `{"to":"bo@example.org"}`, 4 * time.Second},
		{"DELETE", "/v1/messages/" + id, "", 4 * time.Second},
		{"POST", "/v1/messages/retry", `{"status":"failed"}`, 4 * time.Second},
	} {
		began := time.Now()
		a := s.request(t, tc.method, tc.path, []byte(tc.body), http.Header{"Content-Type": {"application/json"}})
		took := time.Since(began)
		if a.HTTPStatus != 503 || a.Code != "queue_unavailable" || !a.Retryable || a.Header.Get("Retry-After") == "" || took > tc.within {
			t.Errorf("%s %s without a database = %d %s after %v, Retry-After %q, want 503 within %v\n%s", tc.method, tc.path, a.HTTPStatus, a.Code, took, a.Header.Get("Retry-After"), tc.within, a.Body)
		}
	}
	for _, path := range []string{"/metrics", "/v1/relays"} { // what needs no database
		began := time.Now()
		resp, err := http.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if took := time.Since(began); resp.StatusCode != http.StatusOK || took > 5*time.Second {
			t.Errorf("GET %s without a database = %d after %v, want 200", path, resp.StatusCode, took)
		}
	}
}

// TestDatabaseAway: without its database an instance starts, is not ready, and answers 503 within 2 s, at the start and
// later, also where the database stands still. What is being delivered then is, once, and is stored later. All goes on
// when the database comes. A wrong password ends the start.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	db := postgres.Start(t)
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "default then after 2s 250 2.0.0 queued then default"})
	env := shared(t, relay, db.URL())
	db.Stop()
	s := serveUnready(t, env)
	s.wantAway(t, "01900000-0000-7000-8000-0000000000aa")
	db.Run(t)
	s.awaitReady(t)
	prefer := http.Header{"Prefer": {"wait=10"}}
	a := s.post(t, "application/json", []byte(asyncOrder), prefer)
	wantStatus(t, a, 200)
	for _, away := range []struct {
		name   string
		leaves func()
		comes  func()
	}{
		{"stopped", db.Stop, func() { db.Run(t) }},
		{"frozen", func() { db.Freeze(t) }, func() { db.Thaw(t) }},
	} {
		got := len(relay.Messages())
		late := s.post(t, "application/json", []byte(asyncOrder), nil) // its final dot is answered late, the first time
		wantStatus(t, late, 202)
		awaitMessages(t, relay, got+1)
		away.leaves()
		s.wantAway(t, a.ID)
		away.comes()
		s.awaitReady(t)
		s.awaitStatus(t, late.ID, "delivered")
		wantStatus(t, s.post(t, "application/json", []byte(asyncOrder), prefer), 200)
		if n := len(relay.Messages()); n != got+2 {
			t.Errorf("%s: the relay got %d messages, want each of 2 once", away.name, n-got)
		}
	}
	seen := map[string]int{}
	for line := range strings.Lines(s.log.String()) {
		var e struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &e) == nil && (e.Level == "ERROR" || e.Level == "WARN") {
			seen[e.Msg]++
		}
	}
	for message, n := range seen {
		if n > 4 { // the test may take some minutes
			t.Errorf("%q stands in the log %d times", message, n)
		}
	}
	if !strings.Contains(s.log.String(), "the database of the queue is reached again") {
		t.Error("the log does not say that the database is back")
	}

	wrong := command(t, env.with(environment{"MAILSIDECAR_ADDR": freeAddr(t), "MAILSIDECAR_QUEUE_FILE": writeFile(t, "url", strings.Replace(db.URL(), "hunter2", "hunter3", 1))}), "serve")
	out, err := wrong.CombinedOutput()
	if wrong.ProcessState.ExitCode() != 1 || !bytes.Contains(out, []byte("set the right user and password")) || bytes.Contains(out, []byte("hunter3")) {
		t.Errorf("start with a wrong password: %v\n%s", err, out)
	}
	out, err = command(t, env, "queue", "migrate").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("nothing to do")) {
		t.Errorf("queue migrate: %v\n%s", err, out)
	}
	for command, want := range map[string]string{"backup -": "pg_dump", "check": "pg_amcheck"} {
		cmd := commandOf(t, env, command)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 78 || !bytes.Contains(out, []byte(want)) {
			t.Errorf("queue %s: %d\n%s", command, cmd.ProcessState.ExitCode(), out)
		}
	}
}

// TestPasswordNowhere: no output of any command, no answer and no log has the password of the database.
func TestPasswordNowhere(t *testing.T) {
	t.Parallel()
	db := postgres.Start(t)
	relay := relaytest.New(t, relaytest.Options{}, nil)
	env := shared(t, relay, db.URL()).with(environment{"MAILSIDECAR_LOG_LEVEL": "debug"})
	clean := func(what, text string) {
		t.Helper()
		if strings.Contains(text, "hunter2") || strings.Contains(text, "hunter%32") {
			t.Errorf("%s has the password:\n%s", what, text)
		}
	}
	s := serve(t, env)
	a := s.post(t, "application/json", []byte(asyncOrder), http.Header{"Prefer": {"wait=10"}})
	wantStatus(t, a, 200)
	look := func() {
		t.Helper()
		for _, path := range []string{"/metrics", "/readyz", "/livez", "/healthz/flow", "/v1/stats", "/v1/relays", "/v1/messages", "/v1/messages/" + a.ID, "/v1/drain", "/"} {
			resp, err := http.Get(s.url + path)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			clean("GET "+path, string(text)+fmt.Sprint(resp.Header))
		}
	}
	look()
	urls := map[string]string{
		"good": db.URL(), "parameter": strings.Replace(db.URL(), ":hunter2@", "@", 1) + "&password=hunter2", "encoded": strings.Replace(db.URL(), "hunter2", "hunter%32", 1),
		"unknown parameter": db.URL() + "&hunter=hunter2", "bad port": strings.Replace(db.URL(), "127.0.0.1:", "127.0.0.1:hunter2", 1), "bad escape": strings.Replace(db.URL(), "hunter2", "%hunter2", 1),
		"no database": strings.Replace(db.URL(), "/postgres", "/none", 1), "no role": strings.Replace(db.URL(), "shop:", "nobody:", 1), "no host": strings.Replace(db.URL(), "127.0.0.1", "none.invalid", 1),
		"no scheme": strings.Replace(db.URL(), "postgres://", "pg://", 1), "two at": strings.Replace(db.URL(), "hunter2", "hunter2@hunter2", 1), "no TLS": strings.Replace(db.URL(), "disable", "require", 1),
		"file": db.URL() + "&sslrootcert=hunter2",
	}
	for _, before := range []string{"12/", "p@/", "?", "p@x?", "#"} { // what an unescaped password looks like
		urls[before] = strings.Replace(db.URL(), "hunter2", before+"hunter2", 1)
		urls[before+" and ="] = strings.Replace(db.URL(), "hunter2", before+"hunter2=1", 1)
	}
	for name, url := range urls {
		for _, words := range []string{"queue migrate", "check --timeout 5s", "queue list", "queue check", "queue backup -", "status", "healthcheck", "send --to a@example.org --text x", "config", "serve"} {
			if words == "serve" && (name == "good" || name == "parameter" || name == "encoded" || name == "no host") {
				continue // it would run
			}
			cmd := command(t, env.with(environment{"MAILSIDECAR_ADDR": freeAddr(t), "MAILSIDECAR_QUEUE_FILE": writeFile(t, "url", url)}), strings.Fields(words)...)
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); words == "serve" && code != 1 && code != 78 {
				t.Errorf("serve with %s = %d", name, code)
			}
			clean(words+" with "+name, string(out))
		}
	}
	db.Stop()
	s.post(t, "application/json", []byte(asyncOrder), nil)
	look()
	clean("the log", s.log.String())
	if err := s.cmd.Process.Signal(syscall.SIGABRT); err != nil { // what a crash prints
		t.Fatal(err)
	}
	<-s.exited
	clean("a crash", s.log.String())
	if !strings.Contains(s.log.String(), "goroutine ") {
		t.Error("the crash has printed nothing")
	}
}

// TestNewerSchema: the schema of a newer version ends the start, and says what to do.
func TestNewerSchema(t *testing.T) {
	t.Parallel()
	db := postgres.Start(t)
	env := shared(t, relaytest.New(t, relaytest.Options{}, nil), db.URL())
	if out, err := command(t, env, "queue", "migrate").CombinedOutput(); err != nil || !bytes.Contains(out, []byte("was 0")) {
		t.Fatalf("queue migrate: %v\n%s", err, out)
	}
	db.Exec(t, `UPDATE mailsidecar.version SET version = 1000`)
	for _, words := range []string{"serve", "queue migrate"} {
		code, out := exitCode(t, command(t, env.with(environment{"MAILSIDECAR_ADDR": freeAddr(t)}), strings.Fields(words)...))
		if code != 1 || !strings.Contains(out, "start the newer program again, or name another schema") {
			t.Errorf("%s with a newer schema = %d\n%s", words, code, out)
		}
	}
}

func commandOf(t *testing.T, env environment, words string) *exec.Cmd {
	t.Helper()
	return command(t, env, append([]string{"queue"}, strings.Fields(words)...)...)
}

// TestSharedRate: three instances keep to SMTP_RATE in sum, though one is killed and started again.
func TestSharedRate(t *testing.T) {
	t.Parallel()
	db := postgres.Start(t)
	relay := relaytest.New(t, relaytest.Options{}, nil)
	env := shared(t, relay, db.URL()).with(environment{"SMTP_RATE": "20/s"})
	const messages = 240
	var servers []*sidecar
	for range 3 {
		servers = append(servers, serve(t, env))
	}
	var work sync.WaitGroup
	for i, s := range servers {
		work.Go(func() {
			c := newClients(t)
			c.turnTo(s.url)
			for n := range messages / len(servers) {
				if _, err := c.postNumber(fmt.Sprintf("%d-%d", i, n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	servers[2].kill(t)
	servers[2] = serve(t, env)
	servers[0].drain(t)
	var mails []time.Time
	for _, c := range relay.Commands() {
		if strings.HasPrefix(c.Line, "MAIL") {
			mails = append(mails, c.At)
		}
	}
	slices.SortFunc(mails, time.Time.Compare)
	// The relay may read late, by some tenths of a second where the machine is busy.
	for i := 20; i < len(mails); i++ {
		if d := mails[i].Sub(mails[i-20]); d < 600*time.Millisecond {
			t.Errorf("21 messages within %v, want 20/s", d)
			break
		}
	}
	took := mails[len(mails)-1].Sub(mails[0])
	if len(mails) < messages || took < messages/20*time.Second-2*time.Second {
		t.Errorf("%d messages in %v, want %d in 12 s or more", len(mails), took, messages)
	}
	t.Logf("%d messages in %v", len(mails), took)
}

// TestSharedKeyRates: two instances let in what one would of a key's rate.
func TestSharedKeyRates(t *testing.T) {
	t.Parallel()
	db := postgres.Start(t)
	relay := relaytest.New(t, relaytest.Options{}, nil)
	env := shared(t, relay, db.URL()).with(environment{"MAILSIDECAR_API_KEYS": "shop:0123456789abcdef", "MAILSIDECAR_KEY_RATES": "shop:20/d"})
	servers := []*sidecar{serve(t, env), serve(t, env)}
	in, out := 0, 0
	for n := range 30 {
		a := servers[n%2].post(t, "application/json", []byte(`{"from":"shop@example.com","to":["ana@example.org"],"subject":"Order","text":"x"}`), http.Header{"Authorization": {"Bearer 0123456789abcdef"}})
		switch {
		case a.HTTPStatus == 202:
			in++
		case a.HTTPStatus == 429 && a.Header.Get("Retry-After") != "":
			out++
		default:
			t.Errorf("POST = %d %s", a.HTTPStatus, a.Body)
		}
	}
	if in != 20 || out != 10 {
		t.Errorf("%d messages of 30 were let in and %d refused, want 20 and 10", in, out)
	}
}
