package intake

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
)

// IsZipped reports whether the body is compressed with gzip. Its error is that the body
// has another content coding.
func IsZipped(h http.Header) (bool, error) {
	switch coding := strings.ToLower(strings.TrimSpace(strings.Join(h.Values("Content-Encoding"), ","))); coding {
	case "", "identity":
		return false, nil
	case "gzip", "x-gzip":
		return true, nil
	default:
		return false, problem.New(api.CodeContentEncoding, "Send the body as it is, or with Content-Encoding: gzip.")
	}
}

// unzipper reads gzip. It is below the body's limits, which so hold for the unzipped
// octets.
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

// unzipError distinguishes a broken archive from a broken connection.
func unzipError(err error) error {
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	if corrupt || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) {
		return problem.New(api.CodeContentEncoding, "The body is not valid gzip.")
	}
	return err
}

// limited reads up to so many octets. The error is that the body is too large.
type limited struct {
	src   io.Reader
	limit int64
	read  int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.src.Read(p)
	if l.read += int64(n); l.read > l.limit {
		return 0, bodyTooLarge(l.limit)
	}
	return n, err
}

// Unzip makes the body what its archive holds. Call it before the first Read. The archive
// may have as many octets as the body: what unpacks to little or nothing has a limit, too.
func (b *Body) Unzip() {
	b.src, b.length = &unzipper{src: &limited{src: b.src, limit: b.limit}}, -1
}
