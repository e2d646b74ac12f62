package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// other is the mailsidecar that -against names.
var other = system{name: "against", durable: true, start: startProduct("against")}

// otherInPostgres is that one with its queue in a database, where -postgres names one.
var otherInPostgres = system{name: "against-postgres", durable: true, start: startInPostgres("against")}

// buildOther makes the other mailsidecar from a checkout, or takes a finished
// binary.
func (b *bench) buildOther(ctx context.Context) error {
	info, err := os.Stat(b.options.against)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return b.compile(ctx, b.options.against, other.name, nil)
	default:
		return os.Symlink(b.options.against, b.path(other.name))
	}
}

// comparison is one figure of the two.
type comparison struct {
	name         string
	figure       string
	ours, theirs float64 // medians of the rounds
	// ratio is over 1 where ours is the better one.
	ratio float64
}

// compared are the figures of a case.
var compared = []struct {
	name   string
	figure func(Sample) float64
	more   bool // is better
}{
	{"answers/s", answerRate, true},
	{"at relay/s", relayRate, true},
	{"p50 ms", p50, false},
	{"p99 ms", p99, false},
	{"CPU ms/msg", cpu, false},
	{"peak MB", peak, false},
}

// compare runs the cases with this mailsidecar and the other one, in turn.
func (b *bench) compare(ctx context.Context) ([]comparison, error) {
	var all []comparison
	for _, c := range cases() {
		if !b.options.chosen(c.name, c.short) {
			continue
		}
		fmt.Printf("== %s: %s\n", c.name, c.title)
		c.systems = []system{mailsidecar, other}
		measured, err := b.runCase(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		all = append(all, compareCase(measured)...)
	}
	if !b.options.chosen("start", true) {
		return all, nil
	}
	starts, err := b.compareStart(ctx)
	return append(all, starts...), err
}

func compareCase(c *CaseResult) []comparison {
	ours, theirs := c.system(mailsidecar.name), c.system(other.name)
	var all []comparison
	for _, f := range compared {
		all = append(all, newComparison(c.Name, f.name, f.more, values(ours.Rounds, f.figure), values(theirs.Rounds, f.figure)))
	}
	return all
}

// compareStart measures start and idle memory of each in turn.
func (b *bench) compareStart(ctx context.Context) ([]comparison, error) {
	systems := []system{mailsidecar, other}
	took, idle := map[string][]float64{}, map[string][]float64{}
	for round := range max(starts, b.options.rounds) {
		for i := range systems {
			s := systems[(i+round)%len(systems)]
			t, m, err := b.timeStart(ctx, s)
			if err != nil {
				return nil, fmt.Errorf("start of %s: %w", s.name, err)
			}
			took[s.name], idle[s.name] = append(took[s.name], t), append(idle[s.name], m)
		}
	}
	return []comparison{
		newComparison("start", "first answer ms", false, took[mailsidecar.name], took[other.name]),
		newComparison("start", "idle MB", false, idle[mailsidecar.name], idle[other.name]),
	}, nil
}

// newComparison takes the median of the rounds' ratios, for the two ran side by
// side in each.
func newComparison(name, figure string, more bool, ours, theirs []float64) comparison {
	var ratios []float64
	for i := range min(len(ours), len(theirs)) {
		if more {
			ratios = append(ratios, ours[i]/theirs[i])
		} else {
			ratios = append(ratios, theirs[i]/ours[i])
		}
	}
	return comparison{name, figure, median(ours), median(theirs), median(ratios)}
}

// comparisonTable is the report of a run with -against.
func comparisonTable(all []comparison, against string, rounds int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Against %s, medians of %d rounds in turn (of at least %d starts). A ratio over 1 means that this checkout is better.\n\n",
		filepath.Base(against), rounds, starts)
	fmt.Fprintf(&b, "%-14s %-16s %10s %10s %7s\n", "case", "figure", "this", "against", "ratio")
	for _, c := range all {
		fmt.Fprintf(&b, "%-14s %-16s %10.2f %10.2f %7.2f\n", c.name, c.figure, c.ours, c.theirs, c.ratio)
	}
	return b.String()
}
