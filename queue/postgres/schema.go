package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"mailsidecar/queue"
)

// migrations lead from one schema version to the next, by index. One that was released is
// never changed: a change is a new one, and a release has one at most.
//
// A program one release older works beside this one, and one that is newer will. So a step only
// adds: columns that may be NULL or have a constant default, tables, indexes. What is not used any
// more is dropped by the release after. A type is never changed. Statements name their columns.
//
// messages.clock is when an unfinished message expires, or infinity, and when a final one
// became final. A message's octets are rows of contents: plain ones, of which two fill
// three quarters of a page and more, for one large value costs three times as many rows.
// recipients.marked and mark_route stand in no index, so that a mark rewrites no index.
var migrations = []string{`
CREATE TABLE {s}.messages (
	id            uuid PRIMARY KEY,
	key           text COLLATE "C" NOT NULL,
	message_id    text COLLATE "C" NOT NULL,
	sender        text COLLATE "C" NOT NULL,
	subject       text NOT NULL,
	tags          jsonb,
	reverse_path  text COLLATE "C" NOT NULL,
	size          bigint NOT NULL,
	eight_bit     bool NOT NULL,
	utf8_header   bool NOT NULL,
	priority      smallint NOT NULL,
	created       timestamptz NOT NULL,
	send_at       timestamptz,
	expires       timestamptz NOT NULL,
	lifetime      bigint,
	status        text COLLATE "C" NOT NULL,
	final         bool NOT NULL,
	clock         timestamptz NOT NULL,
	has_content   bool NOT NULL,
	content_until timestamptz,
	suspect       bool NOT NULL DEFAULT false,
	crashes       int NOT NULL DEFAULT 0,
	attempts      int NOT NULL DEFAULT 0,
	resent_of     uuid,
	resent_as     uuid[]
) WITH (fillfactor = 85, {vacuum});
CREATE INDEX messages_list ON {s}.messages (key, status, id) INCLUDE (size);
CREATE INDEX messages_unfinished ON {s}.messages (clock) INCLUDE (size) WHERE NOT final;
CREATE INDEX messages_finished ON {s}.messages (clock) WHERE final;
CREATE INDEX messages_content ON {s}.messages (content_until) WHERE content_until IS NOT NULL;

CREATE TABLE {s}.contents (
	message uuid NOT NULL,
	n       int NOT NULL,
	data    bytea NOT NULL,
	PRIMARY KEY (message, n)
) WITH ({vacuum});
ALTER TABLE {s}.contents ALTER COLUMN data SET STORAGE PLAIN;

CREATE TABLE {s}.recipients (
	message      uuid NOT NULL,
	n            int NOT NULL,
	forward_path text COLLATE "C" NOT NULL,
	state        text COLLATE "C" NOT NULL,
	due          timestamptz,
	route        text COLLATE "C" NOT NULL,
	lane         text COLLATE "C" NOT NULL,
	owner        text COLLATE "C",
	lease        bigint NOT NULL DEFAULT 1,
	marked       smallint NOT NULL DEFAULT 0,
	mark_route   text COLLATE "C",
	cancel       bool NOT NULL DEFAULT false,
	tries        int NOT NULL DEFAULT 0,
	attempts     int NOT NULL DEFAULT 0,
	result       jsonb,
	PRIMARY KEY (message, n)
) WITH (fillfactor = 70, {vacuum});
CREATE INDEX recipients_due ON {s}.recipients (route, lane, due, message, n) WHERE due IS NOT NULL AND owner IS NULL;
CREATE INDEX recipients_leased ON {s}.recipients (owner, message) WHERE owner IS NOT NULL;

CREATE TABLE {s}.attempts (
	message  uuid NOT NULL,
	n        int NOT NULL,
	lease    bigint NOT NULL,
	relay    text COLLATE "C" NOT NULL,
	why      text NOT NULL,
	port     int NOT NULL,
	mode     text NOT NULL,
	tls      text NOT NULL,
	auth     text NOT NULL,
	ladder   jsonb,
	started  timestamptz NOT NULL,
	duration bigint NOT NULL,
	results  jsonb NOT NULL,
	PRIMARY KEY (message, n)
) WITH ({vacuum});

CREATE TABLE {s}.idempotency (
	key         text COLLATE "C" NOT NULL,
	name        text COLLATE "C" NOT NULL,
	fingerprint bytea NOT NULL,
	messages    bytea NOT NULL,
	expires     timestamptz NOT NULL,
	PRIMARY KEY (key, name)
) WITH ({vacuum});
CREATE INDEX idempotency_expires ON {s}.idempotency (expires);

-- When each owner's lease ends, by this server's clock. The runs are those that have not
-- ended in order; crashed is when that was found out.
CREATE TABLE {s}.instances (owner text COLLATE "C" PRIMARY KEY, until timestamptz NOT NULL) WITH (fillfactor = 10, {vacuum});
CREATE TABLE {s}.runs (owner text COLLATE "C" PRIMARY KEY, crashed timestamptz);

CREATE TABLE {s}.turns (
	relay text COLLATE "C" NOT NULL,
	at    timestamptz NOT NULL,
	n     int NOT NULL,
	PRIMARY KEY (relay, at)
) WITH ({vacuum});

CREATE TABLE {s}.pauses (
	relay  text COLLATE "C" PRIMARY KEY,
	since  timestamptz NOT NULL,
	ends   timestamptz,
	reason text NOT NULL
);

-- The numbers of package tally. What a commit adds is a row of deltas, so that no commit
-- waits for another one; they are added up now and then.
CREATE TABLE {s}.stats_statuses (
	key      text COLLATE "C" NOT NULL,
	status   text COLLATE "C" NOT NULL,
	messages bigint NOT NULL,
	PRIMARY KEY (key, status)
) WITH (fillfactor = 50);
CREATE TABLE {s}.stats_counts (
	at        bigint NOT NULL,
	key       text COLLATE "C" NOT NULL,
	relay     text COLLATE "C" NOT NULL,
	messages  bigint NOT NULL,
	accepted  bigint NOT NULL,
	delivered bigint NOT NULL,
	deferred  bigint NOT NULL,
	bounced   bigint NOT NULL,
	uncertain bigint NOT NULL,
	PRIMARY KEY (at, key, relay)
) WITH (fillfactor = 50);
CREATE TABLE {s}.stats_replies (
	at       bigint NOT NULL,
	key      text COLLATE "C" NOT NULL,
	relay    text COLLATE "C" NOT NULL,
	class    int NOT NULL,
	code     int NOT NULL,
	enhanced text COLLATE "C" NOT NULL,
	text     text COLLATE "C" NOT NULL,
	n        bigint NOT NULL,
	first    bigint NOT NULL,
	last     bigint NOT NULL,
	PRIMARY KEY (at, key, relay, class, code, enhanced, text)
) WITH (fillfactor = 50);
CREATE TABLE {s}.stats_deltas (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind smallint NOT NULL, delta text NOT NULL) WITH ({vacuum});

-- Small values that instances share. They change often: the rows have room for that.
CREATE TABLE {s}.notes (
	kind    text COLLATE "C" NOT NULL,
	name    text COLLATE "C" NOT NULL,
	value   bytea NOT NULL,
	changed timestamptz NOT NULL,
	PRIMARY KEY (kind, name)
) WITH (fillfactor = 10, {vacuum});

-- Has a row where the store takes part in a copy, or took part: see transfer.Mark.
CREATE TABLE {s}.copies (role text NOT NULL, copy text NOT NULL, done bool NOT NULL, peer text NOT NULL, at timestamptz NOT NULL);

-- The OAuth2 login of each relay, sealed with a key that the database does not have.
CREATE TABLE {s}.logins (relay int PRIMARY KEY, sealed bytea NOT NULL, changed timestamptz NOT NULL);

-- How much is not final, beside what stats_deltas has of it: one row.
CREATE TABLE {s}.unfinished (messages bigint NOT NULL, octets bigint NOT NULL) WITH (fillfactor = 10, {vacuum});
INSERT INTO {s}.unfinished VALUES (0, 0);
`}

