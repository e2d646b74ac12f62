package sim

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/sim/model"
)

// The flags are what `make sim` sets, see docs/testing.md.
var (
	first    = flag.Uint64("sim.first", 1, "the first seed")
	step     = flag.Uint64("sim.step", 1, "how far the next seed is")
	seeds    = flag.Uint64("sim.seeds", 15, "how many seeds; 0: no limit but -sim.for")
	lasting  = flag.Duration("sim.for", 0, "how long to begin with further seeds; 0: no limit but -sim.seeds")
	inSQLite = flag.Bool("sim.sqlite", false, "keep the queues in SQLite files")
	several  = flag.Bool("sim.instances", false, "play only those of the seeds whose worlds have several instances")
	out      = flag.String("sim.out", "", "a folder for the histories that fail; empty: none is kept")
	trials   = flag.Int("sim.shrink", 150, "how many trials are made to shorten a history that fails; 0: only what failed is told")
	recorded = flag.String("sim.world", "", "the file of a recorded world that TestFoundBefore plays alone")
	failures = flag.Int("sim.failures", 5, "at how many histories that fail to end")
)

const (
	// compareEach is which histories are played twice and compared, maxDiffer how many of
	// these may differ in percent, once there are enough. Those whose worlds have several
	// instances have a limit of their own: which of them is first at the store, where they come
	// at the same moment, is the scheduler's choice. About 12 and 33 in a hundred differ. The
	// number is odd, or a process on every second seed would compare one kind too often.
	compareEach, maxDiffer, maxDifferShared, enough = 25, 25, 75, 20
	// replays is how often a history that fails is played again.
	replays = 20
)

// TestHistories plays the histories of the seeds.
func TestHistories(t *testing.T) {
	began, played, failed := time.Now(), 0, 0
	compared, differ := map[bool]int{}, map[bool]int{} // by whether there are several instances
	var measured model.Measured
	for seed := *first; *seeds == 0 || seed < *first+*seeds**step; seed += *step {
		if *lasting > 0 && time.Since(began) > *lasting || failed == *failures {
			break
		}
		if *several && !sharedSeed(seed) {
			continue
		}
		note(t, fmt.Sprintf("current-%d.txt", *first), fmt.Sprintf("seed %d, SQLite %t\n", seed, *inSQLite))
		w := NewWorld(seed, *inSQLite)
		r := Run(t, w)
		played++
		measured.Add(r.Measured)
		if len(r.Found) > 0 {
			failed++
			explain(t, w, r)
		} else if played%compareEach == 0 {
			shared := sharedSeed(seed)
			compared[shared]++
			if again := Run(t, w); again.Events.Difference(r.Events) >= 0 {
				differ[shared]++
			}
		}
		runtime.GC() // where GOGC is off
	}
	took := time.Since(began)
	fmt.Printf("%d histories in %.0f s, %.1f a second, %d failed; of %d played twice %d differ; of %d messages none was overtaken by more than %d of its lane, and %d of lower priority\n", played, took.Seconds(), float64(played)/took.Seconds(), failed, compared[false]+compared[true], differ[false]+differ[true], measured.Judged, measured.Own, measured.Lower)
	for shared, limit := range map[bool]int{false: maxDiffer, true: maxDifferShared} {
		if n := compared[shared]; n >= enough && differ[shared]*100 > n*limit {
			t.Errorf("%d of %d histories (several instances: %t) went another way when they were played again", differ[shared], n, shared)
		}
	}
	t.Logf("went another way: %d of %d with one instance, %d of %d with several", differ[false], compared[false], differ[true], compared[true])
}

// explain tells all of a history that failed: how often it does, and how it goes when it
// is made shorter.
func explain(t *testing.T, w *World, r Result) {
	if *trials == 0 {
		t.Errorf("seed %d fails: %s", w.Seed, strings.Join(r.Found, "\n  "))
		return
	}
	name := fmt.Sprintf("seed-%d-sqlite-%t", w.Seed, w.SQLite)
	note(t, name+"-full.txt", report(w, r))
	again, wanted := 0, checks(r.Found)
	for range replays {
		if found := checks(Run(t, w).Found); overlap(found, wanted) {
			again++
		}
	}
	small, shown := Shrink(t, w, r, *trials)
	text := report(small, shown)
	note(t, name+".txt", text)
	data, err := Record(small, strings.Join(shown.Found, "; "))
	if err != nil {
		t.Error(err)
	}
	note(t, name+".json", string(data))
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
	if err := os.WriteFile(filepath.Join(*out, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFoundBefore plays the histories that found a fault once, in the product or in the
// simulator. testdata/found keeps them as they were then; each fault has a small test of its
// own, too.
func TestFoundBefore(t *testing.T) {
	files, err := filepath.Glob("testdata/found/*.json")
	if *recorded != "" {
		files = []string{*recorded}
	}
	if err != nil || len(files) == 0 {
		t.Fatal("no histories: ", err)
	}
	for _, file := range files {
		w, what, err := Recorded(read(t, file))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if r := Run(t, w); len(r.Found) > 0 {
			note(t, strings.TrimSuffix(filepath.Base(file), ".json")+".txt", report(w, r))
			t.Errorf("%s (%s): %s", file, what, strings.Join(r.Found, "\n"))
		}
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestDoors: the requests of each provider are taken, so that the histories have them.
func TestDoors(t *testing.T) {
	w := NewWorld(1, false)
	w.Calm, w.Keys, w.Actions, w.Length = true, w.Keys[:1], nil, time.Hour
	w.Keys[0].Rate, w.MaxMessages, w.Drafts = Rate{}, 0, map[int]*Draft{}
	for i, door := range doors {
		name := fmt.Sprint("m", i+1)
		d := &Draft{Key: w.Keys[0], Header: http.Header{"Authorization": {"Bearer " + w.Keys[0].Secret()}}}
		door(d, mail{from: w.from(d.Key, name), to: []string{"to-" + name + "-0@example.org"}, subject: name, text: text(1, name), at: bubbleBegins.Add(time.Duration(i) * time.Second)})
		d.Submissions = []model.Submission{{Token: name, Paths: []string{"to-" + name + "-0@example.org"}, Valid: true}}
		w.Drafts[i+1] = d
		w.Actions = append(w.Actions, Action{ID: i + 1, At: time.Duration(i) * time.Second, Kind: Submit})
	}
	r := Run(t, w)
	for _, req := range r.Facts.Requests {
		if req.Answer != model.Accepted {
			t.Errorf("%v: status %d", req.Submissions, req.Status)
		}
	}
	if len(r.Found) > 0 || len(r.Facts.Messages) != len(doors) {
		t.Errorf("%d messages, and %q", len(r.Facts.Messages), r.Found)
	}
}

// TestRecord: a recorded world goes the same way as the one of the seed.
func TestRecord(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		w := NewWorld(seed, false)
		data, err := Record(w, "nothing")
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := Recorded(data)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := Record(again, "nothing"); err != nil || !bytes.Equal(data, twice) {
			t.Errorf("seed %d: recorded twice, the world is another one: %v", seed, err)
		}
		want, got := requests(Run(t, w)), requests(Run(t, again))
		if !slices.Equal(want, got) {
			t.Errorf("seed %d: the recorded world has the requests\n%q\nnot\n%q", seed, got, want)
		}
	}
}

// requests are the messages of a history and the keys that they came with.
func requests(r Result) (list []string) {
	for _, req := range r.Facts.Requests {
		list = append(list, fmt.Sprint(req.Key, " ", req.Name, " ", req.Wait, " ", req.Submissions))
	}
	slices.Sort(list)
	return list
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
