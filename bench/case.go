package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// benchCase is one row of systems under the same load.
type benchCase struct {
	name, title string
	rtt         time.Duration // zero: straight to the relay
	callers     int
	connections int
	attachment  int // octets
	prefer      string
	systems     []system
	short       bool // part of the short form
}

// Names of cases, by which the targets find them.
const (
	caseFar16   = "rtt20-16"
	caseFar64   = "rtt20-64"
	caseNear16  = "rtt0-16"
	caseWait    = "rtt20-1-wait"
	caseNoWait  = "rtt20-1"
	caseMiB     = "rtt0-16-mib"
	caseVeryFar = "rtt100-16"
)

func cases() []benchCase {
	const far = 20 * time.Millisecond
	return []benchCase{
		{
			name: caseFar16, title: "round trip 20 ms, 16 callers, 8 connections",
			rtt: far, callers: 16, connections: 8, short: true,
			systems: []system{mailsidecar, floor, node8, postfix, postfixReuse, goDial},
		},
		{
			name: caseFar64, title: "round trip 20 ms, 64 callers, 20 connections",
			rtt: far, callers: 64, connections: 20,
			systems: []system{mailsidecar, floor, node20, postfix},
		},
		{
			name: caseNear16, title: "loopback, 16 callers, 8 connections",
			callers: 16, connections: 8, short: true,
			systems: []system{mailsidecar, floor, node8, postfix, goDial},
		},
		{
			name: caseMiB, title: "loopback, 16 callers, attachments of 1 MiB",
			callers: 16, connections: 8, attachment: 1 << 20,
			systems: []system{mailsidecar, node8, floor, postfix},
		},
		{
			name: caseWait, title: "round trip 20 ms, one caller that waits for the relay's verdict",
			rtt: far, callers: 1, connections: 8, prefer: "wait=10", short: true,
			systems: []system{mailsidecar, node8},
		},
		{
			name: caseNoWait, title: "round trip 20 ms, one caller, the answer is durable",
			rtt: far, callers: 1, connections: 8, short: true,
			systems: []system{mailsidecar, postfix},
		},
		{
			name: caseVeryFar, title: "round trip 100 ms, 16 callers, 8 connections",
			rtt: 5 * far, callers: 16, connections: 8,
			systems: []system{mailsidecar, floor, node8},
		},
	}
}

// running is a system and what the rounds have given so far.
type running struct {
	*instance
	result *SystemResult
}

// runCase starts the systems and measures them in turn.
func (b *bench) runCase(ctx context.Context, c benchCase) (*CaseResult, error) {
	result := &CaseResult{Name: c.name, Title: c.title, Callers: c.callers, Connections: c.connections, RTTMillis: millis(c.rtt)}
	systems, err := b.startAll(ctx, c)
	defer func() {
		for _, r := range systems {
			r.close()
		}
	}()
	if err != nil {
		return nil, err
	}
	// The first turn of all warms up: compilers, pools, processes.
	for round := range 1 + b.options.rounds {
		for _, r := range b.order(systems, round) {
			window := b.options.window
			if round == 0 {
				window = warmTurn
			}
			sample, err := b.measure(ctx, c, r.instance, window)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.result.Name, err)
			}
			if round == 0 {
				continue
			}
			r.result.Rounds = append(r.result.Rounds, *sample)
			fmt.Printf("   round %d  %-14s %s\n", round, r.result.Name, sample)
		}
	}
	for _, r := range systems {
		r.result.Median = medianSample(r.result.Rounds)
		result.Systems = append(result.Systems, *r.result)
	}
	return result, nil
}

// order returns the systems in the order of a round. Two that are compared take
// turns at being first, so that neither always has the warmer machine.
func (b *bench) order(systems []running, round int) []running {
	if b.options.against == "" || round%2 == 1 {
		return systems
	}
	reversed := slices.Clone(systems)
	slices.Reverse(reversed)
	return reversed
}

