package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"mailsidecar/queue"
)

// applicationID marks the file as ours (PRAGMA application_id): "mlsc".
const applicationID = 0x6d6c7363

// migrations lead from one schema version (PRAGMA user_version) to the next, by
// index. One that was released is never changed: a change is a new one.
//
// Times are Unix microseconds. messages.clock is when an unfinished message
// expires, or never, and when a final one became final: one index serves both the
// expiry and the retention. The index messages_list covers what Usage counts. A
// message's bytes are the rows body to body+chunks-1 of contents: rows rather
// than one value, because SQLite copies a value several times.
var migrations = []string{`
CREATE TABLE messages (
	id           BLOB NOT NULL PRIMARY KEY,
	key          TEXT NOT NULL,
	message_id   TEXT NOT NULL,
	sender       TEXT NOT NULL,
	subject      TEXT NOT NULL,
	tags         TEXT,
	reverse_path TEXT NOT NULL,
	size         INTEGER NOT NULL,
	eight_bit    INTEGER NOT NULL,
	utf8_header  INTEGER NOT NULL,
	created      INTEGER NOT NULL,
	send_at      INTEGER,
	expires      INTEGER NOT NULL,
	status       TEXT NOT NULL,
	final        INTEGER NOT NULL,
	clock        INTEGER NOT NULL,
	body         INTEGER,
	chunks       INTEGER NOT NULL,
	bytes_until  INTEGER
) WITHOUT ROWID;
CREATE INDEX messages_list  ON messages (key, status, id, size);
CREATE INDEX messages_clock ON messages (final, clock);
CREATE INDEX messages_bytes ON messages (bytes_until) WHERE bytes_until IS NOT NULL;

CREATE TABLE contents (seq INTEGER PRIMARY KEY, data BLOB NOT NULL);

CREATE TABLE recipients (
	message      BLOB NOT NULL,
	n            INTEGER NOT NULL,
	forward_path TEXT NOT NULL,
	state        TEXT NOT NULL,
	due          INTEGER,
	route        TEXT NOT NULL,
	owner        TEXT,
	marked       INTEGER NOT NULL DEFAULT 0,
	cancel       INTEGER NOT NULL DEFAULT 0,
	tries        INTEGER NOT NULL DEFAULT 0,
	attempts     INTEGER NOT NULL DEFAULT 0,
	result       TEXT,
	PRIMARY KEY (message, n)
) WITHOUT ROWID;
CREATE INDEX recipients_due    ON recipients (route, due) WHERE due IS NOT NULL AND owner IS NULL;
CREATE INDEX recipients_leased ON recipients (owner) WHERE owner IS NOT NULL;

CREATE TABLE attempts (
	message  BLOB NOT NULL,
	n        INTEGER NOT NULL,
	relay    TEXT NOT NULL,
	port     INTEGER NOT NULL,
	mode     TEXT NOT NULL,
	tls      TEXT NOT NULL,
	auth     TEXT NOT NULL,
	ladder   TEXT,
	started  INTEGER NOT NULL,
	duration INTEGER NOT NULL,
	results  TEXT NOT NULL,
	PRIMARY KEY (message, n)
) WITHOUT ROWID;

CREATE TABLE idempotency (
	key         TEXT NOT NULL,
	name        TEXT NOT NULL,
	fingerprint BLOB NOT NULL,
	messages    BLOB NOT NULL,
	expires     INTEGER NOT NULL,
	PRIMARY KEY (key, name)
) WITHOUT ROWID;
CREATE INDEX idempotency_expires ON idempotency (expires);
`, `
-- How long the message was to be tried at first; NULL until it is retried.
ALTER TABLE messages ADD COLUMN lifetime INTEGER;
`, `
-- What waits on a route is claimed lane by lane: see stored.LaneText. A recipient that
-- is final has no lane until it is retried, lest all there are be rewritten here.
ALTER TABLE messages ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recipients ADD COLUMN lane TEXT NOT NULL DEFAULT '';
DROP INDEX recipients_due;
UPDATE recipients SET lane = (SELECT '1' || key FROM messages WHERE id = message)
	WHERE message IN (SELECT id FROM messages WHERE final = 0) AND state IN ('queued', 'deferred', 'held');
CREATE INDEX recipients_due ON recipients (route, lane, due) WHERE due IS NOT NULL AND owner IS NULL;
`, `
-- How many messages set out for a relay, and when. Only what its rate still counts
-- is kept.
CREATE TABLE turns (
	relay TEXT NOT NULL,
	at    INTEGER NOT NULL,
	n     INTEGER NOT NULL,
	PRIMARY KEY (relay, at)
) WITHOUT ROWID;
`, `
-- Runs that have not ended in order; crashed is when that was found out, and NULL
-- before. recipients.marked is a set of bits from here on: see markContent.
CREATE TABLE runs (
	owner   TEXT NOT NULL PRIMARY KEY,
	crashed INTEGER
) WITHOUT ROWID;
ALTER TABLE messages ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
`, `
-- The number of the lease that a recipient has, or had last: the default is
-- queue.FirstLease. That of the lease that an attempt ended; zero is unknown.
ALTER TABLE recipients ADD COLUMN lease INTEGER NOT NULL DEFAULT 1;
ALTER TABLE attempts ADD COLUMN lease INTEGER NOT NULL DEFAULT 0;
`, `
-- The messages that are not final: to count them at each start takes the longer, the
-- more there are. It has one row while the store is closed, if that was in order.
CREATE TABLE usage (messages INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO usage
	WITH RECURSIVE keys (key) AS (
		SELECT min(key) FROM messages
		UNION ALL
		SELECT (SELECT min(key) FROM messages WHERE messages.key > keys.key) FROM keys WHERE keys.key IS NOT NULL)
	SELECT count(*), coalesce(sum(size), 0) FROM keys CROSS JOIN messages INDEXED BY messages_list
	WHERE messages.key = keys.key AND status IN ('queued', 'deferred', 'held');
`, `
-- What is held does not expire: see never. Each look at what has expired met it again.
UPDATE messages SET clock = 9223372036854775807 WHERE final = 0 AND status = 'held';
`, `
-- Rows of contents that belong to no message: first to first+count-1, some of which may be
-- missing. What is written in several commits is here until the last one, and what is
-- deleted in several commits is here from the first one on.
CREATE TABLE loose (first INTEGER PRIMARY KEY, count INTEGER NOT NULL);
`, `
-- Why it was that relay; empty where there was no choice.
ALTER TABLE attempts ADD COLUMN why TEXT NOT NULL DEFAULT '';
`, `
-- Relays that a person has paused; ends is NULL where the pause has no end.
CREATE TABLE pauses (
	relay  TEXT NOT NULL PRIMARY KEY,
	since  INTEGER NOT NULL,
	ends   INTEGER,
	reason TEXT NOT NULL
) WITHOUT ROWID;
`, `
-- The numbers of [queue.Stats], as package tally names them: see numbers. They are those of
-- all commits where stats_exact has a row, as it has while the store is closed, if that
-- was in order. Times are those of tally.
CREATE TABLE stats_statuses (
	key      TEXT NOT NULL,
	status   TEXT NOT NULL,
	messages INTEGER NOT NULL,
	PRIMARY KEY (key, status)
) WITHOUT ROWID;
CREATE TABLE stats_counts (
	at        INTEGER NOT NULL,
	key       TEXT NOT NULL,
	relay     TEXT NOT NULL,
	messages  INTEGER NOT NULL,
	accepted  INTEGER NOT NULL,
	delivered INTEGER NOT NULL,
	deferred  INTEGER NOT NULL,
	bounced   INTEGER NOT NULL,
	uncertain INTEGER NOT NULL,
	PRIMARY KEY (at, key, relay)
) WITHOUT ROWID;
CREATE TABLE stats_replies (
	at       INTEGER NOT NULL,
	key      TEXT NOT NULL,
	relay    TEXT NOT NULL,
	class    INTEGER NOT NULL,
	code     INTEGER NOT NULL,
	enhanced TEXT NOT NULL,
	text     TEXT NOT NULL,
	n        INTEGER NOT NULL,
	first    INTEGER NOT NULL,
	last     INTEGER NOT NULL,
	PRIMARY KEY (at, key, relay, class, code, enhanced, text)
) WITHOUT ROWID;
CREATE TABLE stats_exact (one INTEGER NOT NULL);
INSERT INTO stats_exact SELECT 1 WHERE (SELECT min(key) FROM messages) IS NULL;
`, `
-- The message that this one is sent again, and those that send this one again: a list in
-- JSON of ids as text.
ALTER TABLE messages ADD COLUMN resent_of TEXT;
ALTER TABLE messages ADD COLUMN resent_as TEXT;
`, `
-- Has a row where the store takes part in a copy, or took part: see [transfer.Mark].
CREATE TABLE copies (role TEXT NOT NULL, copy TEXT NOT NULL, done INTEGER NOT NULL, peer TEXT NOT NULL, at INTEGER NOT NULL);
`}

