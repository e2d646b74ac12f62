package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"mailsidecar/api"
)

// Door is what the pages need of the server. A key is known by its name, which is empty on a
// server without keys.
type Door interface {
	// Keyless says that the server has no keys: whoever comes may do everything.
	Keyless() bool
	// Find returns the name of the key with that secret.
	Find(secret string) (key string, ok bool)
	// MAC authenticates text with the secret of the key; nil where there is no such key.
	MAC(key, text string) []byte
	// Roles are what the key may do.
	Roles(key string) (send, read, admin bool)
	// Stranger waits until a visit without a key may be answered.
	Stranger(r *http.Request)
	// Enter says that the visit has proven the key, or returns why it must be refused.
	Enter(r *http.Request, key string) *api.Problem
	// Serve answers a request to the native API as that key. The context of r must be the
	// visit's, or one made of it.
	Serve(w http.ResponseWriter, r *http.Request, key string)
}

const (
	// maxCalls is how many requests to the API one page makes.
	maxCalls = 8
	// maxAnswer is how many octets an answer may have that a page reads as a whole.
	maxAnswer = 4 << 20
)

// answerError is an answer of the API that is an error.
type answerError struct{ api.Problem }

func (e *answerError) Error() string {
	if e.Detail == "" {
		return e.Title
	}
	return e.Detail
}

// isCode reports whether err is an answer of the API with one of these codes.
func isCode(err error, codes ...api.Code) bool {
	e, ok := errors.AsType[*answerError](err)
	if !ok {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}

var errTooManyCalls = errors.New("the page asks too much of the server")

// get asks the API as the visitor, and decodes the answer. path may have a query.
func (v *visit) get(path string, query url.Values, into any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return v.call(v.ctx, http.MethodGet, path, nil, nil, into)
}

// post sends body, unless it is nil, and decodes the answer into what into points to, unless
// that is nil.
func (v *visit) post(path string, body, into any) error {
	return v.call(v.ctx, http.MethodPost, path, nil, body, into)
}

// call makes one request to the API. An answer that is an error becomes an *answerError.
func (v *visit) call(ctx context.Context, method, path string, header http.Header, body, into any) error {
	if v.calls++; v.calls > maxCalls {
		return errTooManyCalls
	}
	r, err := newCall(ctx, method, path, header, body)
	if err != nil {
		return err
	}
	w := &answer{header: http.Header{}, left: maxAnswer}
	v.ui.door.Serve(w, r, v.key)
	switch {
	case w.left < 0:
		return fmt.Errorf("the answer is larger than %d MiB", maxAnswer>>20)
	case w.status == 0:
		return cmpErr(ctx.Err(), errors.New("the server gave no answer"))
	case w.status >= http.StatusBadRequest:
		return w.problem()
	case into == nil:
		return nil
	}
	if err := json.Unmarshal(w.body.Bytes(), into); err != nil {
		return fmt.Errorf("answer of %s: %w", path, err)
	}
	return nil
}

func cmpErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

func newCall(ctx context.Context, method, path string, header http.Header, body any) (*http.Request, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, nil
}

// read makes a GET request whose answer may be large, such as a message's content, and hands
// its status, header and body to use, which must not keep them. Only so much of the answer is
// made as use reads.
func (v *visit) read(path string, use func(status int, header http.Header, body io.Reader) error) error {
	if v.calls++; v.calls > maxCalls {
		return errTooManyCalls
	}
	ctx, cancel := context.WithCancel(v.ctx)
	defer cancel()
	r, err := newCall(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	from, to := io.Pipe()
	defer from.CloseWithError(context.Canceled) // it ends the goroutine, also where use panics; it never fails
	w := &stream{header: http.Header{}, begun: make(chan struct{}), to: to}
	go func() {
		defer func() {
			cut := error(nil)
			if p := recover(); p != nil { // net/http catches only those of its own goroutines
				v.ui.log.Error("page failed", "path", v.r.URL.Path, "error", fmt.Sprintf("panic: %v", p))
				cut = io.ErrUnexpectedEOF
			}
			w.WriteHeader(http.StatusInternalServerError) // unless something was written
			_ = to.CloseWithError(cut)
		}()
		v.ui.door.Serve(w, r, v.key)
	}()
	<-w.begun
	return use(w.status, w.sent, from)
}

// answer keeps an answer of the API. Of a body that is too large it keeps nothing.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
	left   int
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.left -= len(p); a.left < 0 {
		a.body = bytes.Buffer{}
		return 0, errors.New("the answer is too large")
	}
	return a.body.Write(p)
}

func (a *answer) problem() error {
	e := &answerError{}
	if json.Unmarshal(a.body.Bytes(), &e.Problem) != nil || e.Code == "" {
		return fmt.Errorf("the server answered %d %s", a.status, http.StatusText(a.status))
	}
	e.Status = a.status
	return e
}

// stream hands an answer on while it is made.
type stream struct {
	header, sent http.Header
	status       int
	begun        chan struct{}
	to           *io.PipeWriter
}

func (s *stream) Header() http.Header { return s.header }

func (s *stream) WriteHeader(status int) {
	if s.status == 0 {
		s.status, s.sent = status, s.header.Clone()
		close(s.begun)
	}
}

// SetWriteDeadline cuts the answer off where the deadline is over: so the server takes back the
// memory of an answer that a slow browser does not read, when others want it.
func (s *stream) SetWriteDeadline(deadline time.Time) error {
	if !deadline.IsZero() && !deadline.After(time.Now()) {
		_ = s.to.CloseWithError(os.ErrDeadlineExceeded)
	}
	return nil
}

func (s *stream) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return s.to.Write(p)
}
