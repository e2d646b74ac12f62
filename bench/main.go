// Bench measures mailsidecar beside its peers on one machine, in the same
// minutes: every case runs all of its systems in turn, A B C A B C, and a figure
// is the median of the rounds. Only ratios inside one run mean anything.
// docs/performance.md says what the cases are.
//
// It builds and starts everything itself: the sink (the relay), the delay proxy
// (the distance), the systems and the load. A peer that the machine lacks is
// left out, with a line that says so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	root    string         // of the product's repository
	scratch string         // for queues and built programs; a disk, not memory
	rounds  int            // of each case
	window  time.Duration  // measured in each round
	only    *regexp.Regexp // cases
	systems *regexp.Regexp
	short   bool
	profile string // file for a CPU profile of mailsidecar, or empty
	against string // another mailsidecar, its binary or checkout, or empty
	scrape  bool   // read the metrics of mailsidecar each second
	// postgres is the address of a database, for mailsidecar with its queue there beside the one with a file; or empty.
	postgres string
	write    bool // results, plot and docs/performance.md
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func parseOptions(args []string) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.root, "root", "..", "the repository")
	flags.StringVar(&o.scratch, "scratch", "/var/tmp", "where queues lie: a disk, for fsync in memory costs nothing")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds of each case")
	flags.DurationVar(&o.window, "window", 3*time.Second, "what is measured of each round")
	flags.BoolVar(&o.short, "short", false, "rounds of a second, one if -rounds does not say more, and fewer cases: a look, not a result")
	flags.StringVar(&o.against, "against", "", "compare with another mailsidecar, a binary or a checkout, instead of the peers; writes nothing")
	flags.BoolVar(&o.scrape, "scrape", false, "read this mailsidecar's metrics each second, and with -against not the other's; writes nothing")
	flags.StringVar(&o.profile, "profile", "", "write a CPU profile of mailsidecar to this file (go tool pprof reads it)")
	flags.BoolVar(&o.write, "write", true, "write bench/results, the plot and docs/performance.md")
	flags.StringVar(&o.postgres, "postgres", "", "run mailsidecar with its queue in this database, too, and with -against the other one, each time in a schema of its own; writes nothing")
	only := flags.String("only", "", "run the cases whose name matches this regular expression; writes nothing")
	systems := flags.String("systems", "", "run the systems whose name matches this regular expression; writes nothing")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, err
	}
	if o.systems, err = regexp.Compile(*systems); err != nil {
		return o, err
	}
	if o.short {
		o.window = time.Second
		if !given(flags, "rounds") {
			o.rounds = 1
		}
	}
	o.write = o.write && !o.short && *only == "" && *systems == "" && o.profile == "" && o.against == "" && !o.scrape && o.postgres == ""
	for _, path := range []*string{&o.root, &o.profile, &o.against} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return o, err
		}
	}
	return o, nil
}

func given(flags *flag.FlagSet, name string) bool {
	found := false
	flags.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// chosen says whether the options ask for a case.
func (o options) chosen(name string, short bool) bool {
	return o.only.MatchString(name) && (short || !o.short)
}

func run(ctx context.Context, args []string) error {
	o, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	began := time.Now()
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	if o.against != "" && o.postgres == "" {
		all, err := b.compare(ctx)
		if err != nil {
			return err
		}
		fmt.Println("\n" + comparisonTable(all, o.against, o.rounds))
		return nil
	}
	results, err := b.measureAll(ctx)
	if err != nil {
		return err
	}
	results.Seconds = int(time.Since(began).Seconds())
	report := results.markdown(judge(results))
	fmt.Println("\n" + report)
	if !o.write {
		return nil
	}
	return results.writeAll(o.root, report)
}

// measureAll runs the cases one after the other.
func (b *bench) measureAll(ctx context.Context) (*Results, error) {
	results := newResults(b.options)
	for _, c := range cases() {
		if !b.options.chosen(c.name, c.short) {
			continue
		}
		fmt.Printf("== %s: %s\n", c.name, c.title)
		measured, err := b.runCase(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		results.Cases = append(results.Cases, measured)
	}
	for _, s := range singles {
		if !b.options.chosen(s.name, s.short) {
			continue
		}
		fmt.Printf("== %s: %s\n", s.name, s.title)
		figures, err := s.measure(ctx, b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		results.Singles = append(results.Singles, figures...)
		for _, f := range figures {
			fmt.Printf("   %-44s %8.1f %s\n", f.Name, f.Value, f.Unit)
		}
	}
	results.LeftOut = b.leftOut()
	return results, nil
}

// leftOut lists the peers that could not run, each with its reason.
func (b *bench) leftOut() []string {
	var list []string
	for name, reason := range b.missing {
		list = append(list, name+": "+strings.TrimSpace(reason))
	}
	return list
}
