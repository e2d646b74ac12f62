package integration

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// TestConnectionMemory: an open connection takes the memory that docs/operating.md says at
// most, whatever it does.
func TestConnectionMemory(t *testing.T) {
	lean := leanBinary(t)
	head := " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + malloryKey + "\r\nContent-Type: application/json\r\n"
	body := "Content-Length: 10\r\n\r\n{"
	for _, tc := range []struct {
		name, octets string
		n, limit     int // connections, and KiB for each
		tls, answer  bool
	}{
		{"idle", "GET /livez" + head + "\r\n", 1500, 32, false, true},
		{"unfinished", "GET /livez" + head + strings.Repeat("x", 2000), 450, 32, false, false},
		{"waiting for a body", "POST /v1/messages" + head + body, 900, 32, false, false},
		{"waiting for a body, with a large header", "POST /v1/messages" + head + "X: " + strings.Repeat("x", 11<<10) + "\r\n" + body, 900, 32, false, false},
		{"HTTPS, idle", "GET /livez" + head + "\r\n", 1500, 64, true, true},
		{"HTTPS, waiting for a body", "POST /v1/messages" + head + "X: " + strings.Repeat("x", 11<<10) + "\r\n" + body, 900, 64, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tlsAddr := freeAddr(t)
			s := serveAs(t, durable(t, relaytest.New(t, relaytest.Options{}, nil)).with(environment{
				"MAILSIDECAR_API_KEYS": "mallory:" + malloryKey, "MAILSIDECAR_TLS": "self-signed", "MAILSIDECAR_TLS_ADDR": tlsAddr,
				"GOGC": "20", // what connections hold is measured, not what waits to be collected
			}), func(cmd *exec.Cmd) { cmd.Path = lean })
			before := s.memory(t, "VmRSS")
			addr := strings.TrimPrefix(s.url, "http://")
			if tc.tls {
				addr = tlsAddr
			}
			for range tc.n {
				c := connect(t, addr, tc.tls)
				if _, err := io.WriteString(c, tc.octets); err != nil {
					t.Fatal(err)
				}
				if tc.answer {
					if _, err := c.Read(make([]byte, 1)); err != nil {
						t.Fatal(err)
					}
				}
			}
			last := 0
			machine.Await(t, "end of the growth", func() bool {
				was := last
				last = s.memory(t, "VmRSS")
				time.Sleep(100 * time.Millisecond)
				return last <= was
			})
			const garbage = 12 << 10 // KiB, see service/memory.go
			t.Logf("%d connections take %d KiB each", tc.n, (last-before)/tc.n)
			if last-before > tc.n*tc.limit+garbage {
				t.Errorf("%d connections take %d KiB, want %d each at most", tc.n, last-before, tc.limit)
			}
		})
	}
}

// connect opens a connection until the test ends.
func connect(t *testing.T, addr string, overTLS bool) (c net.Conn) {
	t.Helper()
	var err error
	if overTLS {
		c, err = tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	} else {
		c, err = net.Dial("tcp", addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// memory is a line of /proc/PID/status, in KiB.
func (s *sidecar) memory(t *testing.T, name string) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range memoryLine.FindAllStringSubmatch(string(status), -1) {
		if m[1] == name {
			kib, err := strconv.Atoi(m[2])
			if err != nil {
				t.Fatal(err)
			}
			return kib
		}
	}
	t.Fatalf("no %s in:\n%s", name, status)
	return 0
}
