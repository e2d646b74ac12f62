package machine

import (
	"bytes"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is a program that a test has started, with all that it has forked.
type Server struct {
	cmd    *exec.Cmd
	log    *Buffer
	ask    func() error
	exited chan struct{}
}

// Start starts a server, waits until ready returns true, and stops it when the
// test ends. Its output goes to log. ask asks it to stop; nil sends SIGTERM to it
// and to all that it has forked.
func Start(t *testing.T, cmd *exec.Cmd, log *Buffer, ask func() error, ready func() bool) *Server {
	t.Helper()
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: an interrupt at the terminal reaches only the test, which
	// then stops the server in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// What it has forked may hold its output open.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &Server{cmd: cmd, log: log, ask: ask, exited: make(chan struct{})}
	if ask == nil {
		s.ask = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	}
	go func() {
		_ = cmd.Wait()
		close(s.exited)
	}()
	t.Cleanup(func() { s.Stop(t) })
	s.await(t, ready)
	return s
}

// Serve is [Start] for a server whose output matters only when the test fails.
func Serve(t *testing.T, cmd *exec.Cmd, ready func() bool) {
	t.Helper()
	log := new(Buffer)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s printed:\n%s", filepath.Base(cmd.Path), log)
		}
	})
	Start(t, cmd, log, nil, ready)
}

func (s *Server) await(t *testing.T, ready func() bool) {
	t.Helper()
	ended := false
	up := Wait(func() bool {
		ended = s.ended()
		return ended || ready()
	})
	switch {
	case ended:
		t.Fatalf("%s has ended: %v\n%s", s.cmd.Path, s.cmd.ProcessState, s.log)
	case !up:
		t.Fatalf("%s does not serve after %v\n%s", s.cmd.Path, Limit, s.log)
	}
}

func (s *Server) ended() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

// Stop asks the server to stop and waits for it. One that has ended already is
// left alone.
func (s *Server) Stop(t *testing.T) {
	t.Helper()
	if s.ended() {
		return
	}
	if err := s.ask(); err != nil {
		t.Logf("stop %s: %v", s.cmd.Path, err)
	}
	if !Wait(s.ended) {
		t.Errorf("%s did not stop within %v", s.cmd.Path, Limit)
		s.Kill()
	}
}

// Kill ends the server and all that it has forked into its group, at once.
func (s *Server) Kill() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.exited
}

// Accepts returns a condition: something accepts connections at the address, for
// example ("tcp", "127.0.0.1:587") or ("unix", path).
func Accepts(network, address string) func() bool {
	return func() bool {
		conn, err := net.Dial(network, address)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	}
}

// Buffer is output that a test reads while it is still being written.
type Buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
