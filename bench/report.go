package main

import (
	"fmt"
	"strings"
)

// markdown is the whole report: targets first, then every case.
func (r *Results) markdown(verdicts []verdict) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s at commit %s in %d s: %s; %s.\n%d rounds of %s, systems in turn; load average at the start: %s. ",
		r.Date, r.Commit, r.Seconds, r.Machine, strings.Join(r.Versions, ", "), r.Rounds, r.Window, r.Load)
	b.WriteString("A ratio is the median of the rounds' ratios, any other figure the median of the rounds.\n")
	for _, line := range r.LeftOut {
		first, _, _ := strings.Cut(line, "\n")
		fmt.Fprintf(&b, "\nLeft out: %s\n", first)
	}
	b.WriteString("\n### Targets\n\n| case | measure | target | measured | |\n|---|---|--:|--:|---|\n")
	for _, v := range verdicts {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", v.name, v.measure, v.limitText(), v.gotText(), v.state())
	}
	for _, c := range r.Cases {
		fmt.Fprintf(&b, "\n### %s\n\n%s", strings.ToUpper(c.Title[:1])+c.Title[1:], c.table())
	}
	if len(r.Singles) > 0 {
		b.WriteString("\n### Single figures\n\n| | |\n|---|--:|\n")
		for _, f := range r.Singles {
			fmt.Fprintf(&b, "| %s | %.1f %s |\n", f.Name, f.Value, f.Unit)
		}
	}
	return b.String()
}

const caseHead = `| system | durable when it answers | answers/s | p50 / p99 ms | at relay/s | CPU ms/msg | peak MB | lost / twice / refused |
|---|---|--:|--:|--:|--:|--:|--:|
`

func (c *CaseResult) table() string {
	var b strings.Builder
	b.WriteString(caseHead)
	for _, s := range c.Systems {
		durable := "no"
		if s.Durable {
			durable = "yes"
		}
		name := s.Name
		if name == mailsidecar.name {
			name = "**" + name + "**"
		}
		m := s.Median
		fmt.Fprintf(&b, "| %s | %s | %.0f | %.1f / %.1f | %.0f | %.2f | %.0f | %d / %d / %d |\n", name, durable,
			m.AnswersPerSecond, m.P50Millis, m.P99Millis, m.RelayPerSecond, m.CPUMillis, m.PeakMB, m.Lost, m.Duplicates, m.Failures)
	}
	return b.String()
}
