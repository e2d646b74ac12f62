package sim

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The flags are what `make sim` sets, see docs/testing.md.
var (
	first    = flag.Uint64("sim.first", 1, "the first seed")
	step     = flag.Uint64("sim.step", 1, "how far the next seed is")
	seeds    = flag.Uint64("sim.seeds", 15, "how many seeds; 0: no limit but -sim.for")
	lasting  = flag.Duration("sim.for", 0, "how long to begin with further seeds; 0: no limit but -sim.seeds")
	inSQLite = flag.Bool("sim.sqlite", false, "keep the queues in SQLite files")
	out      = flag.String("sim.out", "", "a folder for the histories that fail; empty: none is kept")
	trials   = flag.Int("sim.shrink", 150, "how many trials are made to shorten a history that fails; 0: only what failed is told")
	failures = flag.Int("sim.failures", 5, "at how many histories that fail to end")
)

const (
	// compareEach is which seeds are played twice and compared, maxDiffer how many of
	// these may differ in percent, once there are enough.
	compareEach, maxDiffer, enough = 50, 25, 20
	// replays is how often a history that fails is played again.
	replays = 20
)

// TestHistories plays the histories of the seeds.
func TestHistories(t *testing.T) {
	began, played, failed, compared, differ := time.Now(), 0, 0, 0, 0
	for seed := *first; *seeds == 0 || seed < *first+*seeds**step; seed += *step {
		if *lasting > 0 && time.Since(began) > *lasting || failed == *failures {
			break
		}
		note(t, "current-"+fmt.Sprint(*first), fmt.Sprintf("seed %d, SQLite %t\n", seed, *inSQLite))
		w := NewWorld(seed, *inSQLite)
		r := Run(t, w)
		played++
		if len(r.Found) > 0 {
			failed++
			explain(t, w, r)
		} else if played%compareEach == 0 {
			compared++
			if again := Run(t, w); again.Events.Difference(r.Events) >= 0 {
				differ++
			}
		}
		runtime.GC() // where GOGC is off
	}
	took := time.Since(began)
	fmt.Printf("%d histories in %.0f s, %.1f a second, %d failed; of %d played twice %d differ\n", played, took.Seconds(), float64(played)/took.Seconds(), failed, compared, differ)
	if compared >= enough && differ*100 > compared*maxDiffer {
		t.Errorf("%d of %d histories went another way when they were played again", differ, compared)
	}
}

// explain tells all of a history that failed: how often it does, and how it goes when it
// is made shorter.
func explain(t *testing.T, w *World, r Result) {
	if *trials == 0 {
		t.Errorf("seed %d fails: %s", w.Seed, strings.Join(r.Found, "\n  "))
		return
	}
	name := fmt.Sprintf("seed-%d-sqlite-%t", w.Seed, w.SQLite)
	note(t, name+"-full", report(w, r))
	again, wanted := 0, checks(r.Found)
	for range replays {
		if found := checks(Run(t, w).Found); overlap(found, wanted) {
			again++
		}
	}
	small, shown := Shrink(t, w, r, *trials)
	text := report(small, shown)
	note(t, name, text)
	t.Errorf("seed %d fails (%d of %d replays): %s\nReplay it with\n  GOMAXPROCS=1 GOGC=off go test ./sim -run TestHistories -sim.seeds 1 -sim.first %d -sim.sqlite=%t\nThe history, shortened from %d to %d actions, and the end of its events:\n%s",
		w.Seed, again, replays, strings.Join(r.Found, "\n  "), w.Seed, w.SQLite, len(w.Actions), len(small.Actions), tail(text))
}

func overlap(a, b map[string]bool) bool {
	for name := range a {
		if b[name] {
			return true
		}
	}
	return false
}

func report(w *World, r Result) string {
	var b bytes.Buffer
	Report(&b, w, r)
	return b.String()
}

// tail is the beginning of a long text, and its end.
func tail(text string) string {
	lines := strings.SplitAfter(text, "\n")
	if len(lines) <= 200 {
		return text
	}
	return strings.Join(lines[:100], "") + "…\n" + strings.Join(lines[len(lines)-100:], "")
}

// note keeps a text in the folder, if there is one.
func note(t *testing.T, name, text string) {
	if *out == "" {
		return
	}
	if err := os.MkdirAll(*out, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*out, name+".txt"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFoundBefore plays the histories that found a fault once, in the product or in the
// simulator. A change of the simulator gives a seed another history: each fault has a
// small test of its own, too.
func TestFoundBefore(t *testing.T) {
	for seed, what := range map[uint64]string{
		4:    "a second reply in the packet of the 354 was taken for that to the content: here a relay's fault",
		539:  "MAIL that waits until the relay is done with the message before it is not late",
		2717: "a reply too many to EHLO makes a refused login one without a reply",
		2988: "a second transaction of an attempt that goes on, after the cancel",
	} {
		if r := Run(t, NewWorld(seed, false)); len(r.Found) > 0 {
			t.Errorf("seed %d (%s): %s", seed, what, strings.Join(r.Found, "\n"))
		}
	}
}

// TestSQLite plays some histories on a store in a file.
func TestSQLite(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		w := NewWorld(seed, true)
		if r := Run(t, w); len(r.Found) > 0 {
			t.Errorf("seed %d: %s", seed, strings.Join(r.Found, "\n"))
		}
	}
}
