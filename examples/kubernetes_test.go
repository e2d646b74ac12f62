package examples

import (
	"maps"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// kubernetesDeployment is what the tests look at.
type kubernetesDeployment struct {
	Spec struct {
		Replicas int
		Strategy struct{ Type string }
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				Grace        int   `yaml:"terminationGracePeriodSeconds"`
				ServiceLinks *bool `yaml:"enableServiceLinks"`
				Containers   []kubernetesContainer
				Volumes      []struct {
					Name   string
					Secret map[string]any
					Claim  struct {
						Name string `yaml:"claimName"`
					} `yaml:"persistentVolumeClaim"`
				}
			}
		}
	}
}

type kubernetesContainer struct {
	Env             []struct{ Name, Value string }
	StartupProbe    kubernetesProbe `yaml:"startupProbe"`
	ReadinessProbe  kubernetesProbe `yaml:"readinessProbe"`
	LivenessProbe   kubernetesProbe `yaml:"livenessProbe"`
	SecurityContext struct {
		ReadOnly bool `yaml:"readOnlyRootFilesystem"`
	} `yaml:"securityContext"`
	VolumeMounts []struct {
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

type kubernetesProbe struct {
	HTTPGet struct{ Path string } `yaml:"httpGet"`
}

// settings are those of the container. What they name as files must be mounted.
func (c kubernetesContainer) settings(t *testing.T) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, e := range c.Env {
		env[e.Name] = e.Value
		mounted := false
		for _, m := range c.VolumeMounts {
			mounted = mounted || strings.HasPrefix(e.Value, m.MountPath+"/")
		}
		if strings.HasSuffix(e.Name, "_FILE") && !mounted {
			t.Errorf("%s is %s, where nothing is mounted", e.Name, e.Value)
		}
	}
	return env
}

// TestKubernetesDeployment checks that the parts of the file belong together, and
// that the server takes its settings.
func TestKubernetesDeployment(t *testing.T) {
	var deployment kubernetesDeployment
	var service, claim struct {
		Metadata struct{ Name string }
		Spec     struct{ Selector map[string]string }
	}
	parts := strings.Split(read(t, "kubernetes/deployment.yaml"), "\n---\n")
	if len(parts) != 4 {
		t.Fatalf("parts = %d, want deployment, service, policy and claim", len(parts))
	}
	for i, into := range []any{&deployment, &service, nil, &claim} {
		if into == nil {
			continue
		}
		if err := yaml.Unmarshal([]byte(parts[i]), into); err != nil {
			t.Fatal(err)
		}
	}
	if s := deployment.Spec; s.Replicas != 1 || s.Strategy.Type != "Recreate" {
		t.Errorf("replicas = %d, strategy = %s, want one owner of the queue at a time", s.Replicas, s.Strategy.Type)
	}
	labels := deployment.Spec.Template.Metadata.Labels
	if !maps.Equal(labels, deployment.Spec.Selector.MatchLabels) || !maps.Equal(labels, service.Spec.Selector) {
		t.Errorf("labels = %v, want what deployment (%v) and service (%v) select", labels, deployment.Spec.Selector.MatchLabels, service.Spec.Selector)
	}
	pod := deployment.Spec.Template.Spec
	if pod.ServiceLinks == nil || *pod.ServiceLinks {
		t.Error("service links are on: Kubernetes would set MAILSIDECAR_PORT")
	}
	for _, v := range pod.Volumes {
		if v.Name == "queue" && v.Claim.Name != claim.Metadata.Name {
			t.Errorf("queue's claim is %q, want %q", v.Claim.Name, claim.Metadata.Name)
		}
	}
	wantGrace(t, (time.Duration(pod.Grace) * time.Second).String(), load(t, pod.Containers[0].settings(t)))
}
