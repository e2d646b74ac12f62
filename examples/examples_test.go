// Package examples checks that the examples of this folder are configurations
// that the product accepts without a warning.
package examples

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"mailsidecar/config"
)

func TestCompose(t *testing.T) {
	var file struct {
		Services map[string]struct {
			Environment     map[string]string
			Secrets         []string
			Volumes         []string
			ReadOnly        bool   `yaml:"read_only"`
			StopGracePeriod string `yaml:"stop_grace_period"`
		}
		Secrets map[string]struct{ File string }
		Volumes map[string]any
	}
	readYAML(t, "compose/compose.yaml", &file)
	sidecar, app := file.Services["mailsidecar"], file.Services["app"]

	for _, secret := range append(sidecar.Secrets, app.Secrets...) {
		if file.Secrets[secret].File == "" {
			t.Errorf("secret %s is not defined", secret)
		}
	}
	cfg := load(t, interpolate(t, sidecar.Environment))
	wantGrace(t, sidecar.StopGracePeriod, cfg)
	if !sidecar.ReadOnly || len(sidecar.Volumes) != 1 || sidecar.Volumes[0] != "queue:/data" {
		t.Errorf("read_only = %t, volumes = %v, want true, [queue:/data]", sidecar.ReadOnly, sidecar.Volumes)
	}
	if _, ok := file.Volumes["queue"]; !ok {
		t.Error("volume queue is not defined")
	}
	client(t, interpolate(t, app.Environment))
}

// TestComposeProvider: the Compose examples take a provider, and leave its host, ports and
// user name as they are.
func TestComposeProvider(t *testing.T) {
	host := given["SMTP_HOST"]
	t.Cleanup(func() { given["SMTP_HOST"], given["SMTP_USERNAME"] = host, "me"; delete(given, "SMTP_PROVIDER") })
	given["SMTP_HOST"], given["SMTP_USERNAME"], given["SMTP_PROVIDER"] = "", "", "sendgrid"
	for _, path := range []string{"compose/compose.yaml", "wordpress/compose.yaml"} {
		var file struct {
			Services map[string]struct{ Environment map[string]string }
		}
		readYAML(t, path, &file)
		env := interpolate(t, file.Services["mailsidecar"].Environment)
		if path != "compose/compose.yaml" {
			env["MAILSIDECAR_FROM"] = given["MAILSIDECAR_FROM"]
		}
		relay := load(t, env).Relays[0]
		if relay.Host != "smtp.sendgrid.net" || relay.Username != "apikey" || relay.Ports.String() != "587,2525,465" {
			t.Errorf("%s: host %s, ports %s, user name %s, want what the provider has", path, relay.Host, relay.Ports, relay.Username)
		}
	}
}

// TestQuickStart: the Compose file in the README is whole.
func TestQuickStart(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(readme), "```yaml\n")
	block, _, _ = strings.Cut(block, "```")
	var file struct {
		Services map[string]struct {
			Environment     map[string]string
			Secrets         []string
			Volumes         []string
			StopGracePeriod string `yaml:"stop_grace_period"`
		}
		Secrets map[string]struct{ File string }
		Volumes map[string]any
	}
	if err := yaml.Unmarshal([]byte(block), &file); err != nil {
		t.Fatal(err)
	}
	sidecar := file.Services["mailsidecar"]
	wantGrace(t, sidecar.StopGracePeriod, load(t, sidecar.Environment))
	for _, secret := range sidecar.Secrets {
		if path := file.Secrets[secret].File; path == "" || !strings.Contains(string(readme), "> "+path+"\n") {
			t.Errorf("secret %s is the file %q, want one that the commands above it make", secret, path)
		}
	}
	for _, volume := range sidecar.Volumes {
		name, _, _ := strings.Cut(volume, ":")
		if _, ok := file.Volumes[name]; !ok {
			t.Errorf("volume %s is not defined", name)
		}
	}
}

func TestKubernetes(t *testing.T) {
	type container struct {
		Name            string
		Env             []struct{ Name, Value string }
		SecurityContext struct {
			RunAsNonRoot           bool `yaml:"runAsNonRoot"`
			ReadOnlyRootFilesystem bool `yaml:"readOnlyRootFilesystem"`
		} `yaml:"securityContext"`
	}
	var pod struct {
		Spec struct {
			Grace          int         `yaml:"terminationGracePeriodSeconds"`
			InitContainers []container `yaml:"initContainers"`
			Containers     []container
		}
	}
	readYAML(t, "kubernetes/pod.yaml", &pod)
	environment := func(c container) map[string]string {
		env := map[string]string{}
		for _, e := range c.Env {
			env[e.Name] = e.Value
		}
		return env
	}
	sidecar := pod.Spec.InitContainers[0]
	cfg := load(t, environment(sidecar))
	wantGrace(t, (time.Duration(pod.Spec.Grace) * time.Second).String(), cfg)
	if s := sidecar.SecurityContext; !s.RunAsNonRoot || !s.ReadOnlyRootFilesystem {
		t.Errorf("securityContext = %+v, want non-root and read-only", s)
	}
	client(t, environment(pod.Spec.Containers[0]))
}

