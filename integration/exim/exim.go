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
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

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

// mailboxCount bounds how many recipients a test may ask for.
const mailboxCount = 100

// Server is a running Exim. Its ports serve 127.0.0.1 only. The account may use
// PLAIN and LOGIN.
type Server struct {
	*mta.Instance
	// Submission offers STARTTLS and, after it, AUTH (RFC 6409).
	Submission int
	// Submissions is the same with implicit TLS (RFC 8314 §3.3).
	Submissions int

	process   *mta.Process
	mailboxes atomic.Int32 // given out so far
}

// Options are what a test wants otherwise than Debian's Exim has it.
type Options struct {
	// Main has further lines for the main section, such as a limit.
	Main []string
	// Rcpt has conditions for the ACL of RCPT, that come first.
	Rcpt []string
}

// Start starts a server and stops it when the test ends. A part that the machine
// lacks skips the test, unless CI=true: then it fails. The server's log is printed
// when the test failed.
func Start(t *testing.T, opts Options) *Server {
	t.Helper()
	program := requireParts(t)
	s := &Server{
		Instance:   mta.New(t, "Exim", "log/main.log"),
		Submission: mta.FreePort(t), Submissions: mta.FreePort(t),
	}
	if err := s.install(program); err != nil {
		t.Fatalf("set up Exim: %v", err)
	}
	if err := s.writeConfig(opts); err != nil {
		t.Fatalf("set up Exim: %v", err)
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
	// Messages that a delivery process was not forked for go out at the next run
	// of the queue.
	s.process = s.Launch(t, exec.Command(s.program(), "-C", s.Path("exim.conf"), "-bdf", "-q10s"), nil, s.Submission, s.Submissions)
}

// Restart kills the server with all the sessions that it is in, and starts it
// again.
func (s *Server) Restart(t *testing.T) {
	t.Helper()
	s.process.Kill()
	s.run(t)
}

// Recipient returns the address of an empty mailbox that is nobody else's.
func (s *Server) Recipient(t *testing.T) string {
	t.Helper()
	n := int(s.mailboxes.Add(1))
	if n > mailboxCount {
		t.Fatalf("more than %d mailboxes", mailboxCount)
	}
	return fmt.Sprintf("box%d@%s", n, Domain)
}

// Count is how many lines of the log contain text.
func (s *Server) Count(text string) int { return strings.Count(s.Log(), text) }

// requireParts says what is missing for a real Exim, and returns its program.
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
