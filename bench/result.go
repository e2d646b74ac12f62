package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Results is the content of bench/results/latest.json.
type Results struct {
	Date    string `json:"date"`
	Commit  string `json:"commit"`
	Machine string `json:"machine"`
	// Load is the machine's load average when the run began: far over zero, and
	// the benchmark was not alone.
	Load     string        `json:"load"`
	Versions []string      `json:"versions"`
	Rounds   int           `json:"rounds"`
	Window   string        `json:"window"`
	Seconds  int           `json:"seconds"`
	Cases    []*CaseResult `json:"cases"`
	Singles  []Figure      `json:"singles"`
	LeftOut  []string      `json:"left_out,omitempty"`
}

// CaseResult is the systems under one load.
type CaseResult struct {
	Name        string         `json:"name"`
	Title       string         `json:"title"`
	RTTMillis   float64        `json:"rtt_ms"`
	Callers     int            `json:"callers"`
	Connections int            `json:"connections"`
	Systems     []SystemResult `json:"systems"`
}

// SystemResult is one system's rounds, in the order in which they were run.
type SystemResult struct {
	Name    string   `json:"name"`
	Durable bool     `json:"durable"`
	Rounds  []Sample `json:"rounds"`
	Median  Sample   `json:"median"`
}

// Sample is one turn of one system.
type Sample struct {
	AnswersPerSecond float64 `json:"answers_per_second"`
	P50Millis        float64 `json:"p50_ms"`
	P99Millis        float64 `json:"p99_ms"`
	RelayPerSecond   float64 `json:"relay_per_second"`
	// CPUMillis is the system's own, with the backlog sent, for each message.
	CPUMillis     float64 `json:"cpu_ms"`
	SinkCPUMillis float64 `json:"sink_cpu_ms"`
	// PeakMB is resident memory at most; of a system of several processes, what
	// they held at the window's end or after the backlog, shared pages once.
	PeakMB     float64 `json:"peak_mb"`
	Accepted   int     `json:"accepted"`
	Arrived    int     `json:"arrived"`
	Lost       int     `json:"lost"`       // accepted, and not at the relay
	Duplicates int     `json:"duplicates"` // at the relay more than once
	Failures   int     `json:"failures"`   // requests that were not taken
	Failure    string  `json:"failure,omitempty"`
}

func (s Sample) String() string {
	text := fmt.Sprintf("%6.0f answers/s  p50 %6.1f  p99 %6.1f ms  %6.0f at relay/s  cpu %5.2f ms  peak %4.0f MB",
		s.AnswersPerSecond, s.P50Millis, s.P99Millis, s.RelayPerSecond, s.CPUMillis, s.PeakMB)
	if s.Lost+s.Duplicates+s.Failures > 0 {
		text += fmt.Sprintf("  LOST %d  DUPLICATE %d  failed %d %s", s.Lost, s.Duplicates, s.Failures, s.Failure)
	}
	return text
}

// Figure is one number that is no case.
type Figure struct {
	Key   string  `json:"key"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

func newResults(o options) *Results {
	return &Results{
		Date: time.Now().UTC().Format("2006-01-02"), Commit: commit(o.root), Machine: machine(), Load: loadAverage(),
		Versions: versions(o.root), Rounds: o.rounds, Window: o.window.String(),
	}
}

func commit(root string) string {
	out, err := exec.Command("git", "-C", root, "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func machine() string {
	model := runtime.GOARCH
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%d cores, %s", runtime.NumCPU(), model)
}

// loadAverage is that of the last minute.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	load, _, _ := strings.Cut(string(text), " ")
	return load
}

// versions asks the peers what they are.
func versions(root string) []string {
	list := []string{runtime.Version()}
	node := filepath.Join(root, "bench", "peers", "node")
	for _, command := range []struct {
		label string
		argv  []string
	}{
		{"Node ", []string{"node", "-p", "process.versions.node"}},
		{"nodemailer ", []string{"node", "-p", "require('" + node + "/node_modules/nodemailer/package.json').version"}},
		{"Postfix ", []string{"postconf", "-dh", "mail_version"}},
		{"PHP ", []string{"php", "-r", "echo PHP_VERSION;"}},
		{"PHPMailer ", []string{"php", "-r", "require 'libphp-phpmailer/autoload.php'; echo PHPMailer\\PHPMailer\\PHPMailer::VERSION;"}},
	} {
		if out, err := exec.Command(command.argv[0], command.argv[1:]...).Output(); err == nil {
			list = append(list, command.label+strings.TrimSpace(string(out)))
		}
	}
	return list
}

// medianSample takes the median of each figure. Figures that must be zero are
// added up.
func medianSample(rounds []Sample) Sample {
	m := Sample{
		AnswersPerSecond: medianOf(rounds, func(s Sample) float64 { return s.AnswersPerSecond }),
		P50Millis:        medianOf(rounds, func(s Sample) float64 { return s.P50Millis }),
		P99Millis:        medianOf(rounds, func(s Sample) float64 { return s.P99Millis }),
		RelayPerSecond:   medianOf(rounds, func(s Sample) float64 { return s.RelayPerSecond }),
		CPUMillis:        medianOf(rounds, func(s Sample) float64 { return s.CPUMillis }),
		SinkCPUMillis:    medianOf(rounds, func(s Sample) float64 { return s.SinkCPUMillis }),
		PeakMB:           medianOf(rounds, func(s Sample) float64 { return s.PeakMB }),
	}
	for _, s := range rounds {
		m.Accepted += s.Accepted
		m.Arrived += s.Arrived
		m.Lost += s.Lost
		m.Duplicates += s.Duplicates
		m.Failures += s.Failures
	}
	return m
}

func medianOf(rounds []Sample, figure func(Sample) float64) float64 {
	return median(values(rounds, figure))
}

func values(rounds []Sample, figure func(Sample) float64) []float64 {
	var list []float64
	for _, s := range rounds {
		list = append(list, figure(s))
	}
	return list
}

// median is zero for an empty list.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func (r *Results) find(name string) *CaseResult {
	for _, c := range r.Cases {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func (c *CaseResult) system(name string) *SystemResult {
	if c == nil {
		return nil
	}
	for i := range c.Systems {
		if c.Systems[i].Name == name {
			return &c.Systems[i]
		}
	}
	return nil
}

func (r *Results) figure(key string) (float64, bool) {
	for _, f := range r.Singles {
		if f.Key == key {
			return f.Value, true
		}
	}
	return 0, false
}

// writeAll writes results, plot and the part of docs/performance.md that is
// between the markers.
func (r *Results) writeAll(root, report string) error {
	dir := filepath.Join(root, "bench", "results")
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "latest.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "latest.svg"), []byte(r.plot()), 0o644); err != nil {
		return err
	}
	return replaceMarked(filepath.Join(root, "docs", "performance.md"), report)
}

const (
	markBegin = "<!-- results: written by make bench -->"
	markEnd   = "<!-- end of results -->"
)

// replaceMarked replaces the text between the markers of a file.
func replaceMarked(path, report string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), markBegin)
	_, after, closed := strings.Cut(rest, markEnd)
	if !ok || !closed {
		return fmt.Errorf("%s lacks the markers %s and %s", path, markBegin, markEnd)
	}
	page := before + markBegin + "\n\n" + strings.TrimSpace(report) + "\n\n" + markEnd + after
	return os.WriteFile(path, []byte(page), 0o644)
}
