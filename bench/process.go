package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// processSpec is a program to start.
type processSpec struct {
	name string
	args []string
	env  []string // nil means our own
	dir  string
	log  string // file for its output
}

// process is a running program, with the ones that it starts.
type process struct {
	spec   processSpec
	cmd    *exec.Cmd
	exited chan struct{}
}

// stopTimeout is how long an orderly stop may take.
const stopTimeout = 15 * time.Second

func startProcess(spec processSpec) (*process, error) {
	log, err := os.Create(spec.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	p := &process{spec: spec, cmd: exec.Command(spec.name, spec.args...), exited: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir = spec.env, spec.dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A group of its own: an interrupt at the terminal reaches the benchmark,
	// which then stops the programs that it has started.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// awaitPort waits until the port accepts connections.
func (p *process) awaitPort(ctx context.Context, port int) error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", local(port))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.exited:
			return p.failure("ended")
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
	}
	return p.failure("does not answer")
}

// failure is an error with the end of the program's log.
func (p *process) failure(what string) error {
	log, _ := os.ReadFile(p.spec.log)
	if len(log) > 2000 {
		log = log[len(log)-2000:]
	}
	return fmt.Errorf("%s %s:\n%s", filepath.Base(p.spec.name), what, bytes.TrimSpace(log))
}

// usage is what a program and all that it started have used.
type usage struct {
	cpu time.Duration
	// peak is the most that was resident, in kB. Of several processes it is what
	// they hold now, each shared page counted once (PSS).
	peak int
	rss  int // kB, now
}

// clockTick is USER_HZ, which is 100 on every Linux that Go runs on.
const clockTick = time.Second / 100

// usage adds up /proc/PID/stat over the process tree. A child that has ended is
// in its parent's sums.
func (p *process) usage() usage {
	var u usage
	pids := p.tree()
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid)
		fields := statFields(dir)
		if fields == nil {
			continue
		}
		for _, i := range []int{11, 12, 13, 14} { // utime stime cutime cstime
			ticks, _ := strconv.Atoi(fields[i])
			u.cpu += time.Duration(ticks) * clockTick
		}
		if len(pids) == 1 {
			u.peak = sizeKB(dir+"/status", "VmHWM:")
		} else {
			u.peak += sizeKB(dir+"/smaps_rollup", "Pss:")
		}
		u.rss += sizeKB(dir+"/status", "VmRSS:")
	}
	return u
}

// forgetPeak makes the peak start again from what is resident now.
func (p *process) forgetPeak() {
	for _, pid := range p.tree() {
		_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/clear_refs", []byte("5"), 0)
	}
}

// tree is the process and its descendants.
func (p *process) tree() []int {
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		fields := statFields(dir)
		if fields == nil {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], pid)
	}
	tree := []int{p.cmd.Process.Pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree
}

// statFields are those of /proc/PID/stat after the command's name: the state
// is the first (proc(5) counts it as the third).
func statFields(dir string) []string {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')'):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return nil
	}
	return fields
}

func sizeKB(file, key string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), key)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kb, _ := strconv.Atoi(fields[0])
	return kb
}
