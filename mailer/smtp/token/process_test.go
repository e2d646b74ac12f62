package token

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// TestProcesses: real processes share a login in files. They are killed as the request
// arrives, as it is answered, and as the token is used, and several run at a time. What
// was used is always stored before; the next process always gets a token, but where an
// endpoint that detects reuse has answered a process that was killed before it read.
func TestProcesses(t *testing.T) {
	if dir := os.Getenv("TOKEN_TEST_DIR"); dir != "" {
		useToken(t, dir, os.Getenv("TOKEN_TEST_URL"), os.Getenv("TOKEN_TEST_SCOPE"))
		return
	}
	for _, reuseKills := range []bool{false, true} {
		l := &labour{t: t, dir: t.TempDir(), issuer: &issuer{rotate: true, reuseKills: reuseKills, life: 3600}}
		server := httptest.NewServer(l)
		defer server.Close()
		l.url = server.URL
		for round := range 5 {
			for _, at := range []string{"asked", "answered", "used"} {
				if reuseKills && at == "answered" {
					continue
				}
				l.run(at, 1, fmt.Sprint(at, round))
			}
			l.run("", 4, fmt.Sprint("all", round))
		}
		if l.issuer.dead || l.used != 25 {
			t.Errorf("reuse kills: %v, the family ended: %v, %d tokens used, want 25: the 5 that were killed then, and 20", reuseKills, l.issuer.dead, l.used)
		}
	}
}

// labour is the endpoint and the place of work of the processes.
type labour struct {
	t        *testing.T
	dir, url string
	issuer   *issuer

	mu     sync.Mutex
	killAt string
	victim *exec.Cmd
	used   int
}

// run runs processes at a time, and kills them at a step; never if that is empty.
func (l *labour) run(killAt string, processes int, scope string) {
	var running sync.WaitGroup
	for range processes {
		cmd := exec.Command(os.Args[0], "-test.run=^TestProcesses$")
		cmd.Env = append(os.Environ(), "TOKEN_TEST_DIR="+l.dir, "TOKEN_TEST_URL="+l.url, "TOKEN_TEST_SCOPE="+scope)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		l.mu.Lock()
		l.killAt, l.victim = killAt, cmd
		err := cmd.Start()
		l.mu.Unlock()
		if err != nil {
			l.t.Fatal(err)
		}
		running.Go(func() {
			if err := cmd.Wait(); (err != nil) != (killAt != "") {
				l.t.Errorf("killed at %q: the process ended with %v\n%s", killAt, err, &out)
			}
		})
	}
	running.Wait()
}

// kill kills the process if this is the step.
func (l *labour) kill(step string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.killAt != step {
		return false
	}
	if err := l.victim.Process.Kill(); err != nil {
		l.t.Error(err)
	}
	return true
}

func (l *labour) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		l.t.Error(err)
		return
	}
	if r.URL.Path == "/use" {
		l.use(r.PostForm)
		return
	}
	if l.kill("asked") {
		return
	}
	l.issuer.mu.Lock()
	answer := l.issuer.grant(r.PostForm)
	l.issuer.mu.Unlock()
	if l.kill("answered") {
		return
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body)
}

// use notes that a process uses its token. The stored refresh token is the newest.
func (l *labour) use(form url.Values) {
	stored, err := NewFileStore(l.dir).Load(l.t.Context(), 1)
	l.issuer.mu.Lock()
	newest := l.issuer.refresh[len(l.issuer.refresh)-1]
	l.issuer.mu.Unlock()
	if err != nil || stored.RefreshToken != newest || stored.AccessToken != form.Get("token") {
		l.t.Errorf("a process uses %s, and %s is stored with %s, %v; want %s stored", form.Get("token"), stored.AccessToken, stored.RefreshToken, err, newest)
	}
	l.mu.Lock()
	l.used++
	l.mu.Unlock()
	l.kill("used")
}

// useToken is a process: it gets a token and uses it.
func useToken(t *testing.T, dir, endpoint, scope string) {
	s := open(t, Options{
		Endpoint: Endpoint{TokenURL: endpoint, Client: Client{ID: "id"}}, Scopes: []string{scope}, // a token of another round is of no use
		RefreshToken: "configured", Store: NewFileStore(dir), Relay: 1,
	}, false)
	token, err := s.Token(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(endpoint+"/use", "application/x-www-form-urlencoded", strings.NewReader("token="+token))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
