//go:build linux

// Package postgres starts a PostgreSQL on loopback for a test.
package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mailsidecar/integration/machine"
)

// Server is a running server.
type Server struct {
	bin, dir string
	port     int
	attr     *syscall.SysProcAttr
	cmd      *exec.Cmd
}

// programs is where PostgreSQL's programs are. Without them the test is skipped; with CI=true it
// fails.
func programs(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		machine.Lacks(t, "no PostgreSQL: scripts/install-test-deps installs it")
	}
	return filepath.Dir(slices.MaxFunc(found, strings.Compare))
}

// directory makes a directory for programs that refuse to run as root, and says as whom they
// are started instead.
func directory(t *testing.T) (string, *syscall.SysProcAttr) {
	t.Helper()
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	dir, err := os.MkdirTemp("", "mailsidecar-shared-") //nolint:usetesting // another user must reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if os.Getuid() != 0 {
		return dir, attr
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return dir, attr
}

// Start starts a server and stops it when the test ends. Where PostgreSQL is not installed the
// test is skipped; with CI=true it fails.
func Start(t *testing.T) *Server {
	t.Helper()
	bin := programs(t)
	dir, attr := directory(t)
	s := &Server{bin: bin, dir: dir, port: machine.FreePort(t), attr: attr}
	pw := filepath.Join(dir, "pw")
	if err := os.WriteFile(pw, []byte("hunter2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	initdb := exec.Command(filepath.Join(s.bin, "initdb"), "-D", dir+"/data", "-U", "shop", "--pwfile="+pw, "--auth=scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C")
	initdb.SysProcAttr, initdb.Dir = s.attr, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	s.Run(t)
	t.Cleanup(s.Stop)
	return s
}

// URL is the server's address.
func (s *Server) URL() string {
	return fmt.Sprintf("postgres://shop:hunter2@127.0.0.1:%d/postgres?sslmode=disable", s.port)
}

// Run starts it, after Stop.
func (s *Server) Run(t *testing.T) {
	t.Helper()
	s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.dir+"/data", "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=")
	s.cmd.SysProcAttr, s.cmd.Dir = s.attr, s.dir
	var log bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &log, &log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	machine.Await(t, "PostgreSQL", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, s.URL())
		if err == nil {
			_ = conn.Close(ctx)
		}
		return err == nil
	})
}

// Exec executes a statement.
func (s *Server) Exec(t *testing.T, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Freeze stops it and its children as a machine that hangs: the kernel goes on to take what is
// sent. Thaw lets them go on.
func (s *Server) Freeze(t *testing.T) { s.signal(t, syscall.SIGSTOP) }

// Thaw is after Freeze.
func (s *Server) Thaw(t *testing.T) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	pid := s.cmd.Process.Pid
	_ = syscall.Kill(pid, sig)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(string(children)) {
		child, _ := strconv.Atoi(field)
		_ = syscall.Kill(child, sig)
	}
}

// Stop stops it in immediate mode, which is a crash.
func (s *Server) Stop() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Signal(syscall.SIGQUIT)
		_ = s.cmd.Wait()
	}
}
