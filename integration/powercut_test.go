package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// TestPowerCut watches the server's system calls: between one 202 and the next
// the queue's write-ahead log is written and fsynced, and that fsync has
// returned before the first octet of the 202 is written. After a power cut
// the disk then holds every message that was answered 202.
func TestPowerCut(t *testing.T) {
	strace := requireStrace(t)
	env := durable(t, relaytest.New(t, relaytest.Options{}, nil))
	trace := filepath.Join(t.TempDir(), "trace")

	// With -D the server stays our child, and the test can stop it like any other.
	s := serveUnder(t, env, strace, "-D", "-f", "-s", "32", "-y", "-o", trace,
		"-e", "trace=write,pwrite64,fsync,fdatasync,sendto,writev")
	const messages = 20
	for n := range messages {
		a := s.send(t, map[string]any{
			"from": "shop@example.com", "to": "ana@example.org", "subject": fmt.Sprint("Order ", n), "text": "Thank you!",
			// Not yet, so that no commit of an outcome comes between.
			"send_at": time.Now().Add(time.Hour).Format(time.RFC3339),
		})
		wantStatus(t, a, http.StatusAccepted)
	}
	s.stop(t)

	awaitEnd(t, trace)
	calls, err := readTrace(trace)
	if err != nil {
		t.Fatal(err)
	}
	if n := checkTrace(t, calls); n != messages {
		t.Errorf("the trace shows %d answers 202, want %d", n, messages)
	}
}

func requireStrace(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err == nil {
		err = exec.Command(path, "-o", os.DevNull, "true").Run()
	}
	if err != nil {
		machine.Lacks(t, fmt.Sprintf("strace does not run: %v; scripts/install-test-deps installs it", err))
	}
	return path
}

// awaitEnd waits until the tracer has written its last line.
func awaitEnd(t *testing.T, trace string) {
	t.Helper()
	machine.Await(t, "end of the trace of the server's system calls", func() bool {
		b, err := os.ReadFile(trace)
		return err == nil && bytes.Contains(b, []byte("+++ exited with 0 +++"))
	})
}

// A system call is one line of strace, or two when another thread's came
// between: "unfinished ..." where it began and "resumed" where it returned.
var (
	began    = regexp.MustCompile(`^\d+ +(\w+)\((.*)`)
	resumed  = regexp.MustCompile(`^\d+ +<\.\.\. (\w+) resumed>`)
	threadID = regexp.MustCompile(`^\d+`)
)

// event is the begin or the return of a system call.
type event struct {
	call     string
	args     string
	returned bool
}

func readTrace(path string) ([]event, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var events []event
	open := map[string]event{} // by thread
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		thread := threadID.FindString(line)
		if m := began.FindStringSubmatch(line); m != nil {
			e := event{call: m[1], args: m[2]}
			events = append(events, e)
			if strings.HasSuffix(line, "<unfinished ...>") {
				open[thread] = e
				continue
			}
			e.returned = true
			events = append(events, e)
		} else if resumed.MatchString(line) {
			e := open[thread]
			e.returned = true
			events = append(events, e)
		}
	}
	return events, lines.Err()
}

// checkTrace goes through the calls in order and counts the answers 202.
func checkTrace(t *testing.T, events []event) int {
	t.Helper()
	answers, written, synced := 0, false, false
	for _, e := range events {
		wal := strings.Contains(e.args, "queue.db-wal>")
		switch {
		case wal && strings.Contains(e.call, "write") && !e.returned:
			written, synced = true, false
		case wal && strings.HasSuffix(e.call, "sync") && e.returned && written:
			synced = true
		case strings.Contains(e.args, `"HTTP/1.1 202`) && !e.returned:
			answers++
			if !synced {
				t.Errorf("answer %d was written before the fsync of its commit returned", answers)
			}
			written, synced = false, false
		}
	}
	return answers
}
