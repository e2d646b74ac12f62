package compat

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
)

// OpenBody opens the request's body, of one of the accepted types and of up to
// limit octets, compressed or not.
func (x *Exchange) OpenBody(limit int64, accepted ...string) (b *intake.Body, mediaType string, params map[string]string, err error) {
	r := x.Request
	zipped, err := intake.IsZipped(r.Header)
	if err != nil {
		return nil, "", nil, err
	}
	if mediaType, params, err = intake.MediaType(r.Header, accepted...); err != nil {
		return nil, "", nil, err
	}
	if b, err = x.Open(x.Writer, r, limit, x.share); err != nil {
		return nil, "", nil, err
	}
	if zipped {
		b.Unzip()
	}
	return b, mediaType, params, nil
}

// ReadJSON reads a request in JSON into v and judges its fields.
func (x *Exchange) ReadJSON(limit int64, v any, options ...json.Options) error {
	data, err := x.ReadBytes(limit)
	if err != nil {
		return err
	}
	return x.Decode(data, v, "", options...)
}

// ReadBytes reads a body of JSON.
func (x *Exchange) ReadBytes(limit int64) ([]byte, error) {
	b, _, _, err := x.OpenBody(limit, intake.TypeJSON)
	if err != nil {
		return nil, err
	}
	return b.JSON()
}

// Decode reads v, which is at path in the request, and refuses fields that cannot be
// honoured.
func (x *Exchange) Decode(data []byte, v any, path string, options ...json.Options) error {
	if err := Decode(data, v, path, options...); err != nil {
		return err
	}
	notHonoured, err := judgeFields(v)
	if err != nil && path != "" {
		return problem.Below(path, err)
	}
	if err != nil {
		return err
	}
	x.LogIgnored(notHonoured)
	return nil
}

// ReadItems reads a request that is a list in JSON; empty values have no items.
func (x *Exchange) ReadItems(limit int64) (data []byte, items []jsontext.Value, err error) {
	if data, err = x.ReadBytes(limit); err != nil {
		return nil, nil, err
	}
	return data, items, Decode(data, &items, "")
}
