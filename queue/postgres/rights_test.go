//go:build linux

package postgres

import (
	"errors"
	"strings"
	"testing"

	"mailsidecar/queue"
)

// TestRights: a role that lacks a right on one table is told so before the first message, with
// what grants it.
func TestRights(t *testing.T) {
	srv := start(t)
	o := options(t, srv.url())
	schema := `"` + o.Schema + `"`
	srv.exec(t, `CREATE ROLE "the app" LOGIN`)
	defer func() {
		srv.exec(t, `DROP OWNED BY "the app"`)
		srv.exec(t, `DROP ROLE "the app"`)
	}()
	app := o
	app.URL = strings.Replace(o.URL, "test@", "the%20app@", 1)
	grant := `GRANT USAGE ON SCHEMA ` + schema + ` TO "the app"; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ` + schema + ` TO "the app"`
	refused := func(want string) {
		t.Helper()
		_, examined := Examine(t.Context(), app)
		_, opened := Open(t.Context(), app)
		_, _, migrated := Migrate(t.Context(), app)
		for name, err := range map[string]error{"Examine": examined, "Open": opened, "Migrate": migrated} {
			var known *queue.StoreError
			if !errors.As(err, &known) {
				t.Errorf("%s = %v, want a remedy", name, err)
			} else if !strings.Contains(known.Err.Error(), want) || !strings.Contains(known.Remedy, grant) {
				t.Errorf("%s = %v, want %q and %q in it", name, err, want, grant)
			}
		}
	}
	refused(`its role "the app" lacks USAGE on the schema ` + o.Schema + `, SELECT on attempts, INSERT on attempts, UPDATE on attempts, `)
	srv.exec(t, grant)
	srv.exec(t, `REVOKE INSERT ON `+schema+`.contents FROM "the app"`)
	refused(`its role "the app" lacks INSERT on contents`)
	srv.exec(t, grant)
	srv.exec(t, `REVOKE ALL ON `+schema+`.notes FROM "the app"`)
	refused("lacks SELECT on notes, INSERT on notes, UPDATE on notes, DELETE on notes")
	srv.exec(t, grant)
	srv.exec(t, `REVOKE USAGE ON SCHEMA `+schema+` FROM "the app"`)
	refused("lacks USAGE on the schema " + o.Schema)
	srv.exec(t, grant)
	srv.exec(t, `REVOKE INSERT, UPDATE, DELETE ON `+schema+`.version, `+schema+`.copies FROM "the app"`)
	if _, _, err := Migrate(t.Context(), app); err != nil {
		t.Errorf("Migrate = %v", err)
	}
	if _, err := Examine(t.Context(), app); err != nil {
		t.Errorf("Examine = %v", err)
	}
	if err := open(t, app).Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

// TestLoginChanges: a login that was changed in its file is used by the next connection, without a restart.
func TestLoginChanges(t *testing.T) {
	o := options(t, start(t).url())
	now := o.URL
	o.URL = strings.Replace(o.URL, "test@", "gone@", 1)
	var failed error
	o.Reread = func() (string, error) { return now, failed }
	s := open(t, o)
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check = %v", err)
	}
	failed = errors.New("no file")
	_, err := Examine(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), `"gone"`) {
		t.Errorf("Examine without the file = %v, want that the login of the start is refused", err)
	}
}
