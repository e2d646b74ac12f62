package sqlite

import (
	"database/sql"
	"strings"
	"testing"
)

// TestPlans: what the scheduler asks is answered along the index of what is due,
// however much waits: it steps from lane to lane, and sorts nothing.
func TestPlans(t *testing.T) {
	s, err := Open(t.Context(), Options{Path: dbPath(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, query := range []string{laneHeads, dueInLane} {
		err := s.view(t.Context(), func(v *session) error {
			args := make([]any, strings.Count(query, "?"))
			return v.each("EXPLAIN QUERY PLAN "+query, args, func(rows *sql.Rows) error {
				var id, parent, unused int
				var step string
				if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
					return err
				}
				along := strings.HasPrefix(step, "SEARCH recipients USING INDEX recipients_due")
				sorts := query == dueInLane && strings.Contains(step, "TEMP B-TREE")
				if strings.Contains(step, "recipients") && !along || sorts {
					t.Errorf("step %q of %s, want a search along the index recipients_due", step, query)
				}
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