// migrate brings the file to the newest schema, a transaction for each step. It
// ends with ctx between two steps. A start waits for it: no step may visit what is
// finished.
func migrate(ctx context.Context, conn *sql.Conn, path string, log *slog.Logger) error {
	var version, app, tables int
	err := conn.QueryRowContext(context.Background(), `SELECT
		(SELECT user_version FROM pragma_user_version),
		(SELECT application_id FROM pragma_application_id),
		(SELECT count(*) FROM sqlite_schema)`).Scan(&version, &app, &tables)
	switch {
	case err != nil:
		return err
	case app != applicationID && tables > 0:
		return fault(path, queue.ErrCorrupt, "this is an SQLite file, but not a queue; name another one in MAILSIDECAR_QUEUE")
	case version > len(migrations):
		return fault(path, queue.ErrNewerSchema, fmt.Sprintf("it has schema %d and this version knows up to %d; start the newer version again, "+
			"or name another file in MAILSIDECAR_QUEUE", version, len(migrations)))
	}
	if version > 0 && version < len(migrations) {
		log.Info("queue store is migrated", "from_schema", version, "to_schema", len(migrations))
	}
	if tables == 0 && version == 0 { // all at once, which the start waits for
		if err := ctx.Err(); err != nil {
			return err
		}
		return migrateStep(conn, migration(strings.Join(migrations, ";"), len(migrations)), log)
	}
	for ; version < len(migrations); version++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := migrateStep(conn, migration(migrations[version], version+1), log.With("schema", version+1)); err != nil {
			return fmt.Errorf("migrate to schema %d: %w", version+1, err)
		}
	}
	return nil
}

// migration is the transaction that makes a schema of the one before.
func migration(script string, schema int) string {
	return fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT", script, applicationID, schema)
}

// migrationNews is how often the log says that a step of a migration goes on.
const migrationNews = 5 * time.Second

func migrateStep(conn *sql.Conn, script string, log *slog.Logger) error {
	began, done := time.Now(), make(chan struct{})
	defer close(done)
	go func() {
		tick := time.NewTicker(migrationNews)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				log.Info("queue store is still being migrated", "for", time.Since(began).Round(time.Second))
			}
		}
	}()
	_, err := conn.ExecContext(context.Background(), script)
	return err
}