// vacuumSettings let a table be cleaned after so many dead rows, and not after a fifth of all:
// most rows are of messages that are finished.
const vacuumSettings = `autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0,
	autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000, autovacuum_analyze_scale_factor = 0.02`

const (
	// migrationLock is the advisory lock of a migration, beside the hash of the schema's name.
	migrationLock = 0x6d6c7363
	// lockTimeout is how long a migration waits for a table, while all else waits behind it.
	lockTimeout   = 5 * time.Second
	migrateTries  = 5
	oldestVersion = 12 // of the server
)

// Migrate brings the schema to the newest version. Any number may do so at once: it happens
// once, all or nothing. A schema that is one version newer is left as it is.
func Migrate(ctx context.Context, o Options) (from, to int, err error) {
	o = o.withDefaults()
	c, err := newConnector(o)
	if err != nil {
		return 0, 0, err
	}
	for try := 0; ; try++ {
		from, err = c.migrate(ctx)
		var e *pgconn.PgError
		if busy := errors.As(err, &e) && (e.Code == "55P03" || e.Code == "40P01"); !busy || try == migrateTries {
			return from, max(from, len(migrations)), named(c, err)
		}
	}
}

func (c *connector) migrate(ctx context.Context) (from int, err error) {
	// As a rule there is nothing to do, and a server that is frozen must not be waited for.
	if from, err = c.look(ctx); err != nil || from == len(migrations) {
		return from, err
	}
	conn, err := c.connect(ctx, true)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	ctx = context.WithoutCancel(ctx)
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	// The lock goes with the transaction: one of a session would stay with the pooler's.
	_, err = tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1, hashtext($2))`, migrationLock, c.name)
	if err != nil {
		return 0, err
	}
	if from, err = c.version(ctx, tx); err != nil {
		return 0, err
	}
	switch {
	case from > len(migrations)+1:
		return from, c.newer(from)
	case from >= len(migrations): // the instances of a release newer have migrated
		return from, nil
	}
	if _, err = tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = '%ds'", int(lockTimeout.Seconds()))); err != nil {
		return from, err
	}
	script := strings.Join(migrations[from:], ";\n")
	if from == 0 {
		script = "CREATE TABLE {s}.version (version int NOT NULL);\nINSERT INTO {s}.version VALUES (0);\n" + script
	}
	if err = c.createSchema(ctx, tx); err != nil {
		return from, err
	}
	script += fmt.Sprintf(";\nUPDATE {s}.version SET version = %d", len(migrations))
	script = strings.ReplaceAll(script, "{vacuum}", vacuumSettings)
	if _, err = tx.Exec(ctx, c.sql(script), pgx.QueryExecModeSimpleProtocol); err != nil {
		return from, err
	}
	delete(conn.PgConn().CustomData(), warned)
	if err = tx.Commit(ctx); err == nil {
		err = unknownCommit(conn)
	}
	return from, err
}

// look returns the version of the schema.
func (c *connector) look(ctx context.Context) (version int, err error) {
	conn, err := c.connect(ctx, false)
	if err != nil {
		return 0, err
	}
	ctx = context.WithoutCancel(ctx)
	defer func() { _ = conn.Close(ctx) }()
	return c.version(ctx, conn)
}

// createSchema makes the schema unless it is there: a role may be allowed to use it, and not
// to make one.
func (c *connector) createSchema(ctx context.Context, tx pgx.Tx) error {
	var there bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, c.name).Scan(&there)
	if err != nil || there {
		return err
	}
	_, err = tx.Exec(ctx, "CREATE SCHEMA "+c.schema)
	return err
}

// sql puts the schema's name into a statement: no search_path is set, which would not stay
// with a connection of a pooler.
func (c *connector) sql(statement string) string {
	return strings.ReplaceAll(statement, "{s}", c.schema)
}

// querier is a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// version is the schema's; zero where there is none.
func (c *connector) version(ctx context.Context, q querier) (version int, err error) {
	// Not to_regclass: in a pooler's session, which others have used, that may answer from what
	// was before the migration's lock.
	if there, err := c.rights(ctx, q); err != nil || !there {
		return 0, err
	}
	err = q.QueryRow(ctx, c.sql(`SELECT version FROM {s}.version`)).Scan(&version)
	return version, err
}

func (c *connector) newer(version int) error {
	return &queue.StoreError{Path: c.place(), Err: queue.ErrNewerSchema, Remedy: fmt.Sprintf("schema %s has version %d and this program knows up to %d; "+
		"start the newer program again, or name another schema", c.name, version, len(migrations))}
}

// place names the database without the password.
func (c *connector) place() string {
	cc := c.config.ConnConfig
	return fmt.Sprintf("%s:%d/%s, schema %s", cc.Host, cc.Port, cc.Database, c.name)
}
