//go:build !race

// The suite runs with the race detector in TestConformance: once is enough, for it takes ten
// times as long.

package sqlite

import (
	"strings"
	"testing"

	"mailsidecar/queue"
	"mailsidecar/queue/storetest"
)

// TestNoScans: no statement that the store executes visits every row of a table that
// grows, or every entry of an index on one. Lists, too, look at a range of ids.
func TestNoScans(t *testing.T) {
	var used []*connection
	storetest.Run(t, func(t *testing.T) queue.Store {
		s := openKeeping(t, dbPath(t))
		used = append(used, s.writer.connection)
		for _, p := range []*readers{s.readers, s.lists} {
			used = append(used, openAll(t, p)...)
		}
		return s
	}, func(t *testing.T, s queue.Store) queue.Store {
		path := s.(*Store).opts.Path
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return openKeeping(t, path)
	})
	queries := map[string]bool{}
	for _, c := range used {
		for query := range c.stmts {
			queries[query] = true
		}
	}
	if len(queries) < 80 {
		t.Fatalf("%d statements were seen, want all", len(queries))
	}
	s := openStore(t, dbPath(t))
	for query := range queries {
		if isControl(query) {
			continue
		}
		for _, step := range planOf(t, s, query) {
			for _, table := range growing {
				if step == "SCAN "+table || strings.HasPrefix(step, "SCAN "+table+" ") {
					t.Errorf("%s\n\thas the step %q", strings.Join(strings.Fields(query), " "), step)
				}
			}
		}
	}
}
