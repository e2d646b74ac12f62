package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// Cgroup is a control group, as each container has one.
type Cgroup struct {
	dir string
	v1  bool
}

// setting is a file of a control group, and what is written to it.
type setting struct{ file, value string }

// LimitMemory makes a group with a limit of so many octets, without swap: what is over it is
// killed by the kernel. It takes root and a mounted memory controller, version 1 or 2;
// without them the test is skipped, and fails with CI=true.
func LimitMemory(t *testing.T, limit int64) *Cgroup {
	t.Helper()
	octets := strconv.FormatInt(limit, 10)
	return newCgroup(t, "memory",
		[]setting{{"memory.limit_in_bytes", octets}, {"memory.swappiness", "0"}},
		[]setting{{"memory.max", octets}, {"memory.swap.max", "0"}})
}

// PreferCPU makes a group that gets the processor four times as much as any other process,
// where both want it. More would keep the kernel's own threads from writing to the disk. It
// takes what [LimitMemory] does, of the controller for the processor.
func PreferCPU(t *testing.T) *Cgroup {
	t.Helper()
	return newCgroup(t, "cpu", []setting{{"cpu.shares", "4096"}}, []setting{{"cpu.weight", "400"}})
}

// YieldCPU makes a group that gets the processor when hardly any other process wants it, as
// nice 19 does. It is for what would run on another machine. It takes what [PreferCPU] does.
func YieldCPU(t *testing.T) *Cgroup {
	t.Helper()
	return newCgroup(t, "cpu", []setting{{"cpu.shares", "15"}}, []setting{{"cpu.weight", "1"}})
}

// groups is how many this process has made.
var groups atomic.Int64

// newCgroup makes a group of the controller with the settings, those of version 1 or of
// version 2.
func newCgroup(t *testing.T, controller string, v1, v2 []setting) *Cgroup {
	t.Helper()
	name := fmt.Sprintf("mailsidecar-test-%d-%d", os.Getpid(), groups.Add(1))
	for _, g := range []struct {
		root     string
		v1       bool
		settings []setting
	}{
		{"/sys/fs/cgroup/" + controller, true, v1},
		{"/sys/fs/cgroup", false, v2},
	} {
		c := &Cgroup{filepath.Join(g.root, name), g.v1}
		if err := os.Mkdir(c.dir, 0o755); err != nil {
			continue
		}
		t.Cleanup(func() { c.remove(t) })
		ok := true
		for _, s := range g.settings {
			ok = os.WriteFile(filepath.Join(c.dir, s.file), []byte(s.value), 0o600) == nil && ok
		}
		if ok {
			return c
		}
	}
	Lacks(t, "this test needs root and a "+controller+" controller at /sys/fs/cgroup")
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
