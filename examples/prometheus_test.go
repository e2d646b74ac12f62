package examples

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/service"
)

// rule is an alert of prometheus/rules.yaml.
type rule struct {
	Alert, Expr string
	Labels      map[string]string
	Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	readYAML(t, "prometheus/rules.yaml", &file)
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// TestAlerts: Prometheus' own tool reads the configuration, and each alert fires and is quiet
// as its cases say.
func TestAlerts(t *testing.T) {
	promtool, err := filepath.Abs("../.tools/promtool")
	if err == nil {
		_, err = os.Stat(promtool)
	}
	if err != nil {
		promtool, err = exec.LookPath("promtool")
	}
	if err != nil {
		machine.Lacks(t, "promtool is not here: scripts/install-test-deps installs it")
	}
	for _, args := range [][]string{{"check", "config", "prometheus.yml"}, {"test", "rules", "rules_test.yaml"}} {
		c := exec.CommandContext(t.Context(), promtool, args...)
		c.Dir = "prometheus"
		if said, err := c.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, said)
		}
	}
}

// TestAlertsAreWhole: each alert says what is wrong and what to do, with settings that there
// are, and has a case in which it fires and one in which it is quiet.
func TestAlertsAreWhole(t *testing.T) {
	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	readYAML(t, "prometheus/rules_test.yaml", &file)
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, c := range test.AlertRuleTest {
			if len(c.ExpAlerts) > 0 {
				fires[c.Alertname] = true
			} else {
				quiet[c.Alertname] = true
			}
		}
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules(t) {
		if !fires[r.Alert] || !quiet[r.Alert] {
			t.Errorf("%s: a case in which it fires %t, one in which it is quiet %t", r.Alert, fires[r.Alert], quiet[r.Alert])
		}
		if r.Annotations["summary"] == "" || r.Annotations["what_to_do"] == "" || !slices.Contains([]string{"page", "warn", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: summary %q, what_to_do %q, severity %q", r.Alert, r.Annotations["summary"], r.Annotations["what_to_do"], r.Labels["severity"])
		}
		for _, name := range regexp.MustCompile(`\b(?:SMTP\d?|MAILSIDECAR)_[A-Z_]+\b`).FindAllString(r.Annotations["what_to_do"], -1) {
			if !strings.Contains(string(readme), "`"+strings.Replace(name, "SMTP2_", "SMTP_", 1)+"`") {
				t.Errorf("%s names %s, which is no setting", r.Alert, name)
			}
		}
	}
}

// dashboard is the part of grafana/dashboard.json that asks for metrics.
type dashboard struct {
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr, LegendFormat string }
	}
	Templating struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile("grafana/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboard: no two panels share an id or a place, and all ask for something.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	ids, places := map[int]string{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if other := ids[p.ID]; other != "" || p.ID == 0 {
			t.Errorf("%s and %s have the id %d", p.Title, other, p.ID)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := places[[2]int{x, y}]; other != "" || x >= 24 {
					t.Errorf("%s is where %s is, at %d, %d", p.Title, other, x, y)
				}
				places[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s asks for nothing", p.Title)
		}
	}
	if len(d.Templating.List) == 0 || d.Templating.List[0].Type != "datasource" {
		t.Error("there is no variable for the data source")
	}
}

// TestExportedNames: each metric, label and value that alerts and the dashboard ask for is
// exported by a server that has delivered mail, and so is each metric of docs/metrics.md.
func TestExportedNames(t *testing.T) {
	exported := scrapeServer(t)
	for _, r := range rules(t) {
		exported.check(t, r.Alert, r.Expr, strings.Join(slices.Sorted(maps.Values(r.Annotations)), " "))
	}
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			exported.check(t, p.Title, target.Expr, target.LegendFormat)
		}
	}
	doc, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(mailsidecar_\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(doc), -1) {
		name := m[1]
		if m[2] == "histogram" {
			name += "_bucket"
		}
		if exported[name] == nil {
			t.Errorf("docs/metrics.md has %s, which is not exported", m[1])
		}
	}
}

// exports are the values of the labels of metrics.
type exports map[string]map[string]map[string]bool