// startAll starts the systems of a case. A peer that does not start is left
// out.
func (b *bench) startAll(ctx context.Context, c benchCase) ([]running, error) {
	p, err := newPayload(c.attachment)
	if err != nil {
		return nil, err
	}
	s := setup{relayPort: b.relay.near, connections: c.connections, prefer: c.prefer, payload: p}
	if c.rtt > 0 {
		s.relayPort = b.relay.far
	}
	var all []running
	systems := c.systems
	if b.options.postgres != "" && slices.ContainsFunc(systems, func(s system) bool { return s.name == mailsidecarName }) {
		systems = append(slices.Clone(systems), inPostgres)
		if b.options.against != "" {
			systems = append(systems, otherInPostgres)
		}
	}
	for _, sys := range systems {
		if _, missing := b.missing[sys.name]; missing || !b.options.systems.MatchString(sys.name) {
			continue
		}
		if s.dir, err = os.MkdirTemp(b.dir, sys.name+"-"); err != nil {
			return all, err
		}
		if err = os.Chmod(s.dir, 0o755); err != nil {
			return all, err
		}
		i, err := sys.start(ctx, b, s)
		switch {
		case err == nil:
			all = append(all, running{i, &SystemResult{Name: sys.name, Durable: sys.durable}})
		case sys.name == mailsidecar.name || sys.name == other.name || ctx.Err() != nil:
			return all, err
		default:
			b.missing[sys.name] = err.Error()
			fmt.Printf("   left out: %s: %s\n", sys.name, firstLine(err))
		}
	}
	return all, nil
}

const (
	warmTurn = 500 * time.Millisecond
	// warmUp is the beginning of a turn that does not count.
	warmUp = 400 * time.Millisecond
	// drainTimeout is how long accepted messages may take to arrive, once the
	// callers have stopped and the relay is near.
	drainTimeout = 60 * time.Second
)

// measure is one system's turn: warm up, count for a window, stop, and wait until
// everything that was accepted has arrived.
func (b *bench) measure(ctx context.Context, c benchCase, i *instance, length time.Duration) (*Sample, error) {
	if err := b.setRTT(ctx, c.rtt); err != nil {
		return nil, err
	}
	run := b.nextRun()
	i.forgetPeak()
	before, sinkBefore := i.usage(), b.sink.usage()
	l, err := startLoad(run, c.callers, i.connect)
	if err != nil {
		return nil, err
	}
	w, err := b.watch(ctx, run, length)
	busy := i.usage()
	l.stop()
	if err != nil {
		return nil, err
	}
	if len(l.answers) == 0 {
		return nil, fmt.Errorf("no message was taken: %w", l.failure)
	}
	// The backlog need not be sent over the distance.
	if err := b.setRTT(ctx, 0); err != nil {
		return nil, err
	}
	if err := b.drain(ctx, run, len(l.answers)); err != nil {
		return nil, err
	}
	times, err := b.arrivals(ctx, run)
	if err != nil {
		return nil, err
	}
	after := i.usage()
	s := newSample(l, w, times)
	s.PeakMB = float64(max(busy.peak, after.peak)) / 1024
	s.CPUMillis = millis(after.cpu-before.cpu) / float64(max(1, s.Arrived))
	s.SinkCPUMillis = millis(b.sink.usage().cpu-sinkBefore.cpu) / float64(max(1, s.Arrived))
	return s, nil
}

// window is the part of a turn that is measured.
type window struct {
	from, to time.Time
	arrived  float64 // messages per second
}

func (b *bench) watch(ctx context.Context, run int, length time.Duration) (window, error) {
	var w window
	if err := sleep(ctx, warmUp); err != nil {
		return w, err
	}
	first, err := b.arrived(ctx, run)
	if err != nil {
		return w, err
	}
	w.from = time.Now()
	if err = sleep(ctx, length); err != nil {
		return w, err
	}
	last, err := b.arrived(ctx, run)
	if err != nil {
		return w, err
	}
	w.to = time.Now()
	w.arrived = float64(last-first) / w.to.Sub(w.from).Seconds()
	return w, nil
}

// drain waits until that many messages have arrived. What is missing in the end
// counts as lost.
func (b *bench) drain(ctx context.Context, run, want int) error {
	for deadline := time.Now().Add(drainTimeout); time.Now().Before(deadline); {
		n, err := b.arrived(ctx, run)
		if err != nil || n >= want {
			return err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// newSample sums up what callers and relay have seen.
func newSample(l *load, w window, times []byte) *Sample {
	s := &Sample{RelayPerSecond: w.arrived, Accepted: len(l.answers), Failures: l.failures}
	if l.failure != nil {
		s.Failure = firstLine(l.failure)
	}
	var took []time.Duration
	for _, a := range l.answers {
		if a.at.After(w.from) && a.at.Before(w.to) {
			took = append(took, a.took)
		}
		if a.number >= len(times) || times[a.number] == 0 {
			s.Lost++
		}
	}
	for _, n := range times {
		if n > 0 {
			s.Arrived++
		}
		if n > 1 {
			s.Duplicates++
		}
	}
	slices.Sort(took)
	s.AnswersPerSecond = float64(len(took)) / w.to.Sub(w.from).Seconds()
	s.P50Millis, s.P99Millis = millis(quantile(took, 0.5)), millis(quantile(took, 0.99))
	return s
}

// quantile of a sorted list; zero of an empty one.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
