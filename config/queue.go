package config

import (
	"strings"

	"github.com/kelseyhightower/envconfig"

	"mailsidecar/units"
)

// Queue says where accepted messages are kept.
type Queue struct {
	Store string // "sqlite" or "none"
	// Path is the database file; empty only when there is no store.
	Path string
}

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
		return &invalid{"asks for PostgreSQL, which this version does not support", "set sqlite, sqlite:PATH or none"}
	default:
		return &invalid{unknownStore(value), "set sqlite, sqlite:PATH or none"}
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
	if q.Path == "" {
		return q.Store
	}
	return q.Store + ":" + q.Path
}
