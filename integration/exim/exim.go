// Package exim runs a real Exim for a test: a relay that offers submission with
// STARTTLS, implicit TLS and AUTH on loopback, and delivers to Maildirs that the
// test reads.
//
// The instance is the test's own, as with package postfix. Debian cannot have
// Exim and Postfix installed side by side: scripts/install-test-deps unpacks Exim
// into .tools/exim, without the right to become root.
package exim

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"mailsidecar/integration/machine"
	"mailsidecar/integration/mta"
)

// Domain is the domain that the server delivers mail for.
const Domain = mta.Domain

// Busy is a recipient that is refused with "451 …" at RCPT, always.
//
// The server accepts the addresses that [Server.Recipient] gives out. Any other in
// [Domain] gets "550 Unrouteable address", and any other domain "550 relay
// not permitted".
const Busy = "busy@" + Domain

// mailboxCount limits the recipients that a test may ask for.
const mailboxCount = 100

// Server is a running Exim. Its ports serve 127.0.0.1 only. The account may use
// PLAIN and LOGIN.
type Server struct {
	*mta.Instance
	// Submission offers STARTTLS and, after it, AUTH (RFC 6409).
	Submission int
	// Submissions is the same with implicit TLS (RFC 8314 §3.3).
	Submissions int

	runs      string // the option for runs of the queue
	process   *machine.Server
	mailboxes atomic.Int32 // given out so far
}

// Options differ from the configuration of Debian's Exim.
type Options struct {
	// Main has further lines for the main section, such as a limit.
	Main []string
	// Rcpt has conditions that come first in the ACL of RCPT.
	Rcpt []string
	// Hold keeps messages in the queue until Flush. Without it, Exim itself would
	// repeat a delivery that Restart kills.
	Hold bool
}

// Start starts a server and stops it when the test ends. A part that the machine
// lacks skips the test, unless CI=true: then it fails. The server's log is printed
// when the test failed.
func Start(t *testing.T, opts Options) *Server {
	t.Helper()
	program := requireParts(t)
	s := &Server{
		Instance:   mta.New(t, "Exim", "log/main.log"),
		Submission: machine.FreePort(t), Submissions: machine.FreePort(t),
	}
	if err := s.install(program); err != nil {
		t.Fatalf("set up Exim: %v", err)
	}
	if err := s.writeConfig(opts); err != nil {
		t.Fatalf("set up Exim: %v", err)
	}
	if !opts.Hold {
		// Messages that no delivery was made of at once go out at the next run.
		s.runs = "-q10s"
	}
	s.run(t)
	return s
}

// program is the server's copy of Exim. The user that its sessions run as may not
// be allowed to look into the checkout.
func (s *Server) program() string { return s.Path("exim") }

func (s *Server) install(program string) error {
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	return os.WriteFile(s.program(), data, 0o755)
}

// run starts Exim in the foreground and waits until it answers on every port.
func (s *Server) run(t *testing.T) {
	t.Helper()
	cmd := exec.Command(s.program(), "-C", s.Path("exim.conf"), "-bdf")
	if s.runs != "" {
		cmd.Args = append(cmd.Args, s.runs)
	}
	s.process = s.Launch(t, cmd, nil, s.Submission, s.Submissions)
}

// Flush delivers the messages in the queue.
func (s *Server) Flush(t *testing.T) {
	t.Helper()
	if out, err := exec.Command(s.program(), "-C", s.Path("exim.conf"), "-qff").CombinedOutput(); err != nil {
		t.Fatalf("run Exim's queue: %v\n%s", err, out)
	}
}

// Received counts the accepted messages.
func (s *Server) Received() int { return strings.Count(s.Log(), " <= ") }

// Restart kills the server with all its sessions, and starts it again.
func (s *Server) Restart(t *testing.T) {
	t.Helper()
	s.process.Kill()
	s.run(t)
}

// Recipient returns the address of a new, empty mailbox.
func (s *Server) Recipient(t *testing.T) string {
	t.Helper()
	n := int(s.mailboxes.Add(1))
	if n > mailboxCount {
		t.Fatalf("more than %d mailboxes", mailboxCount)
	}
	return fmt.Sprintf("box%d@%s", n, Domain)
}

// Sessions counts the connections that logged in.
func (s *Server) Sessions() int {
	ports := map[string]bool{}
	for _, found := range peer.FindAllStringSubmatch(s.Log(), -1) {
		ports[found[1]] = true
	}
	return len(ports)
}

// peer matches the log line of an authenticated client.
var peer = regexp.MustCompile(`\]:(\d+) .*\bA=`)

// requireParts returns the path of Exim, and skips the test if a part is missing.
func requireParts(t *testing.T) string {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	program := filepath.Join(filepath.Dir(file), "..", "..", ".tools", "exim", "usr", "sbin", "exim4")
	var missing []string
	if _, err := os.Stat(program); err != nil {
		missing = append(missing, ".tools/exim")
	}
	if _, err := user.Lookup(daemon); err != nil {
		missing = append(missing, "the user "+daemon)
	}
	mta.Require(t, "Exim", missing)
	return program
}
