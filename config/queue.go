package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kelseyhightower/envconfig"

	"mailsidecar/files"
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
	// File is what MAILSIDECAR_QUEUE_FILE names; empty where that is not set.
	File  string
	place string // the address without user, password and parameters
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
	case store == "sqlite" && strings.Contains(path, "://"):
		return &invalid{"has a URL in place of the path of a file (not shown, for it may have a password)", "set sqlite:PATH, or the URL of a PostgreSQL without sqlite: in front"}
	case store == "sqlite":
		*q = Queue{Store: store, Path: path}
	case store == "postgres" || store == "postgresql":
		return q.decodeURL(strings.TrimSpace(value))
	default:
		return &invalid{unknownStore(value), "set sqlite, sqlite:PATH, postgres://… or none"}
	}
	return nil
}

// usualSchema is where the tables are unless the URL names a schema.
const usualSchema = "mailsidecar"

// maxScheme is over the length of any scheme that is meant as one.
const maxScheme = 20

// exampleURL shows the form of the URL.
const exampleURL = "write postgres://USER:PASSWORD@HOST:5432/DATABASE, with %XX for special characters of the password"

const (
	// unreadURL is what helps where the URL cannot be read.
	unreadURL = exampleURL + "; several hosts with IPv6, or the directory of a socket, go into ?host=A,B&port=1,2 or ?host=/DIR"
	// parameterAt follows exampleURL where its parameters cannot.
	parameterAt = ", and %40 for an @ of a parameter"
)

