package postgres

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// tables are the names of the schema's tables.
func tables() (names []string) {
	for _, found := range regexp.MustCompile(`CREATE TABLE \{s\}\.(\w+)`).FindAllStringSubmatch(strings.Join(migrations, "\n"), -1) {
		names = append(names, found[1])
	}
	return append(names, "version")
}

// rights says whether there are tables, and what the role must be granted on them before it can
// work: a right that is missing would be met by the first message. Servers only read which
// version the schema has, and whether it was copied.
func (c *connector) rights(ctx context.Context, q querier) (there bool, err error) {
	var role string
	var usage bool
	var missing []string
	err = q.QueryRow(ctx, `SELECT current_user, coalesce(bool_or(t.relname = 'version'), false), coalesce(bool_and(has_schema_privilege(n.oid, 'USAGE')), true),
			coalesce(array_agg(p.name || ' on ' || t.relname ORDER BY t.relname, p.i)
				FILTER (WHERE NOT has_table_privilege(t.oid, p.name) AND (p.name = 'SELECT' OR t.relname NOT IN ('version', 'copies'))), '{}')
		FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace
			CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS p (name, i)
		WHERE n.nspname = $1 AND t.relkind = 'r' AND t.relname = ANY ($2)`, c.name, tables()).Scan(&role, &there, &usage, &missing)
	if !usage {
		missing = append([]string{"USAGE on the schema " + c.name}, missing...)
	}
	if err != nil || len(missing) == 0 {
		return there, err
	}
	const most = 4
	if more := len(missing) - most; more > 0 {
		missing = append(missing[:most], fmt.Sprintf("%d more", more))
	}
	role = pgx.Identifier{role}.Sanitize()
	return there, c.unfit(fmt.Sprintf("its role %s lacks %s", role, strings.Join(missing, ", ")),
		fmt.Sprintf("as the owner of the tables: GRANT USAGE ON SCHEMA %[1]s TO %[2]s; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %[1]s TO %[2]s", c.schema, role))
}
