package main

import (
	"context"
	"errors"
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

// singleCase gives figures that are no comparison under load.
type singleCase struct {
	name, title string
	short       bool
	measure     func(ctx context.Context, b *bench) ([]Figure, error)
}

var singles = []singleCase{
	{"rtt", "what the delay proxy adds", true, measureRTT},
	{"start", "start, and memory when idle", true, measureStart},
	{"blackhole", "the first port of the ladder drops packets", true, measureBlackHole},
	{"php", "a PHP page, round trip 20 ms", true, measurePHP},
}

// measureRTT checks the ruler: a NOOP through the proxy at 20 ms.
func measureRTT(ctx context.Context, b *bench) ([]Figure, error) {
	if err := b.setRTT(ctx, 20*time.Millisecond); err != nil {
		return nil, err
	}
	p, err := newPayload(0)
	if err != nil {
		return nil, err
	}
	c, err := newSMTPCaller(b.relay.far, p)
	if err != nil {
		return nil, err
	}
	defer c.close()
	var took []float64
	for range 20 {
		start := time.Now()
		if err := c.flight("NOOP\r\n", 250); err != nil {
			return nil, err
		}
		took = append(took, millis(time.Since(start)))
	}
	return []Figure{{"rtt", "one round trip at 20 ms, measured (NOOP, median)", median(took), "ms"}}, nil
}

// starts is how often the start is measured.
const starts = 5

// measureStart times from exec to the first 202, each time with a new store.
func measureStart(ctx context.Context, b *bench) ([]Figure, error) {
	var took []float64
	var idle float64
	for range starts {
		t, m, err := b.timeStart(ctx, mailsidecar)
		if err != nil {
			return nil, err
		}
		took, idle = append(took, t), m
	}
	return []Figure{
		{"start", "from exec to the first message accepted (median of 5, new store)", median(took), "ms"},
		{"idle_rss", "resident memory, one second after the first message", idle, "MB"},
	}, nil
}

// timeStart returns how long a start took to the first answer, in ms, and the
// resident memory a second later, in MB.
func (b *bench) timeStart(ctx context.Context, sys system) (took, idle float64, err error) {
	p, err := newPayload(0)
	if err != nil {
		return 0, 0, err
	}
	s := setup{relayPort: b.relay.near, connections: 8, payload: p}
	if s.dir, err = os.MkdirTemp(b.dir, "start-"); err != nil {
		return 0, 0, err
	}
	start := time.Now()
	i, err := sys.start(ctx, b, s)
	if err != nil {
		return 0, 0, err
	}
	defer i.close()
	if err := sendOne(i, b.nextRun()); err != nil {
		return 0, 0, err
	}
	took = millis(time.Since(start))
	err = sleep(ctx, time.Second)
	return took, float64(i.usage().rss) / 1024, err
}

func sendOne(i *instance, run int) error {
	c, err := i.connect()
	if err != nil {
		return err
	}
	defer c.close()
	return c.send(strconv.Itoa(run) + "-0")
}

// blackHoleMessages is how many messages follow the first one.
const blackHoleMessages = 15

// measureBlackHole compares, verdict awaited, a ladder of one good rung with one
// whose first rung never answers. The relay is near.
func measureBlackHole(ctx context.Context, b *bench) ([]Figure, error) {
	hole, err := openBlackHole()
	if err != nil {
		return nil, err
	}
	defer hole.close()
	good := strconv.Itoa(b.relay.near) + "/starttls"
	healthyFirst, healthyLater, err := b.verdictTimes(ctx, good)
	if err != nil {
		return nil, err
	}
	first, later, err := b.verdictTimes(ctx, strconv.Itoa(hole.port)+"/starttls,"+good)
	if err != nil {
		return nil, err
	}
	return []Figure{
		{"blackhole_first", "first port drops packets: extra wait of the first message", max(0, first-healthyFirst), "ms"},
		{"blackhole_later", "first port drops packets: extra wait of later messages (median)", max(0, later-healthyLater), "ms"},
	}, nil
}

// verdictTimes starts mailsidecar with a ladder, and returns how long the first
// message took to its verdict and the median of the later ones, in ms.
func (b *bench) verdictTimes(ctx context.Context, ladder string) (first, later float64, err error) {
	p, err := newPayload(0)
	if err != nil {
		return 0, 0, err
	}
	port, err := freePort()
	if err != nil {
		return 0, 0, err
	}
	s := setup{relayPort: b.relay.near, connections: 8, payload: p, prefer: "wait=20"}
	if s.dir, err = os.MkdirTemp(b.dir, "ladder-"); err != nil {
		return 0, 0, err
	}
	i, err := startHTTP(ctx, s, port, processSpec{
		name: b.path("mailsidecar"), args: []string{"serve"},
		env: append(b.environment(s, port), "SMTP_PORTS="+ladder),
	})
	if err != nil {
		return 0, 0, err
	}
	defer i.close()
	c, err := i.connect()
	if err != nil {
		return 0, 0, err
	}
	defer c.close()
	run := b.nextRun()
	var took []float64
	for number := range 1 + blackHoleMessages {
		start := time.Now()
		if err := c.send(fmt.Sprintf("%d-%d", run, number)); err != nil {
			return 0, 0, err
		}
		took = append(took, millis(time.Since(start)))
	}
	return took[0], median(took[1:]), nil
}

// blackHole is a port whose packets get no answer, as behind a firewall that
// drops them: the kernel's queue of unaccepted connections is full.
type blackHole struct {
	port  int
	fd    int
	conns []net.Conn
}

func openBlackHole() (*blackHole, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	h := &blackHole{port: port, fd: fd}
	err = errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0))
	for range 5 {
		if err != nil {
			break
		}
		conn, dialErr := net.DialTimeout("tcp", local(port), 200*time.Millisecond)
		if dialErr != nil {
			return h, nil
		}
		h.conns = append(h.conns, conn)
	}
	h.close()
	return nil, errors.Join(err, errors.New("no port can be made to drop packets"))
}

