package config

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/kelseyhightower/envconfig"

	"mailsidecar/units"
)

// Queue says where accepted messages are kept.
type Queue struct {
	Store string // "sqlite", "postgres" or "none"
	// Path is the database file; empty when there is none.
	Path string
	// URL is the address of the database of "postgres", as libpq takes it, with the password.
	URL Secret
	// Schema is where its tables are; empty means the usual one.
	Schema string
	place  string // the address without user, password and parameters
}

// Shared says that several instances may use it at the same time.
func (q Queue) Shared() bool { return q.Store == "postgres" }

var _ envconfig.Decoder = (*Queue)(nil)

// Decode reads a store's name and, after a colon, its path. The error never shows
// the whole value: the URL of a database holds a password.
func (q *Queue) Decode(value string) error {
	store, path, _ := strings.Cut(strings.TrimSpace(value), ":")
	switch store = strings.ToLower(store); {
	case store == "none" && path == "":
		*q = Queue{Store: store}
	case store == "sqlite" && strings.HasPrefix(path, ":memory:"):
		return &invalid{"keeps the queue in memory, where nothing is durable", "set sqlite:PATH, or none"}
	case store == "sqlite":
		*q = Queue{Store: store, Path: path}
	case store == "postgres" || store == "postgresql":
		return q.decodeURL(strings.TrimSpace(value))
	default:
		return &invalid{unknownStore(value), "set sqlite, sqlite:PATH, postgres://… or none"}
	}
	return nil
}

// exampleURL shows the form of the URL.
const exampleURL = "write postgres://USER:PASSWORD@HOST:5432/DATABASE, with %XX for special characters of the password"

// databaseParameters are those that the URL of a database may have.
var databaseParameters = []string{
	"application_name", "channel_binding", "connect_timeout", "dbname", "host", "passfile", "password", "pool_max_conns", "port", "schema", "service", "servicefile",
	"sslcert", "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni", "target_session_attrs", "user",
}

// decodeURL reads the URL of a database. What the program that connects finds wrong with it, such as a
// file that is not there, shows at the start.
func (q *Queue) decodeURL(value string) error {
	u, err := url.Parse(value)
	if err != nil || u.Opaque != "" || u.Fragment != "" {
		return &invalid{"is no URL that can be read", exampleURL}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return &invalid{"has parameters that cannot be read", exampleURL}
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch {
		case !slices.Contains(databaseParameters, name):
			return &invalid{"has the unknown parameter " + units.Quote(name), "use these alone: " + strings.Join(databaseParameters, ", ")}
		case len(query[name]) > 1:
			return &invalid{"has the parameter " + name + " twice", "keep one"}
		}
	}
	switch {
	case u.Host == "" && !query.Has("host") && !query.Has("service"):
		return &invalid{"names no host", exampleURL}
	case strings.Trim(u.Path, "/") == "" && !query.Has("dbname") && !query.Has("service"):
		return &invalid{"names no database", exampleURL}
	}
	schema := query.Get("schema")
	query.Del("schema")
	u.RawQuery = query.Encode()
	*q = Queue{
		Store: "postgres", URL: NewSecret(u.String()), Schema: schema,
		place: "//" + cmp.Or(u.Host, query.Get("host"), "service") + "/" + cmp.Or(strings.Trim(u.Path, "/"), query.Get("dbname")),
	}
	return nil
}

// unknownStore shows as much of the value as cannot be the password in a URL.
func unknownStore(value string) string {
	scheme, _, more := strings.Cut(strings.TrimSpace(value), ":")
	switch {
	case strings.Contains(scheme, "@"):
		return "names no store we know"
	case more:
		scheme += ":…"
	}
	return "is " + units.Quote(scheme) + ", which is no store we know"
}

func (q Queue) String() string {
	if q.Shared() {
		return q.Store + ":" + q.place
	}
	if q.Path == "" {
		return q.Store
	}
	return q.Store + ":" + q.Path
}

// ReadQueueFile reads the value of MAILSIDECAR_QUEUE from a file: that of another queue, whose
// URL may hold a password. The error does not show what is in the file.
func ReadQueueFile(path string) (q Queue, err error) {
	text, bad := readSecretFile(path)
	if bad != nil {
		return q, bad
	}
	if err := q.Decode(text.Reveal()); err != nil {
		return q, err
	}
	if q.Store == "none" || !q.Shared() && q.Path == "" {
		return q, &invalid{"names no place for a queue", "write postgres://… or sqlite:PATH into the file"}
	}
	return q, nil
}
