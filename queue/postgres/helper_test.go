//go:build linux

package postgres

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mailsidecar/queue/storetest"
)

// server is a PostgreSQL on loopback for the tests of this package, with a PgBouncer in
// transaction mode before it.
type server struct {
	dir         string
	port, pools int
	postgres    *exec.Cmd
	pgbouncer   *exec.Cmd
}

// unsynced are the settings of a server that never dies.
var unsynced = []string{"fsync=off", "full_page_writes=off"}

var (
	once    sync.Once
	running *server
	missing error // why there is no server
	schemas atomic.Int64
)

func TestMain(m *testing.M) {
	code := m.Run()
	if running != nil {
		running.stop()
	}
	os.Exit(code)
}

// start returns the server. Where PostgreSQL is not installed the test is skipped; with
// CI=true that is an error.
func start(t *testing.T) *server {
	t.Helper()
	once.Do(func() { running, missing = startServer(unsynced...) })
	switch ci := os.Getenv("CI"); {
	case missing == nil:
	case ci == "true" || ci == "1":
		t.Fatalf("no PostgreSQL: %v", missing)
	default:
		t.Skipf("no PostgreSQL: %v; scripts/install-test-deps installs it", missing)
	}
	return running
}

// startServer starts a server with these settings.
func startServer(settings ...string) (*server, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, path)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("initdb: %w", exec.ErrNotFound)
	}
	slices.SortFunc(found, func(a, b string) int { return len(a) - len(b) })
	bin := filepath.Dir(slices.MaxFunc(found, strings.Compare))
	pooler := ""
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			pooler = path
		}
	}
	if pooler == "" {
		return nil, fmt.Errorf("pgbouncer: %w", exec.ErrNotFound)
	}
	dir, err := os.MkdirTemp("", "mailsidecar-postgres-")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, port: freePort(), pools: freePort()}
	attr, err := s.unprivileged()
	if err != nil {
		return nil, err
	}
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", dir+"/data", "-U", "test", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
	initdb.SysProcAttr, initdb.Dir = attr, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	args := []string{"-D", dir + "/data", "-p", strconv.Itoa(s.port)}
	for _, setting := range append([]string{"listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200"}, settings...) {
		args = append(args, "-c", setting)
	}
	s.postgres = exec.Command(filepath.Join(bin, "postgres"), args...)
	ini := fmt.Sprintf("[databases]\npostgres = host=127.0.0.1 port=%d user=test\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
		"auth_type = any\npool_mode = transaction\ndefault_pool_size = 6\nmax_client_conn = 500\n", s.port, s.pools)
	if err := os.WriteFile(dir+"/pgbouncer.ini", []byte(ini), 0o644); err != nil {
		return nil, err
	}
	s.pgbouncer = exec.Command(pooler, "-q", dir+"/pgbouncer.ini")
	for _, c := range []*exec.Cmd{s.postgres, s.pgbouncer} {
		c.SysProcAttr, c.Dir = attr, dir
		c.Stdout, c.Stderr = &bytes.Buffer{}, &bytes.Buffer{}
		if err := c.Start(); err != nil {
			return nil, err
		}
	}
	for _, url := range []string{s.url(), s.pooledURL()} {
		if err := awaitServer(url); err != nil {
			s.stop()
			return nil, fmt.Errorf("%w: %s%s", err, s.postgres.Stderr, s.pgbouncer.Stderr)
		}
	}
	return s, nil
}

// startOwn returns a server for one test, which syncs.
func startOwn(t *testing.T, settings ...string) *server {
	t.Helper()
	start(t) // or skip
	s, err := startServer(settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

// signal sends a signal to the server and its children.
func (s *server) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	pids := []int{s.postgres.Process.Pid}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pids[0]))
	if err != nil {
		t.Skipf("no list of children: %v", err)
	}
	for _, field := range strings.Fields(string(children)) {
		pid, _ := strconv.Atoi(field)
		pids = append(pids, pid)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig)
	}
}

// exec executes a statement over a connection of its own.
func (s *server) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.url())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func awaitServer(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, url)
		if err == nil {
			return conn.Close(ctx)
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// unprivileged is how programs are started that refuse to run as root.
func (s *server) unprivileged() (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		return attr, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, os.Chown(s.dir, uid, gid)
}

func (s *server) stop() {
	for _, c := range []*exec.Cmd{s.pgbouncer, s.postgres} {
		if c != nil && c.Process != nil {
			_ = c.Process.Signal(syscall.SIGINT)
			_ = c.Wait()
		}
	}
	_ = os.RemoveAll(s.dir)
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *server) url() string {
	return fmt.Sprintf("postgres://test@127.0.0.1:%d/postgres?sslmode=disable", s.port)
}

func (s *server) pooledURL() string {
	return fmt.Sprintf("postgres://test@127.0.0.1:%d/postgres?sslmode=disable", s.pools)
}

// options returns those of a store in a new schema.
func options(t *testing.T, url string) Options {
	t.Helper()
	o := Options{URL: url, Schema: fmt.Sprintf("test %d", schemas.Add(1)), Retention: storetest.Retention, Connections: 4, Patience: 10 * time.Second}
	if _, _, err := Migrate(t.Context(), o); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	return o
}

func open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
