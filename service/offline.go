package service

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"

	"mailsidecar/config"
	"mailsidecar/handler"
	"mailsidecar/queue"
	"mailsidecar/queue/sqlite"
)

// ErrNoIdleStore says that there is no store, or that a server works on it.
var ErrNoIdleStore = errors.New("no store without a server on it")

// Offline answers requests about the messages in a store that no server works
// on, those of every API key. It delivers nothing.
type Offline struct {
	http.Handler
	store queue.Store
}

// OpenOffline opens the store that the configuration names, but creates none.
// The error is [ErrNoIdleStore] when a server has to be asked. log gets what is wrong
// with a store that can be used all the same.
func OpenOffline(ctx context.Context, c config.Service, log *slog.Logger) (*Offline, error) {
	if c.Queue.Store == "none" || c.Queue.Shared() { // its instances answer
		return nil, ErrNoIdleStore
	}
	// Looking at a queue must not create one.
	if _, err := os.Stat(c.Queue.Path); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoIdleStore
	}
	store, err := sqlite.Open(ctx, sqliteOptions(c, log))
	switch {
	case errors.Is(err, queue.ErrLocked):
		return nil, ErrNoIdleStore
	case err != nil:
		return nil, err
	}
	h, err := offlineHandler(store)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &Offline{h, store}, nil
}

// Close closes the store.
func (o *Offline) Close() error { return o.store.Close() }

func offlineHandler(store queue.Store) (http.Handler, error) {
	durable, err := queue.New(queue.Options{Store: store})
	if err != nil {
		return nil, err
	}
	return handler.New(handler.Options{Submitter: durable, Ledger: durable})
}
