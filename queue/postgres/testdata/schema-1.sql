
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
