// Package postfix runs a real Postfix for a test: a relay that offers
// submission with STARTTLS, implicit TLS and AUTH on loopback, and delivers to
// Maildirs that the test reads.
//
// The instance is the test's own: its configuration, queue, data, password
// database and certificate lie in one temporary directory, it listens on free
// loopback ports, and it relays nothing. A Postfix that the machine runs is not
// touched. Postfix itself insists on being started by root.
package postfix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Domain is the domain that the server delivers mail for.
const Domain = "example.org"

// Busy is a recipient that is refused with "450 4.2.1 …" at RCPT, always.
//
// The server accepts the addresses that [Server.Recipient] gives out. Any other
// in [Domain] gets "550 5.1.1 … User unknown in virtual mailbox table", and any
// other domain "554 5.7.1 … Access denied" without AUTH.
const Busy = "busy@" + Domain

// mailboxCount bounds how many recipients a test may ask for.
const mailboxCount = 300

// SizeLimit is what the server announces with SIZE (RFC 1870), in octets.
const SizeLimit = 2 << 20

// startTimeout is generous because a machine that compiles beside the test
// takes seconds to fork a dozen Postfix daemons.
const startTimeout = 30 * time.Second

// Server is a running Postfix. Its ports serve 127.0.0.1 only; its certificate
// is for localhost and 127.0.0.1.
type Server struct {
	// Submission offers STARTTLS and, after it, AUTH (RFC 6409).
	Submission int
	// Submissions is the same with implicit TLS (RFC 8314 §3.3).
	Submissions int
	// SevenBit is like Submission, without 8BITMIME and SMTPUTF8.
	SevenBit int
	// CAFile holds the certificate of the authority that signed the server's.
	CAFile string
	// Username and Password are the one account. It may use PLAIN, LOGIN,
	// CRAM-MD5, SCRAM-SHA-1 and SCRAM-SHA-256.
	Username, Password string

	dir       string
	log       syncBuffer
	mailboxes atomic.Int32 // given out so far
}

// Start starts a server and stops it when the test ends. A part that the
// machine lacks skips the test, unless CI=true: then it fails. The server's log
// is printed when the test failed.
func Start(t *testing.T) *Server {
	t.Helper()
	requireParts(t)
	s := &Server{
		Submission: freePort(t), Submissions: freePort(t), SevenBit: freePort(t),
		Username: "app@mail.example.com", Password: "s3cret with blank: é%",
		dir: tempDir(t),
	}
	s.CAFile = filepath.Join(s.dir, "ca.pem")
	for _, step := range []func() error{s.writeCertificates, s.writeConfig, s.writePassword} {
		if err := step(); err != nil {
			t.Fatalf("set up Postfix: %v", err)
		}
	}
	s.run(t)
	return s
}

// Recipient returns the address of an empty mailbox that is nobody else's.
func (s *Server) Recipient(t *testing.T) string {
	t.Helper()
	n := int(s.mailboxes.Add(1))
	if n > mailboxCount {
		t.Fatalf("more than %d mailboxes", mailboxCount)
	}
	return mailbox(n)
}

func mailbox(n int) string { return fmt.Sprintf("box%d@%s", n, Domain) }

// Log is what Postfix has logged so far.
func (s *Server) Log() string { return s.log.String() }

func (s *Server) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// run starts Postfix in the foreground and waits until it answers on every
// port.
func (s *Server) run(t *testing.T) {
	t.Helper()
	cmd := exec.Command("postfix", "-c", s.path("etc"), "start-fg")
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	// A group of its own, so that an interrupt at the terminal reaches only the
	// test, which then stops Postfix in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start Postfix: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		fmt.Fprintln(&s.log, "postfix exited:", cmd.Wait())
		close(exited)
	}()
	t.Cleanup(func() { s.stop(t, exited) })

	for _, port := range []int{s.Submission, s.Submissions, s.SevenBit} {
		if err := awaitPort(t.Context(), port, exited); err != nil {
			t.Fatalf("Postfix did not answer on port %d: %v", port, err)
		}
	}
}

func (s *Server) stop(t *testing.T, exited <-chan struct{}) {
	t.Helper()
	out, err := exec.Command("postfix", "-c", s.path("etc"), "stop").CombinedOutput()
	if err != nil {
		t.Logf("stop Postfix: %v\n%s", err, out)
	}
	select {
	case <-exited:
	case <-time.After(10 * time.Second):
		t.Error("Postfix did not stop within 10 s")
	}
	if t.Failed() {
		t.Logf("Postfix logged:\n%s", s.Log())
	}
}

// awaitPort waits until something accepts on the port, or the process that
// should has exited.
func awaitPort(ctx context.Context, port int, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-exited:
			return errors.New("it exited")
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// requireParts says what is missing for a real Postfix.
func requireParts(t *testing.T) {
	t.Helper()
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root (Postfix does not start without)")
	}
	for _, tool := range []string{"postfix", "saslpasswd2"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if len(missing) == 0 {
		return
	}
	reason := "needs a real Postfix (make test-deps installs it); missing: " + strings.Join(missing, ", ")
	if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// freePort returns a port below the range from which the kernel takes the ports
// of outgoing connections, so that none of these can occupy it meanwhile.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port on 127.0.0.1")
	return 0
}

// tempDir makes a directory that Postfix's daemons, which are not root, can
// enter too.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mailsidecar-postfix-") //nolint:usetesting // t.TempDir lies in a directory for its owner alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// syncBuffer takes the server's log while the test reads it.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
