package cli

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/config"
	"mailsidecar/service"
)

// withServer calls f with a client of the running server. When no server uses the
// store, it calls f with a client of a server that lives for this call only, on the
// store itself; it says so then, because another store may have been meant.
func withServer(cmd *cobra.Command, f func(*client) error) error {
	if os.Getenv("MAILSIDECAR_URL") != "" {
		return withRunningServer(cmd, f)
	}
	s, warnings, err := config.LoadService()
	if err != nil {
		return misconfigured(err, warnings)
	}
	forPeople := s
	forPeople.LogFormat = "text"
	offline, err := service.OpenOffline(cmd.Context(), s, service.NewLogger(cmd.ErrOrStderr(), forPeople))
	switch {
	case errors.Is(err, service.ErrNoIdleStore) && s.Queue.Shared():
		err := withRunningServer(cmd, f)
		if exitStatus(err) == exitUnavailable {
			err = &statusError{exitUnavailable, fmt.Errorf("%w\nA queue in PostgreSQL is looked at through an instance: start one, or set MAILSIDECAR_URL", err)}
		}
		return err
	case errors.Is(err, service.ErrNoIdleStore):
		return withRunningServer(cmd, f)
	case err != nil:
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "No server uses %s: this is the store itself, with the messages of all keys.\n", s.Queue.Path)
	c, err := offlineClient(offline)
	if err == nil {
		c.cmd = cmd
		err = f(c)
	}
	return errors.Join(err, offline.Close())
}

func withRunningServer(cmd *cobra.Command, f func(*client) error) error {
	c, err := connect(cmd, time.Minute)
	if err != nil {
		return err
	}
	return f(c)
}

// offlineClient is a client whose server is called rather than connected to, so
// that the commands have one way to do things.
func offlineClient(h http.Handler) (*client, error) {
	c, err := newClient("http://localhost", "", time.Minute)
	if err != nil {
		return nil, err
	}
	c.HTTP.Transport, c.offline = direct{h}, true
	return c, nil
}

// direct hands requests to a handler without a network.
type direct struct{ handler http.Handler }

var _ http.RoundTripper = direct{}

// RoundTrip returns the handler's whole answer to r.
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
