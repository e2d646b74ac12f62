//go:build linux

package postgres

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mailsidecar/integration/machine"
)

// Cluster is a primary and a synchronous standby under Patroni, with an etcd of one node.
type Cluster struct {
	dir   string
	bin   string // of PostgreSQL
	attr  *syscall.SysProcAttr
	etcd  *exec.Cmd
	nodes []*Node
}

// Node is one of them.
type Node struct {
	cluster        *Cluster
	name           string
	port, restPort int
	patroni        *exec.Cmd
	log            *machine.Buffer
}

const nodeSettings = `scope: mail
name: %[1]s
restapi: {listen: "127.0.0.1:%[2]d", connect_address: "127.0.0.1:%[2]d"}
etcd3: {hosts: ["127.0.0.1:%[3]d"]}
bootstrap:
  dcs:
    ttl: 15
    loop_wait: 3
    retry_timeout: 5
    synchronous_mode: true
    postgresql: {use_pg_rewind: true, parameters: {wal_log_hints: "on"}}
  initdb: [data-checksums, {encoding: UTF8}, {locale: C}]
postgresql:
  listen: 127.0.0.1:%[4]d
  connect_address: 127.0.0.1:%[4]d
  data_dir: %[5]s/%[1]s
  bin_dir: %[6]s
  pgpass: %[5]s/%[1]s.pgpass
  authentication:
    superuser: {username: shop, password: hunter2}
    replication: {username: replication, password: hunter2}
    rewind: {username: rewind, password: hunter2}
  parameters: {unix_socket_directories: "", log_min_messages: fatal}
  pg_hba: ["host all all 127.0.0.1/32 scram-sha-256", "host replication all 127.0.0.1/32 scram-sha-256"]
`

// StartCluster starts two nodes, and returns when the second one is the synchronous standby.
// Where a program is missing the test is skipped; with CI=true it fails.
func StartCluster(t *testing.T) *Cluster {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	etcd := filepath.Join(filepath.Dir(file), "..", "..", ".tools", "etcd")
	if path, err := exec.LookPath("etcd"); err == nil {
		etcd = path
	}
	machine.Needs(t, "scripts/install-test-deps", "/usr/bin/patroni", etcd)
	c := &Cluster{bin: programs(t)}
	c.dir, c.attr = directory(t)
	client, peer := machine.FreePort(t), machine.FreePort(t)
	url := func(port int) string { return "http://" + machine.Address(port) }
	c.etcd = c.start(t, &machine.Buffer{}, etcd, "--name", "e0", "--data-dir", filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", url(client), "--advertise-client-urls", url(client),
		"--listen-peer-urls", url(peer), "--initial-advertise-peer-urls", url(peer), "--initial-cluster", "e0="+url(peer))
	machine.Await(t, "etcd", machine.Accepts("tcp", machine.Address(client)))
	for _, name := range []string{"n1", "n2"} {
		n := &Node{cluster: c, name: name, port: machine.FreePort(t), restPort: machine.FreePort(t), log: &machine.Buffer{}}
		c.nodes = append(c.nodes, n)
		settings := fmt.Sprintf(nodeSettings, name, n.restPort, client, n.port, c.dir, c.bin)
		if err := os.WriteFile(filepath.Join(c.dir, name+".yml"), []byte(settings), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			n.Kill()
			if t.Failed() {
				t.Logf("Patroni of %s printed:\n%s", name, n.log)
			}
		})
		n.Start(t)
		role := map[string]string{"n1": "primary", "n2": "sync"}[name]
		machine.Await(t, name+" as "+role, func() bool { return n.is(role) })
	}
	return c
}

// start starts a program as the user that PostgreSQL runs as. It ends with the test.
func (c *Cluster) start(t *testing.T, log *machine.Buffer, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr, cmd.Dir = c.attr, c.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + c.dir, "LANG=C"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = time.Second // what it has started holds its output open
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

// URL names both nodes.
func (c *Cluster) URL() string {
	return fmt.Sprintf("postgres://shop:hunter2@127.0.0.1:%d,127.0.0.1:%d/postgres?sslmode=disable", c.nodes[0].port, c.nodes[1].port)
}

// Leader waits for a primary that has a synchronous standby, and returns it. Patroni sees what
// has changed every three seconds: until it has, its answers are old.
func (c *Cluster) Leader(t *testing.T) (leader *Node) {
	t.Helper()
	since := time.Now()
	machine.Await(t, "primary with a standby", func() bool {
		now, standby := (*Node)(nil), false
		for _, n := range c.nodes {
			switch {
			case n.is("primary"):
				now = n
			case n.is("sync"):
				standby = true
			}
		}
		if now == nil || !standby || now != leader || !now.hasStandby() {
			leader, since = now, time.Now()
		}
		return time.Since(since) > 5*time.Second
	})
	return leader
}

// hasStandby asks PostgreSQL whether its commits wait for a standby.
func (n *Node) hasStandby() (has bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://shop:hunter2@127.0.0.1:%d/postgres?sslmode=disable", n.port))
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close(ctx) }()
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')`).Scan(&has)
	return err == nil && has
}

// is asks Patroni whether the node has that role just now.
func (n *Node) is(role string) bool {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get("http://" + machine.Address(n.restPort) + "/" + role)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Start starts the node's Patroni, which starts PostgreSQL.
func (n *Node) Start(t *testing.T) {
	t.Helper()
	n.patroni = n.cluster.start(t, n.log, "/usr/bin/patroni", filepath.Join(n.cluster.dir, n.name+".yml"))
}

// postmaster is the process id of PostgreSQL; zero where there is none.
func (n *Node) postmaster() int {
	text, err := os.ReadFile(filepath.Join(n.cluster.dir, n.name, "postmaster.pid"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, _ := strconv.Atoi(line)
	// The file outlives the process.
	if command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || !strings.Contains(string(command), n.cluster.dir) {
		return 0
	}
	return pid
}

// KillPostmaster kills PostgreSQL without its children; Patroni lives.
func (n *Node) KillPostmaster() {
	if pid := n.postmaster(); pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Kill kills all of the node at once, as a machine that loses its power.
func (n *Node) Kill() {
	n.signal(syscall.SIGKILL)
	_ = n.patroni.Wait()
}

// Freeze lets all of the node stand still, as a machine that hangs.
func (n *Node) Freeze() { n.signal(syscall.SIGSTOP) }

func (n *Node) signal(sig syscall.Signal) {
	var pids []int
	if n.patroni.ProcessState == nil {
		pids = append(pids, family(n.patroni.Process.Pid)...)
	}
	if pid := n.postmaster(); pid != 0 {
		pids = append(pids, family(pid)...)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig)
	}
}

// family is a process and all that it has started.
func family(pid int) []int {
	pids := []int{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		children, _ := os.ReadFile(task)
		for _, field := range strings.Fields(string(children)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, family(child)...)
			}
		}
	}
	return pids
}
