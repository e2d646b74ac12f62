package main

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// system is one of the things compared.
type system struct {
	name    string
	durable bool // when it answers, the message is on disk
	// start runs it for a case. An error leaves it out, with its text as the
	// reason; only for mailsidecar it ends the benchmark.
	start func(ctx context.Context, b *bench, s setup) (*instance, error)
}

// setup is what a case asks of a system.
type setup struct {
	dir         string // for its files, empty
	relayPort   int
	connections int // to the relay, at most, where the system can be told
	prefer      string
	payload     *payload
}

// instance is a running system.
type instance struct {
	*process
	connect func() (caller, error)
	stops   func() // before the process is; nil means nothing
}

func (i *instance) close() {
	if i.stops != nil {
		i.stops()
	}
	i.stop()
}

const mailsidecarName = "mailsidecar"

var (
	mailsidecar  = system{name: mailsidecarName, durable: true, start: startProduct(mailsidecarName)}
	inPostgres   = system{name: "mailsidecar-postgres", durable: true, start: startInPostgres(mailsidecarName)}
	floor        = system{name: "floor", durable: true, start: startFloor}
	goDial       = system{name: "go-dial", start: startGoDial}
	node8        = system{name: "node8", start: startNode(8)}
	node20       = system{name: "node20", start: startNode(20)}
	postfix      = system{name: "postfix", durable: true, start: startPostfix(false)}
	postfixReuse = system{name: "postfix-reuse", durable: true, start: startPostfix(true)}
)

// startHTTP starts a system that takes JSON on a port.
func startHTTP(ctx context.Context, s setup, port int, spec processSpec) (*instance, error) {
	spec.log = filepath.Join(s.dir, "log")
	p, err := startProcess(spec)
	if err != nil {
		return nil, err
	}
	if err := p.awaitPort(ctx, port); err != nil {
		p.stop()
		return nil, err
	}
	return &instance{process: p, connect: func() (caller, error) { return newHTTPCaller(port, s.prefer, s.payload) }}, nil
}

// environment is what mailsidecar is configured with: the defaults, but for
// where things are.
func (b *bench) environment(s setup, port int) []string {
	return []string{
		"MAILSIDECAR_ADDR=" + local(port), "MAILSIDECAR_DATA_DIR=" + s.dir,
		"SMTP_HOST=localhost", "SMTP_PORTS=" + strconv.Itoa(s.relayPort) + "/starttls",
		"SMTP_USERNAME=bench", "SMTP_PASSWORD=bench", "SMTP_TLS_CA_FILE=" + b.caFile,
		"SMTP_MAX_CONNECTIONS=" + strconv.Itoa(s.connections),
		"BENCH_PROFILE=" + b.options.profile,
	}
}

// startProduct runs the mailsidecar that was built under that name.
func startProduct(binary string) func(context.Context, *bench, setup) (*instance, error) {
	return func(ctx context.Context, b *bench, s setup) (*instance, error) {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		spec := processSpec{name: b.path(binary), args: []string{"serve"}, env: b.environment(s, port)}
		if !b.options.scrape || binary != mailsidecarName {
			return startHTTP(ctx, s, port, spec)
		}
		metrics, err := freePort()
		if err != nil {
			return nil, err
		}
		spec.env = append(spec.env, "MAILSIDECAR_METRICS_ADDR="+local(metrics))
		i, err := startHTTP(ctx, s, port, spec)
		if err == nil {
			i.stops = scrape(ctx, "http://"+local(metrics)+"/metrics")
		}
		return i, err
	}
}

// startInPostgres runs mailsidecar, or the other one, with its queue in a database.
func startInPostgres(binary string) func(context.Context, *bench, setup) (*instance, error) {
	return func(ctx context.Context, b *bench, s setup) (*instance, error) {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		u, err := url.Parse(b.options.postgres)
		if err != nil {
			return nil, errors.New("-postgres is no URL")
		}
		query := u.Query()
		query.Set("schema", "bench_"+filepath.Base(s.dir)+"_"+strconv.Itoa(port))
		u.RawQuery = query.Encode()
		spec := processSpec{name: b.path(binary), args: []string{"serve"}, env: b.environment(s, port)}
		spec.env = append(spec.env, "MAILSIDECAR_QUEUE="+u.String())
		return startHTTP(ctx, s, port, spec)
	}
}

func startFloor(ctx context.Context, b *bench, s setup) (*instance, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	return startHTTP(ctx, s, port, processSpec{name: b.path("floor"), args: []string{
		"-listen", local(port), "-port", strconv.Itoa(s.relayPort), "-ca", b.caFile,
		"-db", filepath.Join(s.dir, "floor.db"), "-connections", strconv.Itoa(s.connections),
	}})
}

func startGoDial(ctx context.Context, b *bench, s setup) (*instance, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	return startHTTP(ctx, s, port, processSpec{name: b.path("godial"), args: []string{
		"-listen", local(port), "-port", strconv.Itoa(s.relayPort), "-ca", b.caFile,
	}})
}

// startNode runs nodemailer with a pool of that size.
func startNode(connections int) func(context.Context, *bench, setup) (*instance, error) {
	return func(ctx context.Context, b *bench, s setup) (*instance, error) {
		dir := filepath.Join(b.options.root, "bench", "peers", "node")
		if _, err := os.Stat(filepath.Join(dir, "node_modules", "nodemailer")); err != nil {
			return nil, errors.New("nodemailer is not installed: bench/install-peers does so")
		}
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		return startHTTP(ctx, s, port, processSpec{
			name: "node", dir: dir,
			args: []string{"server.js", strconv.Itoa(port), strconv.Itoa(s.relayPort), b.caFile, strconv.Itoa(connections)},
			env:  []string{"PATH=" + os.Getenv("PATH"), "NODE_ENV=production"},
		})
	}
}

// firstLine makes an error fit into a list.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
