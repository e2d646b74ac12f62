package handler

import (
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"

	"github.com/go-json-experiment/json"
)

// open opens the request's body, of one of the accepted types and of up to
// limit octets, compressed or not.
func (x *exchange) open(limit int64, accepted ...string) (b *intake.Body, mediaType string, params map[string]string, err error) {
	r := x.c.Request()
	zipped, err := intake.IsZipped(r.Header)
	if err != nil {
		return nil, "", nil, err
	}
	if mediaType, params, err = intake.MediaType(r.Header, accepted...); err != nil {
		return nil, "", nil, err
	}
	if b, err = intake.Open(x.c.Response().Writer, r, limit, x.share, x.bodyTimeout); err != nil {
		return nil, "", nil, err
	}
	if zipped {
		b.Unzip()
	}
	return b, mediaType, params, nil
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
	b, _, _, err := x.open(limit, intake.TypeJSON)
	if err != nil {
		return nil, err
	}
	return b.All()
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