// databaseParameters are those that the URL of a database may have, and what is wrong with a
// value, or nil.
var databaseParameters = map[string]func(value string) *invalid{
	"application_name": nil, "dbname": nil, "host": nil, "password": nil, "port": nil, "schema": nil, "service": nil, "sslpassword": nil, "user": nil,
	"channel_binding":      among("disable", "prefer", "require"),
	"connect_timeout":      between(1, 30),
	"passfile":             readable,
	"pool_max_conns":       between(2, 1000),
	"servicefile":          readable,
	"sslcert":              readable,
	"sslkey":               readable,
	"sslmode":              among("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
	"sslnegotiation":       among("postgres", "direct"),
	"sslrootcert":          systemOrReadable,
	"sslsni":               among("0", "1"),
	"target_session_attrs": among("any", "primary", "read-write"),
}

func among(values ...string) func(string) *invalid {
	return func(value string) *invalid {
		if slices.Contains(values, value) {
			return nil
		}
		return &invalid{"which is none of its values", "set one of " + strings.Join(values, ", ")}
	}
}

func between(low, high int) func(string) *invalid {
	return func(value string) *invalid {
		if n, err := strconv.Atoi(value); err == nil && n >= low && n <= high {
			return nil
		}
		return &invalid{"which is no number that it may have", fmt.Sprintf("set one from %d to %d", low, high)}
	}
}

// readable wants the name of a file. It shows no more of a value than a path.
func readable(value string) *invalid {
	if _, err := files.Read(value, 1<<20); err != nil {
		return &invalid{"whose file cannot be read: " + err.Error(), "name a file that is there and that this user may read"}
	}
	return nil
}

func systemOrReadable(value string) *invalid {
	if value == "system" {
		return nil
	}
	return readable(value)
}

// decodeURL reads the URL of a database. See also faults.
func (q *Queue) decodeURL(value string) error {
	u, err := url.Parse(value)
	if err != nil || u.Opaque != "" || u.Fragment != "" || misread(u) {
		return &invalid{"is no URL that can be read", unreadURL}
	}
	query, err := url.ParseQuery(u.RawQuery)
	switch {
	case err != nil || strings.Contains(u.RawQuery, "@"): // or a password is read as parameters
		return &invalid{"has parameters that cannot be read", exampleURL + parameterAt}
	case len(query["schema"]) > 1:
		return &invalid{"has the parameter schema twice", "keep one"}
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

// misread says that a password with a special character was read as the name of the database,
// which is shown.
func misread(u *url.URL) bool { return strings.Contains(u.EscapedPath(), "@") }

// parameterName is what a name looks like that was meant as one.
var parameterName = regexp.MustCompile(`^[a-z_]{1,30}$`)

// unknownParameter shows a name only where it cannot be part of a password that has an &.
func unknownParameter(name string, query url.Values) invalid {
	if !parameterName.MatchString(name) || query.Get(name) == "" || query.Has("password") || query.Has("sslpassword") {
		return invalid{"has an unknown parameter (not shown, for it may be part of a password)", "use these alone: " + knownParameters() + "; and write %XX for special characters of the password"}
	}
	return invalid{"has the unknown parameter " + units.Quote(name), "use these alone: " + knownParameters()}
}

func knownParameters() string {
	return strings.Join(slices.Sorted(maps.Keys(databaseParameters)), ", ")
}

// faults are what is wrong with the URL: all of it, so that it can be mended at once.
func (q Queue) faults() (faults []invalid) {
	if !q.Shared() {
		return nil
	}
	u, err := url.Parse(q.URL.Reveal())
	if err != nil {
		return []invalid{{"is no URL that can be read", exampleURL}}
	}
	query := u.Query()
	for _, name := range slices.Sorted(maps.Keys(query)) {
		check, known := databaseParameters[name]
		switch {
		case !known:
			faults = append(faults, unknownParameter(name, query))
		case len(query[name]) > 1:
			faults = append(faults, invalid{"has the parameter " + name + " twice", "keep one"})
		case check != nil:
			if bad := check(query.Get(name)); bad != nil {
				faults = append(faults, invalid{"has the parameter " + name + ", " + bad.what, bad.remedy})
			}
		}
	}
	if query.Has("sslcert") != query.Has("sslkey") {
		faults = append(faults, invalid{"has one of the parameters sslcert and sslkey alone", "set both, or none"})
	}
	if u.Host == "" && !query.Has("host") && !query.Has("service") {
		faults = append(faults, invalid{"names no host", exampleURL})
	}
	if strings.Trim(u.Path, "/") == "" && !query.Has("dbname") && !query.Has("service") {
		faults = append(faults, invalid{"names no database", exampleURL})
	}
	return faults
}

// unknownStore shows the scheme of a URL, and no more: the value may be a password, or have one.
func unknownStore(value string) string {
	scheme, _, isURL := strings.Cut(strings.TrimSpace(value), "://")
	letter := func(c rune) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
	if !isURL || scheme == "" || len(scheme) > maxScheme || strings.TrimFunc(scheme, letter) != "" {
		return "names no store we know (not shown, for it may have a password)"
	}
	return "is " + scheme + "://…, which is no store we know"
}

func (q Queue) String() string {
	if q.Shared() {
		place := q.Store + ":" + q.place
		if q.Schema != "" && q.Schema != usualSchema { // the mail of another one is not there
			place += "?schema=" + url.QueryEscape(q.Schema)
		}
		return place
	}
	if q.Path == "" {
		return q.Store
	}
	return q.Store + ":" + q.Path
}

// QueueListen says over which connection an instance hears what others tell.
type QueueListen struct {
	None bool
	// URL is the address of the database without a pooler; empty means that of the queue.
	URL   Secret
	place string
}

var _ envconfig.Decoder = (*QueueListen)(nil)

// Decode reads auto, none or a URL.
func (l *QueueListen) Decode(value string) error {
	value = strings.TrimSpace(value)
	switch strings.ToLower(value) {
	case "auto":
		*l = QueueListen{}
		return nil
	case "none":
		*l = QueueListen{None: true}
		return nil
	}
	var q Queue
	if err := q.Decode(value); err != nil || !q.Shared() || q.Schema != "" {
		return &invalid{"is none of auto, none and the URL of a database", "set auto, none, or postgres://… as in MAILSIDECAR_QUEUE, without schema"}
	}
	if faults := q.faults(); len(faults) > 0 {
		return &faults[0]
	}
	*l = QueueListen{URL: q.URL, place: q.String()}
	return nil
}

func (l QueueListen) String() string {
	switch {
	case l.None:
		return "none"
	case l.place == "":
		return "auto"
	default:
		return l.place
	}
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
	if q.Shared() {
		for _, fault := range q.faults() {
			err = errors.Join(err, &fault)
		}
	}
	return q, err
}
