// Package machine holds what the tests take from the machine that they run on:
// programs that it may lack, directories, free ports, and the servers that a test
// starts and stops.
package machine

import (
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Limit is how long anything that a test waits for may take. It says nothing about
// the product: a machine that compiles beside the test is slow.
const Limit = 2 * time.Minute

// Wait asks done again and again until it returns true, and then returns true. It
// returns false after [Limit].
func Wait(done func() bool) bool {
	pause := 5 * time.Millisecond
	for deadline := time.Now().Add(Limit); !done(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			return false
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
	return true
}

// Await is [Wait], and fails the test when what was awaited has not come.
func Await(t *testing.T, what string, done func() bool) {
	t.Helper()
	if !Wait(done) {
		t.Fatalf("no %s after %v", what, Limit)
	}
}

// CI says whether the environment has CI=true: the machine is then expected to
// have everything.
func CI() bool {
	ci, _ := strconv.ParseBool(os.Getenv("CI"))
	return ci
}

// Lacks skips the test for the reason given, or fails it with CI=true.
func Lacks(t *testing.T, reason string) {
	t.Helper()
	if CI() {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Needs skips the test where one of the files or programs is missing, or fails it
// with CI=true. script installs them.
func Needs(t *testing.T, script string, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := os.Stat(name); err == nil {
			continue
		}
		if _, err := exec.LookPath(name); err != nil {
			Lacks(t, "this machine lacks "+name+": run "+script)
		}
	}
}

// TempDir makes a directory that is removed when the test ends. Unlike t.TempDir's
// its path is short enough for a socket in it (107 octets), and other users may
// enter it.
func TempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mailsidecar-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// handedOut keeps FreePort from returning a port twice.
var handedOut sync.Map

// FreePort returns a port of 127.0.0.1 that refuses connections. It is below the
// range from which the kernel takes the ports of outgoing connections, so that
// these do not occupy it later.
func FreePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 12000 + rand.IntN(20000)
		l, err := net.Listen("tcp", Address(port))
		if err != nil {
			continue
		}
		_ = l.Close()
		if _, taken := handedOut.LoadOrStore(port, true); !taken {
			return port
		}
	}
	t.Fatal("no free port on 127.0.0.1")
	return 0
}

// Address is that of a port of 127.0.0.1.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
