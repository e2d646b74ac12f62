package handler

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"

	"mailsidecar/api"
	"mailsidecar/handler/problem"

	"github.com/go-json-experiment/json"
)

// open opens the request's body, of one of the accepted types and of up to
// limit octets, compressed or not.
func (x *exchange) open(limit int64, accepted ...string) (b *body, mediaType string, params map[string]string, err error) {
	r := x.c.Request()
	zipped, err := isZipped(r.Header)
	if err != nil {
		return nil, "", nil, err
	}
	if mediaType, params, err = mediaTypeOf(r.Header, accepted...); err != nil {
		return nil, "", nil, err
	}
	if b, err = x.openBody(x.c.Response().Writer, r, limit, x.share); err != nil {
		return nil, "", nil, err
	}
	if zipped {
		b.src, b.length = &unzipper{src: b.src}, -1
	}
	return b, mediaType, params, nil
}

func isZipped(h http.Header) (bool, error) {
	switch coding := strings.ToLower(strings.TrimSpace(strings.Join(h.Values("Content-Encoding"), ","))); coding {
	case "", "identity":
		return false, nil
	case "gzip", "x-gzip":
		return true, nil
	default:
		return false, problem.New(api.CodeContentEncoding, "Send the body as it is, or with Content-Encoding: gzip.")
	}
}

// unzipper reads gzip. It stands below the body's limits, which so hold for
// what comes out of it.
type unzipper struct {
	src io.Reader
	zip *gzip.Reader
}

func (u *unzipper) Read(p []byte) (int, error) {
	if u.zip == nil {
		zip, err := gzip.NewReader(u.src)
		if err != nil {
			return 0, unzipError(err)
		}
		u.zip = zip
	}
	n, err := u.zip.Read(p)
	return n, unzipError(err)
}

// unzipError tells a broken archive from a broken connection.
func unzipError(err error) error {
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	if corrupt || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) {
		return problem.New(api.CodeContentEncoding, "The body is not valid gzip.")
	}
	return err
}

// readJSON reads a request in JSON into v and judges its fields.
func (x *exchange) readJSON(limit int64, v any, options ...json.Options) error {
	data, err := x.readBytes(limit)
	if err != nil {
		return err
	}
	return x.decode(data, v, "", options...)
}

func (x *exchange) readBytes(limit int64) ([]byte, error) {
	b, _, _, err := x.open(limit, typeJSON)
	if err != nil {
		return nil, err
	}
	return b.all()
}

// decode reads v, which stands at path, and refuses what cannot be honoured.
func (x *exchange) decode(data []byte, v any, path string, options ...json.Options) error {
	if err := decodeProvider(data, v, path, options...); err != nil {
		return err
	}
	notHonoured, err := judgeFields(v)
	if err != nil && path != "" {
		return problem.Below(path, err)
	}
	if err != nil {
		return err
	}
	x.note(notHonoured)
	return nil
}
