package machine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Cgroup is a control group with a limit of memory, as containers have one: what is over
// it is killed by the kernel.
type Cgroup struct {
	dir string
	v1  bool
}

// LimitMemory makes one of so many octets, without swap. It takes root and a mounted
// memory controller, version 1 or 2; without them the test is skipped, and fails with
// CI=true.
func LimitMemory(t *testing.T, limit int64) *Cgroup {
	t.Helper()
	octets := strconv.FormatInt(limit, 10)
	name := "mailsidecar-test-" + strconv.Itoa(os.Getpid())
	for _, g := range []struct {
		root     string
		v1       bool
		settings [][2]string
	}{
		{"/sys/fs/cgroup/memory", true, [][2]string{{"memory.limit_in_bytes", octets}, {"memory.swappiness", "0"}}},
		{"/sys/fs/cgroup", false, [][2]string{{"memory.max", octets}, {"memory.swap.max", "0"}}},
	} {
		c := &Cgroup{filepath.Join(g.root, name), g.v1}
		if err := os.Mkdir(c.dir, 0o755); err != nil {
			continue
		}
		t.Cleanup(func() { c.remove(t) })
		ok := true
		for _, s := range g.settings {
			ok = os.WriteFile(filepath.Join(c.dir, s[0]), []byte(s[1]), 0o600) == nil && ok
		}
		if ok {
			return c
		}
	}
	Lacks(t, "a memory limit needs root and a memory controller at /sys/fs/cgroup")
	return nil
}

// remove waits until the kernel has noticed that the last process has ended.
func (c *Cgroup) remove(t *testing.T) {
	if !Wait(func() bool { return os.Remove(c.dir) == nil || os.IsNotExist(os.Remove(c.dir)) }) {
		t.Errorf("%s cannot be removed", c.dir)
	}
}

// Enter is a command that enters the group and then runs the command in its further
// arguments.
func (c *Cgroup) Enter() []string {
	return []string{"/bin/sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, c.dir}
}

// Killed is how many processes the kernel has killed for want of memory.
func (c *Cgroup) Killed(t *testing.T) int {
	t.Helper()
	name := "memory.events"
	if c.v1 {
		name = "memory.oom_control"
	}
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key == "oom_kill" {
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no oom_kill in %s", text)
	return 0
}
