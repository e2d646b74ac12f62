package main

import (
	"fmt"
	"math"
)

// target is a promise about speed, as docs/performance.md lists them.
type target struct {
	name    string
	measure string
	bound   bound
	limit   float64
	value   func(r *Results) (float64, bool) // false where the run has no figure
	format  string
}

type bound string

const (
	atLeast bound = "≥"
	atMost  bound = "≤"
)

// verdict is a target with what was measured.
type verdict struct {
	target
	got   float64
	known bool
	met   bool
}

func judge(r *Results) []verdict {
	var all []verdict
	for _, t := range targets() {
		v := verdict{target: t}
		v.got, v.known = t.value(r)
		v.known = v.known && !math.IsNaN(v.got) && !math.IsInf(v.got, 0)
		v.met = v.known && (t.bound == atLeast && v.got >= t.limit || t.bound == atMost && v.got <= t.limit)
		all = append(all, v)
	}
	return all
}

func (v verdict) state() string {
	switch {
	case !v.known:
		return "not measured"
	case v.met:
		return "met"
	default:
		return "**missed**"
	}
}

// Figures of a sample that targets are about.
func relayRate(s Sample) float64  { return s.RelayPerSecond }
func answerRate(s Sample) float64 { return s.AnswersPerSecond }
func p50(s Sample) float64        { return s.P50Millis }
func p99(s Sample) float64        { return s.P99Millis }
func cpu(s Sample) float64        { return s.CPUMillis }
func peak(s Sample) float64       { return s.PeakMB }

// over is mailsidecar's figure divided by a peer's: the median of the rounds'
// ratios, for the two ran side by side.
func over(name, peer string, figure func(Sample) float64) func(*Results) (float64, bool) {
	return func(r *Results) (float64, bool) {
		ours, theirs := r.find(name).system(mailsidecar.name), r.find(name).system(peer)
		if ours == nil || theirs == nil {
			return 0, false
		}
		var ratios []float64
		for i := range min(len(ours.Rounds), len(theirs.Rounds)) {
			ratios = append(ratios, figure(ours.Rounds[i])/figure(theirs.Rounds[i]))
		}
		return median(ratios), len(ratios) > 0
	}
}

// own is mailsidecar's figure, divided by scale.
func own(name string, figure func(Sample) float64, scale float64) func(*Results) (float64, bool) {
	return func(r *Results) (float64, bool) {
		ours := r.find(name).system(mailsidecar.name)
		if ours == nil {
			return 0, false
		}
		return figure(ours.Median) / scale, true
	}
}

// single is a figure of singles.
func single(key string) func(*Results) (float64, bool) {
	return func(r *Results) (float64, bool) { return r.figure(key) }
}

// failures adds up events that must never happen, over all cases.
func failures(count func(Sample) int) func(*Results) (float64, bool) {
	return func(r *Results) (float64, bool) {
		sum := 0
		for _, c := range r.Cases {
			if ours := c.system(mailsidecar.name); ours != nil {
				sum += count(ours.Median)
			}
		}
		return float64(sum), len(r.Cases) > 0
	}
}

func targets() []target {
	const (
		times = "%.2f ×"
		ms    = "%.1f ms"
		mb    = "%.0f MB"
	)
	far16, far64, near, mib := "20 ms, 16 callers, 8 connections", "20 ms, 64 callers, 20 connections", "loopback, 16 callers", "1 MiB attachments, loopback"
	return []target{
		{"every case", "messages lost", atMost, 0, failures(func(s Sample) int { return s.Lost }), "%.0f"},
		{"every case", "messages at the relay twice", atMost, 0, failures(func(s Sample) int { return s.Duplicates }), "%.0f"},
		{far16, "at relay/s, over node8", atLeast, 2, over(caseFar16, node8.name, relayRate), times},
		{far16, "at relay/s, over floor", atLeast, 0.9, over(caseFar16, floor.name, relayRate), times},
		{far16, "answers/s, over postfix", atLeast, 5, over(caseFar16, postfix.name, answerRate), times},
		{far16, "p99 of the answer, over postfix", atMost, 0.3, over(caseFar16, postfix.name, p99), times},
		{far64, "at relay/s, over node20", atLeast, 2, over(caseFar64, node20.name, relayRate), times},
		{far64, "peak memory, backlog growing", atMost, 80, own(caseFar64, peak, 1), mb},
		{near, "at relay/s, over floor", atLeast, 0.85, over(caseNear16, floor.name, relayRate), times},
		{near, "at relay/s, over postfix", atLeast, 6, over(caseNear16, postfix.name, relayRate), times},
		{near, "CPU per message, over floor", atMost, 1.3, over(caseNear16, floor.name, cpu), times},
		{near, "CPU per message, over postfix", atMost, 0.25, over(caseNear16, postfix.name, cpu), times},
		{"20 ms, one caller, verdict awaited", "p50, over two round trips", atMost, 1.15, own(caseWait, p50, 40), times},
		{"20 ms, one caller, not waiting", "p50, over postfix", atMost, 0.5, over(caseNoWait, postfix.name, p50), times},
		{"587 black-holed", "extra wait of the first message", atMost, 500, single("blackhole_first"), ms},
		{"587 black-holed", "extra wait of later messages", atMost, 1, single("blackhole_later"), ms},
		{"idle", "resident memory", atMost, 25, single("idle_rss"), mb},
		{"start", "from exec to the first answer", atMost, 50, single("start"), ms},
		{"PHP page, 20 ms, not waiting", "p50", atMost, 5, single("php_post"), ms},
		{"PHP page, 20 ms, verdict awaited", "p50", atMost, 55, single("php_wait"), ms},
		{mib, "at relay/s, over node8", atLeast, 1.5, over(caseMiB, node8.name, relayRate), times},
		{mib, "CPU per message, over node8", atMost, 0.6, over(caseMiB, node8.name, cpu), times},
		{mib, "peak memory", atMost, 150, own(caseMiB, peak, 1), mb},
	}
}

func (v verdict) gotText() string {
	if !v.known {
		return "–"
	}
	return fmt.Sprintf(v.format, v.got)
}

func (v verdict) limitText() string { return string(v.bound) + " " + fmt.Sprintf(v.format, v.limit) }
