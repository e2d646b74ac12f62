package examples

import (
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"mailsidecar/config"
)

// wantShared: the instances share a PostgreSQL.
func wantShared(t *testing.T, cfg config.Config) {
	t.Helper()
	if !cfg.Service.Queue.Shared() {
		t.Errorf("the queue is %s, want PostgreSQL", cfg.Service.Queue)
	}
}

// TestKubernetesScaled: any number of replicas without a volume, a budget that lets nodes be emptied, and probes that
// restart nothing while the database is away.
func TestKubernetesScaled(t *testing.T) {
	var deployment kubernetesDeployment
	var service struct {
		Spec struct{ Selector map[string]string }
	}
	var budget struct {
		Kind string
		Spec struct {
			MaxUnavailable int `yaml:"maxUnavailable"`
			Selector       struct {
				MatchLabels map[string]string `yaml:"matchLabels"`
			}
		}
	}
	parts := strings.Split(read(t, "kubernetes/scaled.yaml"), "\n---\n")
	if len(parts) != 4 {
		t.Fatalf("parts = %d, want deployment, service, budget and policy", len(parts))
	}
	for i, into := range []any{&deployment, &service, &budget} {
		if err := yaml.Unmarshal([]byte(parts[i]), into); err != nil {
			t.Fatal(err)
		}
	}
	spec, pod := deployment.Spec, deployment.Spec.Template.Spec
	if spec.Replicas < 2 || spec.Strategy.Type != "RollingUpdate" {
		t.Errorf("replicas = %d, strategy = %s, want several and RollingUpdate", spec.Replicas, spec.Strategy.Type)
	}
	labels := spec.Template.Metadata.Labels
	for name, selector := range map[string]map[string]string{"deployment": spec.Selector.MatchLabels, "service": service.Spec.Selector, "budget": budget.Spec.Selector.MatchLabels} {
		if !maps.Equal(labels, selector) {
			t.Errorf("the %s selects %v, want the pods' labels %v", name, selector, labels)
		}
	}
	if b := budget; b.Kind != "PodDisruptionBudget" || b.Spec.MaxUnavailable < 1 || b.Spec.MaxUnavailable >= spec.Replicas {
		t.Errorf("%s lets %d of %d go, want some and not all", b.Kind, b.Spec.MaxUnavailable, spec.Replicas)
	}
	for _, v := range pod.Volumes {
		if v.Secret == nil {
			t.Errorf("volume %s is no secret", v.Name)
		}
	}
	c := pod.Containers[0]
	if c.ReadinessProbe.HTTPGet.Path != "/readyz" || c.LivenessProbe.HTTPGet.Path != "/livez" || c.StartupProbe.HTTPGet.Path != "/livez" {
		t.Errorf("probes ask %s, %s and %s, want /livez, /readyz and /livez: an instance without its database is not restarted",
			c.StartupProbe.HTTPGet.Path, c.ReadinessProbe.HTTPGet.Path, c.LivenessProbe.HTTPGet.Path)
	}
	if pod.ServiceLinks == nil || *pod.ServiceLinks || !c.SecurityContext.ReadOnly {
		t.Error("service links are on, or the file system is writable")
	}
	cfg := load(t, c.settings(t))
	wantShared(t, cfg)
	wantGrace(t, (time.Duration(pod.Grace) * time.Second).String(), cfg)
}

// TestComposeScaled: the instances are alike and share a database, and the proxy asks all of them, as long as a request
// may take.
func TestComposeScaled(t *testing.T) {
	type service struct {
		Environment     map[string]string
		Secrets         []string
		Volumes         []string
		StopGracePeriod string `yaml:"stop_grace_period"`
		Configs         []struct{ Source, Target string }
	}
	var file struct {
		Services map[string]service
		Configs  map[string]struct{ Content string }
		Secrets  map[string]struct{ File string }
		Volumes  map[string]any
	}
	readYAML(t, "compose/scaled.yaml", &file)
	proxy := file.Configs[file.Services["mail"].Configs[0].Source].Content
	instances := 0
	for name, s := range file.Services {
		for _, secret := range s.Secrets {
			if !strings.Contains(read(t, "compose/scaled.yaml"), "> "+file.Secrets[secret].File+"\n") {
				t.Errorf("secret %s is the file %q, want one that the commands at the top make", secret, file.Secrets[secret].File)
			}
		}
		if s.Environment["MAILSIDECAR_QUEUE_FILE"] == "" {
			continue
		}
		instances++
		cfg := load(t, interpolate(t, s.Environment))
		wantShared(t, cfg)
		wantGrace(t, s.StopGracePeriod, cfg)
		if len(s.Volumes) > 0 {
			t.Errorf("%s has the volumes %v", name, s.Volumes)
		}
		if !strings.Contains(proxy, "server "+name+":8587 ") {
			t.Errorf("the proxy does not ask %s", name)
		}
	}
	if instances != 3 {
		t.Errorf("%d instances, want 3", instances)
	}
	_, wait, _ := strings.Cut(proxy, "proxy_read_timeout ")
	wait, _, _ = strings.Cut(wait, "s;")
	if n, err := strconv.Atoi(wait); err != nil || n <= 60 {
		t.Errorf("the proxy waits %q seconds, want more than Prefer: wait may take", wait)
	}
}