func (h *blackHole) close() {
	for _, conn := range h.conns {
		conn.Close()
	}
	_ = syscall.Close(h.fd)
}

// phpMessages is how many messages each PHP script sends.
const phpMessages = 30

// measurePHP times a page's mail: by PHPMailer itself, and by one HTTP request to
// mailsidecar. The scripts take turns.
func measurePHP(ctx context.Context, b *bench) ([]Figure, error) {
	if _, err := exec.LookPath("php"); err != nil {
		b.missing["PHPMailer"] = "PHP is not installed: bench/install-peers does so"
		return nil, nil
	}
	p, err := newPayload(0)
	if err != nil {
		return nil, err
	}
	if err := b.setRTT(ctx, 20*time.Millisecond); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := setup{relayPort: b.relay.far, connections: 8, payload: p}
	if s.dir, err = os.MkdirTemp(b.dir, "php-"); err != nil {
		return nil, err
	}
	request := filepath.Join(s.dir, "request.json")
	if err := os.WriteFile(request, p.json, 0o644); err != nil {
		return nil, err
	}
	i, err := startHTTP(ctx, s, port, processSpec{name: b.path("mailsidecar"), args: []string{"serve"}, env: b.environment(s, port)})
	if err != nil {
		return nil, err
	}
	defer i.close()
	url := "http://" + local(port) + "/v1/messages"
	var figures []Figure
	for _, script := range []struct {
		key, name string
		args      []string
	}{
		{"php_direct", "PHPMailer direct, p50", []string{"phpmailer.php", strconv.Itoa(b.relay.far), b.caFile, request}},
		{"php_post", "one HTTP request to mailsidecar, p50", []string{"post.php", url, request}},
		{"php_wait", "one HTTP request to mailsidecar, verdict awaited, p50", []string{"post.php", url, request, "", "", "wait=10"}},
	} {
		f, err := b.runPHP(ctx, script.args)
		if err != nil {
			b.missing[script.name] = err.Error()
			fmt.Printf("   left out: %s: %s\n", script.name, firstLine(err))
			continue
		}
		figures = append(figures, Figure{script.key, "PHP page at 20 ms: " + script.name, f, "ms"})
	}
	return figures, nil
}

// runPHP runs a script and returns the median of the times that it prints. The
// run's number and the count go behind the script's first arguments.
func (b *bench) runPHP(ctx context.Context, args []string) (float64, error) {
	run := []string{strconv.Itoa(b.nextRun()), strconv.Itoa(phpMessages)}
	if len(args) > 4 && args[3] == "" {
		args[3], args[4] = run[0], run[1]
	} else {
		args = append(args, run...)
	}
	cmd := exec.CommandContext(ctx, "php", args...)
	cmd.Dir = filepath.Join(b.options.root, "bench", "peers", "php")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", args[0], err, out)
	}
	var took []float64
	for field := range strings.FieldsSeq(string(out)) {
		value, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0, fmt.Errorf("%s printed %q", args[0], out)
		}
		took = append(took, value)
	}
	return median(took), nil
}
