//go:build linux

package postgres

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/storetest"
)

var update = flag.Bool("update", false, "rewrite the schema in testdata, which is allowed until it is released")

// released are the schema versions of releases, by the files in testdata that have their steps.
var released = []int{1}

func schemaFile(version int) string {
	return filepath.Join("testdata", fmt.Sprintf("schema-%d.sql", version))
}

// TestReleased: what a release has made of a schema is never changed.
func TestReleased(t *testing.T) {
	for _, version := range released {
		script := strings.Join(migrations[:version], ";\n")
		if *update {
			if err := os.WriteFile(schemaFile(version), []byte(script), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(schemaFile(version))
		if err != nil {
			t.Fatal(err)
		}
		if script != string(want) {
			t.Errorf("the steps to schema %d are not those of the release: add a step in place of changing one. "+
				"Before the first release: go test ./queue/postgres -run Released -update", version)
		}
	}
}

// breaking is what a step must not do, because a program one release older may be at work.
var breaking = regexp.MustCompile(`(?i)\b(DROP|RENAME|TRUNCATE|SET NOT NULL|SET SCHEMA)\b|ALTER COLUMN \w+ (SET DATA )?TYPE|ADD COLUMN [^,;]*\bNOT NULL\b[^,;]*`)

// TestStepsAdd: steps after the first only add.
func TestStepsAdd(t *testing.T) {
	for i, step := range append(slices.Clone(migrations[1:]), next) {
		for _, found := range breaking.FindAllString(step, -1) {
			if !regexp.MustCompile(`(?i)ADD COLUMN.*DEFAULT`).MatchString(found) {
				t.Errorf("the step to schema %d has %q: a release older could not work any more", i+2, found)
			}
		}
	}
	for _, bad := range []string{"ALTER TABLE x DROP COLUMN y", "ALTER TABLE x ADD COLUMN y int NOT NULL", "ALTER TABLE x ALTER COLUMN y TYPE bigint", "ALTER TABLE x RENAME COLUMN y TO z"} {
		if !breaking.MatchString(bad) {
			t.Errorf("%q is not found", bad)
		}
	}
}

// next is the step of a release that does not exist yet.
const next = `ALTER TABLE {s}.messages ADD COLUMN later text;
ALTER TABLE {s}.recipients ADD COLUMN later int NOT NULL DEFAULT 0;
ALTER TABLE {s}.attempts ADD COLUMN later timestamptz;
ALTER TABLE {s}.idempotency ADD COLUMN later jsonb;
ALTER TABLE {s}.instances ADD COLUMN later text;
ALTER TABLE {s}.notes ADD COLUMN later text;
CREATE TABLE {s}.later (id uuid PRIMARY KEY);
CREATE INDEX messages_later ON {s}.messages (later) WHERE later IS NOT NULL`

// oneNewer makes a release of this program that is one newer, until the test ends.
func oneNewer(t *testing.T) {
	all := migrations
	migrations = append(slices.Clone(all), next)
	t.Cleanup(func() { migrations = all })
}

// TestOlderProgram: this program works with a schema that is one step newer as with its own, also after a restart.
func TestOlderProgram(t *testing.T) {
	srv := start(t)
	openNewer := func(t *testing.T) *Store {
		o := options(t, srv.url())
		c, err := newConnector(o.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		srv.exec(t, c.sql(next+fmt.Sprintf(`; UPDATE {s}.version SET version = %d`, len(migrations)+1)))
		if from, to, err := Migrate(t.Context(), o); err != nil || from != len(migrations)+1 || to != from { // as each start does
			t.Fatalf("Migrate = %d, %d, %v", from, to, err)
		}
		return open(t, o)
	}
	s := openNewer(t)
	now := storetest.Start
	for seed := range uint64(3) {
		now = storetest.Churn(t, s, 40+seed, now)
	}
	storetest.CheckStats(t, s, now)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	storetest.CheckStats(t, open(t, s.opts), now)
}

// TestRollingUpgrade: ten instances of a release that is one newer start at once while one of this release works; it
// goes on, starts again, and both work with each other's messages.
func TestRollingUpgrade(t *testing.T) {
	srv := start(t)
	for _, version := range slices.Compact(append(slices.Clone(released), len(migrations))) {
		t.Run(fmt.Sprintf("from %d", version), func(t *testing.T) {
			all := migrations
			migrations = all[:version]
			o := options(t, srv.url())
			older := open(t, o)
			now := storetest.Churn(t, older, 12, storetest.Start)
			migrations = all
			if version == len(all) {
				oneNewer(t)
			}
			var wg sync.WaitGroup
			begun := make(chan struct{})
			for range 10 {
				wg.Go(func() {
					<-begun
					if from, to, err := Migrate(t.Context(), o); err != nil || to != len(migrations) || from != to && from != version {
						t.Errorf("Migrate = %d, %d, %v", from, to, err)
					}
				})
			}
			close(begun)
			now = storetest.Churn(t, older, 13, now) // meanwhile
			wg.Wait()
			newer := open(t, o)
			for seed := range uint64(4) {
				now = storetest.Churn(t, []*Store{older, newer}[seed%2], 20+seed, now)
			}
			storetest.CheckStats(t, newer, now)
			storetest.CheckStats(t, older, now)
			if err := newer.Close(); err != nil {
				t.Error(err)
			}
			// The upgrade is taken back: an instance of the release before starts again.
			migrations = all[:version]
			if version+1 < len(all) {
				return // two steps of one release, before the first one
			}
			if _, _, err := Migrate(t.Context(), o); err != nil {
				t.Errorf("start of the older release after the newer one: %v", err)
			}
			back := open(t, o)
			if _, err := back.Get(t.Context(), queue.AnyKey, "none"); err == nil {
				t.Error("there is a message without an id")
			}
			storetest.Churn(t, back, 30, now.Add(time.Second))
			migrations = all
		})
	}
}
