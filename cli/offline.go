package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/config"
	"mailsidecar/handler"
	"mailsidecar/queue"
)

// withServer calls f with a client of the running server; or, when there is none
// that uses the store, with one of a server that lives for this call only, on
// the store itself. It says so then, for another store may have been meant.
func withServer(cmd *cobra.Command, f func(*client) error) error {
	store, path, err := idleStore(cmd.Context())
	if err != nil {
		return err
	}
	if store == nil {
		c, err := connect(time.Minute)
		if err != nil {
			return err
		}
		return f(c)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "No server uses %s: this is the store itself, with the messages of all keys.\n", path)
	c, err := offlineClient(store)
	if err == nil {
		err = f(c)
	}
	return errors.Join(err, store.Close())
}

// idleStore opens the store that the configuration names, at path. It is nil when
// MAILSIDECAR_URL names a server, and when there is no store, or a server on it.
func idleStore(ctx context.Context) (store *queue.SQLite, path string, err error) {
	if os.Getenv("MAILSIDECAR_URL") != "" {
		return nil, "", nil
	}
	s, warnings, err := config.LoadService()
	if err != nil {
		return nil, "", misconfigured(err, warnings)
	}
	if s.Queue.Store == "none" {
		return nil, "", nil
	}
	// Looking at a queue must not create one.
	if _, err := os.Stat(s.Queue.Path); errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	store, err = openStore(ctx, s)
	if errors.Is(err, queue.ErrLocked) {
		return nil, "", nil
	}
	return store, s.Queue.Path, err
}

// offlineClient is a client whose server is called rather than connected to, so
// that the commands have one way to do things. Nothing is delivered.
func offlineClient(store queue.Store) (*client, error) {
	durable, err := queue.New(queue.Options{Store: store})
	if err != nil {
		return nil, err
	}
	h, err := handler.New(handler.Options{Queue: anyKey{durable}})
	if err != nil {
		return nil, err
	}
	c, err := newClient("http://localhost", "", time.Minute)
	if err != nil {
		return nil, err
	}
	c.HTTP.Transport, c.offline = direct{h}, true
	return c, nil
}

// direct hands requests to a handler without a network.
type direct struct{ handler http.Handler }

// RoundTrip implements [http.RoundTripper].
func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &reply{header: http.Header{}, status: http.StatusOK}
	d.handler.ServeHTTP(w, r)
	return &http.Response{
		StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: &w.body, ContentLength: int64(w.body.Len()), Request: r,
	}, nil
}

// reply is a response as it is written.
type reply struct {
	header http.Header
	status int
	body   closer
}

type closer struct{ bytes.Buffer }

func (*closer) Close() error { return nil }

func (w *reply) Header() http.Header         { return w.header }
func (w *reply) WriteHeader(status int)      { w.status = status }
func (w *reply) Write(p []byte) (int, error) { return w.body.Write(p) }

// anyKey is a queue for an operator, who sees the messages of every key.
type anyKey struct{ handler.Queue }

func (q anyKey) Get(ctx context.Context, _, id string) (queue.Message, error) {
	return q.Queue.Get(ctx, queue.AnyKey, id)
}

func (q anyKey) List(ctx context.Context, f queue.Filter, limit int, cursor string) (queue.Page, error) {
	f.Key = queue.AnyKey
	return q.Queue.List(ctx, f, limit, cursor)
}

func (q anyKey) Retry(ctx context.Context, _, id string) (queue.Message, error) {
	return q.Queue.Retry(ctx, queue.AnyKey, id)
}

func (q anyKey) RetryMatching(ctx context.Context, f queue.Filter) (int, error) {
	f.Key = queue.AnyKey
	return q.Queue.RetryMatching(ctx, f)
}

func (q anyKey) Cancel(ctx context.Context, _, id string) (queue.Message, error) {
	return q.Queue.Cancel(ctx, queue.AnyKey, id)
}

func (q anyKey) Content(ctx context.Context, _, id string) ([]byte, error) {
	return q.Queue.Content(ctx, queue.AnyKey, id)
}
