package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mailsidecar": main})
}

// TestCommands runs the scripts in testdata/cli, which type commands as a user
// would. Besides testscript's own commands they have
//
//	exits STATUS COMMAND [ARG...]   runs it and checks the exit status
//	setenv NAME FILE REGEXP         sets NAME to the regexp's first group in FILE
//	awaits REGEXP COMMAND [ARG...]  repeats it until its output matches
//	dns FILE                        serves the DNS records in FILE at $DNS
//
// and the variables ADDR, an address of this machine without a listener, and
// PORT, the port in it.
func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/cli",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "setenv": setenv, "awaits": awaits, "dns": dns},
		Setup: func(env *testscript.Env) error {
			port, err := freePort()
			if err != nil {
				return err
			}
			env.Setenv("PORT", port)
			env.Setenv("ADDR", net.JoinHostPort("127.0.0.1", port))
			env.Setenv("MAILSIDECAR_WAIT", "1m")      // a machine may be slow
			env.Setenv("GORACE", os.Getenv("GORACE")) // how long a command waits at its end for races
			return nil
		},
	})
}

// freePort returns a port that refuses connections. The kernel takes the ports of outgoing
// connections, and of servers that ask for any port, from above 32767: a script that began
// with one of these could lose it to another script.
func freePort() (string, error) {
	for range 1000 {
		port := strconv.Itoa(12000 + rand.IntN(20000))
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			continue
		}
		if _, taken := ports.LoadOrStore(port, true); l.Close() == nil && !taken {
			return port, nil
		}
	}
	return "", errors.New("no free port on 127.0.0.1")
}

// ports are those that scripts have.
var ports sync.Map

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s = %d, want %d", fmt.Sprint(args[1:]), got, want)
	}
}

func awaits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: awaits REGEXP COMMAND [ARG...]")
	}
	wanted := regexp.MustCompile("(?m)" + args[0])
	for range 1000 {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if wanted.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("%s never printed %s", fmt.Sprint(args[1:]), args[0])
}

func setenv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: setenv NAME FILE REGEXP")
	}
	found := regexp.MustCompile(args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if len(found) != 2 {
		ts.Fatalf("%s has no %s", args[1], args[2])
	}
	ts.Setenv(args[0], found[1])
}
