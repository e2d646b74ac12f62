package sqlite

import (
	"bytes"
	"database/sql"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMigrationsSkipFinished: a start that migrates visits no row of what is finished.
// Only the one to schema 3 does, when it makes an index anew: 0.5 s for a million.
func TestMigrationsSkipFinished(t *testing.T) {
	db, err := sql.Open("sqlite", dsn(filepath.Join(t.TempDir(), "old.db")))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	scans := regexp.MustCompile(`^SCAN (` + strings.Join(growing, "|") + `)\b`)
	for version, script := range migrations {
		for statement := range strings.SplitSeq(withoutComments(script), ";") {
			statement = strings.TrimSpace(statement)
			switch {
			case statement == "":
				continue
			case strings.HasPrefix(statement, "UPDATE"), strings.HasPrefix(statement, "INSERT"):
				for _, step := range explain(t, db, statement) {
					if scans.MatchString(step) {
						t.Errorf("to schema %d: %s\n\thas the step %q", version+1, statement, step)
					}
				}
			case strings.HasPrefix(statement, "CREATE INDEX") && version > 0 && version != 2:
				if table := regexp.MustCompile(`ON (\w+)`).FindStringSubmatch(statement)[1]; !strings.Contains(script, "CREATE TABLE "+table) {
					t.Errorf("to schema %d: %s\n\tvisits each row of %s", version+1, statement, table)
				}
			}
			if _, err := db.ExecContext(t.Context(), statement); err != nil {
				t.Fatalf("to schema %d: %s: %v", version+1, statement, err)
			}
		}
	}
}

func withoutComments(script string) string {
	return regexp.MustCompile(`(?m)--.*$`).ReplaceAllString(script, "")
}

func explain(t *testing.T, db *sql.DB, statement string) (steps []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+statement)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	defer rows.Close() // Err tells
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return steps
}

// TestNewSchema: a new file, made in one transaction, has the schema of one that was
// migrated step by step.
func TestNewSchema(t *testing.T) {
	all := migrations
	t.Cleanup(func() { migrations = all })
	path := dbPath(t)
	for n := range all {
		migrations = all[:n+1]
		if err := openStore(t, path).Close(); err != nil {
			t.Fatal(err)
		}
	}
	want, got := schemaOf(t, openStore(t, path)), schemaOf(t, openStore(t, dbPath(t)))
	if !slices.Equal(got, want) {
		t.Errorf("schema of a new file =\n%q\nwant that of a migrated one\n%q", got, want)
	}
}

// schemaOf is what makes the tables and indexes, and which version they are of.
func schemaOf(t *testing.T, s *Store) []string {
	t.Helper()
	var all []string
	err := s.view(t.Context(), func(v *session) error {
		return v.each(`SELECT name || ': ' || coalesce(sql, '') FROM sqlite_schema
			UNION ALL SELECT 'version ' || user_version FROM pragma_user_version
			UNION ALL SELECT 'application ' || application_id FROM pragma_application_id
			UNION ALL SELECT 'usage ' || messages || ' ' || bytes FROM usage ORDER BY 1`, nil, func(rows *sql.Rows) error {
			var one string
			err := rows.Scan(&one)
			all = append(all, one)
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestMigrationIsLogged: whoever waits for a start that migrates can see why.
func TestMigrationIsLogged(t *testing.T) {
	all := migrations
	t.Cleanup(func() { migrations = all })
	path := dbPath(t)
	migrations = all[:1]
	writeOld(t, path)
	migrations = all
	for _, want := range []string{`msg="queue store is migrated" from_schema=1 to_schema=`, ""} {
		var log bytes.Buffer
		s, err := Open(t.Context(), Options{Path: path, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(log.String(), want) || (want == "") != (log.Len() == 0) {
			t.Errorf("log = %q, want %q", log.String(), want)
		}
	}
}
