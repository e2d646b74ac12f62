package oauth2_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// server is a running "mailsidecar serve".
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string
	log  *logLines
	done chan struct{} // closed when it has ended
}

// logLines keeps what a server logs.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) read(r io.Reader) {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		l.mu.Lock()
		l.lines = append(l.lines, scanner.Text())
		l.mu.Unlock()
	}
}

// find returns the first line with that message; empty for none.
func (l *logLines) find(message string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, `"msg":"`+message+`"`) {
			return line
		}
	}
	return ""
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// serve starts the server, which ends with the test.
func (s *sidecar) serve(t *testing.T) *server {
	t.Helper()
	srv := &server{t: t, cmd: s.command(t.Context(), "serve"), log: &logLines{}, done: make(chan struct{})}
	errOut, err := srv.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(srv.done)
		srv.log.read(errOut)
		_ = srv.cmd.Wait()
	}()
	t.Cleanup(srv.kill)
	await(t, "listening server", func() bool {
		var line struct{ Addr string }
		_ = json.Unmarshal([]byte(srv.log.find("listening")), &line)
		srv.addr = line.Addr
		return srv.addr != "" || srv.ended()
	})
	if srv.addr == "" {
		t.Fatalf("the server does not start:\n%s", srv.log)
	}
	return srv
}

func (srv *server) ended() bool {
	select {
	case <-srv.done:
		return true
	default:
		return false
	}
}

// kill ends the server as kill -9 does.
func (srv *server) kill() {
	_ = srv.cmd.Process.Kill()
	<-srv.done
}

// send posts a message, which must be accepted.
func (srv *server) send(subject string) {
	srv.t.Helper()
	body := fmt.Sprintf(`{"from":%q,"to":["x@example.org"],"subject":%q,"text":"Hello"}`, account, subject)
	w, err := http.Post("http://"+srv.addr+"/v1/messages", "application/json", strings.NewReader(body))
	if err != nil {
		srv.t.Fatal(err)
	}
	defer w.Body.Close()
	if answer, _ := io.ReadAll(w.Body); w.StatusCode != http.StatusAccepted {
		srv.t.Fatalf("POST = %s %s", w.Status, answer)
	}
}

// relayState is what /v1/relays says of the first relay.
func (srv *server) relayState() string {
	srv.t.Helper()
	w, err := http.Get("http://" + srv.addr + "/v1/relays")
	if err != nil {
		srv.t.Fatal(err)
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	if err != nil {
		srv.t.Fatal(err)
	}
	return string(body)
}

// arrives waits until the relay has so many messages.
func (s *sidecar) arrives(srv *server, n int) {
	srv.t.Helper()
	ok := func() bool { return len(s.relay.Messages()) >= n }
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			srv.t.Fatalf("%d messages arrived, want %d; the log:\n%s", len(s.relay.Messages()), n, srv.log)
		}
	}
}
