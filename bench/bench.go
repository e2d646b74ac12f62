package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"
)

// bench is shared by all cases.
type bench struct {
	options options
	dir     string // scratch of this run
	caFile  string
	relay   relayPorts
	sink    *process
	delay   *process
	missing map[string]string // peers, with the reason
	runs    atomic.Int64      // the last run's number, in X-Bench
}

type relayPorts struct {
	near, far                 int // the sink itself, and behind the delay proxy
	sinkControl, delayControl int
}

func newBench(ctx context.Context, o options) (_ *bench, err error) {
	dir, err := os.MkdirTemp(o.scratch, "mailsidecar-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, dir: dir, missing: map[string]string{}}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	// Postfix's daemons, which do not run as root, enter it to reach their queue.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	b.caFile = b.path("ca.pem")
	if err := writeCertificates(b.caFile, b.path("server.pem")); err != nil {
		return nil, err
	}
	fmt.Println("building")
	if err := b.build(ctx); err != nil {
		return nil, err
	}
	return b, b.startRelay(ctx)
}

func (b *bench) path(elem ...string) string {
	return filepath.Join(append([]string{b.dir}, elem...)...)
}

func (b *bench) close() {
	for _, p := range []*process{b.delay, b.sink} {
		if p != nil {
			p.stop()
		}
	}
	_ = os.RemoveAll(b.dir)
}

// build compiles the product as it is released, and the parts of the benchmark.
func (b *bench) build(ctx context.Context) error {
	here := filepath.Join(b.options.root, "bench")
	if err := b.compile(ctx, b.options.root, "mailsidecar", b.profiling()); err != nil {
		return err
	}
	programs := []string{"sink", "delay", "peers/godial", "peers/floor"}
	if b.options.against != "" {
		programs = programs[:2]
		if err := b.buildOther(ctx); err != nil {
			return err
		}
	}
	for _, program := range programs {
		if err := b.compile(ctx, filepath.Join(here, program), filepath.Base(program), nil); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) compile(ctx context.Context, dir, out string, flags []string) error {
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", b.path(out)}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", out, err, text)
	}
	return nil
}

// profiling returns the flags that put profiled/main.go in the place of the
// product's, if a profile is wanted.
func (b *bench) profiling() []string {
	if b.options.profile == "" {
		return nil
	}
	overlay := b.path("overlay.json")
	text := fmt.Sprintf(`{"Replace": {%q: %q}}`, filepath.Join(b.options.root, "main.go"),
		filepath.Join(b.options.root, "bench", "profiled", "main.go"))
	if err := os.WriteFile(overlay, []byte(text), 0o644); err != nil {
		return []string{"-overlay", overlay} // which does not exist, and go build says so
	}
	return []string{"-tags", "profiled", "-overlay", overlay}
}

func (b *bench) startRelay(ctx context.Context) error {
	for _, port := range []*int{&b.relay.near, &b.relay.far, &b.relay.sinkControl, &b.relay.delayControl} {
		var err error
		if *port, err = freePort(); err != nil {
			return err
		}
	}
	var err error
	b.sink, err = startProcess(processSpec{
		name: b.path("sink"), log: b.path("sink.log"),
		args: []string{"-listen", local(b.relay.near), "-control", local(b.relay.sinkControl), "-cert", b.path("server.pem")},
	})
	if err != nil {
		return err
	}
	b.delay, err = startProcess(processSpec{
		name: b.path("delay"), log: b.path("delay.log"),
		args: []string{"-listen", local(b.relay.far), "-target", local(b.relay.near), "-control", local(b.relay.delayControl)},
	})
	if err != nil {
		return err
	}
	for p, port := range map[*process]int{b.sink: b.relay.near, b.delay: b.relay.far} {
		if err := p.awaitPort(ctx, port); err != nil {
			return err
		}
	}
	if err := b.sink.awaitPort(ctx, b.relay.sinkControl); err != nil {
		return err
	}
	return b.delay.awaitPort(ctx, b.relay.delayControl)
}

// setRTT sets the distance of the far port.
func (b *bench) setRTT(ctx context.Context, rtt time.Duration) error {
	_, err := b.control(ctx, http.MethodPost, b.relay.delayControl, "/rtt?d="+rtt.String())
	return err
}

// arrived is how many different messages of a run the relay has.
func (b *bench) arrived(ctx context.Context, run int) (int, error) {
	text, err := b.control(ctx, http.MethodGet, b.relay.sinkControl, "/count?run="+strconv.Itoa(run))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(text))
}

// arrivals says of each message of a run how often the relay got it.
func (b *bench) arrivals(ctx context.Context, run int) ([]byte, error) {
	return b.control(ctx, http.MethodGet, b.relay.sinkControl, "/run?run="+strconv.Itoa(run))
}

func (b *bench) control(ctx context.Context, method string, port int, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+local(port)+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

func (b *bench) nextRun() int { return int(b.runs.Add(1)) }

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