func TestSystemd(t *testing.T) {
	unit, err := os.ReadFile("systemd/mailsidecar.service")
	if err != nil {
		t.Fatal(err)
	}
	env, grace := map[string]string{}, ""
	for line := range strings.Lines(string(unit)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "Environment":
			name, v, _ := strings.Cut(strings.Trim(value, `"`), "=")
			env[name] = v
		case "EnvironmentFile":
			readEnvironmentFile(t, filepath.Base(value), env)
		case "TimeoutStopSec":
			grace = value
		}
	}
	wantGrace(t, grace, load(t, env))
}

// readEnvironmentFile adds the settings of the file that the unit names. A shell must
// read the same in it.
func readEnvironmentFile(t *testing.T, name string, env map[string]string) {
	t.Helper()
	path := filepath.Join("systemd", name)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			env[name] = strings.Trim(value, `"`)
		}
	}
	said, err := exec.CommandContext(t.Context(), "sh", "-c", "set -a; . ./"+path+"; env").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range env {
		if strings.HasPrefix(name, "SMTP_PASSWORD") {
			continue
		}
		if want := name + "=" + value + "\n"; !strings.Contains(string(said), want) {
			t.Errorf("a shell that reads %s lacks %q", path, want)
		}
	}
}

// load reads the environment as the server would, and nothing else: the
// variables of the test's own environment are removed. Files that the environment
// names are put in their place.
func load(t *testing.T, env map[string]string) config.Config {
	t.Helper()
	setenv(t, env)
	cfg, warnings, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings {
		t.Errorf("warning: %s", w)
	}
	return cfg
}

// client reads the environment of an app.
func client(t *testing.T, env map[string]string) {
	t.Helper()
	setenv(t, env)
	c, err := config.LoadClient()
	if err != nil {
		t.Fatal(err)
	}
	if want := env["MAILSIDECAR_URL"]; want == "" || c.URL != want {
		t.Errorf("the app's server is %q, want MAILSIDECAR_URL=%q", c.URL, want)
	}
}

func setenv(t *testing.T, env map[string]string) {
	t.Helper()
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "SMTP") || strings.HasPrefix(name, "MAILSIDECAR") {
			t.Setenv(name, value) // put back at the end of the test
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, value := range env {
		if strings.HasSuffix(name, "_FILE") {
			value = secretFile(t, value)
		}
		t.Setenv(name, value)
	}
}

// secretFile writes a secret like that of the example.
func secretFile(t *testing.T, path string) string {
	t.Helper()
	secret := "a-password-of-some-length"
	switch filepath.Base(path) {
	case "api_keys":
		secret = "app:0123456789abcdef0123456789abcdef"
	case "queue_url":
		secret = "postgres://mailsidecar:a-password-of-some-length@db:5432/mail"
	}
	path = filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func wantGrace(t *testing.T, grace string, cfg config.Config) {
	t.Helper()
	given, err := time.ParseDuration(grace)
	if err != nil {
		t.Fatalf("grace period: %v", err)
	}
	if need := time.Duration(cfg.Service.ShutdownTimeout); given < need+2*time.Second {
		t.Errorf("grace period = %v, want at least 2 s more than MAILSIDECAR_SHUTDOWN_TIMEOUT, %v", given, need)
	}
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := yaml.NewDecoder(f).Decode(into); err != nil {
		t.Fatal(err)
	}
}

// given is what an operator sets before starting the Compose example.
var given = map[string]string{
	"SMTP_HOST": "smtp.example.com", "SMTP_USERNAME": "me",
	"MAILSIDECAR_FROM": "Shop <shop@example.com>", "TO": "you@example.com",
}

// reference is ${NAME}, ${NAME:-default} or ${NAME:?message}.
var reference = regexp.MustCompile(`\$\{(\w+)(?::([-?])([^}]*))?\}`)

// interpolate does to values what Compose does.
func interpolate(t *testing.T, env map[string]string) map[string]string {
	t.Helper()
	env = maps.Clone(env)
	for name, value := range env {
		env[name] = reference.ReplaceAllStringFunc(value, func(s string) string {
			m := reference.FindStringSubmatch(s)
			switch {
			case given[m[1]] != "":
				return given[m[1]]
			case m[2] != "-":
				t.Errorf("%s needs %s, which the instructions do not set", name, m[1])
			}
			return m[3]
		})
	}
	return env
}
