package cli

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/diagnosis"
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
			[]string{" open ", "TLS 1.3", "days left", "PLAIN accepted", "Result: 127.0.0.1 takes the login", "No sender was tried"},
		},
		{
			"refused, then good", relay.password,
			[]int{refused, relay.port},
			0,
			[]string{" refused ", "PLAIN accepted", "Nothing has to be done: port", "serves", "takes the login"},
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
			[]string{"no answer", "PLAIN accepted", "the packets are dropped", "takes the login"},
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
	if len(got.Relays[0].Advice) == 0 || !strings.Contains(got.Relays[0].Advice[0].Found, "no answer: the packets are dropped") {
		t.Errorf("advice = %+v, want the way out first", got.Relays[0].Advice)
	}
}

// serverAnswer is what a server of the release before says of a refused login.
const serverAnswer = `{"ok":false,"relays":[{"name":"smtp.example.com","host":"smtp.example.com","dns_ms":1,"ok":false,
	"rungs":[{"port":587,"mode":"starttls","tcp":"open","tcp_ms":1,"auth":"refused","mechanism":"PLAIN","ms":9,
		"failure":{"stage":"auth","class":"relay","problem":"credentials_refused","code":535,"text":"no"}}],
	"advice":[{"ports":[587],"found":"the relay refused the password.","do":"Set another."}]}]}`

// Without the settings of a relay the server is asked, and that is said.
func TestCheckAsksTheServer(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.String()+" "+r.Header.Get("Authorization"))
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Mailsidecar", "1")
		_, _ = io.WriteString(w, serverAnswer)
	}))
	defer server.Close()
	clearEnv(t)
	t.Setenv("MAILSIDECAR_URL", server.URL)
	t.Setenv("MAILSIDECAR_API_KEY", "secret-of-the-key")
	status, out, errOut := run(t.Context(), "check", "--from", "Shop <shop@example.com>")
	for _, want := range []string{"the server at " + server.URL + " has checked", "PLAIN refused", "Port 587: the relay refused the password.", "-> Set another.", "no mail can go"} {
		if !strings.Contains(out, want) {
			t.Errorf("check prints\n%s\nwant %q", out, want)
		}
	}
	if status != 69 || errOut != "" {
		t.Errorf("check = %d %q, want 69", status, errOut)
	}
	status, out, errOut = run(t.Context(), "check", "--json")
	if status != 69 || !strings.Contains(out, `"reply_code": 535`) || !strings.Contains(out, `"code": 535`) || !strings.Contains(errOut, "has checked its relays") {
		t.Errorf("check --json = %d %q\n%s\nwant both names of the reply code, and on standard error that the server was asked", status, errOut, out)
	}
	want := []string{"POST /v1/relays/check?from=shop%40example.com Bearer secret-of-the-key", "POST /v1/relays/check Bearer secret-of-the-key"}
	if !slices.Equal(asked, want) {
		t.Errorf("the server was asked %q, want %q", asked, want)
	}
}

// With neither relays nor a server, both ways out are told.
func TestCheckWithoutSettings(t *testing.T) {
	clearEnv(t)
	t.Setenv("MAILSIDECAR_URL", "http://127.0.0.1:"+strconv.Itoa(refusedPort(t)))
	t.Setenv("SMTP_FROM", "shop@example.com")
	status, _, errOut := run(t.Context(), "check")
	for _, want := range []string{"SMTP_HOST is not set", "MAILSIDECAR_URL", "connection refused", "did you mean MAILSIDECAR_FROM?"} {
		if !strings.Contains(errOut, want) {
			t.Errorf("check says %q, want %q", errOut, want)
		}
	}
	if strings.Contains(errOut, "without AUTH") {
		t.Errorf("check says %q, want nothing of a relay that is not configured", errOut)
	}
	if status != 78 {
		t.Errorf("check = %d, want 78", status)
	}
	if status, _, errOut = run(t.Context(), "check", "--from", "shop"); status != 64 || !strings.Contains(errOut, "--from is no address") {
		t.Errorf("check --from shop = %d %q, want 64", status, errOut)
	}
}

// The sender is that of --from, or else of MAILSIDECAR_FROM.
func TestCheckSender(t *testing.T) {
	relay := startRelay(t)
	checkEnv(t, relay, relay.password, relay.port)
	t.Setenv("MAILSIDECAR_FROM", "Shop <shop@example.com>")
	for _, c := range []struct {
		args []string
		want string
	}{{nil, "from the sender shop@example.com."}, {[]string{"--from", "other@example.com"}, "from the sender other@example.com."}} {
		status, out, _ := run(t.Context(), append([]string{"check"}, c.args...)...)
		if said := strings.Join(strings.Fields(out), " "); status != 0 || !strings.Contains(said, "mail can go to 127.0.0.1") || !strings.Contains(said, c.want) {
			t.Errorf("check %v = %d\n%s\nwant %q", c.args, status, out, c.want)
		}
	}
}

// Whatever a server answers, it is printed without a panic.
func TestPrintAnyAnswer(t *testing.T) {
	for _, answer := range []string{
		`{}`, `{"ok":true}`, `{"ok":true,"rungs":[]}`, `{"ok":true,"rungs":[{"failure":{}}],"advice":[{}]}`, `{"advice":[{"ports":[]},{"ports":[1,2]},{"found":"x"}]}`,
		`{"rungs":[{"tls":{}},{"mode":"x","auth":"y"}],"other_ports":[{}],"oauth2":{"error":"x"}}`, `{"failure":{"code":1}}`,
	} {
		var c checked
		if err := json.Unmarshal([]byte(answer), &c); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		printReport(&out, c)
		if !strings.Contains(out.String(), "Result: no mail can go") {
			t.Errorf("of %s is printed %q, want a result", answer, out.String())
		}
		diagnosis.OfReport(c.Report, diagnosis.Settings{})
	}
}

// A key that cannot be used ends the server at its start: so a check says it.
func TestCheckDKIMSetting(t *testing.T) {
	relay := startRelay(t)
	checkEnv(t, relay, relay.password, relay.port)
	t.Setenv("MAILSIDECAR_DKIM", "example.com:/x")
	if status, _, errOut := run(t.Context(), "check"); status != 78 || !strings.Contains(errOut, "MAILSIDECAR_DKIM (entry 1) has no selector") {
		t.Errorf("check = %d %q, want 78 and what is wrong with MAILSIDECAR_DKIM", status, errOut)
	}
}

// What is no domain is named as it was given, and without the form of a setting that the
// command does not take.
func TestDKIMNewDomain(t *testing.T) {
	clearEnv(t)
	want := `"shop@example.com" is no domain: give one such as example.com`
	if status, _, errOut := run(t.Context(), "dkim", "new", "shop@example.com", "--out", t.TempDir()); status != 64 || !strings.Contains(errOut, want) {
		t.Errorf("dkim new = %d %q, want 64 and %s", status, errOut, want)
	}
}
