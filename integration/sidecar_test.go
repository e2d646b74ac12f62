package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	// The binary is built when the tests run, which go test's cache cannot see:
	// this makes it run them again whenever the product's code has changed.
	_ "mailsidecar/cli"
	"mailsidecar/integration/machine"
)

// binary is the product, built once. BINARY_UNDER_TEST names a finished one,
// for a test that runs as a user without Go.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("BINARY_UNDER_TEST"); path != "" {
		return path, nil
	}
	path := filepath.Join(scratch, "mailsidecar")
	args := append([]string{"build", "-o", path}, buildFlags...)
	out, err := exec.Command("go", append(args, "mailsidecar")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// buildReleased builds a program as it is released, with further flags of the
// linker.
func buildReleased(t *testing.T, path, program string, ldflags ...string) {
	t.Helper()
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", strings.Join(append(ldflags, "-s", "-w"), " "), "-o", path, program)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
}

// buildFlags are those of the test itself, as far as they matter.
var buildFlags []string

// scratch is a directory for all tests of the package.
var scratch string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if role := os.Getenv(roleVariable); role != "" {
		return playRole(role)
	}
	var err error
	if scratch, err = os.MkdirTemp("", "mailsidecar-integration-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	// The tests mostly wait for other processes, and those that measure memory or
	// meet a relay's rate run alone.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// environment is the whole environment of a command of the product.
type environment map[string]string

func (e environment) with(more environment) environment {
	all := maps.Clone(e)
	maps.Copy(all, more)
	return all
}

func (e environment) list() []string {
	var list []string
	for name, value := range e {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

func command(t *testing.T, env environment, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = env.list()
	if race := os.Getenv("GORACE"); race != "" { // how long it waits at its end for races
		cmd.Env = append(cmd.Env, "GORACE="+race)
	}
	return cmd
}

// sidecar is a running "mailsidecar serve".
type sidecar struct {
	url string
	log machine.Buffer
	cmd *exec.Cmd
	// exited is closed once the process has ended; err is its status then.
	exited chan struct{}
	err    error
}

// serve starts a server on a free loopback port and waits until it is ready.
// When the test ends it is stopped as a container engine would, and must then
// exit with status 0; its log is printed when the test failed.
func serve(t *testing.T, env environment) *sidecar {
	t.Helper()
	return serveAs(t, env, func(*exec.Cmd) {})
}

// serveUnder is serve under another program, which gets the server's command as its
// last arguments.
func serveUnder(t *testing.T, env environment, wrapper ...string) *sidecar {
	t.Helper()
	return serveAs(t, env, func(cmd *exec.Cmd) {
		cmd.Args = append(wrapper, cmd.Args...)
		cmd.Path = wrapper[0]
	})
}

// serveAs lets edit change the command before it is started.
func serveAs(t *testing.T, env environment, edit func(*exec.Cmd)) *sidecar {
	t.Helper()
	s := startServer(t, env, edit)
	s.awaitReady(t)
	return s
}

// startServer starts a server, which is stopped at the end of the test.
func startServer(t *testing.T, env environment, edit func(*exec.Cmd)) *sidecar {
	t.Helper()
	addr := freeAddr(t)
	s := &sidecar{url: "http://" + addr, exited: make(chan struct{})}
	s.cmd = command(t, env.with(environment{"MAILSIDECAR_ADDR": addr}), "serve")
	edit(s.cmd)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	t.Cleanup(func() {
		s.stop(t)
		if t.Failed() {
			t.Logf("mailsidecar logged:\n%s", lastLines(s.log.String(), 500))
		}
	})
	return s
}

// lastLines is the end of a text that may be very long.
func lastLines(text string, n int) string {
	end := len(text)
	for ; n > 0; n-- {
		i := strings.LastIndexByte(text[:end], '\n')
		if i < 0 {
			return text
		}
		end = i
	}
	return fmt.Sprintf("… (%d octets before)%s", end, text[end:])
}

func (s *sidecar) awaitReady(t *testing.T) {
	t.Helper()
	machine.Await(t, "readiness of mailsidecar", func() bool {
		if s.ended() {
			t.Fatalf("mailsidecar did not start: %v", s.err)
		}
		resp, err := http.Get(s.url + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

func (s *sidecar) ended() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

// stop does what "docker stop" does: SIGTERM, and SIGKILL after 10 s. A server that
// needs the SIGKILL fails the test; one that has ended already is left alone.
func (s *sidecar) stop(t *testing.T) {
	t.Helper()
	if s.ended() {
		return
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	kill := time.AfterFunc(10*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	<-s.exited
	if s.err != nil {
		t.Errorf("mailsidecar after SIGTERM and the 10 s of docker stop: %v, want exit status 0", s.err)
	}
}

// answer is an answer of the API. It has the fields of a problem (RFC 9457) and
// those of a message.
type answer struct {
	HTTPStatus int         `json:"-"`
	Header     http.Header `json:"-"`
	Body       string      `json:"-"`

	ID         string `json:"id"`
	Status     any    `json:"status"` // the message's, or the HTTP status again
	MessageID  string `json:"message_id"`
	Recipients []struct {
		Email        string `json:"email"`
		State        string `json:"state"`
		Port         int    `json:"port"`
		ReplyCode    int    `json:"reply_code"`
		EnhancedCode string `json:"enhanced_code"`
		Text         string `json:"text"`
	} `json:"recipients"`

	Code      string `json:"code"`
	Retryable bool   `json:"retryable"`
}

// state is that of one recipient.
func (a answer) state(recipient string) string {
	for _, r := range a.Recipients {
		if r.Email == recipient {
			return r.State
		}
	}
	return ""
}

// post sends a body to /v1/messages; header gives further fields.
func (s *sidecar) post(t *testing.T, contentType string, body []byte, header http.Header) answer {
	t.Helper()
	header = maps.Clone(header)
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", contentType)
	return s.request(t, http.MethodPost, "/v1/messages", body, header)
}

// request asks the API, which always answers in JSON.
func (s *sidecar) request(t *testing.T, method, path string, body []byte, header http.Header) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{HTTPStatus: resp.StatusCode, Header: resp.Header, Body: string(text)}
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatalf("%s %s: answer %d is no JSON: %v\n%s", method, path, resp.StatusCode, err, text)
	}
	return a
}

// send posts a message as JSON.
func (s *sidecar) send(t *testing.T, message map[string]any) answer {
	t.Helper()
	body, err := json.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return s.post(t, "application/json", body, nil)
}

func wantStatus(t *testing.T, a answer, want int) {
	t.Helper()
	if a.HTTPStatus != want {
		t.Fatalf("answer = %d, want %d\n%s", a.HTTPStatus, want, a.Body)
	}
}

// freeAddr returns a loopback address and port where nothing listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	return machine.Address(machine.FreePort(t))
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// exitCode runs a command of the product to its end.
func exitCode(t *testing.T, cmd *exec.Cmd) (code int, output string) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
