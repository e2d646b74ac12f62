// Package mta holds what the real mail servers in tests have in common: a
// directory with everything that is theirs, a certificate, an account, ports on
// loopback, a log, and Maildirs that the test reads.
//
// A server that the machine itself runs is not touched.
package mta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailsidecar/mailer/relaytest"
)

// Domain is the domain that the servers deliver mail for.
const Domain = "example.org"

// KeyAndChain is the file in an instance's directory with its private key and
// certificates, in PEM form.
const KeyAndChain = "server.pem"

const (
	// startTimeout is generous because a machine that compiles beside the test
	// takes seconds to fork a dozen daemons.
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// Instance is a mail server of a test's own. It accepts TLS as localhost and
// 127.0.0.1.
type Instance struct {
	// CAFile holds the certificate of the authority that signed the server's.
	CAFile string
	// Username and Password are the one account.
	Username, Password string

	name     string
	dir      string
	output   syncBuffer
	logFiles []string // below dir
}

// New makes the directory of a server, which goes when the test ends, with its
// certificate. name is the program's, for messages; logFiles are those that it
// will write below the directory, if any. When the test has failed its log is
// printed.
func New(t *testing.T, name string, logFiles ...string) *Instance {
	t.Helper()
	s := &Instance{
		Username: "app@mail.example.com", Password: "s3cret with blank: é%",
		name: name, dir: tempDir(t), logFiles: logFiles,
	}
	s.CAFile = s.Path("ca.pem")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s logged:\n%s", name, s.Log())
		}
	})
	if err := s.writeCertificates(); err != nil {
		t.Fatalf("set up %s: %v", name, err)
	}
	return s
}

// writeCertificates writes CAFile for clients and KeyAndChain for the server.
func (s *Instance) writeCertificates() error {
	server, err := relaytest.KeyAndChainPEM()
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.Path(KeyAndChain), server, 0o600); err != nil {
		return err
	}
	return os.WriteFile(s.CAFile, relaytest.AuthorityPEM(), 0o644)
}

// Account is what a client must know to log in: name and password, and the file
// with the authority to trust.
func (s *Instance) Account() (username, password, caFile string) {
	return s.Username, s.Password, s.CAFile
}

// Path is that of a file in the server's directory.
func (s *Instance) Path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// Log is what the server has logged so far, on its output and in files.
func (s *Instance) Log() string {
	log := s.output.String()
	for _, name := range s.logFiles {
		text, err := os.ReadFile(s.Path(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			text = []byte(err.Error())
		}
		log += string(text)
	}
	return log
}

// Process is a server's main process.
type Process struct {
	instance *Instance
	cmd      *exec.Cmd
	ask      func() error
	exited   chan struct{}
}

// Launch starts the server's main process, which stays in the foreground, and
// waits until it answers on every port. What it writes goes to the log. When the
// test ends, ask asks it to stop; nil means SIGTERM to it and to all that it has forked.
func (s *Instance) Launch(t *testing.T, cmd *exec.Cmd, ask func() error, ports ...int) *Process {
	t.Helper()
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	// A group of its own, so that an interrupt at the terminal reaches only the
	// test, which then stops the server in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// What it has forked may hold its output open.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", s.name, err)
	}
	p := &Process{instance: s, cmd: cmd, ask: ask, exited: make(chan struct{})}
	if ask == nil {
		p.ask = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	}
	go func() {
		fmt.Fprintln(&s.output, s.name, "exited:", cmd.Wait())
		close(p.exited)
	}()
	t.Cleanup(func() { p.Stop(t) })
	for _, port := range ports {
		if err := awaitPort(t.Context(), port, p.exited); err != nil {
			t.Fatalf("%s did not answer on port %d: %v\n%s", s.name, port, err, s.Log())
		}
	}
	return p
}

// Stop asks the process to stop, and waits for it. One that has ended already is
// left alone.
func (p *Process) Stop(t *testing.T) {
	t.Helper()
	select {
	case <-p.exited:
		return
	default:
	}
	if err := p.ask(); err != nil {
		t.Logf("stop %s: %v", p.instance.name, err)
	}
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		t.Errorf("%s did not stop within %v", p.instance.name, stopTimeout)
		p.Kill()
	}
}

// Kill ends the process and all that it has forked into its group, at once.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
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

// Require skips the test when something is missing for the server, unless
// CI=true: then it fails.
func Require(t *testing.T, server string, missing []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing = append(missing, "root ("+server+" does not start without)")
	}
	if len(missing) == 0 {
		return
	}
	reason := "needs a real " + server + " (make test-deps installs it); missing: " + strings.Join(missing, ", ")
	if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// FreePort returns a port below the range from which the kernel takes the ports
// of outgoing connections, so that none of these can occupy it meanwhile.
func FreePort(t *testing.T) int {
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

// tempDir makes a directory that daemons which are not root can enter too.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mailsidecar-mta-") //nolint:usetesting // t.TempDir lies in a directory for its owner alone
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
