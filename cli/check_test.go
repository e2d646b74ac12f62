package cli

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// checkEnv configures a relay at 127.0.0.1 with the ports and the password given.
func checkEnv(t *testing.T, relay *demoRelay, password string, ports ...int) {
	t.Helper()
	clearEnv(t)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, relay.ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	list := make([]string, len(ports))
	for i, p := range ports {
		list[i] = strconv.Itoa(p)
	}
	t.Setenv("SMTP_HOST", "127.0.0.1")
	t.Setenv("SMTP_PORTS", strings.Join(list, ","))
	t.Setenv("SMTP_USERNAME", relay.username)
	t.Setenv("SMTP_PASSWORD", password)
	t.Setenv("SMTP_TLS_CA_FILE", caFile)
}

func startRelay(t *testing.T) *demoRelay {
	t.Helper()
	relay, err := startDemoRelay(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := relay.close(); err != nil {
			t.Errorf("close = %v", err)
		}
	})
	return relay
}

// blackHole is a port that drops packets; without one the test is skipped.
func blackHole(t *testing.T) int {
	t.Helper()
	port, release, err := deadPort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	dialer := net.Dialer{Timeout: 100 * time.Millisecond}
	c, err := dialer.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil {
		_ = c.Close()
		t.Skip("this system makes connections that nobody accepts")
	}
	var e net.Error
	if !errors.As(err, &e) || !e.Timeout() {
		t.Fatalf("dialling the dead port: %v, want a time-out", err)
	}
	return port
}

// refusedPort is one on which no program listens any more.
func refusedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func TestCheck(t *testing.T) {
	relay := startRelay(t)
	dead, refused := blackHole(t), refusedPort(t)
	for _, c := range []struct {
		name     string
		password string
		ports    []int
		status   int
		want     []string
	}{
		{
			"good", relay.password,
			[]int{relay.port},
			0,
			[]string{" open ", "TLS 1.3", "days left", "PLAIN accepted", "Result: mail can go to 127.0.0.1"},
		},
		{
			"refused, then good", relay.password,
			[]int{refused, relay.port},
			0,
			[]string{" refused ", "PLAIN accepted", "this port serves", "Nothing has to be done", "Result: mail can go"},
		},
		{
			"refused", relay.password,
			[]int{refused},
			69,
			[]string{" refused ", "Start the relay", "Result: no mail can go"},
		},
		{
			"wrong password", "wrong",
			[]int{relay.port},
			69,
			[]string{"PLAIN refused", "refused the user name or the password", "535 5.7.8", "SMTP_USERNAME and SMTP_PASSWORD"},
		},
		{
			"blocked, then good", relay.password,
			[]int{dead, relay.port},
			0,
			[]string{"no answer", "PLAIN accepted", "the packets are dropped", "Result: mail can go"},
		},
	} {
		checkEnv(t, relay, c.password, c.ports...)
		status, out, errOut := run(t.Context(), "check", "--timeout", "2s")
		if status != c.status || errOut != "" {
			t.Errorf("%s: check = %d, want %d; %s", c.name, status, c.status, errOut)
		}
		for _, want := range c.want {
			if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.TrimSpace(want)) {
				t.Errorf("%s: check prints\n%s\nwant %q", c.name, out, want)
			}
		}
		if c.password != "wrong" && strings.Contains(out, c.password) {
			t.Errorf("%s: check prints the password", c.name)
		}
	}
}

// A relay of which no port answers.
func TestCheckNoAnswer(t *testing.T) {
	relay := startRelay(t)
	checkEnv(t, relay, relay.password, blackHole(t), blackHole(t), blackHole(t))
	status, out, _ := run(t.Context(), "check", "--timeout", "4s", "--json")
	if status != 69 {
		t.Errorf("check = %d, want 69", status)
	}
	var got struct {
		Relays []checked `json:"relays"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Relays) != 1 || len(got.Relays[0].Rungs) != 3 {
		t.Fatalf("check --json: %v\n%s", err, out)
	}
	if len(got.Relays[0].Advice) == 0 || !strings.Contains(got.Relays[0].Advice[0].Found, "none of the relay's ports answers") {
		t.Errorf("advice = %+v, want the way out first", got.Relays[0].Advice)
	}
}