var (
	selector = regexp.MustCompile(`\b(mailsidecar_\w+|process_\w+|go_\w+|up\b)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)(=~|!=|!~|=)"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(?:by|on) \(([^)]*)\)`)
	shown    = regexp.MustCompile(`\{\{ ?(?:\$labels\.)?(\w+) ?\}\}`)
)

// check checks what an expression asks for, and the labels that a text shows of it.
func (e exports) check(t *testing.T, where, expr, text string) {
	t.Helper()
	labels := map[string]bool{"job": true, "instance": true}
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		name := m[1]
		if name == "up" {
			continue
		}
		if e[name] == nil {
			t.Errorf("%s asks for %s, which is not exported", where, name)
			continue
		}
		for label := range e[name] {
			labels[label] = true
		}
		for _, cond := range matcher.FindAllStringSubmatch(m[2], -1) {
			label, op, value := cond[1], cond[2], cond[3]
			values := e[name][label]
			if values == nil && label != "job" && label != "instance" {
				t.Errorf("%s: %s has no label %s", where, name, label)
			}
			if strings.HasPrefix(op, "!") || strings.HasPrefix(value, "$") {
				continue
			}
			for v := range strings.SplitSeq(value, "|") {
				if !values[v] {
					t.Errorf("%s: %s has no %s=%q", where, name, label, v)
				}
			}
		}
	}
	used := shown.FindAllStringSubmatch(text, -1)
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for name := range strings.SplitSeq(g[1], ",") {
			used = append(used, []string{"", strings.TrimSpace(name)})
		}
	}
	for _, u := range used {
		if !labels[u[1]] {
			t.Errorf("%s uses the label %s, which nothing in it has", where, u[1])
		}
	}
}

// scrapeServer starts a server with a relay that has a rate and another that uses OAuth2,
// sends mail that is taken and mail that is refused, and returns what it exports.
func scrapeServer(t *testing.T) exports {
	t.Helper()
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{})
	port := strconv.Itoa(relay.Listen(t))
	cfg := load(t, map[string]string{
		"SMTP_HOST": "127.0.0.1", "SMTP_PORTS": port, "SMTP_AUTH": "none", "SMTP_TLS_SERVER_NAME": relaytest.Host, "SMTP_RATE": "100/s",
		"SMTP2_HOST": "smtp.example.com", "SMTP2_USERNAME": "me", "SMTP2_OAUTH2_CLIENT_ID": "id", "SMTP2_OAUTH2_CLIENT_SECRET": "secret", "SMTP2_OAUTH2_SECRET_EXPIRES": "2036-11-30",
		"SMTP2_OAUTH2_REFRESH_TOKEN": "token", "SMTP2_OAUTH2_TOKEN_URL": "https://127.0.0.1:1/token",
		"MAILSIDECAR_DATA_DIR": t.TempDir(), "MAILSIDECAR_ADDR": "127.0.0.1:" + freePort(t), "MAILSIDECAR_METRICS_ADDR": "127.0.0.1:" + freePort(t),
	})
	cfg.Relays[0].RootCAs = relaytest.RootCAs()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := service.Start(ctx, service.Options{Config: cfg, Logger: slog.New(slog.DiscardHandler), Version: "1.2.3"})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	send := func(body string, want int) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"/v1/messages", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Content-Type": {"application/json"}, "Prefer": {"wait=30"}}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("POST /v1/messages = %d, want %d", res.StatusCode, want)
		}
	}
	send(`{"from": "shop@example.com", "to": "ana@example.org", "text": "x"}`, http.StatusOK)
	send(`{"from": "shop@example.com", "to": "nobody", "text": "x"}`, http.StatusUnprocessableEntity)
	return readMetrics(t, "http://"+cfg.Service.MetricsAddr+"/metrics")
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func readMetrics(t *testing.T, url string) exports {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res.StatusCode, err)
	}
	e := exports{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, _, _ := strings.Cut(line, " ")
		name, labels, _ := strings.Cut(name, "{")
		if e[name] == nil {
			e[name] = map[string]map[string]bool{}
		}
		for _, l := range matcher.FindAllStringSubmatch(labels, -1) {
			if e[name][l[1]] == nil {
				e[name][l[1]] = map[string]bool{}
			}
			e[name][l[1]][l[3]] = true
		}
	}
	return e
}
